"""The receiver's rules that need no server; test_adapters has the others."""

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from callfire_async import InboxUnavailableError
from callfire_async.notifications import (
    Delivery,
    EndpointTokens,
    InboxStats,
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
async def test_tokens_may_be_given_in_any_form(router, tokens):
    """A string, an `EndpointTokens` with one or several tokens, or None."""
    async with Receiver(router, tokens=tokens) as receiver:
        assert await receiver.receive(postback()) == Reply(204)


async def test_tokens_is_a_required_argument(router):
    """An endpoint without a token must be chosen explicitly."""
    with pytest.raises(TypeError, match="tokens"):
        Receiver(router)
    with pytest.raises(TypeError, match="None"):
        Receiver(router, tokens=["a"])


def test_an_empty_router_raises():
    """Every event would be lost."""
    with pytest.raises(ValueError, match="handler"):
        Receiver(Router(), tokens=TOKEN)


@pytest.mark.parametrize("limit", ["max_body_bytes", "body_timeout", "handler_timeout"])
def test_a_limit_must_be_positive(router, limit):
    """Zero would reject every postback."""
    with pytest.raises(ValueError, match=limit):
        Receiver(router, tokens=TOKEN, **{limit: 0})


async def test_a_receiver_that_is_not_running_responds_503(router, caplog):
    """With Retry-After, and one ERROR that shows how to start it; a wrong token gets 404 as usual."""
    receiver = Receiver(router, tokens=TOKEN)
    replies = [await receiver.receive(postback()) for _ in range(3)]

    stranger = await receiver.receive(postback(token="wrong"))

    assert (replies, stranger.status) == ([Reply(503, (("Retry-After", "5"),))] * 3, 404)
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.WARNING]


async def test_a_receiver_runs_from_the_first_entry_to_the_last_exit(router):
    """A router that is included twice, or an outer lifespan, enters it several times."""
    receiver = Receiver(router, tokens=TOKEN)
    async with receiver:
        async with receiver:
            pass
        inside = await receiver.receive(postback())
    outside = await receiver.receive(postback())

    assert (inside.status, outside.status) == (204, 503)


async def test_a_delivery_may_be_redelivered_with_a_new_key(router):
    """A delivery whose key is in the inbox is a duplicate."""
    async with Receiver(router, tokens=TOKEN, inbox=MemoryInbox()) as receiver:
        await receiver.receive(postback())
        replies = [await receiver.redeliver(Delivery(BODY)), await receiver.redeliver(Delivery(BODY, key="again"))]
        await receiver.idle(timeout=20)
        stats = await receiver.stats()
    stopped = await receiver.redeliver(Delivery(BODY))

    assert (replies, stats.duplicates, stats.handled) == ([Reply(204), Reply(204)], 1, 2)
    assert stopped == Reply(503, (("Retry-After", "5"),))


async def test_a_redelivery_without_an_inbox_is_handled_before_the_reply(receiver):
    """Like a postback."""
    failing = BODY.replace(b'"SubscriptionId": 1', b'"SubscriptionId": 13')

    assert [(await receiver.redeliver(Delivery(body))).status for body in (BODY, failing, b"{")] == [204, 500, 400]


@pytest.mark.parametrize(
    "headers", [{"CONTENT-ENCODING": "gzip"}, [("Content-encoding", "br")], (("content-encoding", "x"),)]
)
async def test_headers_may_be_a_mapping_or_pairs(receiver, headers):
    """Names may be in upper or lower case."""
    assert (await receiver.receive(postback(headers=headers))).status == 415


@pytest.mark.parametrize("encodings", [("identity", "gzip"), ("", "gzip"), ("gzip", "identity")])
async def test_an_encoding_in_a_second_header_is_rejected(receiver, encodings):
    """Repeated headers are one list, and a server may decode any of its encodings."""
    headers = [("Content-Encoding", encoding) for encoding in encodings]

    assert (await receiver.receive(postback(headers=headers))).status == 415


@pytest.mark.parametrize("encoding", ["identity", "Identity "])
async def test_the_identity_encoding_is_accepted(receiver, encoding):
    """It is the same as no encoding."""
    assert (await receiver.receive(postback(headers={"Content-Encoding": encoding}))).status == 204


async def test_rejections_have_a_fixed_order(receiver):
    """The token is checked first, so that a client without it learns nothing from the response."""
    wrong = {"token": "wrong", "method": "GET", "headers": {"Content-Encoding": "gzip", "Content-Length": "9" * 30}}
    statuses = []
    for name, right in {**wrong, "body": b""}.items():
        statuses.append((await receiver.receive(postback(b"x" * 2_000_000, **wrong))).status)
        wrong[name] = {"token": TOKEN, "method": "POST", "headers": {}, "body": right}[name]
        wrong.pop("body", None)

    assert [*statuses, (await receiver.receive(postback(b""))).status] == [404, 405, 415, 413, 400]


async def test_a_content_length_that_is_too_small_is_detected(receiver):
    """The limit applies to the bytes that are read."""
    reply = await receiver.receive(postback(b"x" * 2_000_000, headers={"Content-Length": "1"}))

    assert reply.status == 413


async def test_a_stream_is_read_only_up_to_its_limits(receiver):
    """Beyond the size limit up to 2 MiB are drained, then the connection must be closed."""
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 65536
            yield b" " * 65536

    reply = await receiver.receive(postback(endless()))

    assert (reply.status, reply.close_connection, read <= 4 * 1024 * 1024) == (413, True, True)


async def test_a_stream_that_raises_is_rejected(receiver):
    """Each server raises its own error for a lost connection."""

    async def broken() -> AsyncIterator[bytes]:
        yield BODY[:20]
        raise ConnectionResetError

    reply = await receiver.receive(postback(broken()))

    assert (reply.status, reply.close_connection) == (400, True)


async def test_a_stream_that_raises_while_it_is_drained_changes_nothing(receiver):
    """The response is the same."""

    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise ConnectionResetError

    reply = await receiver.receive(postback(broken(), token="wrong"))

    assert (reply.status, reply.close_connection) == (404, True)


async def test_an_unhandled_event_is_logged_once_per_type(receiver, caplog):
    """The response is 204, because a retry would change nothing."""
    for body in [b'{"CallFinished": {"Call": {"@id": 1}}}', b'{"Surprise": {}}'] * 2:
        assert (await receiver.receive(postback(body))).status == 204

    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2


async def test_a_failing_handler_is_logged_with_its_exception(receiver, caplog):
    """The line has the handler and the response; the record has the exception."""
    reply = await receiver.receive(postback(BODY.replace(b": 1,", b": 13,")))

    (record,) = caplog.records
    assert reply.status == 500
    assert record.getMessage().endswith(
        "handler failed: ValueError (responded 500; without an inbox there is no retry)"
    )
    assert isinstance(record.exc_info[1], ValueError)


def test_the_repr_of_a_postback_shows_only_the_method(receiver):
    """Not the token, a header or the body."""
    assert repr(postback(headers={"Authorization": "x"})) == "Postback(method='POST')"


def test_a_receiver_without_tokens_requires_none(router):
    """Adapters also route the bare prefix of such a receiver."""
    required = [Receiver(router, tokens=tokens).requires_token for tokens in (None, TOKEN)]

    assert required == [False, True]


async def test_the_fallback_counts_as_a_handler(caplog):
    """Its events are handled."""
    router = Router()
    events: list[Notification] = []

    @router.fallback
    async def fallback(event: Notification) -> None:
        events.append(event)

    async with Receiver(router, tokens=TOKEN) as receiver:
        await receiver.receive(postback())

    assert (len(events), caplog.records) == (1, [])


async def test_an_event_of_an_unknown_subscription_is_ignored_without_an_inbox(router, caplog):
    """It counts as unhandled, and the log names the subscription once: a handler does match."""
    async with Receiver(router, tokens=TOKEN, known_subscriptions={2}) as receiver:
        replies = [await receiver.receive(postback()) for _ in range(2)]
        stats = await receiver.stats()

    assert (replies, stats.handled, stats.unhandled, stats.inbox) == ([Reply(204)] * 2, 0, 2, None)
    assert caplog.messages == ["subscription 1 is not in known_subscriptions; ignoring its events"]


async def test_a_failing_known_subscriptions_is_a_500_without_an_inbox(router, caplog):
    """Nothing was handled or stored."""

    async def fetch() -> set[int]:
        raise OSError

    async with Receiver(router, tokens=TOKEN, known_subscriptions=fetch) as receiver:
        assert await receiver.receive(postback()) == Reply(500)

    assert "handler known_subscriptions failed: OSError" in caplog.text


async def test_idle_waits_for_the_handlers_without_an_inbox():
    """A request in progress counts."""
    router, started, proceed = Router(), asyncio.Event(), asyncio.Event()

    @router.on(TextFinished)
    async def handler(event: TextFinished) -> None:
        started.set()
        await proceed.wait()

    async with Receiver(router, tokens=TOKEN) as receiver:
        receiving = asyncio.create_task(receiver.receive(postback()))
        await started.wait()
        asyncio.get_running_loop().call_soon(proceed.set)
        await receiver.idle(timeout=20)

        assert (receiving.done(), (await receiver.health()).healthy) == (True, True)


async def test_failures_are_counted_without_an_inbox(receiver):
    """Each attempt in which a handler failed."""
    for _ in range(2):
        assert await receiver.receive(postback(BODY.replace(b"1,", b"13,"))) == Reply(500)

    assert (await receiver.stats()).failed == 2


async def test_an_unreadable_body_without_an_inbox_is_logged_with_its_error(receiver, caplog):
    """With the status of the response, and without the body."""
    assert await receiver.receive(postback(b"secret words")) == Reply(400)

    (message,) = caplog.messages
    assert message.startswith("rejected an invalid notification with 400: neither XML nor JSON")
    assert "secret" not in message


async def test_a_handler_without_an_inbox_is_limited_in_time():
    """The response is 500 after ``handler_timeout``."""
    router = Router()

    @router.on(TextFinished)
    async def handler(event: TextFinished) -> None:
        await asyncio.get_running_loop().create_future()

    async with Receiver(router, tokens=TOKEN, handler_timeout=0.01) as receiver:
        assert await receiver.receive(postback()) == Reply(500)


@pytest.mark.parametrize("make_inbox", [lambda: None, MemoryInbox], ids=["without an inbox", "with an inbox"])
async def test_a_body_is_decoded_with_the_charset_of_its_content_type(make_inbox):
    """With and without an inbox."""
    router, messages = Router(), []

    @router.on(TextFinished)
    async def handler(event: TextFinished) -> None:
        messages.append(event.text.message)

    body = BODY.replace(b"secret words", "Grüße".encode("iso-8859-1"))
    async with Receiver(router, tokens=TOKEN, inbox=make_inbox()) as receiver:
        await receiver.receive(postback(body, headers={"Content-Type": "application/json; charset=iso-8859-1"}))
        await receiver.idle(timeout=20)

    assert messages == ["Grüße"]


async def test_idle_waits_until_another_process_has_settled_its_delivery(router):
    """The receiver polls, because only its own worker reports changes."""
    inbox = MemoryInbox()
    async with Receiver(router, tokens=TOKEN, inbox=inbox) as receiver:
        await inbox.append(Delivery(BODY))
        (lease,) = await inbox.claim(1, lease=60.0)
        with pytest.raises(TimeoutError):
            await receiver.idle(timeout=0.01)
        idling = asyncio.create_task(receiver.idle(timeout=20))
        await asyncio.sleep(0)
        await inbox.ack(lease)

        await idling


async def test_idle_waits_until_the_inbox_can_be_read(router):
    """An error does not mean that nothing is due."""

    class UnreadableInbox(MemoryInbox):
        async def stats(self) -> InboxStats:
            raise InboxUnavailableError("no connection")

    async with Receiver(router, tokens=TOKEN, inbox=UnreadableInbox()) as receiver:
        with pytest.raises(TimeoutError):
            await receiver.idle(timeout=0.01)


async def test_unknown_events_are_counted_without_an_inbox():
    """Each of them."""
    router = Router()

    @router.on(Notification)
    async def handler(event: Notification) -> None:
        pass

    async with Receiver(router, tokens=TOKEN) as receiver:
        for content in (b'{"Unheard": {}}', b'{"Unheard": {"a": 1}}', BODY):
            await receiver.receive(postback(content))

        assert (await receiver.stats()).unknown == 2
