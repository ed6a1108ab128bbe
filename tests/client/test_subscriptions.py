"""The operations on subscriptions and `all`, against a fake CallFire and against invalid lists."""

import ssl
from datetime import UTC, datetime
from urllib.parse import parse_qs

import httpx
import pytest
import respx
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from callfire_async._codec.documents import read_form
from callfire_async.client.connection import Connection
from callfire_async.client.subscriptions import Subscriptions
from callfire_async.errors import BadRequestError, NotFoundError, ServerError, TransportError
from callfire_async.models import NotificationFormat, ResourceReference, Subscription, SubscriptionFilter, TriggerEvent
from callfire_async.testing import FakeCallFire
from callfire_async.testing.faults import Fault

BASE = "http://localhost/rest"
ENDPOINT = "https://hooks.example.com/callfire/Tok3n"
FILTER = SubscriptionFilter(broadcast_id=896807881003, batch_id=7, from_number="12135551212", to_number="67076:WORD")


async def no_sleep(_):
    """Retry without a delay."""


def without_delays(connection):
    """Make a connection retry without delays."""
    connection._retry_hooks = evolve(connection._retry_hooks, sleep=no_sleep)
    return connection


@pytest.fixture(params=["json", "xml"])
def response_format(request):
    """Both formats."""
    return request.param


@pytest.fixture(params=["first", "ignored", "refused"])
def fake(request):
    """A fake CallFire, with each way of treating a repeated RequestId."""
    return FakeCallFire(repeated_request_id=request.param)


@pytest.fixture
async def subscriptions(fake, response_format):
    """The subscriptions of its account."""
    async with fake.client(response_format=response_format, max_retries=2) as client:
        without_delays(client._connection)
        yield Subscriptions(client._connection)


def create(subscriptions, **details):
    """Create a subscription."""
    return subscriptions.create(ENDPOINT, TriggerEvent.OUTBOUND_TEXT_FINISHED, filter=FILTER, **details)


# --- the operations ---------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:non_strict_ssl")
async def test_a_created_subscription_can_be_fetched(subscriptions):
    """It has the given values and an ID."""
    reference = await create(
        subscriptions, notification_format=NotificationFormat.SOAP, enabled=True, non_strict_ssl=True
    )

    assert await subscriptions.get(reference.id) == Subscription(
        id=reference.id,
        enabled=True,
        endpoint=ENDPOINT,
        non_strict_ssl=True,
        notification_format=NotificationFormat.SOAP,
        trigger_event=TriggerEvent.OUTBOUND_TEXT_FINISHED,
        filter=FILTER,
    )
    assert reference.location.endswith(str(reference.id))


async def test_a_subscription_can_end(subscriptions):
    """The time is sent in milliseconds; another time of an existing subscription does not make it another one."""
    first, second = (datetime(2100, 1, day, 12, tzinfo=UTC) for day in (1, 2))
    reference = await create(subscriptions, expires_at=first)

    assert (await subscriptions.get(reference.id)).expires_at == first
    await subscriptions.update(reference.id, expires_at=second)
    assert (await subscriptions.get(reference.id)).expires_at == second


async def test_an_update_changes_only_given_fields(subscriptions):
    """The others stay."""
    reference = await create(subscriptions, enabled=True)
    before = await subscriptions.get(reference.id)

    await subscriptions.update(reference.id, enabled=False, endpoint="me@example.com")

    assert await subscriptions.get(reference.id) == evolve(before, enabled=False, endpoint="me@example.com")


async def test_a_deleted_subscription_does_not_exist(subscriptions):
    """Fetching it, or deleting it again, is an error."""
    reference = await create(subscriptions)
    await subscriptions.delete(reference.id)

    with pytest.raises(NotFoundError):
        await subscriptions.get(reference.id)
    with pytest.raises(NotFoundError):
        await subscriptions.delete(reference.id)


@pytest.mark.parametrize("count", [0, 1, 2, 5])
async def test_subscriptions_are_listed_and_paged(subscriptions, count):
    """For any number of them; a page has the total."""
    ids = [(await create(subscriptions)).id for _ in range(count)]

    page = await subscriptions.query(max_results=2, first_result=1)

    assert [item.id async for item in subscriptions.all(page_size=2)] == ids
    assert [item.id async for item in subscriptions.all()] == ids
    assert [item.id for item in page.items] == ids[1:3]
    assert (page.total_results, page.first_result) == (count, 1)


@pytest.mark.parametrize(
    "call",
    [
        lambda subscriptions: subscriptions.create("", TriggerEvent.CAMPAIGN_STARTED),
        lambda subscriptions: subscriptions.get(0),
        lambda subscriptions: subscriptions.update(-1, enabled=True),
        lambda subscriptions: subscriptions.update(1, endpoint=""),
        lambda subscriptions: subscriptions.delete(0),
        lambda subscriptions: subscriptions.query(max_results=1001),
        lambda subscriptions: subscriptions.query(first_result=-1),
        lambda subscriptions: anext(subscriptions.all(page_size=0)),
    ],
)
async def test_a_parameter_out_of_range_is_never_sent(call):
    """It is a ValueError."""
    with respx.mock(assert_all_called=False) as network:
        route = network.route()
        async with Connection("login", "password", base_url=BASE, ssl_context=CONTEXT) as connection:
            with pytest.raises(ValueError, match=r"must"):
                await call(Subscriptions(connection))

    assert not route.called


# --- unknown outcomes -------------------------------------------------------------------------------------

RESPONSE_LOST = [
    Fault(cut="answer"),
    Fault(cut="body"),
    Fault(status=503, carried_out=True),
    Fault(status=500, html=True, carried_out=True),
]
NOT_EXECUTED = [Fault(cut="request"), Fault(status=503), Fault(status=429)]


@pytest.mark.parametrize("fault", RESPONSE_LOST, ids=str)
async def test_a_create_whose_response_is_lost_returns_the_subscription(fake, subscriptions, fault):
    """There is one, whatever CallFire does with a repeated RequestId."""
    fake.fail_next(fault)

    reference = await create(subscriptions)

    assert reference == ResourceReference(fake.subscriptions[0].id)
    assert len(fake.subscriptions) == 1


@pytest.mark.parametrize("fault", NOT_EXECUTED, ids=str)
async def test_a_create_that_was_not_executed_is_repeated(fake, subscriptions, fault):
    """There is one in the end."""
    fake.fail_next(fault)

    reference = await create(subscriptions)

    assert [item.id for item in fake.subscriptions] == [reference.id]


async def test_an_older_identical_subscription_counts_as_created(fake, subscriptions):
    """After an unknown outcome."""
    older = await create(subscriptions)
    fake.fail_next(Fault(cut="request"))

    assert await create(subscriptions) == ResourceReference(older.id)
    assert len(fake.subscriptions) == 1


async def test_a_different_subscription_does_not_count_as_created(fake, subscriptions):
    """Endpoint, trigger and filter must be equal."""
    other = await subscriptions.create(ENDPOINT, TriggerEvent.OUTBOUND_TEXT_FINISHED)
    fake.fail_next(Fault(cut="request"))

    reference = await create(subscriptions)

    assert reference.id != other.id
    assert len(fake.subscriptions) == 2


async def test_a_lookup_is_not_retried(fake, subscriptions):
    """If it fails, the create is an error, and nothing is created twice."""
    fake.fail_next(Fault(cut="answer"), Fault(status=503), Fault(status=503))

    with pytest.raises(TransportError) as caught:
        await create(subscriptions)

    assert (caught.value.method, caught.value.__notes__) == (
        "POST",
        ["POST /subscription may have been executed"],
    )
    assert len(fake.subscriptions) == 1


@pytest.mark.parametrize("fault", [*RESPONSE_LOST, *NOT_EXECUTED], ids=str)
async def test_a_delete_of_unknown_outcome_is_repeated(fake, subscriptions, fault):
    """A 404 is a success then."""
    reference = await create(subscriptions)
    fake.fail_next(fault)

    await subscriptions.delete(reference.id)

    assert not fake.subscriptions


@pytest.mark.parametrize("fault", NOT_EXECUTED, ids=str)
async def test_an_update_of_unknown_outcome_is_repeated(fake, subscriptions, fault):
    """It is idempotent."""
    reference = await create(subscriptions, enabled=True)
    fake.fail_next(fault)

    await subscriptions.update(reference.id, enabled=False)

    assert fake.subscriptions[0].enabled is False


@pytest.mark.parametrize("fault", RESPONSE_LOST, ids=str)
async def test_an_update_whose_response_is_lost_succeeds(fake, subscriptions, fault):
    """If the repetition is rejected and the subscription has all new values."""
    reference = await create(subscriptions, enabled=True)
    before = await subscriptions.get(reference.id)
    fake.fail_next(fault)

    await subscriptions.update(reference.id, enabled=False, endpoint="me@example.com")

    assert fake.subscriptions == (evolve(before, enabled=False, endpoint="me@example.com"),)


async def test_an_update_that_is_rejected_for_another_reason_is_an_error(fake, subscriptions):
    """The note says that an earlier attempt may have been executed."""
    reference = await create(subscriptions, enabled=True)
    fake.fail_next(Fault(cut="request"), Fault(status=400))

    with pytest.raises(BadRequestError) as caught:
        await subscriptions.update(reference.id, enabled=False)

    path = f"/subscription/{reference.id}"
    assert caught.value.__notes__ == [f"PUT {path} may have been executed"]
    assert fake.subscriptions[0].enabled is True


async def test_an_update_that_is_rejected_at_once_is_not_looked_up(fake, subscriptions):
    """Nothing is ambiguous."""
    reference = await create(subscriptions, enabled=True)
    fake.fail_next(Fault(status=400))

    with pytest.raises(BadRequestError) as caught:
        await subscriptions.update(reference.id, enabled=True)

    assert not hasattr(caught.value, "__notes__")


async def test_an_update_of_a_deleted_subscription_is_an_error(fake, subscriptions):
    """The lookup finds nothing, and the error is the update's."""
    reference = await create(subscriptions)
    fake.fail_next(Fault(cut="answer"))

    async def delete_meanwhile(_):
        fake._subscription_store.delete(reference.id)

    subscriptions._connection._retry_hooks = evolve(subscriptions._connection._retry_hooks, sleep=delete_meanwhile)
    with pytest.raises(NotFoundError) as caught:
        await subscriptions.update(reference.id, enabled=False)

    assert caught.value.method == "PUT"


# --- RequestId --------------------------------------------------------------------------------------------

CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@pytest.fixture
def network():
    """A respx router."""
    with respx.mock(base_url=BASE) as network:
        yield network


@pytest.fixture
async def edge(network):
    """Subscriptions over it."""
    async with Connection("login", "password", base_url=BASE, ssl_context=CONTEXT) as connection:
        yield Subscriptions(without_delays(connection))


def request_ids(route):
    """Return the RequestId of each request."""
    return [read_form(call.request.content)["RequestId"] for call in route.calls]


async def test_all_attempts_of_a_create_have_one_request_id(network, edge):
    """Each create has a new one of 32 hexadecimal digits."""
    created = httpx.Response(201, json={"ResourceReference": {"Id": 7}})
    network.get("/subscription.json").respond(json={"ResourceList": {}})
    route = network.post("/subscription.json").mock(
        side_effect=[httpx.Response(503), httpx.ConnectError("no"), created, created]
    )

    for _ in range(2):
        await edge.create(ENDPOINT, TriggerEvent.CAMPAIGN_STARTED)

    first, second, third, other = request_ids(route)
    assert first == second == third != other
    assert len(bytes.fromhex(first)) == 16


async def test_all_attempts_of_an_update_have_one_request_id(network, edge):
    """The error contains it too."""
    route = network.put("/subscription/7.json").respond(503)

    with pytest.raises(ServerError) as caught:
        await edge.update(7, enabled=True)

    assert len(route.calls) == 4
    assert set(request_ids(route)) == {caught.value.request_id}


async def test_a_given_request_id_is_sent(network, edge):
    """A create can be repeated after a restart."""
    post = network.post("/subscription.json").respond(201, json={"ResourceReference": {"Id": 7}})
    put = network.put("/subscription/7.json").respond(204)

    await edge.create(ENDPOINT, TriggerEvent.CAMPAIGN_STARTED, request_id="first-id")
    await edge.update(7, request_id="second-id")

    assert [*request_ids(post), *request_ids(put)] == ["first-id", "second-id"]


# --- invalid lists ----------------------------------------------------------------------------------------


class Listing:
    """Responds to queries with the page that *page* returns for FirstResult and MaxResults."""

    def __init__(self, page):
        self.page = page
        self.queries = 0

    def __call__(self, request):
        """Respond to one query."""
        self.queries += 1
        query = {name: int(values[0]) for name, values in parse_qs(request.url.query.decode()).items()}
        ids, total = self.page(query["FirstResult"], query["MaxResults"])
        head = {} if total is None else {"@totalResults": total}
        return httpx.Response(200, json={"ResourceList": head | {"Subscription": [{"@id": number} for number in ids]}})

    async def listed(self, page_size):
        """List all through `Subscriptions.all`."""
        async with httpx.AsyncClient(transport=httpx.MockTransport(self), verify=CONTEXT) as http_client:
            connection = Connection("login", "password", base_url=BASE, http_client=http_client)
            return [item.id async for item in Subscriptions(connection).all(page_size=page_size)]


@pytest.mark.parametrize("total", [5, None, 999])
@pytest.mark.parametrize("page_size", [1, 2, 3, 5, 1000])
@pytest.mark.parametrize("limit", [1, 2, 1000])
async def test_short_pages_and_a_wrong_total_lose_nothing(total, page_size, limit):
    """A page that is shorter than requested is not the last one."""
    ids = [11, 12, 13, 14, 15]
    listing = Listing(lambda first, size: (ids[first : first + min(size, limit)], total))

    assert await listing.listed(page_size) == ids


@pytest.mark.parametrize("total", [None, 10**18])
async def test_an_endlessly_repeated_page_ends(total):
    """A server that ignores FirstResult returns each ID once."""
    listing = Listing(lambda *_: ([1, 2, 3], total))

    assert await listing.listed(1000) == [1, 2, 3]
    assert listing.queries < 5
    assert await listing.listed(1) == [1, 2, 3]
    assert listing.queries < 110


async def test_an_endless_list_ends():
    """At the maximum."""
    listing = Listing(lambda first, size: (range(first + 1, first + size + 1), None))

    assert len(await listing.listed(1000)) == 100_000


async def test_shifted_ids_are_yielded_once():
    """An ID that is on two pages is skipped, and the listing continues."""
    pages = iter([[1, 2], [1, 2], [3, 4], [4, 5], []])
    listing = Listing(lambda *_: (next(pages), None))

    assert await listing.listed(2) == [1, 2, 3, 4, 5]


async def test_a_repeated_id_on_one_page_is_yielded_once():
    """The second one is skipped."""
    assert await Listing(lambda *_: ([1, 1, 2], 3)).listed(10) == [1, 2]


@given(data=st.data(), page_size=st.integers(1, 7), has_total=st.booleans())
async def test_a_listing_neither_repeats_nor_loses_ids(data, page_size, has_total):
    """If subscriptions are added meanwhile."""
    present = list(range(100, 100 + data.draw(st.integers(0, 12))))
    account = list(present)
    new = iter(range(1000, 2000))

    def page(first, size):
        for _ in range(data.draw(st.integers(0, 2)) if len(account) < len(present) + 10 else 0):
            account.insert(data.draw(st.integers(0, len(account))), next(new))
        return account[first : first + data.draw(st.integers(1, size))], len(account) if has_total else None

    listed = await Listing(page).listed(page_size)

    assert len(listed) == len(set(listed))
    assert set(present) <= set(listed)


async def test_a_listing_can_be_stopped_early():
    """No further page is fetched."""
    listing = Listing(lambda first, _: ([first + 1], 100))
    async with httpx.AsyncClient(transport=httpx.MockTransport(listing), verify=CONTEXT) as http_client:
        subscriptions = Subscriptions(Connection("login", "password", base_url=BASE, http_client=http_client))
        async for item in subscriptions.all(page_size=1):
            if item.id == 3:
                break

    assert listing.queries == 3
