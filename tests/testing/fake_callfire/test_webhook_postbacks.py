"""The fake's postbacks to webhooks: which events, the envelope, the signature, faults; and the shapes of API 1.1."""

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from attrs import evolve, frozen
from notifications.servers import uvicorn_server
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount

from callfire_async.models import (
    ContactList,
    DeliveryReport,
    TriggerEvent,
    WebhookEvent,
    WebhookResource,
)
from callfire_async.notifications.events import (
    AccountNotification,
    ContactListValidationFailed,
    DeliveryReportReceived,
    TextReceived,
    TextSent,
    UnknownNotification,
)
from callfire_async.notifications.parsing import parse, parse_all
from callfire_async.notifications.security.signatures import SigningSecrets
from callfire_async.testing import (
    FakeCallFire,
    PostbackFault,
    PostbackRecorder,
    make_call_finished,
    make_campaign_started,
    make_campaign_stopped,
    make_text_finished,
    make_text_notification,
    make_text_received,
    make_text_sent,
)

ENDPOINT = "https://hooks.example.com/callfire/token"
SECRET = "a signing secret of the tests"
WEBHOOK = {"name": "texts", "resource": "OutboundText", "events": ["Finished"], "callback": ENDPOINT}


@frozen
class Posted:
    """One request that an endpoint received."""

    url: str
    headers: dict[str, str]
    body: bytes


class Endpoint(httpx.AsyncBaseTransport):
    """A transport that keeps the requests."""

    def __init__(self) -> None:
        self.posted: list[Posted] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        headers = {name.decode(): value.decode() for name, value in request.headers.raw}
        self.posted.append(Posted(str(request.url), headers, await request.aread()))
        return httpx.Response(204)


@pytest.fixture
def endpoint() -> Endpoint:
    """Return an endpoint."""
    return Endpoint()


@pytest.fixture
def fake(endpoint) -> FakeCallFire:
    """Return a fake that posts to the endpoint."""
    return FakeCallFire(transport=endpoint)


async def create(fake: FakeCallFire, **keys) -> int:
    """Create a webhook, and return its id."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(fake), auth=("login", "password")) as http:
        response = await http.post("https://api.callfire.com/v2/webhooks", json=WEBHOOK | keys)
    assert response.status_code == 201, response.text
    return response.json()["id"]


async def subscribe(fake: FakeCallFire, trigger_event: TriggerEvent = TriggerEvent.OUTBOUND_TEXT_FINISHED, **fields):
    """Create a subscription, and return its ID."""
    async with fake.client() as callfire:
        return (await callfire.subscriptions.create(ENDPOINT, trigger_event, **fields)).id


# --- one postback -----------------------------------------------------------------------------------------


async def test_a_postback(fake, endpoint):
    """It is an envelope with one event, signed with the webhook's secret."""
    webhook_id = await create(fake, secret=SECRET)
    event = make_text_sent()

    (result,) = await fake.emit(event)

    (posted,) = endpoint.posted
    signature = base64.b64encode(hmac.digest(SECRET.encode(), posted.body, hashlib.sha1)).decode()
    assert posted == Posted(
        ENDPOINT,
        {
            "User-Agent": "CallFire-HTTP/1.0",
            "Content-Type": "application/json",
            "Content-Length": str(len(posted.body)),
            "Connection": "Keep-Alive",
            "X-CallFire-Signature": signature,
            "Host": "hooks.example.com",
        },
        posted.body,
    )
    assert (result.webhook_id, result.subscription_id, result.status) == (webhook_id, None, 204)
    assert (result.key, result.keys) == (event.key, (event.key,))


async def test_a_postback_over_a_connection():
    """It is signed, too."""
    posted = []

    async def application(scope, receive, send) -> None:
        if scope["type"] == "http":
            request = Request(scope, receive)
            posted.append((await request.body(), request.headers["X-CallFire-Signature"]))
            await Response(status_code=204)(scope, receive, send)

    async with uvicorn_server(Starlette(routes=[Mount("/", application)])) as port, FakeCallFire() as fake:
        await create(fake, secret=SECRET, callback=f"http://127.0.0.1:{port}/token")

        (result,) = await fake.emit(make_text_sent())

    assert (result.status, SigningSecrets(SECRET).verify(*posted[0])) == (204, True)


async def test_the_envelope(fake, endpoint):
    """It has the webhook's id and name, and the time of posting."""
    webhook_id = await create(fake)

    await fake.emit(make_text_sent(id=5))

    envelope = json.loads(endpoint.posted[0].body)
    (element,) = envelope["events"]
    header = {"webhookId": webhook_id, "resourceType": "OutboundText"}
    assert header.items() <= envelope.items()
    assert (envelope["webhookName"], header.items() <= element.items()) == ("texts", True)
    assert (element["eventType"], element["resource"]["id"]) == ("Finished", 5)
    now = datetime.now(UTC).timestamp() * 1000
    assert envelope["timestamp"] == element["timestamp"] == pytest.approx(now, abs=60_000)


async def test_the_time_of_an_event_is_kept(fake, endpoint):
    """The present is used for events that have none."""
    await create(fake)
    moment = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)

    await fake.emit(evolve(make_text_sent(), occurred_at=moment))

    assert parse(endpoint.posted[0].body).occurred_at == moment


async def test_a_webhook_without_a_secret(fake, endpoint):
    """Its postbacks have no signature."""
    await create(fake)

    await fake.emit(make_text_sent())

    assert "X-CallFire-Signature" not in endpoint.posted[0].headers


@pytest.mark.parametrize("secret", ["short", "ünïcödé secrets are allowed"])
async def test_any_secret_signs(fake, endpoint, secret):
    """The fake does not warn of a short one; the client does."""
    await create(fake, secret=secret)

    await fake.emit(make_text_sent())

    (posted,) = endpoint.posted
    signature = base64.b64encode(hmac.digest(secret.encode(), posted.body, hashlib.sha1)).decode()
    assert posted.headers["X-CallFire-Signature"] == signature


# --- which events -----------------------------------------------------------------------------------------


CONTACT_LIST = ContactListValidationFailed(contact_list=ContactList(id=7), occurred_at=datetime(2026, 1, 2, tzinfo=UTC))
REPORT = DeliveryReportReceived(report=DeliveryReport(id=8, delivery_state="DELIVERED"))
RENEWAL = AccountNotification(resource_type=WebhookResource.MONTHLY_RENEWAL, event_type=WebhookEvent.FAILED)


@pytest.mark.parametrize(
    ("event", "resource", "event_type"),
    [
        (make_text_sent(), "OutboundText", "Finished"),
        (make_text_finished(result="CARRIER_ERROR"), "OutboundText", "Finished"),
        (make_text_received(), "InboundText", "Finished"),
        (make_call_finished(), "OutboundCall", "Finished"),
        (make_call_finished(inbound=True), "InboundCall", "Finished"),
        (make_campaign_started(), "TextBroadcast", "Started"),
        (make_campaign_stopped(type="IVR"), "CallBroadcast", "Stopped"),
        (make_campaign_stopped(type="CCC"), "CccCampaign", "Stopped"),
        (CONTACT_LIST, "ContactList", "ValidationFailed"),
        (REPORT, "OutboundTextDeliveryReport", "Received"),
        (RENEWAL, "MonthlyRenewal", "Failed"),
    ],
)
async def test_each_event_matches_one_resource(fake, endpoint, event, resource, event_type):
    """It has the same key and class after it was posted."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(fake), auth=("login", "password")) as http:
        for item in (await http.get("https://api.callfire.com/v2/webhooks/resources")).json()["items"]:
            for supported in item["supportedEvents"]:
                await create(fake, resource=item["resource"], events=[supported])

    results = await fake.emit(event)

    received = parse(endpoint.posted[0].body)
    assert len(results) == len(endpoint.posted) == 1
    assert (type(received), received.name) == (type(event), f"{resource}.{event_type}")
    assert received.key == results[0].key
    assert event is RENEWAL or received.key == event.key


@pytest.mark.parametrize(
    "event",
    [
        make_text_notification(),
        make_campaign_started(type=None),
        UnknownNotification(name="SomethingNew", payload={"a": 1}),
    ],
)
async def test_events_that_api_2_does_not_have(fake, endpoint, event):
    """They match no webhook."""
    await create(fake)
    await create(fake, resource="TextBroadcast", events=["Started"])

    assert (await fake.emit(event), endpoint.posted) == ([], [])


@pytest.mark.parametrize(
    "keys",
    [
        {"enabled": False},
        {"callback": "sms:callfire"},
        {"resource": "InboundText"},
        {"resource": "TextBroadcast", "events": ["Started"]},
        {"expiresAt": 1},
    ],
)
async def test_webhooks_without_a_postback(fake, endpoint, keys):
    """Only enabled webhooks with an HTTP callback, of the event, before they expire."""
    await create(fake, **keys)

    assert (await fake.emit(make_text_sent()), endpoint.posted) == ([], [])


async def test_a_webhook_that_expires_later(fake):
    """Until then, its events are posted."""
    later = datetime.now(UTC) + timedelta(days=1)
    await create(fake, expiresAt=int(later.timestamp() * 1000))

    assert len(await fake.emit(make_text_sent())) == 1


async def test_a_single_use_webhook(fake, endpoint):
    """It is deleted after its first event, also of several that are emitted together."""
    await create(fake, singleUse=True)
    other = await create(fake)
    events = [make_text_received(), make_text_sent(), make_text_sent()]

    results = await fake.emit(*events)

    assert [(result.webhook_id == other, result.key) for result in results] == [
        (False, events[1].key),
        (True, events[1].key),
        (True, events[2].key),
    ]
    assert [webhook.id for webhook in fake.webhooks] == [other]


async def test_a_subscription_and_a_webhook(fake, endpoint):
    """An account that has both gets both."""
    webhook_id, subscription_id = await create(fake), await subscribe(fake)
    event = make_text_sent()

    results = await fake.emit(event)

    assert [(result.subscription_id, result.webhook_id) for result in results] == [
        (subscription_id, None),
        (None, webhook_id),
    ]
    assert {parse(posted.body).key for posted in endpoint.posted} == {event.key}


async def test_sent_texts_are_posted(fake, endpoint):
    """To a webhook, too."""
    await create(fake)

    async with fake.client() as callfire:
        await callfire.texts.send("12135550142", "Hello")

    (received,) = map(parse, [posted.body for posted in endpoint.posted])
    assert (type(received), received.text.message) == (TextSent, "Hello")


# --- several events in one postback -----------------------------------------------------------------------


async def test_several_events_in_one_postback(endpoint):
    """Each webhook gets its own of a group; no event waits for the next call."""
    fake = FakeCallFire(transport=endpoint, events_per_postback=3)
    webhook_id, inbound = await create(fake, secret=SECRET), await create(fake, resource="InboundText")
    events = [make_text_sent() for _ in range(4)]
    received = make_text_received()

    results = await fake.emit(events[0], received, *events[1:])

    keys = [event.key for event in events]
    assert [(result.webhook_id, result.keys) for result in results] == [
        (webhook_id, (keys[0], keys[1])),
        (inbound, (received.key,)),
        (webhook_id, (keys[2], keys[3])),
    ]
    assert results[0].key == keys[0]
    first = next(posted for posted in endpoint.posted if len(parse_all(posted.body)) == 2)
    assert SigningSecrets(SECRET).verify(first.body, first.headers["X-CallFire-Signature"])


async def test_subscriptions_get_one_event_in_each_postback(endpoint):
    """API 1.1 has no envelope."""
    fake = FakeCallFire(transport=endpoint, events_per_postback=3)
    await subscribe(fake)

    assert len(await fake.emit(make_text_sent(), make_text_sent())) == 2


async def test_texts_of_one_send_share_a_postback():
    """They finish together."""
    postbacks = PostbackRecorder()
    fake = FakeCallFire(transport=postbacks, events_per_postback=2)
    await create(fake)

    async with fake.client() as callfire:
        await callfire.texts.send(["12135550141", "12135550142", "12135550143"], "Hello")

    assert [text.text.to_number for text in postbacks.of(TextSent)] == ["12135550141", "12135550142", "12135550143"]
    assert postbacks.urls == (ENDPOINT, ENDPOINT)
    assert postbacks.of(TextReceived) == []


async def test_no_events(fake):
    """Nothing is posted."""
    await create(fake)

    assert await fake.emit() == []


@pytest.mark.parametrize("events_per_postback", [0, -1])
def test_an_invalid_number_of_events(events_per_postback):
    """It is refused where it is given."""
    with pytest.raises(ValueError, match="events_per_postback"):
        FakeCallFire(events_per_postback=events_per_postback)


# --- faults -----------------------------------------------------------------------------------------------


async def test_dropped_events_are_recorded(endpoint):
    """Each event of the postback, with the webhook's id."""
    fake = FakeCallFire(transport=endpoint, events_per_postback=2)
    webhook_id = await create(fake)
    fake.postback_faults.append(PostbackFault.DROPPED)
    events = [make_text_sent(), make_text_sent()]

    assert (await fake.emit(*events), endpoint.posted) == ([], [])
    assert fake.dropped == [(webhook_id, event.key) for event in events]


async def test_a_duplicated_postback(fake, endpoint):
    """The same bytes and signature are posted twice."""
    await create(fake, secret=SECRET)
    fake.postback_faults.append(PostbackFault.DUPLICATED)

    results = await fake.emit(make_text_sent())

    assert (len(results), endpoint.posted[0] == endpoint.posted[1]) == (2, True)


async def test_a_late_postback(fake):
    """It is posted after those of the next event."""
    await create(fake)
    fake.postback_faults.append(PostbackFault.LATE)
    first, second = make_text_sent(), make_text_sent()

    assert [result.key for result in await fake.emit(first, second)] == [second.key, first.key]


async def test_a_cut_postback(fake):
    """There is no response."""
    webhook_id = await create(fake)
    fake.postback_faults.append(PostbackFault.CUT)

    (result,) = await fake.emit(make_text_sent())

    assert (result.webhook_id, result.status) == (webhook_id, None)


@pytest.mark.parametrize(("options", "counts"), [({"drop_rate": 1.0}, {0}), ({"duplicate_rate": 1.0}, {2})])
async def test_rates(endpoint, options, counts):
    """They apply to webhooks as well."""
    fake = FakeCallFire(transport=endpoint, **options)
    await create(fake)

    assert {len(await fake.emit(make_text_sent())) for _ in range(3)} == counts


# --- the shapes of API 1.1 --------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["XML", "JSON", "SOAP"])
@pytest.mark.parametrize(
    "event",
    [
        make_text_sent(to_number_attributes=(("ClientData", "x"),), labels=("one",)),
        make_text_received(),
        make_call_finished(labels=("one", "two")),
        make_campaign_started(),
    ],
)
async def test_the_shape_of_2015(endpoint, event, format):
    """It is read as the same event, but for the message of an outbound text."""
    fake = FakeCallFire(transport=endpoint, postback_shape="2015")
    for trigger_event in TriggerEvent:
        await subscribe(fake, trigger_event, notification_format=format)

    await fake.emit(event)

    received = evolve(parse(endpoint.posted[0].body), subscription_id=None)
    assert (received.key, received.problems) == (event.key, ())
    expected = evolve(event, text=evolve(event.text, message=None)) if isinstance(event, TextSent) else event
    assert received == expected


async def test_json_of_2015(endpoint):
    """A single record is a bare object, and numbers are numbers; API v2 is not affected."""
    fake = FakeCallFire(transport=endpoint, postback_shape="2015")
    await subscribe(fake, notification_format="JSON")
    await create(fake)

    await fake.emit(make_text_sent(to_number_attributes=(("ClientData", "5"),), message="Hello"))

    bodies = [json.loads(posted.body) for posted in endpoint.posted]
    text = next(body for body in bodies if "TextNotification" in body)["TextNotification"]["Text"]
    assert (text["FromNumber"], text["ToNumber"]) == (67076, {"@ClientData": "5", "value": 12135550142})
    assert (text["TextRecord"]["Message"], "Message" in text) == ("Hello", False)
    resource = next(body for body in bodies if "events" in body)["events"][0]["resource"]
    assert (resource["message"], len(resource["records"])) == ("Hello", 1)


async def test_a_word_in_place_of_a_number(endpoint):
    """It stays text."""
    fake = FakeCallFire(transport=endpoint, postback_shape="2015")
    await subscribe(fake, TriggerEvent.INBOUND_TEXT_FINISHED, notification_format="JSON")

    await fake.emit(make_text_received(from_number="anonymous"))

    assert json.loads(endpoint.posted[0].body)["TextNotification"]["Text"]["FromNumber"] == "anonymous"
