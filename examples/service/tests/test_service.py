"""The service without a network: its front ends, handlers, database and subscriptions."""

from contextlib import asynccontextmanager

import httpx
import pytest
from aiohttp.test_utils import TestServer
from attrs import evolve
from service import app_aiohttp, app_fastapi
from service.costs import Costs
from service.handlers import make_router
from service.settings import Settings
from service.subscribe import subscribe

from callfire_async import NotificationFormat
from callfire_async.notifications import EndpointTokens, Receiver
from callfire_async.testing import deliver, make_call_finished, make_text_sent, record_completions

TOKEN = "a-token-for-tests-only"


@pytest.fixture
def settings(tmp_path):
    return Settings(
        tokens=EndpointTokens(TOKEN),
        inbox=str(tmp_path / "inbox.db"),
        database=f"sqlite+aiosqlite:///{tmp_path / 'costs.db'}",
        public_url="https://hooks.example.com/callfire",
    )


@asynccontextmanager
async def run_fastapi(settings):
    app = app_fastapi.create_app(settings)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        yield app, client


@asynccontextmanager
async def run_aiohttp(settings):
    async with (
        TestServer(app_aiohttp.create_app(settings)) as server,
        httpx.AsyncClient(base_url=str(server.make_url("/")), trust_env=False) as client,
    ):
        yield server, client


# Delete the front end that you do not use.
each_front_end = pytest.mark.parametrize("run", [run_fastapi, run_aiohttp])


@each_front_end
async def test_the_cost_of_each_event_is_recorded_once(settings, run):
    call = make_call_finished(broadcast_id=7)

    async with run(settings) as (app, client):
        for format in ("XML", "JSON"):  # different bytes, the same event
            await deliver(app, call, format=format)
        await deliver(app, make_text_sent(broadcast_id=7))

        # One for the call, and one for the text.
        assert (await client.get("/broadcasts/7/cost")).json() == {"credits": 2.0}
        assert (await client.get("/health")).text == "ok\n"


async def test_a_cost_and_the_completion_of_its_handler_are_one_transaction(settings):
    async with Costs(settings.database, has_inbox=True) as costs:
        with record_completions() as completions:
            await deliver(Receiver(make_router(costs), tokens=None), make_call_finished(broadcast_id=7))

        assert await costs.total(7) == 1
    assert [completion.attempt.handler for completion in completions] == ["record_call_cost"]


def test_the_inbox_is_in_the_services_database(settings):
    url = "postgresql+asyncpg://callfire@db/callfire"

    assert evolve(settings, inbox="postgresql://callfire@db/callfire", database=url).has_inbox_in_database
    assert not evolve(settings, database=url).has_inbox_in_database
    assert not settings.has_inbox_in_database


@each_front_end
async def test_the_service_accepts_postbacks_while_its_inbox_is_unavailable(settings, run):
    unavailable = evolve(settings, inbox="postgresql://127.0.0.1:9/unavailable", spool=f"{settings.inbox}.spool")

    async with run(unavailable) as (_, client):
        assert (await client.post(f"/callfire/{TOKEN}", content=make_call_finished().to_xml())).status_code == 204
        health = await client.get("/health")

        assert (health.status_code, "the inbox cannot be read\n" in health.text) == (503, True)
        assert [(await client.get(f"/health/{path}")).status_code for path in ("live", "ready")] == [200, 200]


@each_front_end
async def test_a_wrong_token_is_not_found(settings, run):
    async with run(settings) as (app, _):
        assert (await deliver(app, make_call_finished(), token="guessed")).status == 404


async def test_the_service_subscribes_to_the_events_of_its_handlers(settings, callfire, fake_callfire, capsys):
    for _ in range(2):
        await subscribe(callfire, settings)

    subscriptions = fake_callfire.subscriptions
    assert {item.endpoint for item in subscriptions} == {f"https://hooks.example.com/callfire/{TOKEN}"}
    assert len(subscriptions) == 4  # inbound and outbound texts and calls
    assert {item.notification_format for item in subscriptions} == {NotificationFormat.JSON}
    assert TOKEN not in capsys.readouterr().out


def test_the_settings_are_read_from_the_environment():
    settings = Settings.from_environment(
        {"CALLFIRE_TOKEN": f"{TOKEN} the-token-before-this", "CALLFIRE_INBOX": "x.db", "PORT": "8080"}
    )

    assert (settings.inbox, settings.port) == ("x.db", 8080)
    assert settings.tokens.verify("the-token-before-this")
