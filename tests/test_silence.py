"""
No output contains a secret: known secrets are sent through every path that fails, and all output is searched for them.

The output is every log record of any logger at any level, with all its attributes; our exceptions with their causes;
the reprs of our values and objects; the reasons of dead letters; and the stats.
"""

import asyncio
import base64
import gzip
import logging
import ssl
import traceback
from collections.abc import Iterator, Mapping
from contextlib import suppress

import pytest
from loopback import hanging_response, response_bytes, serve_with
from notifications.servers import ADAPTERS, Serve, connection

from callfire_async import (
    BroadcastType,
    CallFire,
    CallFireError,
    Connection,
    NotificationFormat,
    SubscriptionFilter,
    SubscriptionSpec,
    TriggerEvent,
    WebhookResource,
    WebhookSpec,
)
from callfire_async.models import Broadcast, Subscription, TextBroadcastConfig, Webhook
from callfire_async.notifications import (
    Delivery,
    EndpointTokens,
    InboxEntry,
    MemoryInbox,
    Postback,
    Receiver,
    Reject,
    RetryPolicy,
    Router,
    SigningSecrets,
    SqliteInbox,
    TextFinished,
    UnknownNotification,
    parse,
)

LOGIN, PASSWORD = "canary-login", "canary-passw0rd"
TOKEN, OLD_TOKEN, GUESS = "canary-token-0123456789", "canary-older-0123456789", "canary-guess-0123456789"
SIGNING_SECRET, SIGNATURE = "canary-signing-0123456789", "canary-signature-0123456789="
NUMBER, PRINTED_NUMBER = "12135550173", "(213) 555-0173"
MESSAGE, RAW = "canary words of a message", "canary-raw-body"
ENDPOINT = f"https://user:{PASSWORD}@hooks.example.com/{NUMBER}/callfire/{TOKEN}?key={OLD_TOKEN}"
SECRETS = {
    "login": LOGIN,
    "password": PASSWORD,
    "credentials": base64.b64encode(f"{LOGIN}:{PASSWORD}".encode()).decode(),
    "token": TOKEN,
    "older token": OLD_TOKEN,
    "guess": GUESS,
    "signing secret": SIGNING_SECRET,
    "signature": SIGNATURE,
    "number": NUMBER,
    "number without its country": NUMBER[1:],
    "printed number": PRINTED_NUMBER,
    "message": MESSAGE,
    "body": RAW,
}
# A server's access log may contain guesses, which are not valid tokens. httpcore, at DEBUG, quotes a response that is
# not HTTP; valid responses are never quoted.
PERMITTED = {
    ".access": {"guess"},
}
NOT_HTTP = {"no HTTP", "a broken header", "a broken header with quotes", "a broken chunk"}
QUOTED_BY_HTTPCORE = {"httpcore.http11": {"body", "number", "number without its country"}}


class Output:
    """All output of a test."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog
        self._printed: list[tuple[str, str]] = []

    def add_error(self, error: BaseException) -> None:
        """Add an exception with its causes."""
        self.add(type(error).__name__, str(error), *traceback.format_exception(error))
        self.add(type(error).__name__, error)

    def add(self, source: str, *values: object) -> None:
        """Add strings, or the reprs of objects."""
        self._printed += [(source, value if isinstance(value, str) else repr(value)) for value in values]

    def secrets(self, permitted: Mapping[str, set[str]] = PERMITTED) -> set[tuple[str, str]]:
        """Return the names of the secrets in the output, with their sources."""
        formatter = logging.Formatter()
        logged = [
            (record.name, f"{formatter.format(record)} {vars(record)}")
            for when in ("setup", "call")
            for record in self._caplog.get_records(when)
        ]
        return {
            (source, name)
            for source, text in [*self._printed, *logged]
            for name, secret in SECRETS.items()
            if secret in text and not any(source.endswith(end) and name in names for end, names in permitted.items())
        }


@pytest.fixture
def output(caplog: pytest.LogCaptureFixture) -> Iterator[Output]:
    caplog.set_level(logging.DEBUG)
    logging.raiseExceptions, before = True, logging.raiseExceptions
    yield Output(caplog)
    logging.raiseExceptions = before


# --- the client -------------------------------------------------------------------------------------------

QUOTING = f"for {ENDPOINT} and {NUMBER}, {PRINTED_NUMBER}: {TOKEN} is not allowed"
WRONG_FIELDS = (
    f'{{"Resource":{{"Subscription":{{"@id":1,"Enabled":"{NUMBER}","TriggerEvent":{{"a":"{MESSAGE}"}},'
    f'"Endpoint":"{ENDPOINT}","SubscriptionFilter":{{"BroadcastId":"{NUMBER}x","FromNumber":"{NUMBER}"}}}}}}}}'
)


WRONG_WEBHOOK = (
    f'{{"id":1,"enabled":"{NUMBER}","resource":{{"a":"{MESSAGE}"}},"events":[["{RAW}"]],"createdAt":"{NUMBER}x",'
    f'"secret":"{SIGNING_SECRET}","callback":"{ENDPOINT}"}}'
)


def exception(status: str, media: str = "json") -> bytes:
    """Return an error response that quotes the request."""
    if media == "v2":
        quoting = f"{QUOTING}, and {SIGNING_SECRET}"
        v2 = (
            f'{{"httpStatusCode":{status[:3]},"internalCode":"{RAW}","message":"{quoting}","developerMessage":"{RAW}"}}'
        )
        return response_bytes(v2.encode(), status)
    json = f'{{"ResourceException":{{"HttpStatus":{status[:3]},"Message":"{QUOTING}"}}}}'
    xml = f"<ResourceException><Message>{QUOTING.replace('&', '&amp;')}</Message></ResourceException>"
    return response_bytes((json if media == "json" else xml).encode(), status)


RESPONSES = {
    **{
        f"{status} in {media}": exception(status, media)
        for status in ("400 Bad", "401 No", "403 No", "404 No", "418 No", "429 Wait", "500 Oh", "503 Oh")
        for media in ("json", "xml", "v2")
    },
    "an HTML error page": response_bytes(f"<html>{RAW} {NUMBER}".encode(), "502 Bad Gateway"),
    "a redirect": response_bytes(RAW.encode(), "302 Found", "Location: /elsewhere\r\n"),
    "an unexpected status": response_bytes(RAW.encode(), "299 Perhaps"),
    "nonsense": response_bytes(f"{RAW} {NUMBER}".encode()),
    "another document": response_bytes(f'{{"{RAW}":{{"a":"{NUMBER}"}}}}'.encode()),
    "broken XML": response_bytes(f"<{RAW}>{NUMBER}</a>".encode()),
    "fields that cannot be read": response_bytes(WRONG_FIELDS.encode()),
    "a webhook's fields that cannot be read": response_bytes(WRONG_WEBHOOK.encode()),
    "webhooks with fields that cannot be read": response_bytes(f'{{"items":[{WRONG_WEBHOOK}]}}'.encode()),
    "a webhook with an invalid id": response_bytes(f'{{"id":"{NUMBER}x","items":["{MESSAGE}"]}}'.encode()),
    "an invalid id": response_bytes(f'{{"Resource":{{"Subscription":{{"@id":"{NUMBER}x"}}}}}}'.encode()),
    "a broken gzip": response_bytes(gzip.compress(RAW.encode())[:-9], headers="Content-Encoding: gzip\r\n"),
    "another encoding": response_bytes(RAW.encode(), headers="Content-Encoding: rot13\r\n"),
    "an incomplete response": response_bytes(WRONG_FIELDS.encode())[:200],
    "no HTTP": f"{RAW} {NUMBER}\r\n\r\n".encode(),
    "a broken header": f"HTTP/1.1 200 OK\r\n{RAW} {NUMBER}\r\n\r\n".encode(),
    "a broken header with quotes": f"HTTP/1.1 200 OK\r\n'\"{RAW} {NUMBER}\r\n\r\n".encode(),
    "a broken chunk": f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{RAW} {NUMBER}\r\n".encode(),
}


async def use(callfire: CallFire, output: Output) -> None:
    """Run every operation that sends secrets, and add its result or exception to the output."""
    subscriptions = callfire.subscriptions
    filter = SubscriptionFilter(from_number=NUMBER, to_number=f"{NUMBER}:{MESSAGE}")
    spec = SubscriptionSpec(ENDPOINT, TriggerEvent.CAMPAIGN_STARTED, filter=filter)
    webhooks, resource = callfire.webhooks, WebhookResource.LOW_BALANCE
    webhook_spec = WebhookSpec(ENDPOINT, resource, secret=SIGNING_SECRET)
    output.add("spec", spec, str(spec), webhook_spec, str(webhook_spec))
    for operation in (
        subscriptions.create(ENDPOINT, TriggerEvent.CAMPAIGN_STARTED, filter=filter, request_id="r"),
        subscriptions.update(1, endpoint=ENDPOINT, filter=filter, notification_format=NotificationFormat.JSON),
        subscriptions.query(),
        subscriptions.get(1),
        subscriptions.delete(1),
        subscriptions.ensure(spec),
        webhooks.create(ENDPOINT, resource, secret=SIGNING_SECRET),
        webhooks.update(1, callback=ENDPOINT, secret=SIGNING_SECRET),
        webhooks.query(callback=ENDPOINT),
        webhooks.get(1),
        webhooks.delete(1),
        webhooks.resources(),
        webhooks.plan([webhook_spec], resend_secrets=True),
        webhooks.ensure(webhook_spec),
        callfire.texts.send([NUMBER, PRINTED_NUMBER.replace(" ", "")], MESSAGE, from_number=NUMBER),
        callfire.texts.query(from_number=NUMBER, to_number=NUMBER),
        callfire.calls.get(1),
    ):
        try:
            output.add("result", await operation)
        except CallFireError as error:
            output.add_error(error)
    output.add(
        "client", callfire, subscriptions, webhooks, vars(callfire._connection), vars(callfire._connection._transport)
    )


@pytest.mark.parametrize("name", RESPONSES)
@pytest.mark.parametrize("response_format", ["json", "xml"])
async def test_the_client_reveals_no_request_or_response(output, name, response_format):
    """Whatever the server returns."""

    async def respond(_, writer):
        writer.write(RESPONSES[name])
        await writer.drain()
        if not name[0].isdigit():
            raise ConnectionError

    async with (
        serve_with(respond) as server,
        CallFire(
            LOGIN,
            PASSWORD,
            base_url=server.url,
            webhooks_base_url=server.url,
            response_format=response_format,
            max_retries=0,
        ) as callfire,
    ):
        await use(callfire, output)

    assert output.secrets(QUOTED_BY_HTTPCORE if name in NOT_HTTP else {}) == set()


@pytest.mark.parametrize("fault", ["hangs", "refuses", "has no TLS", "closed"])
async def test_the_client_reveals_nothing_if_the_request_fails(output, fault):
    """After a timeout, a refused connection, a TLS error, or with a closed client."""
    respond, _ = hanging_response()
    async with serve_with(respond) as server:
        url = server.url.replace("http:", "https:") if fault == "has no TLS" else server.url
        callfire = CallFire(LOGIN, PASSWORD, base_url=url, webhooks_base_url=url, timeout=0.1, max_retries=1)
        callfire._connection._retry_hooks = type(callfire._connection._retry_hooks)(random=lambda: 0.0)
        if fault == "closed":
            await callfire.aclose()
        if fault != "refuses":
            await use(callfire, output)
    if fault == "refuses":
        await use(callfire, output)
    await callfire.aclose()

    assert output.secrets() == set()


@pytest.mark.parametrize(
    "settings",
    [
        {"base_url": f"https://{LOGIN}:{PASSWORD}@www.callfire.com"},
        {"base_url": f"http://{NUMBER}.example.com/{TOKEN}"},
        {"base_url": f"https://www.callfire.com/?{TOKEN}"},
        {"base_url": f"https://[{TOKEN}"},
        {"webhooks_base_url": f"https://{LOGIN}:{PASSWORD}@api.callfire.com/{TOKEN}"},
        {"password": ""},
        {"response_format": RAW},
        {"ssl_context": ssl._create_unverified_context()},
        {"http_client": RAW},
    ],
    ids="-".join,
)
def test_an_invalid_setting_is_not_quoted(output, settings):
    """It may be a misplaced secret."""
    with pytest.raises((ValueError, TypeError)) as caught:
        Connection(**{"login": LOGIN, "password": PASSWORD} | settings)

    output.add("error", str(caught.value), repr(caught.value))
    assert output.secrets() == set()


async def test_an_invalid_argument_is_not_quoted(output):
    """The request is not sent."""
    async with CallFire(LOGIN, PASSWORD, base_url="http://localhost") as callfire:
        for endpoint, trigger in ((" ", TriggerEvent.CAMPAIGN_STARTED), (ENDPOINT, "")):
            with pytest.raises(ValueError, match="empty") as caught:
                await callfire.subscriptions.create(endpoint, trigger)
            output.add("error", str(caught.value))
        for callback, secret in (
            (TOKEN, SIGNING_SECRET),
            (ENDPOINT, SIGNING_SECRET.encode()),
            (ENDPOINT, "\ud800" + RAW),
        ):
            with pytest.raises((ValueError, TypeError)) as caught:
                await callfire.webhooks.create(callback, WebhookResource.LOW_BALANCE, secret=secret)
            output.add("error", str(caught.value))

    assert output.secrets() == set()


# --- bodies and events ------------------------------------------------------------------------------------

TEXT = (
    f'{{"TextSent":{{"SubscriptionId":%s,"Text":{{"@id":%s,"FromNumber":"{NUMBER}","ToNumber":{{"@ClientData":"{RAW}",'
    f'"value":"{NUMBER}"}},"Message":"{MESSAGE}","Created":"%s","Inbound":"%s","TextRecord":{{"@id":2,'
    f'"Message":"{MESSAGE}","BilledAmount":"%s","CallerName":"{RAW}","QuestionResponse":{{"Question":"?",'
    f'"Response":"{MESSAGE}"}}}}}}}}}}'
)
VALID = TEXT % (1, 42, "2024-05-06T07:08:09Z", "false", "1.5")
ENVELOPE = '{"webhookId":7,"resourceType":"OutboundText","events":[%s]}'
TWO_EVENTS = ",".join(
    f'{{"eventType":"Finished","resource":{{"id":{number},"fromNumber":"{NUMBER}","message":"{MESSAGE}"}}}}'
    for number in (1, 2)
)
BODIES = {
    "valid": VALID,
    "fields that cannot be read": TEXT % (1, 42, NUMBER, MESSAGE, NUMBER + "x"),
    "an invalid id": TEXT % (1, f'"{NUMBER}x"', "", "", ""),
    "an invalid subscription": TEXT % (f'"{NUMBER}x"', 42, "", "", ""),
    "truncated": VALID[:-9],
    "nonsense": f"{RAW} {NUMBER} {MESSAGE}",
    "a value instead of an object": f'{{"TextSent":{{"Text":"{NUMBER}"}}}}',
    "an unknown root": f'{{"Surprise":{{"{RAW}":"{NUMBER}"}}}}',
    "two roots": f'{{"{RAW}":{{}},"{NUMBER}":{{}}}}',
    "a number out of range": f'{{"TextSent":{{"Text":{{"@id":1,"Message":"{MESSAGE}","a":1e999}}}}}}',
    "truncated XML": f"<TextSent><Text id='1'><Message>{MESSAGE}</Message><FromNumber>{NUMBER}</FromNumber>",
    "XML with a DTD": f"<!DOCTYPE a [<!ENTITY e '{NUMBER}'>]><a>&e;</a>",
    "XML in an unknown encoding": f"<?xml version='1.0' encoding='{RAW}'?><a>{NUMBER}</a>",
    "XML with a lone surrogate": f"<a>{MESSAGE}&#xD800;</a>",
    "HTML": f"<html>{NUMBER}</html>",
    "an envelope": ENVELOPE % TWO_EVENTS,
    "an envelope with an unreadable event": ENVELOPE % f'{TWO_EVENTS},{{"resource":{{"id":"{NUMBER}x"}}}},"{MESSAGE}"',
    "an envelope that is too large": ENVELOPE % f'{TWO_EVENTS}],"{RAW}":["{MESSAGE * 300}"',
    "an envelope with an invalid webhook": f'{{"webhookId":"{NUMBER}x","events":[{{"resource":"{MESSAGE}"}}]}}',
    "SOAP that holds two": f"<Envelope><Body><a>{NUMBER}</a><b>{MESSAGE}</b></Body></Envelope>",
}


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("charset", ["utf-8", "utf-16", "latin-1"])
def test_no_body_is_quoted(output, name, charset):
    """Not by an event, nor by a parser error."""
    try:
        event = parse(BODIES[name].encode(charset), f"text/plain; charset={charset}")
        output.add("event", event, event.key, event.problems, str(event))
    except CallFireError as error:
        output.add_error(error)

    assert output.secrets() == set()


def test_reprs_contain_no_secret(output):
    """The reprs of all classes that hold secrets, also nested."""
    output.add(
        "value",
        Subscription(1, endpoint=ENDPOINT, filter=SubscriptionFilter(from_number=NUMBER, to_number=PRINTED_NUMBER)),
        Subscription(1, endpoint=f"https://{NUMBER}.example.com/{NUMBER}/{NUMBER}"),
        Subscription(1, endpoint=f"{NUMBER}@example.com"),
        Webhook(1, callback=ENDPOINT, secret=SIGNING_SECRET),
        Broadcast(1, type=BroadcastType.TEXT, config=TextBroadcastConfig(1, from_number=NUMBER, message=MESSAGE)),
        UnknownNotification(name="Surprise", payload={RAW: NUMBER}),
        Delivery(RAW.encode()),
        Postback("POST", TOKEN, {"Authorization": PASSWORD}, RAW.encode()),
        EndpointTokens(TOKEN, OLD_TOKEN),
        vars(EndpointTokens(TOKEN, OLD_TOKEN)),
        SigningSecrets(SIGNING_SECRET),
        vars(SigningSecrets(SIGNING_SECRET)),
    )

    assert output.secrets() == set()


# --- the receiver -----------------------------------------------------------------------------------------


class QuotingInbox(MemoryInbox):
    """A custom inbox whose errors quote its arguments."""

    async def append(self, delivery: Delivery) -> None:
        raise OSError(delivery.body.decode())


@pytest.fixture
def router() -> Router:
    router = Router()

    @router.on(TextFinished, where=lambda event: event.subscription_id == 1)
    async def fail(event: TextFinished) -> None:
        raise ValueError(event.text.from_number, repr(event.payload)) from LookupError(event.text.message)

    @router.on(TextFinished, where=lambda event: event.subscription_id == 2)
    async def hang(event: TextFinished) -> None:
        await asyncio.Event().wait()

    @router.on(TextFinished, where=lambda event: event.subscription_id == 3)
    async def reject(event: TextFinished) -> None:
        raise Reject("not one of ours")

    @router.on(TextFinished, where=lambda event: event.payload["unheard"][event.text.message])
    async def choose(event: TextFinished) -> None: ...

    return router


def inboxes(tmp_path: object) -> dict[str, object]:
    return {
        "none": lambda: None,
        "memory": MemoryInbox,
        "SQLite": lambda: SqliteInbox(tmp_path / "inbox.db"),
        "quoting": QuotingInbox,
    }


@pytest.fixture(params=ADAPTERS)
def serve(request: pytest.FixtureRequest) -> Serve:
    return ADAPTERS[request.param]


@pytest.mark.parametrize("log_exceptions", [False, True])
async def test_no_postback_is_quoted(output, serve, router, tmp_path, log_exceptions):
    """Whether the postback, a handler or the inbox fails, behind any server; what user code raises is the user's."""
    for inbox in inboxes(tmp_path).values():
        receiver = make_receiver(router, inbox(), log_exceptions=log_exceptions)
        async with serve(receiver) as endpoint:
            await provoke(endpoint, output)
            await inspect(receiver, output)
        await receiver.receive(Postback("POST", TOKEN, {}, VALID.encode()))

    exceptions = {"callfire_async.worker": {"number", "number without its country", "message", "body"}}
    assert output.secrets(PERMITTED | (exceptions if log_exceptions else {})) == set()


def make_receiver(router: Router, inbox: object, *, log_exceptions: bool) -> Receiver:
    """Return a receiver whose callbacks fail."""

    async def fetch() -> set[int]:
        return {1, 2, 3}

    async def report(entry: InboxEntry) -> None:
        raise OSError(entry.delivery.body.decode(errors="replace"))

    options = {} if inbox is None else {"inbox": inbox, "retry": RetryPolicy(2, 0.0), "on_dead_letter": report}
    tokens = EndpointTokens(TOKEN, OLD_TOKEN)
    limits = {"body_timeout": 0.2, "handler_timeout": 0.05, "max_body_bytes": 10_000}
    return Receiver(
        router,
        tokens=tokens,
        signing_secrets=SIGNING_SECRET,
        require_signature=False,
        known_subscriptions=fetch,
        log_exceptions=log_exceptions,
        **limits,
        **options,
    )


async def provoke(endpoint: object, output: Output) -> None:
    """Send postbacks that fail in every way."""
    bodies = [*BODIES.values(), *(TEXT % (number, 42, "", "", "") for number in (2, 3, 4)), RAW * 1_000, ""]
    for body in bodies:
        for path in (TOKEN, f"{OLD_TOKEN}/?{TOKEN}", GUESS):
            async with connection(endpoint) as sender:
                sender.head(endpoint.path(path), f"Content-Length: {len(body.encode())}")
                sender.send(body.encode())
                await sender.status()
    for start in (
        f"GET {endpoint.path(TOKEN)} HTTP/1.1\r\nHost: a\r\n\r\n",
        f"POST {endpoint.path(TOKEN)} HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
        f"POST {endpoint.path(TOKEN)} HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{RAW}",
        f"POST {endpoint.path(TOKEN)} HTTP/1.1\r\nX-CallFire-Signature: {SIGNATURE}\r\nContent-Length: 15\r\n\r\n{RAW}",
        f"POST {endpoint.path(TOKEN)} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{TOKEN}\r\n",
        f"POST {endpoint.path(TOKEN)} HTTP/1.1 {TOKEN}\r\n\r\n",
        f"POST {endpoint.path(TOKEN)} HTTP/1.1\r\n{TOKEN}\r\n\r\n",
        f"{TOKEN}\r\n\r\n",
    ):
        async with connection(endpoint) as sender:
            sender.send(start.encode())
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                await sender.status()


async def inspect(receiver: Receiver, output: Output) -> None:
    """Add everything that the receiver and its inbox show to the output."""
    await receiver.idle(timeout=20)
    output.add("receiver", receiver, vars(receiver), vars(receiver._validator), await receiver.stats())
    inbox = getattr(receiver._intake, "_inbox", None)
    if inbox is None:
        return
    async for entry in inbox.entries():
        output.add("entry", entry, entry.reason)
    await inbox.replay()
    output.add("lease", await inbox.claim(3, lease=60))
