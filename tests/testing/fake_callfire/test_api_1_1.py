"""The fake's subscription operations in both formats: CallFire's quirks, errors and limits."""

import json
from xml.etree import ElementTree as ET

import httpx
import pytest

from callfire_async.models import Subscription, SubscriptionFilter
from callfire_async.testing import FakeCallFire

BASE = "https://callfire.example/api/1.1/rest"
FORM = {"Endpoint": "https://hooks.example.com/callfire/token", "TriggerEvent": "OUTBOUND_TEXT_FINISHED"}
RESOURCE = "{http://api.callfire.com/resource}"
DATA = "{http://api.callfire.com/data}"

each_ending = pytest.mark.parametrize("ending", ["", ".json"])


def client_of(fake: FakeCallFire, auth: tuple[str, str] | None = ("login", "password")) -> httpx.AsyncClient:
    """Return a bare HTTP client of a fake."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(fake), base_url=BASE, auth=auth)


def subscription(id: int, **fields) -> Subscription:
    """Return the subscription of FORM with CallFire's defaults, or with other fields."""
    defaults = {"enabled": True, "non_strict_ssl": False, "notification_format": "XML", "filter": None}
    return Subscription(id, endpoint=FORM["Endpoint"], trigger_event=FORM["TriggerEvent"], **defaults | fields)


def error_in(response: httpx.Response) -> tuple[int, str]:
    """Parse a `ResourceException` in the format of the response."""
    if response.headers["Content-Type"] == "application/json":
        content = response.json()["ResourceException"]
        return content["HttpStatus"], content["Message"]
    root = ET.fromstring(response.content)
    assert (root.tag, response.headers["Content-Type"]) == (f"{RESOURCE}ResourceException", "application/xml")
    return int(root.findtext(f"{RESOURCE}HttpStatus")), root.findtext(f"{RESOURCE}Message")


# --- responses --------------------------------------------------------------------------------------------


async def test_create_in_json():
    """The ID is a number, and the location is that of the new subscription without the ending."""
    fake = FakeCallFire()

    response = await client_of(fake).post("/subscription.json", data=FORM)

    (created,) = fake.subscriptions
    reference = {"Id": created.id, "Location": f"{BASE}/subscription/{created.id}"}
    assert (response.status_code, response.json()) == (201, {"ResourceReference": reference})


async def test_create_in_xml():
    """The response has the note of real responses."""
    fake = FakeCallFire()

    response = await client_of(fake).post("/subscription", data=FORM)

    (created,) = fake.subscriptions
    assert (response.status_code, response.headers["Content-Type"]) == (201, "application/xml")
    assert response.text == (
        '<?xml version="1.0" encoding="utf-8"?>\n'
        '<r:ResourceReference xmlns="http://api.callfire.com/data" xmlns:r="http://api.callfire.com/resource">'
        f"<r:Id>{created.id}</r:Id><r:Location>{BASE}/subscription/{created.id}</r:Location>"
        "<r:note>Processing time was 38.7ms</r:note></r:ResourceReference>"
    )


async def test_the_defaults_of_a_new_subscription():
    """They are CallFire's: enabled, in XML."""
    fake = FakeCallFire()

    await client_of(fake).post("/subscription", data=FORM)

    (created,) = fake.subscriptions
    assert created == subscription(created.id)


async def test_all_fields_of_a_form_are_stored():
    """The form has the filter's fields at the top level."""
    fake = FakeCallFire()
    form = FORM | {
        "Enabled": "false",
        "NonStrictSsl": "true",
        "NotificationFormat": "SOAP",
        "BroadcastId": "896807881003",
        "BatchId": "7",
        "FromNumber": "67076",
        "ToNumber": "67076:KEYWORD",
        "Inbound": "true",
    }

    await client_of(fake).post("/subscription", data=form)

    (created,) = fake.subscriptions
    filter = SubscriptionFilter(896807881003, 7, "67076", "67076:KEYWORD", inbound=True)
    assert created == subscription(
        created.id, enabled=False, non_strict_ssl=True, notification_format="SOAP", filter=filter
    )


async def test_get_in_json():
    """The filter is nested, and the ID is a number."""
    fake = FakeCallFire()
    await client_of(fake).post("/subscription", data=FORM | {"BroadcastId": "5"})
    (created,) = fake.subscriptions

    response = await client_of(fake).get(f"/subscription/{created.id}.json")

    assert response.json() == {
        "Resource": {
            "Subscription": {
                "@id": created.id,
                "Enabled": True,
                "Endpoint": FORM["Endpoint"],
                "NonStrictSsl": False,
                "NotificationFormat": "XML",
                "TriggerEvent": "OUTBOUND_TEXT_FINISHED",
                "SubscriptionFilter": {"BroadcastId": 5},
            }
        }
    }


async def test_get_in_xml():
    """The wrapper is in one namespace, the resource in the other."""
    fake = FakeCallFire()
    await client_of(fake).post("/subscription", data=FORM)
    (created,) = fake.subscriptions

    root = ET.fromstring((await client_of(fake).get(f"/subscription/{created.id}")).content)

    found = root.find(f"{DATA}Subscription")
    assert (root.tag, found.get("id")) == (f"{RESOURCE}Resource", str(created.id))
    assert (found.findtext(f"{DATA}Enabled"), found.find(f"{DATA}SubscriptionFilter").text) == (
        "true",
        None,
    )


@pytest.mark.parametrize("filter", [{}, {"BroadcastId": "5", "FromNumber": "67076"}])
async def test_the_order_of_elements(filter):
    """It is that of CallFire's schema; its C# client ignores what follows an element that comes too early."""
    fake = FakeCallFire()
    await client_of(fake).post("/subscription", data=FORM | filter)

    root = ET.fromstring((await client_of(fake).get(f"/subscription/{fake.subscriptions[0].id}")).content)

    subscription = root.find(f"{DATA}Subscription")
    names = [element.tag.removeprefix(DATA) for element in subscription]
    # The schema is older than this one.
    names.remove("NonStrictSsl")
    assert names == ["Enabled", "Endpoint", "NotificationFormat", "TriggerEvent", "SubscriptionFilter"]
    assert [element.tag.removeprefix(DATA) for element in subscription[-1]] == [*filter]


async def test_an_empty_filter_is_an_empty_object():
    """It is not omitted."""
    fake = FakeCallFire()
    await client_of(fake).post("/subscription", data=FORM)

    response = await client_of(fake).get(f"/subscription/{fake.subscriptions[0].id}.json")

    assert response.json()["Resource"]["Subscription"]["SubscriptionFilter"] == {}


@pytest.mark.parametrize(("number", "kind"), [(0, None), (1, list), (2, list)])
async def test_a_list_in_json(number, kind):
    """An empty list has no key; any other is an array."""
    fake = FakeCallFire()
    for _ in range(number):
        await client_of(fake).post("/subscription", data=FORM)

    found = (await client_of(fake).get("/subscription.json")).json()["ResourceList"]

    assert found["@totalResults"] == number
    assert isinstance(found.get("Subscription"), kind or type(None))


async def test_a_list_of_one_may_be_a_bare_object():
    """Some servers sent it in this form."""
    fake = FakeCallFire(list_of_one="object")
    await client_of(fake).post("/subscription", data=FORM)

    found = (await client_of(fake).get("/subscription.json")).json()["ResourceList"]

    assert found["Subscription"]["@id"] == fake.subscriptions[0].id


@pytest.mark.parametrize("number", [0, 1, 3])
async def test_a_list_in_xml(number):
    """The total is an attribute."""
    fake = FakeCallFire()
    for _ in range(number):
        await client_of(fake).post("/subscription", data=FORM)

    root = ET.fromstring((await client_of(fake).get("/subscription")).content)

    ids = [int(item.get("id")) for item in root.findall(f"{DATA}Subscription")]
    assert (root.get("totalResults"), ids) == (str(number), [item.id for item in fake.subscriptions])


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, [0, 1, 2, 3]),
        ({"MaxResults": 2}, [0, 1]),
        ({"MaxResults": 2, "FirstResult": 3}, [3]),
        ({"FirstResult": 9}, []),
    ],
)
async def test_pages(query, expected):
    """`FirstResult` starts at 0, and the total counts the whole list."""
    fake = FakeCallFire()
    for _ in range(4):
        await client_of(fake).post("/subscription", data=FORM)

    found = (await client_of(fake).get("/subscription.json", params=query)).json()["ResourceList"]

    ids = [item["@id"] for item in found.get("Subscription", [])]
    assert (ids, found["@totalResults"]) == ([fake.subscriptions[index].id for index in expected], 4)


@pytest.mark.parametrize("status", [204, 200])
@each_ending
async def test_an_update_changes_the_given_fields(status, ending):
    """Other fields keep their values; the response is empty."""
    fake = FakeCallFire(update_status=status)
    await client_of(fake).post("/subscription", data=FORM | {"BroadcastId": "5", "BatchId": "6"})
    (before,) = fake.subscriptions

    response = await client_of(fake).put(
        f"/subscription/{before.id}{ending}", data={"Enabled": "false", "BatchId": "7"}
    )

    (after,) = fake.subscriptions
    assert (response.status_code, response.content) == (status, b"")
    assert after == subscription(before.id, enabled=False, filter=SubscriptionFilter(5, 7))


@each_ending
async def test_delete(ending):
    """The subscription is deleted; a second delete does not find it."""
    fake = FakeCallFire()
    await client_of(fake).post("/subscription", data=FORM)
    path = f"/subscription/{fake.subscriptions[0].id}{ending}"

    first, second = await client_of(fake).delete(path), await client_of(fake).delete(path)

    assert (first.status_code, first.content, fake.subscriptions) == (204, b"", ())
    assert (second.status_code, error_in(second)[0]) == (404, 404)


@pytest.mark.parametrize("base", ["", "/api/1.1/rest", "/somewhere/else"])
async def test_any_base_path(base):
    """The operations are available below any path."""
    fake = FakeCallFire()
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(fake), base_url="http://x", auth=("login", "password")
    ) as client:
        response = await client.post(f"{base}/subscription.json", data=FORM)

    assert response.json()["ResourceReference"]["Location"] == f"http://x{base}/subscription/{fake.subscriptions[0].id}"


# --- a repeated RequestId ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("option", "status", "created"), [("first", 201, 1), ("ignored", 201, 2), ("refused", 400, 1)])
async def test_a_repeated_request_id_of_a_create(option, status, created):
    """It returns the first reference, creates another subscription, or fails."""
    fake = FakeCallFire(repeated_request_id=option)
    form = FORM | {"RequestId": "r1"}

    first = await client_of(fake).post("/subscription.json", data=form)
    second = await client_of(fake).post("/subscription.json", data=form)

    assert (second.status_code, len(fake.subscriptions)) == (status, created)
    assert (first.json() == second.json()) is (option == "first")


@pytest.mark.parametrize(
    ("option", "status", "enabled"), [("first", 204, True), ("ignored", 204, False), ("refused", 400, True)]
)
async def test_a_repeated_request_id_of_an_update(option, status, enabled):
    """It is ignored, carried out again, or fails."""
    fake = FakeCallFire(repeated_request_id=option)
    await client_of(fake).post("/subscription", data=FORM)
    path = f"/subscription/{fake.subscriptions[0].id}"
    await client_of(fake).put(path, data={"Enabled": "false", "RequestId": "r1"})
    await client_of(fake).put(path, data={"Enabled": "true", "RequestId": "r2"})

    response = await client_of(fake).put(path, data={"Enabled": "false", "RequestId": "r1"})

    assert (response.status_code, fake.subscriptions[0].enabled) == (status, enabled)


async def test_a_failed_request_does_not_use_its_request_id():
    """A failed create can be repeated with the same ID."""
    fake = FakeCallFire(repeated_request_id="refused")
    await client_of(fake).post("/subscription", data={"RequestId": "r1"})

    response = await client_of(fake).post("/subscription", data=FORM | {"RequestId": "r1"})

    assert response.status_code == 201


async def test_creates_without_a_request_id():
    """Two equal creates create two subscriptions."""
    fake = FakeCallFire()
    for _ in range(2):
        await client_of(fake).post("/subscription", data=FORM)

    assert len(fake.subscriptions) == 2


# --- errors -----------------------------------------------------------------------------------------------


@each_ending
@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({}, "TriggerEvent is required"),
        ({"Endpoint": "https://x.example"}, "TriggerEvent is required"),
        ({"TriggerEvent": "CAMPAIGN_STARTED"}, "Endpoint is required"),
        (FORM | {"Endpoint": ""}, "Endpoint is required"),
        (FORM | {"TriggerEvent": "NEW_ONE"}, "TriggerEvent is unknown: NEW_ONE"),
        (FORM | {"NotificationFormat": "YAML"}, "NotificationFormat is unknown: YAML"),
        (FORM | {"Enabled": "maybe"}, "not a boolean @ Subscription.Enabled"),
        (FORM | {"BroadcastId": "x"}, "not an integer @ Subscription.SubscriptionFilter.BroadcastId"),
    ],
)
async def test_an_invalid_create(ending, form, message):
    """The response is 400 in the requested format."""
    fake = FakeCallFire()

    response = await client_of(fake).post(f"/subscription{ending}", data=form)

    assert (response.status_code, error_in(response), fake.subscriptions) == (400, (400, message), ())


async def test_a_form_that_is_not_utf_8():
    """The response is 400."""
    response = await client_of(FakeCallFire()).post("/subscription", content=b"Endpoint=\xff")

    assert error_in(response) == (400, "The form is not UTF-8")


@each_ending
async def test_an_invalid_update_changes_nothing(ending):
    """Its valid fields are not changed either."""
    fake = FakeCallFire()
    await client_of(fake).post("/subscription", data=FORM)
    before = fake.subscriptions
    form = {"Enabled": "false", "NotificationFormat": "YAML"}

    response = await client_of(fake).put(f"/subscription/{before[0].id}{ending}", data=form)

    assert (error_in(response)[0], fake.subscriptions) == (400, before)


@each_ending
@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"MaxResults": "1001"}, "MaxResults must be from 1 to 1000"),
        ({"MaxResults": "0"}, "MaxResults must be from 1 to 1000"),
        ({"MaxResults": "many"}, "MaxResults must be a number"),
        ({"FirstResult": "-1"}, "FirstResult must be a number"),
        ({"FirstResult": "1" * 5000}, "FirstResult must be a number"),
        ({"FirstResult": "²"}, "FirstResult must be a number"),
    ],
)
async def test_an_invalid_query(ending, query, message):
    """A page has at most 1000 items."""
    response = await client_of(FakeCallFire()).get(f"/subscription{ending}", params=query)

    assert error_in(response) == (400, message)


@each_ending
async def test_the_maximum_number_of_subscriptions(ending):
    """The default is 10,000; a delete allows another create."""
    fake = FakeCallFire(max_subscriptions=1)
    await client_of(fake).post("/subscription", data=FORM)

    response = await client_of(fake).post(f"/subscription{ending}", data=FORM)

    assert error_in(response) == (400, "An account has at most 1 subscriptions")
    await client_of(fake).delete(f"/subscription/{fake.subscriptions[0].id}")
    assert (await client_of(fake).post(f"/subscription{ending}", data=FORM)).status_code == 201


@each_ending
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_a_missing_subscription(ending, method):
    """The response is 404, in CallFire's words."""
    response = await client_of(FakeCallFire()).request(method, f"/subscription/42{ending}")

    assert error_in(response) == (404, "Not Found")


@each_ending
@pytest.mark.parametrize("path", ["/nothing", "/subscription/", "/subscription/x", "/xsubscription"])
async def test_other_paths(ending, path):
    """The response is 404 in the format of all errors."""
    response = await client_of(FakeCallFire()).get(path + ending)

    assert error_in(response)[0] == response.status_code == 404


@each_ending
@pytest.mark.parametrize(("method", "path"), [("DELETE", "/subscription"), ("POST", "/subscription/42")])
async def test_other_methods(ending, method, path):
    """The response is 405 in the format of all errors."""
    response = await client_of(FakeCallFire()).request(method, path + ending)

    assert error_in(response)[0] == response.status_code == 405


@each_ending
@pytest.mark.parametrize(
    "authorization", [None, "", "Basic", "Basic !", "Bearer bG9naW46cGFzc3dvcmQ=", "Basic bG9naW46d3Jvbmc=", "Basic é"]
)
async def test_wrong_credentials(ending, authorization):
    """The response is 401, and nothing is created."""
    fake = FakeCallFire()
    headers = {} if authorization is None else {"Authorization": authorization.encode()}

    response = await client_of(fake, auth=None).post(f"/subscription{ending}", data=FORM, headers=headers)

    assert (error_in(response), fake.subscriptions) == ((401, "Unauthorized, API Key missing or invalid"), ())
    assert response.headers["WWW-Authenticate"] == 'Basic realm="CallFire"'


async def test_credentials_can_be_chosen():
    """All characters are allowed."""
    fake = FakeCallFire(login="lögin", password="pass:wörd")

    response = await client_of(fake, auth=("lögin", "pass:wörd")).get("/subscription.json")

    assert json.loads(response.content) == {"ResourceList": {"@totalResults": 0}}
