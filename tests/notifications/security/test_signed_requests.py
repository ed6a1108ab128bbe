"""Signed postbacks, against every adapter behind a real server, and the receiver's rules about them."""

import logging
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from notifications.servers import ADAPTERS, Endpoint, Serve, connection

from callfire_async.notifications import (
    Delivery,
    MemoryInbox,
    Observer,
    Postback,
    Receiver,
    Reply,
    Router,
    SigningSecrets,
)

TOKEN = "0123456789abcdef"
CURRENT = "current-secret-0123456789"
PREVIOUS = "previous-secret-0123456789"
SECRETS = SigningSecrets(CURRENT, PREVIOUS)
BODY = b'{"TextSent": {"SubscriptionId": 1, "Text": {"@id": 42, "Message": "caf\xc3\xa9"}}}'
HEADER = "X-CallFire-Signature"
SIGNATURE = SECRETS.sign(BODY)
UNAUTHORIZED = Reply(401, (("WWW-Authenticate", "CallFire-Signature"),))

REFUSED: dict[str, tuple[str, ...]] = {
    "missing": (),
    "empty": (f"{HEADER}:",),
    "of another body": (f"{HEADER}: {SECRETS.sign(BODY[:-1])}",),
    "of another secret": (f"{HEADER}: {SigningSecrets('another-secret-0123456789').sign(BODY)}",),
    "repeated": (f"{HEADER}: {SIGNATURE}",) * 2,
    "repeated after a wrong one": (f"{HEADER}: wrong", f"{HEADER.lower()}: {SIGNATURE}"),
    "joined with a comma": (f"{HEADER}: {SIGNATURE}, {SIGNATURE}",),
    "with an empty repeat": (f"{HEADER}: {SIGNATURE}", f"{HEADER}:"),
    "in another header": (f"X-Signature: {SIGNATURE}",),
    "with a prefix": (f"{HEADER}: sha1={SIGNATURE}",),
    "not ASCII": (f"{HEADER}: {SIGNATURE}\xe9",),
}


@pytest.fixture(params=ADAPTERS)
def serve(request: pytest.FixtureRequest) -> Serve:
    return ADAPTERS[request.param]


@pytest.fixture
def make_receiver(router: Router) -> Callable[..., Receiver]:
    def make(**options: object) -> Receiver:
        return Receiver(router, **{"tokens": TOKEN, "signing_secrets": SECRETS} | options)

    return make


@pytest.fixture
async def endpoint(serve: Serve, make_receiver: Callable[..., Receiver]) -> AsyncIterator[Endpoint]:
    async with serve(make_receiver()) as endpoint:
        yield endpoint


async def post(endpoint: Endpoint, *headers: str, body: bytes = BODY, token: str = TOKEN) -> int:
    async with connection(endpoint) as sender:
        sender.head(endpoint.path(token), f"Content-Length: {len(body)}", *headers)
        sender.send(body)
        return await sender.status()


def postback(*signatures: str, body: bytes = BODY, token: str = TOKEN) -> Postback:
    return Postback("POST", token, [(HEADER, signature) for signature in signatures], body)


# --- over HTTP --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", [CURRENT, PREVIOUS])
async def test_a_signed_postback_is_accepted(endpoint, events, secret):
    """With any of the secrets, so that one can be replaced."""
    status = await post(endpoint, f"{HEADER}: {SigningSecrets(secret).sign(BODY)}")

    assert (status, len(events)) == (204, 1)


@pytest.mark.parametrize("headers", REFUSED.values(), ids=REFUSED)
async def test_any_other_postback_is_refused(endpoint, events, headers):
    """With 401, and its event is not handled."""
    assert (await post(endpoint, *headers), events) == (401, [])


async def test_the_response_names_the_scheme(endpoint):
    """As HTTP requires for a 401."""
    async with httpx.AsyncClient(trust_env=False) as client:
        response = await client.post(endpoint.url(TOKEN), content=BODY)

    assert (response.status_code, response.headers["WWW-Authenticate"]) == (401, "CallFire-Signature")


async def test_the_name_of_the_header_has_no_case(endpoint, events):
    """As for any header of HTTP."""
    statuses = [await post(endpoint, f"{name}: {SIGNATURE}") for name in (HEADER.lower(), HEADER.upper())]

    assert (statuses, len(events)) == ([204, 204], 2)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (BODY.decode().encode("utf-16"), "application/json; charset=utf-16"),
        (BODY.decode().encode("latin-1"), "application/json; charset=latin-1"),
        (b"\xef\xbb\xbf" + BODY + b"\r\n", "application/json"),
    ],
)
async def test_the_bytes_are_verified_as_they_arrived(endpoint, body, content_type):
    """In any encoding, with a byte order mark and line ends."""
    signed = await post(endpoint, f"Content-Type: {content_type}", f"{HEADER}: {SECRETS.sign(body)}", body=body)
    other = await post(endpoint, f"Content-Type: {content_type}", f"{HEADER}: {SIGNATURE}", body=body)

    assert (signed in (204, 400), other) == (True, 401)


async def test_a_chunked_body_is_verified(endpoint, events):
    """The signature covers the whole body."""
    async with connection(endpoint) as sender:
        sender.head(endpoint.path(TOKEN), "Transfer-Encoding: chunked", f"{HEADER}: {SIGNATURE}")
        for part in (BODY[:7], BODY[7:], b""):
            sender.chunk(part)

        assert (await sender.status(), len(events)) == (204, 1)


async def test_a_wrong_token_is_refused_although_the_signature_is_right(endpoint, events):
    """Both are required if both are configured."""
    assert (await post(endpoint, f"{HEADER}: {SIGNATURE}", token="wrong-wrong-wrong"), events) == (404, [])


async def test_a_signature_is_enough_without_tokens(serve, make_receiver, events):
    """The URL may be the prefix alone then."""
    async with serve(make_receiver(tokens=None)) as endpoint:
        statuses = [await post(endpoint, *headers, token="") for headers in ((f"{HEADER}: {SIGNATURE}",), ())]

    assert (statuses, len(events)) == ([204, 401], 1)


async def test_unsigned_postbacks_may_be_accepted(serve, make_receiver, events):
    """As while an account moves from API 1.1 to v2; a wrong signature is refused nevertheless."""
    async with serve(make_receiver(require_signature=False)) as endpoint:
        statuses = {name: await post(endpoint, *headers) for name, headers in REFUSED.items()}

    accepted = {name for name, status in statuses.items() if status == 204}
    assert (accepted, set(statuses.values())) == ({"missing", "in another header"}, {204, 401})


# --- the receiver -----------------------------------------------------------------------------------------


async def test_nothing_is_stored_before_the_signature_is_verified(make_receiver):
    """The inbox stays empty, and the reason is counted."""
    inbox = MemoryInbox()
    async with make_receiver(inbox=inbox, concurrency=0) as receiver:
        replies = [await receiver.receive(postback(*signatures)) for signatures in ((), ("wrong",), (SIGNATURE,) * 2)]
        stats = await receiver.stats()

    assert (replies, stats.refused, stats.inbox.ready) == ([UNAUTHORIZED] * 3, {"signature": 3}, 0)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (postback(token="wrong"), 404),
        (Postback("GET", TOKEN, {}, BODY), 405),
        (Postback("POST", TOKEN, {"Content-Encoding": "gzip"}, BODY), 415),
        (postback(body=bytes(101)), 413),
        (postback(body=b""), 400),
        (postback(), 401),
    ],
)
async def test_the_signature_is_checked_last(make_receiver, request_, status):
    """After the token, the method, the encoding, the size and an empty body."""
    async with make_receiver(max_body_bytes=100) as receiver:
        assert (await receiver.receive(request_)).status == status


async def test_a_stopped_receiver_responds_503_to_a_wrong_signature(make_receiver):
    """It reads no bodies."""
    assert (await make_receiver().receive(postback("wrong"))).status == 503


async def test_wrong_signatures_are_logged_once_a_minute(make_receiver, caplog):
    """The warning has their number, and neither the signatures nor the bodies."""
    async with make_receiver() as receiver:
        for number in range(10):
            await receiver.receive(postback(f"guess-number-{number}"))

    (record,) = caplog.records
    assert (record.levelno, record.name) == (logging.WARNING, "callfire_async.receiver")
    assert record.getMessage() == "responded 401 to postbacks whose signature was wrong, repeated or missing: 1"


async def test_a_redelivery_needs_no_signature(make_receiver, events):
    """It does not arrive over HTTP."""
    async with make_receiver() as receiver:
        assert await receiver.redeliver(Delivery(BODY)) == Reply(204)

    assert len(events) == 1


async def test_without_secrets_no_signature_is_looked_at(make_receiver):
    """Not even a repeated one."""
    async with make_receiver(signing_secrets=None) as receiver:
        assert await receiver.receive(postback("wrong", "wrong")) == Reply(204)
        assert receiver.signing_secrets is None


async def test_a_string_is_one_secret(make_receiver):
    """The adapters and tools may sign with it."""
    async with make_receiver(signing_secrets=CURRENT) as receiver:
        assert await receiver.receive(postback(SIGNATURE)) == Reply(204)
        assert receiver.signing_secrets.sign(BODY) == SIGNATURE


def test_an_endpoint_that_accepts_anyone_causes_a_warning(make_receiver):
    """It has neither a token nor a signature that is required."""
    with pytest.warns(UserWarning, match="require_signature=False with tokens=None") as caught:
        make_receiver(tokens=None, require_signature=False)

    assert caught[0].filename == __file__


def test_require_signature_needs_secrets(make_receiver):
    """A forgotten secret is noticed."""
    with pytest.raises(TypeError, match=r"^require_signature=False can only be used with signing_secrets"):
        make_receiver(signing_secrets=None, require_signature=False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("signing_secrets", value) for value in (b"current-secret-0123456789", [CURRENT], 7, SigningSecrets, True)),
        *(("require_signature", value) for value in (None, 1, "no")),
    ],
)
def test_a_wrong_argument_is_refused(make_receiver, name, value):
    """With its name, and without the value, which may be a secret."""
    with pytest.raises(TypeError, match=f"^{name} must be ") as caught:
        make_receiver(**{name: value})

    assert CURRENT not in str(caught.value)


async def test_the_observer_gets_the_reason(make_receiver):
    """`RequestRecord.refused` is `signature`."""
    records = []

    class Recorder(Observer):
        def request(self, record):
            records.append(record)
            return super().request(record)

    async with make_receiver() as receiver:
        receiver.observe(Recorder())
        await receiver.receive(postback("wrong"))

    assert [(record.refused, record.reply, record.delivery) for record in records] == [
        ("signature", UNAUTHORIZED, None)
    ]
