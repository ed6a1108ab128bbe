"""The policies of receiving that no server is needed to see; the rest is in test_adapters."""

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from callfire_async.notifications import (
    Delivery,
    EndpointTokens,
    MemoryInbox,
    Notification,
    Postback,
    Receiver,
    Reply,
    Router,
    TextFinished,
)

TOKEN = "0123456789abcdef"
BODY = b'{"TextSent": {"SubscriptionId": 1, "Text": {"@id": 42, "Message": "secret words"}}}'


@pytest.fixture
def router() -> Router:
    router = Router()

    @router.on(TextFinished)
    async def handler(event: TextFinished) -> None:
        if event.subscription_id == 13:
            raise ValueError(event.text.message)

    return router


@pytest.fixture
async def receiver(router: Router) -> AsyncIterator[Receiver]:
    async with Receiver(router, tokens=TOKEN) as receiver:
        yield receiver


def postback(body: object = BODY, **changes: object) -> Postback:
    return Postback(**{"method": "POST", "token": TOKEN, "headers": {}, "body": body} | changes)


@pytest.mark.parametrize("tokens", [TOKEN, EndpointTokens(TOKEN), EndpointTokens("the-current-token", TOKEN), None])
async def test_any_way_to_say_the_token_opens(router, tokens):
    """One, several while one is changed, or none, said aloud."""
    async with Receiver(router, tokens=tokens) as receiver:
        assert await receiver.receive(postback()) == Reply(204)


async def test_tokens_must_be_said(router):
    """An endpoint that anyone may post to is never an oversight."""
    with pytest.raises(TypeError, match="tokens"):
        Receiver(router)
    with pytest.raises(TypeError, match="None"):
        Receiver(router, tokens=["a"])


def test_an_empty_router_is_refused():
    """Every event would be lost."""
    with pytest.raises(ValueError, match="handler"):
        Receiver(Router(), tokens=TOKEN)


@pytest.mark.parametrize("limit", ["max_body_bytes", "body_timeout", "handler_timeout"])
def test_a_limit_is_positive(router, limit):
    """Zero would refuse everything."""
    with pytest.raises(ValueError, match=limit):
        Receiver(router, tokens=TOKEN, **{limit: 0})


async def test_a_receiver_that_is_not_running_says_so(router, caplog):
    """503 with Retry-After, and one error that shows how to start it; a stranger learns nothing of it."""
    receiver = Receiver(router, tokens=TOKEN)
    replies = [await receiver.receive(postback()) for _ in range(3)]

    stranger = await receiver.receive(postback(token="wrong"))

    assert (replies, stranger.status) == ([Reply(503, (("Retry-After", "5"),))] * 3, 404)
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.WARNING]


async def test_it_runs_from_the_first_entry_to_the_last_exit(router):
    """A router included twice, or an outer lifespan, enters it more than once."""
    receiver = Receiver(router, tokens=TOKEN)
    async with receiver:
        async with receiver:
            pass
        inside = await receiver.receive(postback())
    outside = await receiver.receive(postback())

    assert (inside.status, outside.status) == (204, 503)


async def test_a_tool_may_hand_over_a_delivery_again(router):
    """It goes the way of a postback behind the door: a key that is there already makes it a duplicate."""
    async with Receiver(router, tokens=TOKEN, inbox=MemoryInbox()) as receiver:
        await receiver.receive(postback())
        replies = [await receiver.redeliver(Delivery(BODY)), await receiver.redeliver(Delivery(BODY, key="again"))]
        await receiver.idle(timeout=20)
        stats = await receiver.stats()
    stopped = await receiver.redeliver(Delivery(BODY))

    assert (replies, stats.duplicates, stats.handled) == ([Reply(204), Reply(204)], 1, 2)
    assert stopped == Reply(503, (("Retry-After", "5"),))


async def test_a_tool_s_delivery_is_handled_before_it_is_answered_without_an_inbox(receiver):
    """As a postback is."""
    failing = BODY.replace(b'"SubscriptionId": 1', b'"SubscriptionId": 13')

    assert [(await receiver.redeliver(Delivery(body))).status for body in (BODY, failing, b"{")] == [204, 500, 400]


@pytest.mark.parametrize(
    "headers", [{"CONTENT-ENCODING": "gzip"}, [("Content-encoding", "br")], (("content-encoding", "x"),)]
)
async def test_headers_may_be_a_mapping_or_pairs(receiver, headers):
    """Whatever a framework has, in any case."""
    assert (await receiver.receive(postback(headers=headers))).status == 415


@pytest.mark.parametrize("encodings", [("identity", "gzip"), ("", "gzip"), ("gzip", "identity")])
async def test_an_encoding_in_a_second_header_is_seen(receiver, encodings):
    """Two of one name say together what they say; a server undoes whichever it knows."""
    headers = [("Content-Encoding", encoding) for encoding in encodings]

    assert (await receiver.receive(postback(headers=headers))).status == 415


@pytest.mark.parametrize("encoding", ["identity", "Identity "])
async def test_a_body_that_says_it_is_not_encoded_is_taken(receiver, encoding):
    """Identity is no encoding."""
    assert (await receiver.receive(postback(headers={"Content-Encoding": encoding}))).status == 204


async def test_the_order_of_the_refusals(receiver):
    """Who posts comes before how, and how before what: a stranger can tell nothing from the answer."""
    wrong = {"token": "wrong", "method": "GET", "headers": {"Content-Encoding": "gzip", "Content-Length": "9" * 30}}
    statuses = []
    for name, right in {**wrong, "body": b""}.items():
        statuses.append((await receiver.receive(postback(b"x" * 2_000_000, **wrong))).status)
        wrong[name] = {"token": TOKEN, "method": "POST", "headers": {}, "body": right}[name]
        wrong.pop("body", None)

    assert [*statuses, (await receiver.receive(postback(b""))).status] == [404, 405, 415, 413, 400]


async def test_a_length_that_lies_is_found_out(receiver):
    """What is read counts, not what was said."""
    reply = await receiver.receive(postback(b"x" * 2_000_000, headers={"Content-Length": "1"}))

    assert reply.status == 413


async def test_a_stream_is_read_no_further_than_its_limits(receiver):
    """Past the cap up to 2 MiB are dropped, then the sender is to be cut off."""
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 65536
            yield b" " * 65536

    reply = await receiver.receive(postback(endless()))

    assert (reply.status, reply.close_connection, read <= 4 * 1024 * 1024) == (413, True, True)


async def test_a_stream_that_breaks_off_is_refused(receiver):
    """Each server has its own error for it."""

    async def broken() -> AsyncIterator[bytes]:
        yield BODY[:20]
        raise ConnectionResetError

    reply = await receiver.receive(postback(broken()))

    assert (reply.status, reply.close_connection) == (400, True)


async def test_a_stream_that_breaks_off_while_it_is_dropped_changes_nothing(receiver):
    """The answer is the same, whether anyone reads it or not."""

    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise ConnectionResetError

    reply = await receiver.receive(postback(broken(), token="wrong"))

    assert (reply.status, reply.close_connection) == (404, True)


async def test_what_no_handler_takes_is_warned_of_once_a_type(receiver, caplog):
    """It is answered 204: sending it again would change nothing."""
    for body in [b'{"CallFinished": {"Call": {"@id": 1}}}', b'{"Surprise": {}}'] * 2:
        assert (await receiver.receive(postback(body))).status == 204

    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2


async def test_a_failing_handler_is_logged_without_its_words(receiver, caplog):
    """The log shows who failed, how and where; what an exception says may be somebody's message."""
    reply = await receiver.receive(postback(BODY.replace(b": 1,", b": 13,")))

    (record,) = caplog.records
    said = record.getMessage()
    assert reply.status == 500
    assert ("ValueError" in said, "in handler" in said, "secret words" in caplog.text) == (True, True, False)


def test_a_postback_prints_nothing_that_it_was_sent(receiver):
    """Neither the token, nor a header, nor the body."""
    assert repr(postback(headers={"Authorization": "x"})) == "Postback(method='POST')"


def test_a_receiver_without_tokens_requires_none(router):
    """Adapters also route the bare prefix of such a receiver."""
    required = [Receiver(router, tokens=tokens).requires_token for tokens in (None, TOKEN)]

    assert required == [False, True]


async def test_the_fallback_counts_as_a_handler(caplog):
    """What it takes is handled."""
    router = Router()
    seen: list[Notification] = []

    @router.fallback
    async def fallback(event: Notification) -> None:
        seen.append(event)

    async with Receiver(router, tokens=TOKEN) as receiver:
        await receiver.receive(postback())

    assert (len(seen), caplog.records) == (1, [])


async def test_without_an_inbox_a_strange_subscription_is_passed_over(router, caplog):
    """There is nowhere to keep it; a warning says so."""
    async with Receiver(router, tokens=TOKEN, known_subscriptions={2}) as receiver:
        reply = await receiver.receive(postback())
        stats = await receiver.stats()

    assert (reply, stats.handled, stats.unhandled, stats.inbox) == (Reply(204), 0, 1, None)


async def test_without_an_inbox_subscriptions_that_cannot_be_asked_are_an_error(router, caplog):
    """The sender is told, since nothing was handled and nothing is kept."""

    async def ask() -> set[int]:
        raise OSError

    async with Receiver(router, tokens=TOKEN, known_subscriptions=ask) as receiver:
        assert await receiver.receive(postback()) == Reply(500)

    assert "handler known_subscriptions failed: OSError" in caplog.text


async def test_without_an_inbox_idle_waits_for_the_handlers():
    """What is in hand is running."""
    router, started, go_on = Router(), asyncio.Event(), asyncio.Event()

    @router.on(TextFinished)
    async def handler(event: TextFinished) -> None:
        started.set()
        await go_on.wait()

    async with Receiver(router, tokens=TOKEN) as receiver:
        receiving = asyncio.create_task(receiver.receive(postback()))
        await started.wait()
        asyncio.get_running_loop().call_soon(go_on.set)
        await receiver.idle(timeout=20)

        assert (receiving.done(), (await receiver.health()).healthy) == (True, True)
