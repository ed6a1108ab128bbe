"""Each fault of the proxy, as whoever asks a server sees it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import pytest
from engines.proxy import Fault, Proxy, proxying

DEADLINE = 20
SILENT_SECONDS = 0.2


@pytest.fixture
async def heard() -> list[bytes]:
    return []


@pytest.fixture
async def proxy(heard: list[bytes]) -> AsyncIterator[Proxy]:
    answering = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answering.add(asyncio.current_task())
        try:
            while request := await reader.read(100):
                heard.append(request)
                writer.write(request.upper())
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            await closed(writer)

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with proxying(server.sockets[0].getsockname()[1]) as proxy:
        yield proxy
    server.close()
    await asyncio.gather(*answering)


async def closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


class Client:
    """Somebody with one connection."""

    async def connect(self, proxy: Proxy) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", proxy.port)

    async def ask(self, seconds: float = DEADLINE) -> str:
        """Ask, and say what came of it in so many seconds."""
        try:
            self._writer.write(b"request")
            async with asyncio.timeout(seconds):
                answer = await self._answered()
        except ConnectionRefusedError:
            return "refused"
        except ConnectionError:
            return "reset"
        except TimeoutError:
            return "silence"
        return answer.decode() if answer else "end"

    async def _answered(self) -> bytes:
        answer = b""
        while len(answer) < 7:
            part = await self._reader.read(7)
            if not part:
                return answer
            answer += part
        return answer

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


# What becomes of a connection that is there, and of one that is made under the fault.
SEEN = {
    Fault.DELAY: ({"REQUEST"}, {"REQUEST"}),
    Fault.SLICES: ({"REQUEST"}, {"REQUEST"}),
    Fault.RESET: ({"reset", "end"}, {"reset", "end"}),
    Fault.CUT_AT_ONCE: ({"reset", "end"}, {"reset", "end"}),
    Fault.CUT_IN_REQUEST: ({"reset", "end"}, {"reset", "end"}),
    Fault.CUT_BEFORE_ANSWER: ({"reset", "end"}, {"reset", "end"}),
    Fault.CUT_IN_ANSWER: ({"REQ"}, {"REQ"}),
    Fault.BLACK_HOLE: ({"silence"}, {"silence"}),
    Fault.SILENCE: ({"silence"}, {"silence"}),
    Fault.REQUESTS_LOST: ({"silence"}, {"silence"}),
    Fault.ANSWERS_LOST: ({"silence"}, {"silence"}),
}


@pytest.mark.parametrize(("fault", "seen"), SEEN.items(), ids=[fault.name for fault in SEEN])
async def test_what_is_seen_of_a_fault(proxy, connect, fault, seen):
    """On a connection that was there before, and on a new one; after it new ones are well."""
    old = await connect()
    before = await old.ask()
    async with proxy.under(fault):
        seconds = SILENT_SECONDS if seen[0] == {"silence"} else DEADLINE
        during = await old.ask(seconds), await (await connect()).ask(seconds)
        struck = proxy.struck
    after = await (await connect()).ask()

    assert (before, after) == ("REQUEST", "REQUEST")
    assert (during[0] in seen[0], during[1] in seen[1], struck >= 2) == (True, True, True), during


async def test_nobody_may_listen(proxy, connect):
    """What is connected ends, and nobody else is."""
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
        (Fault.CUT_BEFORE_ANSWER, b"request"),
        (Fault.CUT_IN_ANSWER, b"request"),
        (Fault.REQUESTS_LOST, b""),
        (Fault.ANSWERS_LOST, b"request"),
        (Fault.SILENCE, b""),
    ],
    ids=lambda value: value.name if isinstance(value, Fault) else "",
)
async def test_what_the_server_has_seen(proxy, connect, heard, fault, arrived):
    """Which decides whether it has done what was asked."""
    async with proxy.under(fault):
        await (await connect()).ask(SILENT_SECONDS)

    assert b"".join(heard) == arrived


async def test_a_connection_that_is_silent_stays_so(proxy, connect):
    """As behind a firewall that has forgotten it."""
    client = await connect()
    await client.ask()
    async with proxy.under(Fault.SILENCE):
        await client.ask(SILENT_SECONDS)

    assert await client.ask(SILENT_SECONDS) == "silence"


async def test_it_may_listen_at_a_file(tmp_path: Path):
    """As PostgreSQL does."""
    served = asyncio.Event()

    async def note(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await closed(writer)
        served.set()

    server = await asyncio.start_unix_server(note, tmp_path / "server")
    async with server, proxying(tmp_path / "server", tmp_path / "proxy") as proxy:
        async with proxy.under(Fault.REFUSED):
            with pytest.raises(FileNotFoundError):
                await asyncio.open_unix_connection(tmp_path / "proxy")
        reader, writer = await asyncio.open_unix_connection(tmp_path / "proxy")
        end = await reader.read()
        await closed(writer)
        async with asyncio.timeout(DEADLINE):
            await served.wait()

    assert end == b""
