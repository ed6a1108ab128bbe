"""The two API generations of the fake below any base path."""

import httpx
import pytest

from callfire_async.testing import FakeCallFire, Fault


def client_of(fake: FakeCallFire) -> httpx.AsyncClient:
    """Return a bare HTTP client of a fake."""
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(fake), base_url="http://callfire.example", auth=("login", "password")
    )


@pytest.mark.parametrize("path", ["/v2/webhooks", "/webhooks", "/somewhere/v2/webhooks", "/somewhere/webhooks"])
async def test_webhooks_below_any_base_path(path):
    """The base path of API v2 is free too."""
    response = await client_of(FakeCallFire()).get(path)

    assert (response.status_code, response.json()["items"]) == (200, [])


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/v2/subscription", "message"),
        ("/v2/subscription.json", "message"),
        ("/v2/nothing", "message"),
        ("/api/1.1/rest/webhooks.json", "ResourceException"),
        ("/api/1.1/rest/nothing.json", "ResourceException"),
    ],
)
async def test_the_base_path_of_the_other_generation(path, error):
    """The response is 404 in the form of the generation whose base path was used."""
    response = await client_of(FakeCallFire()).get(path)

    assert (response.status_code, error in response.json()) == (404, True)


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/v2/webhooks", {"httpStatusCode": 503, "message": "Injected fault"}),
        ("/v2/webhooks/resources", {"httpStatusCode": 503, "message": "Injected fault"}),
        ("/rest/subscription.json", {"ResourceException": {"HttpStatus": 503, "Message": "Injected fault"}}),
    ],
)
async def test_an_injected_error(path, error):
    """It has the form of the generation, and its Retry-After."""
    fake = FakeCallFire()
    fake.fail_next(Fault(status=503, retry_after=7))

    response = await client_of(fake).get(path)

    assert (response.status_code, response.headers["Retry-After"]) == (503, "7")
    assert response.json() | error == response.json()


@pytest.mark.parametrize("path", ["/v2/webhooks", "/rest/subscription"])
async def test_an_injected_page_of_a_proxy(path):
    """It is the same for both generations."""
    fake = FakeCallFire()
    fake.fail_next(Fault(status=502, html=True))

    response = await client_of(fake).get(path)

    assert (response.status_code, response.headers["Content-Type"]) == (502, "text/html; charset=utf-8")
