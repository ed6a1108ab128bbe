"""What the door says of those that it does not let in; the rest is in test_receiver and test_door_attacks."""

import logging

from callfire_async.notifications import EndpointTokens, MemoryInbox, Notification, Postback, Receiver, Router
from callfire_async.notifications.security.request_validation import RequestValidator

TOKEN = "0123456789abcdef"
BODY = b'{"TextSent":{"Text":{"@id":42}}}'


async def guess(door: RequestValidator, token: str | None = "wrong") -> None:
    await door.read_request(Postback("POST", token, {}, BODY), {}, is_running=True)


async def test_wrong_tokens_are_warned_of_once_a_minute(caplog):
    """How many there were since, never which."""
    now = [1000.0]
    door = RequestValidator(EndpointTokens(TOKEN), max_body_bytes=100, body_timeout=1, clock=lambda: now[0])
    for at in (0, 1, 2, 59.9, 60, 61, 500):
        now[0] = 1000.0 + at
        await guess(door, f"guess-{at}")

    said = [(record.levelno, record.getMessage()) for record in caplog.records]
    words = "responded 404 to requests with a wrong or missing token: "
    assert said == [(logging.WARNING, f"{words}{number}") for number in (1, 4, 2)]
    assert door.refused == {"token": 7}


async def test_guesses_that_were_not_said_are_said_with_the_next_refusal(caplog):
    """Whatever that is for."""
    now = [1000.0]
    door = RequestValidator(EndpointTokens(TOKEN), max_body_bytes=100, body_timeout=1, clock=lambda: now[0])
    await guess(door)
    await guess(door, None)
    now[0] += 60
    await door.read_request(Postback("GET", TOKEN, {}, BODY), {}, is_running=True)
    now[0] += 60
    await door.read_request(Postback("GET", TOKEN, {}, BODY), {}, is_running=True)

    assert [record.args for record in caplog.records] == [(1,), (1,)]


def make_receiver(tokens: str | None) -> Receiver:
    router = Router()

    @router.on(Notification)
    async def take(event: Notification) -> None: ...

    return Receiver(router, tokens=tokens, inbox=MemoryInbox())


async def test_a_log_is_redacted_from_start_to_stop():
    """Named before or after the start; where the receiver is not running but asked, from then on."""
    logger = logging.getLogger("some.access")
    receiver = make_receiver(TOKEN)
    counts = [len(logger.filters)]
    async with receiver:
        receiver.redact("some.access")
        counts.append(len(logger.filters))
    counts.append(len(logger.filters))
    async with receiver:
        receiver.redact("some.access")
        counts.append(len(logger.filters))
    await receiver.receive(Postback("POST", "wrong", {}, BODY))
    counts.append(len(logger.filters))
    await receiver.receive(Postback("POST", TOKEN, {}, BODY))
    counts.append(len(logger.filters))
    async with receiver:
        pass

    assert [*counts, len(logger.filters)] == [0, 1, 0, 1, 0, 1, 0]


async def test_an_open_receiver_has_nothing_to_redact():
    """There is no token."""
    receiver = make_receiver(None)
    receiver.redact("some.access")
    async with receiver:
        assert logging.getLogger("some.access").filters == []
