"""Each fault of the proxy, as a client sees it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import pytest
from engines.proxy import Fault, Proxy, run_proxy

DEADLINE = 60
SILENT_SECONDS = 0.2


@pytest.fixture
async def received() -> list[bytes]:
    return []


@pytest.fixture
async def proxy(received: list[bytes]) -> AsyncIterator[Proxy]:
    tasks = set()

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        try:
            while request := await reader.read(100):
                received.append(request)
                writer.write(request.upper())
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            await closed(writer)

    server = await asyncio.start_server(respond, "127.0.0.1", 0)
    async with run_proxy(server.sockets[0].getsockname()[1]) as proxy:
        yield proxy
    server.close()
    await asyncio.gather(*tasks)


async def closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


class Client:
    """A client with one connection."""

    async def connect(self, proxy: Proxy) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", proxy.port)

    async def ask(self, seconds: float = DEADLINE) -> str:
        """Send a request; return the response or the failure within *seconds*."""
        try:
            self._writer.write(b"request")
            async with asyncio.timeout(seconds):
                response = await self._read_response()
        except ConnectionRefusedError:
            return "refused"
        except ConnectionError:
            return "reset"
        except TimeoutError:
            return "silence"
        return response.decode() if response else "end"

    async def _read_response(self) -> bytes:
        response = b""
        while len(response) < 7:
            part = await self._reader.read(7)
            if not part:
                return response
            response += part
        return response

    async def close(self) -> None:
        await closed(self._writer)


@pytest.fixture
async def connect(proxy: Proxy) -> AsyncIterator[Callable[[], Client]]:
    clients = []

    async def connected() -> Client:
        client = Client()
        await client.connect(proxy)
        clients.append(client)
        return client

    yield connected
    for client in clients:
        await client.close()


# The outcomes on a connection from before the fault, and on a new one.
OUTCOMES = {
    Fault.DELAY: ({"REQUEST"}, {"REQUEST"}),
    Fault.SLICES: ({"REQUEST"}, {"REQUEST"}),
    Fault.RESET: ({"reset", "end"}, {"reset", "end"}),
    Fault.CUT_AT_ONCE: ({"reset", "end"}, {"reset", "end"}),
    Fault.CUT_IN_REQUEST: ({"reset", "end"}, {"reset", "end"}),
    Fault.CUT_BEFORE_RESPONSE: ({"reset", "end"}, {"reset", "end"}),
    Fault.CUT_IN_RESPONSE: ({"REQ"}, {"REQ"}),
    Fault.BLACK_HOLE: ({"silence"}, {"silence"}),
    Fault.SILENCE: ({"silence"}, {"silence"}),
    Fault.REQUESTS_LOST: ({"silence"}, {"silence"}),
    Fault.RESPONSES_LOST: ({"silence"}, {"silence"}),
}


@pytest.mark.parametrize(("fault", "outcomes"), OUTCOMES.items(), ids=[fault.name for fault in OUTCOMES])
async def test_a_fault_has_its_effect_on_clients(proxy, connect, fault, outcomes):
    """On a connection from before the fault and on a new one; connections after the fault work."""
    old = await connect()
    before = await old.ask()
    async with proxy.under(fault):
        seconds = SILENT_SECONDS if outcomes[0] == {"silence"} else DEADLINE
        during = await old.ask(seconds), await (await connect()).ask(seconds)
        effects = proxy.effects
    after = await (await connect()).ask()

    assert (before, after) == ("REQUEST", "REQUEST")
    assert (during[0] in outcomes[0], during[1] in outcomes[1], effects >= 2) == (True, True, True), during


async def test_refused_connections(proxy, connect):
    """Open connections are closed, and new ones are refused."""
    old = await connect()
    await old.ask()
    async with proxy.under(Fault.REFUSED):
        assert await old.ask() in ("reset", "end")
        with pytest.raises(ConnectionRefusedError):
            await connect()

    assert await (await connect()).ask() == "REQUEST"


@pytest.mark.parametrize(
    ("fault", "arrived"),
    [
        (Fault.CUT_IN_REQUEST, b"req"),
        (Fault.CUT_BEFORE_RESPONSE, b"request"),
        (Fault.CUT_IN_RESPONSE, b"request"),
        (Fault.REQUESTS_LOST, b""),
        (Fault.RESPONSES_LOST, b"request"),
        (Fault.SILENCE, b""),
    ],
    ids=lambda value: value.name if isinstance(value, Fault) else "",
)
async def test_a_fault_has_its_effect_on_the_server(proxy, connect, received, fault, arrived):
    """The data that arrives decides whether the server executes a request."""
    async with proxy.under(fault):
        await (await connect()).ask(SILENT_SECONDS)

    assert b"".join(received) == arrived


async def test_a_silent_connection_stays_silent(proxy, connect):
    """As behind a firewall that has dropped its state."""
    client = await connect()
    await client.ask()
    async with proxy.under(Fault.SILENCE):
        await client.ask(SILENT_SECONDS)

    assert await client.ask(SILENT_SECONDS) == "silence"


async def test_the_proxy_can_listen_on_a_unix_socket(tmp_path: Path):
    """As PostgreSQL does."""
    served = asyncio.Event()

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await closed(writer)
        served.set()

    server = await asyncio.start_unix_server(accept, tmp_path / "server")
    async with server, run_proxy(tmp_path / "server", tmp_path / "proxy") as proxy:
        async with proxy.under(Fault.REFUSED):
            with pytest.raises(FileNotFoundError):
                await asyncio.open_unix_connection(tmp_path / "proxy")
        reader, writer = await asyncio.open_unix_connection(tmp_path / "proxy")
        end = await reader.read()
        await closed(writer)
        async with asyncio.timeout(DEADLINE):
            await served.wait()

    assert end == b""
