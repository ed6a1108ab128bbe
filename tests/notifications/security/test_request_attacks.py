"""Attacks on a public port, against every adapter behind a real server."""

import asyncio
import gzip
import logging
from collections.abc import AsyncIterator

import pytest
from notifications.parsing.own_process import BOMB_BYTES, OwnServer, own_server
from notifications.servers import ADAPTERS, Endpoint, Serve, connection

from callfire_async.notifications import (
    AppendResult,
    Delivery,
    EndpointTokens,
    MemoryInbox,
    Postback,
    Receiver,
    Router,
)

CURRENT, PREVIOUS = "current-0123456789", "previous-0123456789"
TOKENS = EndpointTokens(CURRENT, PREVIOUS)
BODY = b'{"TextSent":{"SubscriptionId":1,"Text":{"@id":42}}}'
LENGTH = f"Content-Length: {len(BODY)}"
CHUNKED = "Transfer-Encoding: chunked"
# The limit is one second, aiohttp's own is ten, and the machine may be busy.
SOON = 8


@pytest.fixture
def receiver(router: Router) -> Receiver:
    return Receiver(router, tokens=TOKENS, body_timeout=0.3)


@pytest.fixture(params=ADAPTERS)
def adapter(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def serve(adapter: str) -> Serve:
    return ADAPTERS[adapter]


@pytest.fixture
async def endpoint(serve: Serve, receiver: Receiver) -> AsyncIterator[Endpoint]:
    async with serve(receiver) as endpoint:
        yield endpoint


async def post(endpoint: Endpoint, path: str, *headers: str, body: bytes = BODY) -> int:
    async with connection(endpoint) as sender:
        sender.head(path, f"Content-Length: {len(body)}", *headers)
        sender.send(body)
        return await sender.status()


# --- size and speed -----------------------------------------------------------------------------


async def test_a_sender_that_continues_after_a_413_is_disconnected_within_a_second(endpoint):
    """Whatever its Content-Length."""
    async with connection(endpoint) as sender, asyncio.timeout(SOON):
        sender.head(endpoint.path(CURRENT), "Content-Length: 1000000000000")

        assert await sender.status() == 413
        assert await sender.send_until_disconnected(2**40) < 2**30


async def test_a_sender_that_continues_after_a_408_is_disconnected_within_a_second(endpoint):
    """A slow sender that becomes fast."""
    async with connection(endpoint) as sender, asyncio.timeout(SOON):
        sender.head(endpoint.path(CURRENT), CHUNKED)
        sender.chunk(b"{")

        assert await sender.status() == 408
        assert await sender.send_until_disconnected(2**40) < 2**30


async def test_an_abandoned_request_times_out(endpoint, events):
    """Its sender sends no more and does not disconnect; other requests are served."""
    async with connection(endpoint) as silent:
        silent.head(endpoint.path(CURRENT), LENGTH)
        meanwhile = await post(endpoint, endpoint.path(CURRENT))

        assert (meanwhile, await silent.status(), await silent.is_closed(), len(events)) == (204, 408, True, 1)


# --- encoded bodies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "GZIP", "gzip, gzip", "rot13", "x"])
async def test_a_broken_gzip_is_refused(adapter, endpoint, events, encoding):
    """415 without any attempt to decode it, for any encoding."""
    status = await post(endpoint, endpoint.path(CURRENT), f"Content-Encoding: {encoding}", body=b"\x1f\x8b not gzip")

    # aiohttp itself responds 400 if it has no library for the encoding.
    allowed = (400, 415) if adapter == "aiohttp" and encoding in ("br", "zstd") else (415,)
    assert (status in allowed, events) == (True, [])


async def test_a_gzip_behind_another_header_is_refused(endpoint, events):
    """415, although the first header is identity: aiohttp decodes the encoding of any of them."""
    headers = ("Content-Encoding: identity", "Content-Encoding: gzip")
    status = await post(endpoint, endpoint.path(CURRENT), *headers, body=gzip.compress(BODY))

    assert (status, events) == (415, [])


@pytest.mark.parametrize(
    "encodings", [["utf-8, gzip"], ["gzip, none"], ["none", "gzip"], [", gzip"], ["deflate", "UTF-8"], ["gzip", ""]]
)
async def test_one_encoding_in_a_list_is_refused(endpoint, events, encodings):
    """Other values in the list do not hide it."""
    headers = [f"Content-Encoding: {encoding}" for encoding in encodings]
    status = await post(endpoint, endpoint.path(CURRENT), *headers, body=gzip.compress(BODY))

    assert (status, events) == (415, [])


NO_ENCODINGS = ["utf-8", "UTF-8", "utf8", '"utf-8"', "none", "None", "identity", "IDENTITY", "", "identity, identity"]


@pytest.mark.parametrize(
    "encodings",
    [[encoding] for encoding in [*NO_ENCODINGS, "utf-8,none", " , ", "ISO-8859-1", "8bit"]]
    + [["identity", "utf-8"], ["", ""], ["none", "none"]],
)
async def test_a_content_encoding_that_is_not_an_encoding_is_accepted(endpoint, events, encodings):
    """Some senders put a charset, or a word such as none, into this header; the body is not encoded."""
    headers = [f"Content-Encoding: {encoding}" for encoding in encodings]

    assert (await post(endpoint, endpoint.path(CURRENT), *headers), len(events)) == (204, 1)


async def test_an_encoded_postback_is_logged(endpoint, caplog):
    """With a valid token an event is lost, and CallFire does not report why."""
    for _ in range(2):
        await post(endpoint, endpoint.path(CURRENT), "Content-Encoding: gzip", body=b"x")

    (line,) = [record.getMessage() for record in caplog.records if record.name == "callfire_async.receiver"]
    assert "415" in line
    assert "Content-Encoding" in line


@pytest.fixture
async def own(adapter: str) -> AsyncIterator[OwnServer]:
    async with own_server(adapter) as own:
        yield own


@pytest.mark.slow
async def test_a_gzip_bomb_is_refused_and_takes_no_memory(own):
    """415, even if the server decompresses bodies itself."""
    bomb = gzip.compress(bytes(BOMB_BYTES))
    await own.post(BODY)
    before = own.most_memory()

    statuses = [await own.post(bomb, "Content-Encoding: gzip") for _ in range(3)]

    assert (statuses, await own.post(BODY)) == ([415] * 3, 204)
    assert own.most_memory() - before < BOMB_BYTES / 4


# --- authentication -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", [CURRENT, PREVIOUS])
async def test_two_tokens_are_valid_during_a_rotation(endpoint, events, token):
    """Both are accepted."""
    assert (await post(endpoint, endpoint.path(token)), len(events)) == (204, 1)


async def test_a_removed_token_is_invalid(serve, router, events):
    """As after the last step of a rotation."""
    async with serve(Receiver(router, tokens=CURRENT)) as endpoint:
        assert (await post(endpoint, endpoint.path(PREVIOUS)), events) == (404, [])


@pytest.mark.parametrize(
    "path", ["/?token={}", "/?{}", "/wrong-wrong-wrong?token={}", "/wrong-wrong-wrong/?{}", "/#{}", "/wrong;token={}"]
)
async def test_a_token_in_the_query_is_ignored(endpoint, events, path):
    """Only the path counts, because access logs contain queries."""
    status = await post(endpoint, endpoint.prefix + path.format(CURRENT))

    assert (status, events) == (404, [])


async def test_a_query_changes_nothing(endpoint, events):
    """Only the token in the path counts."""
    assert (await post(endpoint, f"{endpoint.path(CURRENT)}?token=wrong"), len(events)) == (204, 1)


FORWARDED = ["X-Forwarded-For: 127.0.0.1", "X-Real-IP: 127.0.0.1", "Forwarded: for=127.0.0.1", "X-Forwarded-For: x, y"]


@pytest.mark.parametrize("header", FORWARDED)
async def test_x_forwarded_for_has_no_effect(endpoint, header):
    """The token alone decides, whatever address a client claims."""
    statuses = [await post(endpoint, endpoint.path(token), header) for token in (CURRENT, "wrong-wrong-wrong")]

    assert statuses == [204, 404]


@pytest.mark.parametrize("token", [b"\xc3\xa9", b"\xff", b"%FF", b"%00", b"%ED%A0%80", CURRENT.encode() + b"\xe9"])
async def test_a_token_that_is_not_ascii_is_invalid(endpoint, events, token):
    """404, or 400 from the server itself; the next request is served."""
    async with connection(endpoint) as sender:
        sender.send(b"POST " + endpoint.prefix.encode() + b"/" + token + b" HTTP/1.1\r\nHost: a\r\n")
        sender.send(b"Content-Length: 2\r\n\r\n{}")
        status = await sender.status()

    assert (status in (400, 404), events) == (True, [])
    assert await post(endpoint, endpoint.path(CURRENT)) == 204


async def test_guesses_are_counted_and_not_stored(endpoint, receiver, caplog):
    """One warning a minute, without the guesses, which are not stored either."""
    guesses = [f"guess-number-{number:04}" for number in range(100)]
    for guess in guesses:
        assert await post(endpoint, endpoint.path(guess)) == 404
    stats = await receiver.stats()

    ours = [record for record in caplog.records if record.name.startswith("callfire_async")]
    stored = f"{stats} {vars(receiver._validator)} {[record.getMessage() for record in ours]}"
    assert (stats.refused, len(ours)) == ({"token": 100}, 1)
    assert "guess-number" not in stored


# --- the server's log --------------------------------------------------------------------------

ENCODED = "".join(f"%{ord(letter):02X}" for letter in CURRENT)


@pytest.mark.parametrize(
    "path", [CURRENT, f"{PREVIOUS}/", f"wrong?token={CURRENT}", ENCODED, f"{CURRENT}?again={ENCODED.lower()}"]
)
async def test_the_access_log_shows_no_token(endpoint, caplog, path):
    """The adapter adds a filter to it."""
    caplog.set_level(logging.DEBUG)
    async with connection(endpoint) as sender:
        sender.head(endpoint.path(path), LENGTH, f"Referer: http://a/{CURRENT}")
        sender.send(BODY)
        await sender.status()
        await until(lambda: any(record.name.endswith(".access") for record in caplog.records))

    (line,) = [record for record in caplog.records if record.name.endswith(".access")]
    written = f"{line.getMessage()} {vars(line)}"
    assert "/***" in written or "token=***" in written
    assert not any(secret in written for secret in (CURRENT, PREVIOUS, ENCODED, ENCODED.lower()))


async def test_the_filters_are_removed_with_the_receiver(serve, receiver):
    """Other applications in the process may use the loggers."""
    loggers = [logging.getLogger(name) for name in ("uvicorn.access", "aiohttp.access", "aiohttp.server")]
    before = [list(logger.filters) for logger in loggers]
    async with serve(receiver):
        during = [list(logger.filters) for logger in loggers]

    assert during != before
    assert [logger.filters for logger in loggers] == before


async def test_a_request_that_aiohttp_cannot_parse_is_logged_without_the_token(receiver, caplog):
    """Aiohttp logs the invalid line with a traceback."""
    async with ADAPTERS["aiohttp"](receiver) as endpoint, connection(endpoint) as sender:
        sender.send(f"POST {endpoint.path(CURRENT)} HTTP/1.1 {CURRENT}\r\n\r\n".encode())
        await sender.status()

    formatter = logging.Formatter()
    written = "".join(formatter.format(record) for record in caplog.records if record.name == "aiohttp.server")
    assert ("Traceback" in written, CURRENT in written) == (True, False)


# --- disconnecting clients -----------------------------------------------------------------------------------


class SlowInbox(MemoryInbox):
    """An inbox whose appends wait for ``proceed``."""

    def __init__(self) -> None:
        super().__init__()
        self.storing, self.proceed = asyncio.Event(), asyncio.Event()

    async def append(self, delivery: Delivery) -> AppendResult:
        self.storing.set()
        await self.proceed.wait()
        return await super().append(delivery)


async def test_a_delivery_is_stored_although_its_client_disconnects(serve, router, events):
    """Its body was read completely."""
    inbox = SlowInbox()
    receiver = Receiver(router, tokens=CURRENT, inbox=inbox)
    async with serve(receiver) as endpoint:
        async with connection(endpoint) as sender:
            sender.head(endpoint.path(CURRENT), LENGTH)
            sender.send(BODY)
            await inbox.storing.wait()
            sender.abort()
        inbox.proceed.set()
        await receiver.idle(timeout=20)

    assert [event.key for event in events] == [("text", 42, "")]


async def test_a_stop_waits_for_the_append_of_a_cancelled_request(router):
    """Some servers cancel the handler if the client disconnects."""
    inbox = SlowInbox()
    async with Receiver(router, tokens=CURRENT, inbox=inbox, concurrency=0) as receiver:
        receiving = asyncio.create_task(receiver.receive(Postback("POST", CURRENT, {}, BODY)))
        await inbox.storing.wait()
        receiving.cancel()
        await asyncio.wait([receiving])
        idle = await receiver._intake.is_idle()
        asyncio.get_running_loop().call_soon(inbox.proceed.set)

    assert (receiving.cancelled(), idle) == (True, False)
    assert [entry.delivery.body async for entry in inbox.entries()] == [BODY]


async def until(condition: object) -> None:
    """Poll until a condition is true."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  # no event signals the condition
            await asyncio.sleep(0.001)
