"""Faults of the fake's answers, in process and over real connections."""

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
    """Give a fake that knows no repeated requests."""
    return FakeCallFire(repeated_request_id="ignored")


@pytest.fixture(params=["in process", "over a connection"])
async def http(request, fake) -> AsyncIterator[httpx.AsyncClient]:
    """Give a bare HTTP client of the fake: through the transport of its own client, and through a real server."""
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
def test_a_fault_that_does_nothing_is_refused(options):
    """A test that asks for it has asked for something else."""
    with pytest.raises(TypeError):
        Fault(**options)


@pytest.mark.parametrize(("ending", "start"), [("", b"<?xml"), (".json", b'{"ResourceException":{"HttpStatus":503,')])
async def test_a_status(http, fake, ending, start):
    """It is answered in the format asked for, and the request is not carried out."""
    fake.fail_next(Fault(status=503))

    response = await http.post(f"/subscription{ending}", data=FORM)

    assert (response.status_code, response.content.startswith(start), fake.subscriptions) == (503, True, ())


async def test_a_status_though_it_was_carried_out(http, fake):
    """As a proxy may answer that lost sight of the request."""
    fake.fail_next(Fault(status=504, carried_out=True, html=True))

    response = await http.post("/subscription", data=FORM)

    assert (response.status_code, response.headers["Content-Type"]) == (504, "text/html; charset=utf-8")
    assert response.text.startswith("<html>")
    assert len(fake.subscriptions) == 1


@pytest.mark.parametrize("wait", [7, 0.5, "Fri, 26 Oct 2012 21:32:52 GMT"])
async def test_retry_after(http, fake, wait):
    """In seconds, or as a date."""
    fake.fail_next(Fault(status=429, retry_after=wait))

    response = await http.get("/subscription")

    assert (response.status_code, response.headers["Retry-After"]) == (429, str(wait))


async def test_an_answer_that_is_held_back(http, fake):
    """It was carried out when the answer comes."""
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


@pytest.mark.parametrize(("cut", "made"), [("request", 0), ("answer", 1), ("body", 1)])
@pytest.mark.parametrize("ending", ["", ".json"])
async def test_a_connection_that_is_cut(http, fake, cut, made, ending):
    """No answer comes, and what was carried out depends on where the connection ended."""
    fake.fail_next(Fault(cut=cut))

    with pytest.raises(httpx.RemoteProtocolError):
        await http.post(f"/subscription{ending}", data=FORM)

    assert len(fake.subscriptions) == made


async def test_an_answer_without_a_body_is_cut_before_it(http, fake):
    """There is no middle of nothing."""
    await http.post("/subscription", data=FORM)
    fake.fail_next(Fault(cut="body"))

    with pytest.raises(httpx.RemoteProtocolError):
        await http.delete(f"/subscription/{fake.subscriptions[0].id}")

    assert fake.subscriptions == ()


async def test_a_cut_in_an_error(http, fake):
    """Errors can be cut like all answers."""
    fake.fail_next(Fault(status=500, cut="body"))

    with pytest.raises(httpx.RemoteProtocolError):
        await http.get("/subscription")


async def test_faults_come_one_after_the_other(http, fake):
    """Each is for one request; afterwards all is well."""
    fake.fail_next(Fault(status=500), Fault(cut="answer"))
    fake.fail_next(Fault(status=403))

    assert (await http.get("/subscription")).status_code == 500
    with pytest.raises(httpx.RemoteProtocolError):
        await http.get("/subscription")
    assert [(await http.get("/subscription")).status_code for _ in range(2)] == [403, 200]


@pytest.mark.parametrize("cut", ["request", "answer", "body"])
async def test_the_client_makes_one_subscription_all_the_same(cut):
    """Whatever became of the first attempt."""
    fake = FakeCallFire(repeated_request_id="ignored")
    fake.fail_next(Fault(cut=cut))

    async with fake.client() as callfire:
        made = await callfire.subscriptions.create("https://hooks.example.com/t", TriggerEvent.CAMPAIGN_STARTED)

    assert isinstance(callfire, CallFire)
    assert [subscription.id for subscription in fake.subscriptions] == [made.id]
