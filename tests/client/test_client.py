"""`CallFire`: its credentials, and the settings that it passes to its connection."""

import asyncio
import ssl
import subprocess
import sys
import textwrap

import httpx
import pytest
import respx

from callfire_async.client import CallFire
from callfire_async.client.subscriptions import Subscriptions
from callfire_async.errors import ClientClosedError
from callfire_async.models import Subscription

BASE = "http://localhost/rest"
SETTINGS = {"base_url": BASE, "ssl_context": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)}
ENVIRONMENT = {"CALLFIRE_API_LOGIN": "env-login", "CALLFIRE_API_PASSWORD": "env-password"}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """No credentials except those that a test sets."""
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def route():
    """A respx route for one subscription."""
    with respx.mock(assert_all_called=False) as network:
        yield network.get(f"{BASE}/subscription/42.json").respond(json={"Resource": {"Subscription": {"@id": 42}}})


def sent_credentials(route):
    """Return the Authorization header of the last request."""
    return route.calls.last.request.headers["Authorization"]


async def test_credentials_can_be_passed(route):
    """They are the first two arguments."""
    async with CallFire("login", "password", **SETTINGS) as callfire:
        assert await callfire.subscriptions.get(42) == Subscription(42)

    assert sent_credentials(route) == "Basic bG9naW46cGFzc3dvcmQ="


async def test_credentials_come_from_the_environment(route, monkeypatch):
    """If none are passed."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)

    async with CallFire(**SETTINGS) as callfire:
        await callfire.subscriptions.get(42)

    assert sent_credentials(route) == "Basic ZW52LWxvZ2luOmVudi1wYXNzd29yZA=="


@pytest.mark.parametrize(
    ("login", "password", "missing"),
    [
        (None, None, "CALLFIRE_API_LOGIN"),
        ("login", None, "CALLFIRE_API_PASSWORD"),
        (None, "password", "CALLFIRE_API_LOGIN"),
    ],
)
def test_missing_credentials_are_an_error(login, password, missing):
    """The error names the environment variable."""
    with pytest.raises(ValueError, match=f"no credentials.*{missing}"):
        CallFire(login, password)


def test_empty_credentials_are_not_replaced(monkeypatch):
    """An empty login is a mistake; using another account's would be worse."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(ValueError, match="no credentials"):
        CallFire("", "password")


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"base_url": "http://www.callfire.com"}, ValueError),
        ({"response_format": "yaml"}, ValueError),
        ({"timeout": -1}, ValueError),
        ({"max_retries": -1}, ValueError),
        ({"max_connections": 0}, ValueError),
        ({"http_client": object()}, TypeError),
    ],
)
def test_settings_are_validated(settings, kind):
    """By the connection."""
    with pytest.raises(kind):
        CallFire("login", "password", **settings)


async def test_every_setting_reaches_the_connection():
    """No parameter is dropped."""
    async with httpx.AsyncClient(verify=SETTINGS["ssl_context"]) as http_client:
        callfire = CallFire(
            "login",
            "password",
            base_url=BASE,
            response_format="xml",
            timeout=7,
            max_retries=2,
            max_connections=5,
            http_client=http_client,
        )
        connection = callfire._connection

        assert (connection._base_url, connection._response_format) == (BASE, "xml")
        assert (connection._timeout, connection._max_retries) == (7, 2)
        assert (connection._transport.client, connection._transport._max_connections) == (http_client, 5)


async def test_no_credentials_are_printed():
    """In no repr."""
    async with CallFire("my-login", "my-password", **SETTINGS) as callfire:
        printed = f"{callfire!r} {vars(callfire)}"

    assert repr(callfire) == "CallFire('***', '***', base_url='http://localhost/rest')"
    assert "my-" not in printed


async def test_a_view_shares_the_pool(route):
    """With options of its own; closing either closes both."""
    callfire = CallFire("login", "password", **SETTINGS)
    view = callfire.with_options(timeout=3, max_retries=0)

    assert isinstance(view, CallFire)
    assert await view.subscriptions.get(42) == Subscription(42)
    assert (view._connection._timeout, view._connection._max_retries) == (3, 0)
    assert (callfire._connection._timeout, callfire._connection._max_retries) == (30.0, 3)

    await view.aclose()
    with pytest.raises(ClientClosedError):
        await callfire.subscriptions.get(42)


async def test_services_are_created_once(route):
    """They can be stored and passed on."""
    async with CallFire("login", "password", **SETTINGS) as callfire:
        assert isinstance(callfire.subscriptions, Subscriptions)
        assert callfire.subscriptions is callfire.subscriptions


async def test_a_closed_client_cannot_be_entered():
    """`async with` raises."""
    callfire = CallFire("login", "password", **SETTINGS)
    await callfire.aclose()

    with pytest.raises(ClientClosedError, match="closed"):
        async with callfire:
            pass


def test_a_client_can_be_created_outside_a_loop(route):
    """It belongs to the loop that uses it first."""
    callfire = CallFire("login", "password", **SETTINGS)

    async def main():
        async with callfire:
            return await callfire.subscriptions.get(42)

    assert asyncio.run(main()) == Subscription(42)


def test_httpx2_is_imported_by_the_application_only():
    """A client over httpx, or an error about a wrong HTTP client, does not load it."""
    script = """
        import sys
        from callfire_async import CallFire

        CallFire("login", "password")
        try:
            CallFire("login", "password", http_client=object())
        except TypeError:
            sys.exit("httpx2" in sys.modules)
    """
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)]
    assert subprocess.run(command, check=False).returncode == 0
