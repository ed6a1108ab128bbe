"""The fake's operations on webhooks: API v2's forms, errors, and the choices where CallFire publishes nothing."""

from datetime import UTC, datetime, timedelta

import httpx
import pytest

from callfire_async.models import WEBHOOK_EVENTS, WebhookEvent, WebhookResource
from callfire_async.testing import FakeCallFire, Fault

WEBHOOK = {
    "name": "finished texts",
    "resource": "OutboundText",
    "events": ["Finished"],
    "callback": "https://hooks.example.com/callfire/token",
}
SECRET = "a signing secret of the tests"


def client_of(fake: FakeCallFire, auth: tuple[str, str] | None = ("login", "password")) -> httpx.AsyncClient:
    """Return a bare HTTP client of a fake."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(fake), base_url="https://api.callfire.com/v2", auth=auth)


async def create(fake: FakeCallFire, **keys) -> int:
    """Create a webhook, and return its id."""
    response = await client_of(fake).post("/webhooks", json=WEBHOOK | keys)
    assert response.status_code == 201, response.text
    return response.json()["id"]


async def found(fake: FakeCallFire, **query) -> list[int]:
    """Return the ids of a list."""
    response = await client_of(fake).get("/webhooks", params=query)
    assert response.status_code == 200, response.text
    return [item["id"] for item in response.json()["items"]]


# --- the life cycle ---------------------------------------------------------------------------------------


async def test_create():
    """The response has nothing but the id, a number of 64 bits that JavaScript can read."""
    fake = FakeCallFire()

    response = await client_of(fake).post("/webhooks", json=WEBHOOK)

    (webhook,) = fake.webhooks
    assert (response.status_code, response.json()) == (201, {"id": webhook.id})
    assert response.headers["Content-Type"] == "application/json"
    assert 9 <= len(str(webhook.id)) <= 13


async def test_the_webhook_of_the_account():
    """It has the given keys and CallFire's defaults; the dates are whole milliseconds."""
    fake = FakeCallFire()
    expires_at = datetime(2100, 1, 1, tzinfo=UTC)

    await create(fake, secret=SECRET, fields="id", singleUse=True, expiresAt=4_102_444_800_000, nonStrictSsl=True)

    (webhook,) = fake.webhooks
    assert (webhook.name, webhook.enabled, webhook.resource, webhook.events) == (
        "finished texts",
        True,
        WebhookResource.OUTBOUND_TEXT,
        (WebhookEvent.FINISHED,),
    )
    assert (webhook.callback, webhook.secret, webhook.fields) == (WEBHOOK["callback"], SECRET, "id")
    assert (webhook.single_use, webhook.expires_at, webhook.non_strict_ssl) == (True, expires_at, True)
    assert webhook.created_at == webhook.updated_at
    assert timedelta() <= datetime.now(UTC) - webhook.created_at < timedelta(minutes=1)
    assert webhook.created_at.microsecond % 1000 == 0


async def test_get():
    """The secret is not returned, nor are keys without a value; dates are in milliseconds."""
    fake = FakeCallFire()
    id = await create(fake, secret=SECRET)

    response = await client_of(fake).get(f"/webhooks/{id}")

    content = response.json()
    now = datetime.now(UTC).timestamp() * 1000
    assert content.pop("createdAt") == content.pop("updatedAt") == pytest.approx(now, abs=60_000)
    assert content == {"id": id, **WEBHOOK, "enabled": True, "singleUse": False, "nonStrictSsl": False}


async def test_an_update_keeps_the_other_keys():
    """A key that is null or read-only changes nothing; the response has no body."""
    fake = FakeCallFire()
    id = await create(fake, secret=SECRET)
    (before,) = fake.webhooks

    response = await client_of(fake).put(
        f"/webhooks/{id}", json={"enabled": False, "name": None, "id": 5, "createdAt": 5, "unknown": 5}
    )

    (after,) = fake.webhooks
    assert (response.status_code, response.content) == (200, b"")
    assert (after.enabled, after.name, after.secret, after.id) == (False, "finished texts", SECRET, id)
    assert (after.created_at, after.updated_at >= before.updated_at) == (before.created_at, True)


async def test_an_update_may_replace_all_keys():
    """An option of the fake, as CallFire does not publish it."""
    fake = FakeCallFire(webhook_update="replace")
    id = await create(fake, secret=SECRET, enabled=False)

    rejected = await client_of(fake).put(f"/webhooks/{id}", json={"name": "new"})
    await client_of(fake).put(f"/webhooks/{id}", json=WEBHOOK | {"name": "new"})

    (after,) = fake.webhooks
    assert (rejected.status_code, after.name, after.secret, after.enabled) == (400, "new", None, True)


async def test_a_webhook_as_read_can_be_sent_back():
    """CallFire's Java client updates webhooks in this way."""
    fake = FakeCallFire()
    id = await create(fake)
    content = (await client_of(fake).get(f"/webhooks/{id}")).json()

    response = await client_of(fake).put(f"/webhooks/{id}", json=content | {"name": "new"})

    assert (response.status_code, fake.webhooks[0].name) == (200, "new")


async def test_delete():
    """It is gone then."""
    fake = FakeCallFire()
    id = await create(fake)

    response = await client_of(fake).delete(f"/webhooks/{id}")

    assert (response.status_code, response.content, fake.webhooks) == (204, b"", ())


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_a_deleted_webhook(method):
    """The error has the status in its body."""
    fake = FakeCallFire()
    id = await create(fake)
    await client_of(fake).delete(f"/webhooks/{id}")

    response = await client_of(fake).request(method, f"/webhooks/{id}", json={})

    error = response.json()
    assert (response.status_code, error["httpStatusCode"], error["message"]) == (404, 404, "Not Found")
    assert isinstance(error["internalCode"], str)


# --- lists ------------------------------------------------------------------------------------------------


async def test_a_list():
    """It has the paging keys, and the total of all pages."""
    fake = FakeCallFire()
    ids = [await create(fake) for _ in range(3)]

    page = (await client_of(fake).get("/webhooks", params={"limit": 2, "offset": 1})).json()

    assert [item["id"] for item in page.pop("items")] == ids[1:]
    assert page == {"limit": 2, "offset": 1, "totalCount": 3}


async def test_the_default_page_and_an_unknown_total():
    """A page has a hundred items, and CallFire may leave the total open."""
    page = (await client_of(FakeCallFire(counts_webhooks=False)).get("/webhooks")).json()

    assert page == {"items": [], "limit": 100, "offset": 0, "totalCount": -1}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"name": "b"}, [1]),
        ({"name": "nothing"}, []),
        ({"resource": "inboundtext"}, [1, 2]),
        ({"resource": "Nothing"}, []),
        ({"event": "started"}, [3]),
        ({"callback": "https://other.example"}, [2]),
        ({"enabled": "false"}, [0, 2]),
        ({"enabled": "True"}, [1, 3]),
        ({"enabled": "false", "resource": "InboundText"}, [2]),
        ({"limit": 1, "offset": 1, "enabled": "true"}, [3]),
    ],
)
async def test_the_filters_of_a_list(query, expected):
    """All given filters must match; resources and events are compared without case."""
    fake = FakeCallFire()
    ids = [
        await create(fake, enabled=False),
        await create(fake, name="b", resource="InboundText"),
        await create(fake, resource="InboundText", callback="https://other.example", enabled=False),
        await create(fake, resource="CallBroadcast", events=["Started", "Stopped"]),
    ]

    assert await found(fake, **query) == [ids[index] for index in expected]


@pytest.mark.parametrize(
    ("path", "fields", "expected"),
    [
        ("/webhooks", "limit,offset,items(name)", {"items": [{"name": "finished texts"}], "limit": 100, "offset": 0}),
        ("/webhooks", "totalCount", {"totalCount": 1}),
        ("/webhooks", " items ( name , resource ) ", {"items": [{k: WEBHOOK[k] for k in ("name", "resource")}]}),
        ("/webhooks/resources/ContactList", "resource", {"resource": "ContactList"}),
        ("/webhooks/resources/ContactList", "nothing", {}),
        ("/webhooks/resources", "items(resource)", {"items": [{"resource": str(name)} for name in WEBHOOK_EVENTS]}),
    ],
)
async def test_partial_responses(path, fields, expected):
    """The parameter `fields` selects keys at every level."""
    fake = FakeCallFire()
    await create(fake)

    assert (await client_of(fake).get(path, params={"fields": fields})).json() == expected


async def test_a_partial_webhook():
    """The parameter applies to a single one as well."""
    fake = FakeCallFire()
    id = await create(fake)

    assert (await client_of(fake).get(f"/webhooks/{id}?fields=id,name")).json() == {"id": id, "name": "finished texts"}


async def test_secrets_can_be_returned():
    """An option of the fake, as CallFire does not publish it."""
    fake = FakeCallFire(returns_secrets=True)
    id = await create(fake, secret=SECRET)

    assert (await client_of(fake).get(f"/webhooks/{id}")).json()["secret"] == SECRET


# --- resources --------------------------------------------------------------------------------------------


async def test_the_resources():
    """All eleven, without paging keys."""
    page = (await client_of(FakeCallFire()).get("/webhooks/resources")).json()

    assert page.keys() == {"items"}
    assert {item["resource"]: tuple(item["supportedEvents"]) for item in page["items"]} == WEBHOOK_EVENTS
    assert len(page["items"]) == 11


@pytest.mark.parametrize("name", ["CallBroadcast", "callbroadcast"])
async def test_one_resource(name):
    """It is found without regard to case, and comes as CallFire writes it."""
    response = await client_of(FakeCallFire()).get(f"/webhooks/resources/{name}")

    assert response.json() == {"resource": "CallBroadcast", "supportedEvents": ["Started", "Stopped", "Finished"]}


async def test_an_unknown_resource():
    """The response is 404."""
    response = await client_of(FakeCallFire()).get("/webhooks/resources/Nothing")

    assert (response.status_code, response.json()["message"]) == (404, "Not Found")


# --- errors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"resource": None}, "resource is required"),
        ({"events": []}, "events is required"),
        ({"callback": ""}, "callback is required"),
        ({"resource": "Nothing"}, "resource is unknown: Nothing"),
        ({"events": ["Started"]}, "events must be of Finished for the resource OutboundText"),
        ({"events": [5]}, "events must be of Finished for the resource OutboundText"),
        ({"events": [""]}, "events must be of Finished for the resource OutboundText"),
        ({"events": "Finished"}, "events must be an array"),
        ({"enabled": "true"}, "enabled must be a boolean"),
        ({"name": 5}, "name must be a string"),
        ({"expiresAt": True}, "expiresAt must be an integer"),
        ({"expiresAt": 10**30}, "expiresAt must be Unix time in milliseconds"),
        ({"expiresAt": -1}, "expiresAt must be Unix time in milliseconds"),
    ],
)
async def test_an_invalid_webhook(keys, message):
    """The response is 400, and nothing is created."""
    fake = FakeCallFire()

    response = await client_of(fake).post("/webhooks", json=WEBHOOK | keys)

    assert (response.status_code, response.json()["message"], fake.webhooks) == (400, message, ())


async def test_an_invalid_update_changes_nothing():
    """Its valid keys are not changed either."""
    fake = FakeCallFire()
    id = await create(fake)
    before = fake.webhooks

    response = await client_of(fake).put(f"/webhooks/{id}", json={"name": "new", "events": ["Started"]})

    assert (response.status_code, fake.webhooks) == (400, before)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b"1" * 5000])
async def test_a_body_that_is_not_json(body):
    """The response is 400."""
    response = await client_of(FakeCallFire()).post("/webhooks", content=body)

    assert (response.status_code, response.json()["message"]) == (400, "The body must be JSON in UTF-8")


async def test_a_body_that_is_not_an_object():
    """The response is 400."""
    response = await client_of(FakeCallFire()).post("/webhooks", json=[WEBHOOK])

    assert (response.status_code, response.json()["message"]) == (400, "The body must be a JSON object")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"limit": 0}, "limit must be from 1 to 1000"),
        ({"limit": 1001}, "limit must be from 1 to 1000"),
        ({"limit": "many"}, "limit must be a number"),
        ({"offset": -1}, "offset must be a number"),
        ({"enabled": "maybe"}, "enabled must be true or false"),
        ({"fields": "items(id"}, "fields must be a list of names such as id,name or items(id,name)"),
        ({"fields": "id)"}, "fields must be a list of names such as id,name or items(id,name)"),
        ({"fields": "id;name"}, "fields must be a list of names such as id,name or items(id,name)"),
    ],
)
async def test_an_invalid_query(query, message):
    """The response is 400."""
    response = await client_of(FakeCallFire()).get("/webhooks", params=query)

    assert (response.status_code, response.json()["message"]) == (400, message)


@pytest.mark.parametrize("authorization", [None, "", "Basic bG9naW46d3Jvbmc=", "Bearer bG9naW46cGFzc3dvcmQ="])
async def test_wrong_credentials(authorization):
    """The response is 401 in the form of API v2."""
    fake = FakeCallFire()
    headers = {} if authorization is None else {"Authorization": authorization}

    response = await client_of(fake, auth=None).post("/webhooks", json=WEBHOOK, headers=headers)

    assert (response.status_code, response.json()["httpStatusCode"], fake.webhooks) == (401, 401, ())
    assert response.headers["WWW-Authenticate"] == 'Basic realm="CallFire"'


@pytest.mark.parametrize(("method", "path"), [("DELETE", "/webhooks"), ("POST", "/webhooks/42")])
async def test_other_methods(method, path):
    """The response is 405 in the form of API v2."""
    response = await client_of(FakeCallFire()).request(method, path)

    assert response.json()["httpStatusCode"] == response.status_code == 405


async def test_a_fault_after_the_request_was_carried_out():
    """The webhook exists although the response is an error."""
    fake = FakeCallFire()
    fake.fail_next(Fault(status=500, carried_out=True))

    response = await client_of(fake).post("/webhooks", json=WEBHOOK)

    assert (response.status_code, response.json()["httpStatusCode"], len(fake.webhooks)) == (500, 500, 1)
