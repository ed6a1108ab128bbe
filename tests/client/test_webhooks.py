"""The operations on webhooks and `all`, against a fake CallFire and against other servers."""

import json
import ssl
import warnings
from datetime import UTC, datetime

import httpx
import pytest
import respx
from attrs import evolve

from callfire_async import CallFire, Page, ResourceReference, Webhook, WebhookEvent, WebhookResource
from callfire_async.errors import (
    BadRequestError,
    NotFoundError,
    RateLimitError,
    ResponseError,
    ServerError,
    TransportError,
)
from callfire_async.models import WEBHOOK_EVENTS
from callfire_async.testing import FakeCallFire
from callfire_async.testing.faults import Fault

BASE = "http://localhost/v2"
CALLBACK = "https://hooks.example.com/callfire/Tok3n"
SECRET = "a-secret-of-enough-letters"
CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


async def no_sleep(_):
    """Retry without a delay."""


def without_delays(client):
    """Make a client retry without delays; return its webhooks."""
    client._connection._retry_hooks = evolve(client._connection._retry_hooks, sleep=no_sleep)
    return client.webhooks


@pytest.fixture
def fake():
    """A fake CallFire that returns secrets."""
    return FakeCallFire(returns_secrets=True)


@pytest.fixture
async def webhooks(fake):
    """The webhooks of its account."""
    async with fake.client(max_retries=2) as client:
        yield without_delays(client)


@pytest.fixture
def network():
    """A respx router."""
    with respx.mock(base_url=BASE) as network:
        yield network


@pytest.fixture
async def edge(network):
    """Webhooks over it."""
    async with CallFire("login", "password", webhooks_base_url=BASE, ssl_context=CONTEXT) as client:
        yield without_delays(client)


def create(webhooks, **details):
    """Create a webhook."""
    return webhooks.create(CALLBACK, WebhookResource.OUTBOUND_TEXT, **({"name": "texts"} | details))


# --- the operations ---------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:non_strict_ssl")
async def test_a_created_webhook_can_be_fetched(webhooks):
    """It has the given values, an ID and times."""
    expires_at = datetime(2030, 1, 1, tzinfo=UTC)

    reference = await webhooks.create(
        CALLBACK,
        "textbroadcast",
        events=["started"],
        name="texts",
        enabled=False,
        secret=SECRET,
        single_use=True,
        expires_at=expires_at,
        non_strict_ssl=True,
        fields="events(id)",
    )

    webhook = await webhooks.get(reference.id)
    assert reference == ResourceReference(webhook.id, None)
    assert evolve(webhook, created_at=None, updated_at=None) == Webhook(
        id=reference.id,
        name="texts",
        enabled=False,
        resource=WebhookResource.TEXT_BROADCAST,
        events=(WebhookEvent.STARTED,),
        callback=CALLBACK,
        secret=SECRET,
        fields="events(id)",
        single_use=True,
        expires_at=expires_at,
        non_strict_ssl=True,
    )
    assert webhook.created_at.tzinfo is UTC


async def test_a_webhook_is_enabled_and_has_all_events_by_default(webhooks):
    """CallFire's own default of enabled is not certain, so it is sent."""
    reference = await webhooks.create(CALLBACK, WebhookResource.CALL_BROADCAST)

    webhook = await webhooks.get(reference.id)

    assert (webhook.enabled, webhook.events) == (True, WEBHOOK_EVENTS[WebhookResource.CALL_BROADCAST])


async def test_an_update_changes_only_given_fields(webhooks):
    """The others stay."""
    reference = await create(webhooks)
    before = await webhooks.get(reference.id)

    await webhooks.update(reference.id, enabled=False, callback="https://h.example/2")

    after = await webhooks.get(reference.id)
    assert after == evolve(before, enabled=False, callback="https://h.example/2", updated_at=after.updated_at)


async def test_a_deleted_webhook_does_not_exist(webhooks):
    """Fetching it, or deleting it again, is an error."""
    reference = await create(webhooks)
    await webhooks.delete(reference.id)

    with pytest.raises(NotFoundError) as caught:
        await webhooks.get(reference.id)
    with pytest.raises(NotFoundError):
        await webhooks.delete(reference.id)

    assert caught.value.code == "404"


async def test_webhooks_are_filtered(webhooks):
    """By name, resource, event, callback and whether they are enabled."""
    texts = await create(webhooks)
    calls = await webhooks.create("https://h.example/2", WebhookResource.CALL_BROADCAST, enabled=False)

    async def found(**filters):
        page = await webhooks.query(**filters)
        listed = [webhook async for webhook in webhooks.all(**filters)]
        assert tuple(listed) == page.items
        return [webhook.id for webhook in page.items]

    assert await found(name="texts") == [texts.id]
    assert await found(resource="CallBroadcast") == [calls.id]
    assert await found(event=WebhookEvent.STARTED) == [calls.id]
    assert await found(callback=CALLBACK) == [texts.id]
    assert await found(enabled=False) == [calls.id]
    assert await found(enabled=True) == [texts.id]
    assert await found() == [texts.id, calls.id]


async def test_a_response_can_be_limited(webhooks):
    """Fields that CallFire does not return are None."""
    reference = await create(webhooks)

    assert await webhooks.get(reference.id, fields="name") == Webhook(reference.id, name="texts")
    page = await webhooks.query(fields="items(id,name)")
    assert page == Page((Webhook(reference.id, name="texts"),), None, 0)
    assert [webhook async for webhook in webhooks.all(fields="items(id)")] == [Webhook(reference.id)]


@pytest.mark.parametrize("counts_webhooks", [True, False])
async def test_webhooks_are_listed_and_paged(counts_webhooks):
    """With and without a total."""
    fake = FakeCallFire(counts_webhooks=counts_webhooks)
    async with fake.client() as client:
        for number in range(250):
            await client.webhooks.create(f"https://h.example/{number}", WebhookResource.INBOUND_TEXT)
        ids = [webhook.id for webhook in fake.webhooks]

        page = await client.webhooks.query(limit=2, offset=1)

        assert [webhook.id async for webhook in client.webhooks.all()] == ids
        assert [webhook.id async for webhook in client.webhooks.all(page_size=7)] == ids
        assert [webhook.id for webhook in page.items] == ids[1:3]
        assert (page.total_results, page.first_result) == (250 if counts_webhooks else None, 1)


async def test_the_resources_are_listed(webhooks):
    """With the events that CallFire supports."""
    resources = await webhooks.resources()

    assert {info.resource: info.events for info in resources} == WEBHOOK_EVENTS


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda webhooks: webhooks.create("", "OutboundText"), ValueError, "callback must"),
        (lambda webhooks: webhooks.create(CALLBACK, ""), ValueError, "resource must"),
        (lambda webhooks: webhooks.create(CALLBACK, "New"), ValueError, "events must be given"),
        (lambda webhooks: webhooks.create(CALLBACK, "New", events=[]), ValueError, "events must not be empty"),
        (lambda webhooks: webhooks.update(1, events="Finished"), TypeError, "events must be a list"),
        (lambda webhooks: webhooks.update(-1, enabled=True), ValueError, "webhook_id must"),
        (lambda webhooks: webhooks.update(1, callback="no-scheme"), ValueError, "callback must"),
        (lambda webhooks: webhooks.get(0), ValueError, "webhook_id must"),
        (lambda webhooks: webhooks.get("7"), TypeError, "webhook_id must"),
        (
            lambda webhooks: webhooks.get(Webhook(7)),
            TypeError,
            "webhook_id must be an integer, not Webhook: pass its id",
        ),
        (lambda webhooks: webhooks.get(1, fields=""), ValueError, "fields must"),
        (lambda webhooks: webhooks.delete(0), ValueError, "webhook_id must"),
        (lambda webhooks: webhooks.query(limit=0), ValueError, "limit must be an integer from 1 to 1000"),
        (lambda webhooks: webhooks.query(limit=1001), ValueError, "limit must"),
        (lambda webhooks: webhooks.query(offset=-1), ValueError, "offset must"),
        (lambda webhooks: webhooks.query(enabled="yes"), TypeError, "enabled must"),
        (lambda webhooks: webhooks.query(resource=WebhookEvent.FINISHED), TypeError, "resource must"),
        (lambda webhooks: webhooks.query(event=""), ValueError, "event must"),
        (lambda webhooks: anext(webhooks.all(page_size=0)), ValueError, "page_size must"),
        (lambda webhooks: anext(webhooks.all(callback=7)), TypeError, "callback must"),
    ],
)
async def test_a_wrong_parameter_is_never_sent(call, error, message):
    """The message begins with its name."""
    with respx.mock(assert_all_called=False) as network:
        route = network.route()
        async with CallFire("login", "password", webhooks_base_url=BASE, ssl_context=CONTEXT) as client:
            with pytest.raises(error, match=f"^{message}"):
                await call(client.webhooks)

    assert not route.called


async def test_all_checks_its_parameters_when_it_is_called(webhooks):
    """Not when the first webhook is requested."""
    with pytest.raises(TypeError, match=r"^enabled must"):
        webhooks.all(enabled="yes")


# --- requests ---------------------------------------------------------------------------------------------


async def test_requests_go_to_the_api_v2(network, edge):
    """With the account's credentials, JSON, and whatever format API 1.1 uses."""
    route = network.post("/webhooks").respond(201, json={"id": 7})

    assert await create(edge, secret=SECRET) == ResourceReference(7)

    request = route.calls.last.request
    assert request.headers["Authorization"] == "Basic bG9naW46cGFzc3dvcmQ="
    assert request.headers["Content-Type"] == "application/json"
    assert json.loads(request.content) == {
        "callback": CALLBACK,
        "resource": "OutboundText",
        "events": ["Finished"],
        "name": "texts",
        "enabled": True,
        "secret": SECRET,
    }


async def test_the_default_urls_are_those_of_callfire():
    """Each API generation has its own."""
    with respx.mock() as network:
        network.get("https://api.callfire.com/v2/webhooks/7").respond(json={"id": 7})
        async with CallFire("login", "password", ssl_context=CONTEXT) as client:
            assert await client.webhooks.get(7) == Webhook(7)
            assert await client.with_options(timeout=5).webhooks.get(7) == Webhook(7)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://api.callfire.com/v2", "webhooks_base_url must use https"),
        ("", "webhooks_base_url must be a URL with https and a host, such as https://api.callfire.com/v2"),
        ("https://a:b@api.callfire.com", "webhooks_base_url must not contain credentials"),
        ("https://api.callfire.com?x", "webhooks_base_url must not have a query"),
        ("https://[", "webhooks_base_url is not a URL"),
    ],
)
def test_a_wrong_url_is_an_error(url, message):
    """As for API 1.1."""
    with pytest.raises(ValueError, match=message):
        CallFire("login", "password", webhooks_base_url=url)


async def test_a_rate_limit_is_retried(network, edge):
    """With CallFire's delay; a create is safe to repeat, because it was not executed."""
    slept = []

    async def sleep(seconds):
        slept.append(seconds)

    edge._connection._retry_hooks = evolve(edge._connection._retry_hooks, sleep=sleep)
    limited = httpx.Response(429, headers={"Retry-After": "7"}, json={"message": "Rate Limit Reached"})
    network.post("/webhooks").mock(side_effect=[limited, httpx.Response(201, json={"id": 7})])

    assert (await create(edge)).id == 7
    assert slept == [7]


async def test_a_long_rate_limit_is_an_error(network, edge):
    """The error has the delay, CallFire's message and its code."""
    network.get("/webhooks/7").respond(
        429, headers={"Retry-After": "3600"}, json={"message": "Rate Limit Reached", "internalCode": 42}
    )

    with pytest.raises(RateLimitError, match="Rate Limit Reached") as caught:
        await edge.get(7)

    assert (caught.value.retry_after, caught.value.code, caught.value.attempts) == (3600, "42", 1)


async def test_redirects_are_never_followed(network, edge):
    """The password could reach another server."""
    network.get("/webhooks/7").respond(302, headers={"Location": "https://evil.example/"})

    with pytest.raises(ResponseError, match="redirects are never followed"):
        await edge.get(7)


async def test_a_huge_response_is_an_error(network, edge):
    """Above 16 MiB."""
    network.get("/webhooks/7").respond(content=b" " * (16 * 2**20 + 1))

    with pytest.raises(ResponseError, match="longer than"):
        await edge.get(7)


async def test_the_list_of_a_proxy_creates_nothing_twice(network, edge):
    """A lookup whose response is not a list is an error of the create."""
    network.post("/webhooks").respond(503)
    network.get("/webhooks").respond(json={"status": "maintenance"})

    with pytest.raises(ServerError) as caught:
        await create(edge)

    assert caught.value.__notes__ == ["POST /webhooks may have been executed"]
    assert len([call for call in network.calls if call.request.method == "POST"]) == 1


# --- unknown outcomes -------------------------------------------------------------------------------------

RESPONSE_LOST = [
    Fault(cut="answer"),
    Fault(cut="body"),
    Fault(status=503, carried_out=True),
    Fault(status=500, html=True, carried_out=True),
]
NOT_EXECUTED = [Fault(cut="request"), Fault(status=503), Fault(status=429)]


@pytest.mark.parametrize("details", [{}, {"name": None}, {"single_use": True, "secret": SECRET}])
@pytest.mark.parametrize("fault", RESPONSE_LOST, ids=str)
async def test_a_create_whose_response_is_lost_returns_the_webhook(fake, webhooks, fault, details):
    """There is one."""
    fake.fail_next(fault)

    reference = await create(webhooks, **details)

    assert reference == ResourceReference(fake.webhooks[0].id)
    assert len(fake.webhooks) == 1


@pytest.mark.parametrize("fault", NOT_EXECUTED, ids=str)
async def test_a_create_that_was_not_executed_is_repeated(fake, webhooks, fault):
    """There is one in the end."""
    fake.fail_next(fault)

    reference = await create(webhooks)

    assert [webhook.id for webhook in fake.webhooks] == [reference.id]


async def test_an_older_identical_webhook_counts_as_created(fake, webhooks):
    """After an unknown outcome, even if it has another secret or is not enabled."""
    older = await create(webhooks, enabled=False, secret=SECRET)
    fake.fail_next(Fault(cut="request"))

    assert await create(webhooks) == ResourceReference(older.id)
    assert len(fake.webhooks) == 1


@pytest.mark.parametrize(
    "details",
    [
        {"callback": "https://h.example/2"},
        {"resource": WebhookResource.INBOUND_TEXT},
        {"name": "other"},
        {"resource": WebhookResource.TEXT_BROADCAST, "events": [WebhookEvent.STARTED]},
    ],
)
async def test_a_different_webhook_does_not_count_as_created(fake, webhooks, details):
    """Callback, resource, events and name must be equal."""
    wanted = {"callback": CALLBACK, "resource": WebhookResource.OUTBOUND_TEXT, "name": "texts"}
    other = await webhooks.create(**(wanted | details))
    fake.fail_next(Fault(cut="request"))

    reference = await webhooks.create(**wanted)

    assert reference.id != other.id
    assert len(fake.webhooks) == 2


async def test_a_webhook_on_a_later_page_is_found(fake, webhooks):
    """The lookup reads the whole list."""
    for number in range(120):
        await webhooks.create(f"https://h.example/{number}", WebhookResource.INBOUND_TEXT)
    fake.fail_next(Fault(cut="answer"))

    await create(webhooks)

    assert len(fake.webhooks) == 121


async def test_a_lookup_is_not_retried(fake, webhooks):
    """If it fails, the create is an error, and nothing is created twice."""
    fake.fail_next(Fault(cut="answer"), Fault(status=503), Fault(status=503))

    with pytest.raises(TransportError) as caught:
        await create(webhooks)

    assert (caught.value.method, caught.value.__notes__) == ("POST", ["POST /webhooks may have been executed"])
    assert len(fake.webhooks) == 1


@pytest.mark.parametrize("fault", [*RESPONSE_LOST, *NOT_EXECUTED], ids=str)
async def test_a_delete_of_unknown_outcome_is_repeated(fake, webhooks, fault):
    """A 404 is a success then."""
    reference = await create(webhooks)
    fake.fail_next(fault)

    await webhooks.delete(reference.id)

    assert not fake.webhooks


@pytest.mark.parametrize("fault", [*RESPONSE_LOST, *NOT_EXECUTED], ids=str)
async def test_an_update_of_unknown_outcome_is_repeated(fake, webhooks, fault):
    """It is idempotent."""
    reference = await create(webhooks)
    fake.fail_next(fault)

    await webhooks.update(reference.id, enabled=False)

    assert fake.webhooks[0].enabled is False


async def test_a_rejected_update_is_an_error(fake, webhooks):
    """With CallFire's message."""
    reference = await create(webhooks)

    with pytest.raises(BadRequestError, match="events must be of Finished"):
        await webhooks.update(reference.id, events=["Received"])

    assert fake.webhooks[0].events == (WebhookEvent.FINISHED,)


# --- warnings ---------------------------------------------------------------------------------------------


async def warnings_of(webhooks, callback=CALLBACK, **details):
    """Create and update a webhook; return the warnings, which must be the same twice."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        reference = await webhooks.create(callback, WebhookResource.OUTBOUND_TEXT, **details)
        created = len(caught)
        await webhooks.update(reference.id, callback=callback, **details)
    assert {warning.filename for warning in caught} <= {__file__}
    messages = [str(warning.message) for warning in caught]
    assert messages[:created] == messages[created:]
    return messages[:created]


@pytest.mark.parametrize(
    ("details", "beginnings"),
    [
        ({}, []),
        ({"secret": "sixteen letters!", "non_strict_ssl": False}, []),
        ({"callback": "http://127.0.0.1:8000/Tok3n"}, []),
        ({"callback": "sms:callfire"}, []),
        ({"callback": "http://h.example/Tok3n"}, ["callback uses http://"]),
        ({"non_strict_ssl": True}, ["non_strict_ssl=True: CallFire does not verify the callback's certificate"]),
        ({"secret": "fifteen letters"}, ["secret has fewer than 16 characters"]),
        ({"secret": ""}, ["secret has fewer than 16 characters"]),
    ],
)
async def test_settings_that_are_not_safe_cause_a_warning(webhooks, details, beginnings):
    """It points at the caller's line, and does not quote the value."""
    found = await warnings_of(webhooks, **details)

    assert [message.startswith(beginning) for message, beginning in zip(found, beginnings, strict=True)] == [
        True for _ in beginnings
    ]
    assert "Tok3n" not in "".join(found)
    assert "fifteen" not in "".join(found)


async def test_a_warning_precedes_the_request(fake, webhooks):
    """If warnings are errors, nothing is created."""
    with pytest.raises(UserWarning):
        await create(webhooks, secret="short")

    assert not fake.webhooks
