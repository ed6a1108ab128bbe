"""Faults of the fake's responses, in process and over real connections."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from notifications.servers import uvicorn_server

from callfire_async import CallFire, TriggerEvent
from callfire_async.testing import FakeCallFire, Fault
from callfire_async.testing.fake_callfire import _ASGITransport

FORM = {"Endpoint": "https://hooks.example.com/token", "TriggerEvent": "OUTBOUND_TEXT_FINISHED"}


@pytest.fixture
def fake() -> FakeCallFire:
    """Return a fake that ignores repeated request IDs."""
    return FakeCallFire(repeated_request_id="ignored")


@pytest.fixture(params=["in process", "over a connection"])
async def http(request, fake) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a bare HTTP client of the fake, in process and through a real server."""
    if request.param == "in process":
        transport = _ASGITransport(fake)
        async with httpx.AsyncClient(
            transport=transport, base_url="https://callfire.example", auth=("login", "password")
        ) as client:
            yield client
    else:
        async with (
            uvicorn_server(fake) as port,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", auth=("login", "password")) as client,
        ):
            yield client


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"carried_out": True},
        {"retry_after": 5},
        {"html": True},
        {"status": 503, "cut": "request"},
        {"cut": "request", "carried_out": True},
    ],
)
def test_a_fault_without_effect_is_rejected(options):
    """A test that passes such arguments has made a mistake."""
    with pytest.raises(TypeError):
        Fault(**options)


@pytest.mark.parametrize(("ending", "start"), [("", b"<?xml"), (".json", b'{"ResourceException":{"HttpStatus":503,')])
async def test_a_status(http, fake, ending, start):
    """The response has the requested format, and the request is not carried out."""
    fake.fail_next(Fault(status=503))

    response = await http.post(f"/subscription{ending}", data=FORM)

    assert (response.status_code, response.content.startswith(start), fake.subscriptions) == (503, True, ())


async def test_an_error_after_the_request_was_carried_out(http, fake):
    """A proxy may respond like this after a timeout."""
    fake.fail_next(Fault(status=504, carried_out=True, html=True))

    response = await http.post("/subscription", data=FORM)

    assert (response.status_code, response.headers["Content-Type"]) == (504, "text/html; charset=utf-8")
    assert response.text.startswith("<html>")
    assert len(fake.subscriptions) == 1


@pytest.mark.parametrize("wait", [7, 0.5, "Fri, 26 Oct 2012 21:32:52 GMT"])
async def test_retry_after(http, fake, wait):
    """The header has seconds or a date."""
    fake.fail_next(Fault(status=429, retry_after=wait))

    response = await http.get("/subscription")

    assert (response.status_code, response.headers["Retry-After"]) == (429, str(wait))


async def test_a_delayed_response(http, fake):
    """The request is carried out before the response is sent."""
    carried_out, release = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        carried_out.set()
        await release.wait()

    fake.fail_next(Fault(hold=hold))
    request = asyncio.create_task(http.post("/subscription", data=FORM))
    await carried_out.wait()

    assert (request.done(), len(fake.subscriptions)) == (False, 1)
    release.set()
    assert (await request).status_code == 201


@pytest.mark.parametrize(("cut", "created"), [("request", 0), ("answer", 1), ("body", 1)])
@pytest.mark.parametrize("ending", ["", ".json"])
async def test_a_connection_that_is_cut(http, fake, cut, created, ending):
    """There is no response; whether the request is carried out depends on when the connection is cut."""
    fake.fail_next(Fault(cut=cut))

    with pytest.raises(httpx.RemoteProtocolError):
        await http.post(f"/subscription{ending}", data=FORM)

    assert len(fake.subscriptions) == created


async def test_a_response_without_a_body_is_cut_before_it_is_sent(http, fake):
    """There is no body to cut."""
    await http.post("/subscription", data=FORM)
    fake.fail_next(Fault(cut="body"))

    with pytest.raises(httpx.RemoteProtocolError):
        await http.delete(f"/subscription/{fake.subscriptions[0].id}")

    assert fake.subscriptions == ()


async def test_an_error_response_that_is_cut(http, fake):
    """Error responses can be cut too."""
    fake.fail_next(Fault(status=500, cut="body"))

    with pytest.raises(httpx.RemoteProtocolError):
        await http.get("/subscription")


async def test_faults_are_injected_in_order(http, fake):
    """Each fault affects one request; later requests succeed."""
    fake.fail_next(Fault(status=500), Fault(cut="answer"))
    fake.fail_next(Fault(status=403))

    assert (await http.get("/subscription")).status_code == 500
    with pytest.raises(httpx.RemoteProtocolError):
        await http.get("/subscription")
    assert [(await http.get("/subscription")).status_code for _ in range(2)] == [403, 200]


@pytest.mark.parametrize("cut", ["request", "answer", "body"])
async def test_the_client_creates_one_subscription(cut):
    """The number does not depend on the fault of the first attempt."""
    fake = FakeCallFire(repeated_request_id="ignored")
    fake.fail_next(Fault(cut=cut))

    async with fake.client() as callfire:
        created = await callfire.subscriptions.create("https://hooks.example.com/t", TriggerEvent.CAMPAIGN_STARTED)

    assert isinstance(callfire, CallFire)
    assert [subscription.id for subscription in fake.subscriptions] == [created.id]
