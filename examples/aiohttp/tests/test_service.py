"""The service, without a network: its handlers, its database, and what it subscribes to."""

import pytest
from aiohttp.test_utils import TestClient, TestServer
from attrs import evolve
from service.app import create_app
from service.settings import Settings
from service.subscribe import subscribe

from callfire_async import NotificationFormat
from callfire_async.notifications import EndpointTokens
from callfire_async.testing import deliver, make_call_finished, make_text_sent

TOKEN = "a-token-for-tests-only"


@pytest.fixture
def settings(tmp_path):
    return Settings(
        tokens=EndpointTokens(TOKEN),
        inbox=str(tmp_path / "inbox.db"),
        database=f"sqlite+aiosqlite:///{tmp_path / 'ledger.db'}",
        public_url="https://hooks.example.com/callfire",
    )


async def test_what_a_call_costs_is_booked_once(settings):
    call = make_call_finished(broadcast_id=7)

    async with TestClient(TestServer(create_app(settings))) as client:
        for format in ("XML", "JSON"):  # other bytes, the same event
            await deliver(client, call, format=format)
        await deliver(client, make_text_sent(broadcast_id=7))

        assert await (await client.get("/broadcasts/7/spent")).json() == {"credits": 1.0}
        assert await (await client.get("/health")).json() == {"healthy": True, "reasons": []}


async def test_it_is_there_while_its_inbox_is_away(settings):
    away = evolve(settings, inbox="postgresql://127.0.0.1:9/nobody", spool=f"{settings.inbox}.spool")

    async with TestClient(TestServer(create_app(away))) as client:
        assert (await client.post(f"/callfire/{TOKEN}", data=make_call_finished().to_xml())).status == 204
        answer = await client.get("/health")

        assert (answer.status, (await answer.json())["reasons"]) == (200, ["the inbox cannot be read"])


async def test_a_stranger_is_turned_away(settings):
    assert (await deliver(create_app(settings), make_call_finished(), token="guessed")).status == 404


async def test_it_subscribes_to_what_is_handled(settings, callfire, fake_callfire, capsys):
    for _ in range(2):
        await subscribe(callfire, settings)

    assert {one.endpoint for one in fake_callfire.subscriptions} == {f"https://hooks.example.com/callfire/{TOKEN}"}
    assert len(fake_callfire.subscriptions) == 4  # texts and calls, in and out
    assert {one.notification_format for one in fake_callfire.subscriptions} == {NotificationFormat.JSON}
    assert TOKEN not in capsys.readouterr().out


def test_the_settings_come_from_the_environment():
    settings = Settings.from_environment({"CALLFIRE_TOKEN": f"{TOKEN} the-token-before-this", "CALLFIRE_INBOX": "x.db"})

    assert (settings.inbox, settings.tokens.verify("the-token-before-this")) == ("x.db", True)
