"""What is logged about rejected requests, and log redaction; test_receiver and test_request_attacks have the rest."""

import logging

from callfire_async.notifications import EndpointTokens, MemoryInbox, Notification, Postback, Receiver, Router
from callfire_async.notifications.security.request_validation import RequestValidator

TOKEN = "0123456789abcdef"
BODY = b'{"TextSent":{"Text":{"@id":42}}}'


async def guess(validator: RequestValidator, token: str | None = "wrong") -> None:
    await validator.read_request(Postback("POST", token, {}, BODY), {}, is_running=True)


async def test_wrong_tokens_are_logged_once_a_minute(caplog):
    """The warning has their number, not the tokens."""
    now = [1000.0]
    validator = RequestValidator(EndpointTokens(TOKEN), max_body_bytes=100, body_timeout=1, clock=lambda: now[0])
    for at in (0, 1, 2, 59.9, 60, 61, 500):
        now[0] = 1000.0 + at
        await guess(validator, f"guess-{at}")

    logged = [(record.levelno, record.getMessage()) for record in caplog.records]
    text = "responded 404 to requests with a wrong or missing token: "
    assert logged == [(logging.WARNING, f"{text}{number}") for number in (1, 4, 2)]
    assert validator.refused == {"token": 7}


async def test_further_path_segments_are_explained(caplog):
    """The path of the mount in the token is a mistake of the configuration; the line names it, not the token."""
    now = [1000.0]
    validator = RequestValidator(EndpointTokens(TOKEN), max_body_bytes=100, body_timeout=1, clock=lambda: now[0])
    await guess(validator, f"callfire/{TOKEN}")
    now[0] += 60
    for token in ("wrong", f"a/b/{TOKEN}", f"{TOKEN}/more"):
        await guess(validator, token)
    now[0] += 120
    await guess(validator)

    lines = [record.getMessage() for record in caplog.records]
    assert ["further segments" in line for line in lines] == [True, False, True]
    assert not any(TOKEN in line for line in lines)
    assert [record.args for record in caplog.records] == [(1, 1), (1,), (3, 2)]


async def test_unlogged_guesses_are_logged_with_the_next_rejection(caplog):
    """For any reason."""
    now = [1000.0]
    validator = RequestValidator(EndpointTokens(TOKEN), max_body_bytes=100, body_timeout=1, clock=lambda: now[0])
    await guess(validator)
    await guess(validator, None)
    now[0] += 60
    await validator.read_request(Postback("GET", TOKEN, {}, BODY), {}, is_running=True)
    now[0] += 60
    await validator.read_request(Postback("GET", TOKEN, {}, BODY), {}, is_running=True)

    assert [record.args for record in caplog.records] == [(1,), (1,)]


def make_receiver(tokens: str | None) -> Receiver:
    router = Router()

    @router.on(Notification)
    async def handle(event: Notification) -> None: ...

    return Receiver(router, tokens=tokens, inbox=MemoryInbox())


async def test_a_log_is_redacted_from_start_to_stop():
    """Loggers may be named before or after the start; a request to a stopped receiver starts the redaction."""
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


async def test_a_receiver_without_tokens_redacts_nothing():
    """No filter is added."""
    receiver = make_receiver(None)
    receiver.redact("some.access")
    async with receiver:
        assert logging.getLogger("some.access").filters == []
