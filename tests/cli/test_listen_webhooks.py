"""`listen` with the postbacks of API v2."""

import httpx
import pytest
from cli.command_runner import TOKEN, run_command
from cli.listen_runner import run_listen
from loopback import response_bytes, serve_with

from callfire_async.notifications import SigningSecrets
from callfire_async.notifications.encoding import encode_envelope
from callfire_async.testing import encode, make_text_received, make_text_sent

SECRET = "a-signing-secret-of-the-tests"


@pytest.fixture
def secrets(monkeypatch):
    monkeypatch.setenv("CALLFIRE_SIGNING_SECRET", f"{SECRET} an-older-signing-secret")
    return SigningSecrets(SECRET)


def with_webhook(event, id=7420003):
    from attrs import evolve

    return evolve(event, subscription_id=None, webhook_id=id, webhook_name="texts")


async def post(base, body, signature=None):
    headers = {"Content-Type": "application/json"} | ({"X-CallFire-Signature": signature} if signature else {})
    async with httpx.AsyncClient() as client:
        return (await client.post(f"{base}/{TOKEN}", content=body, headers=headers)).status_code


async def test_event_of_a_webhook_is_printed(capsys):
    """With the webhook's ID; without a secret no signature is needed."""
    _, body = encode(with_webhook(make_text_received(id=7)), api="v2")

    async with run_listen(capsys) as (screen, base):
        assert "\n  callfire-async webhooks create '" in screen.read()
        status = await post(base, body)
        await screen.wait_for(r"--> TextReceived \(InboundText\.Finished\) text:7:RECEIVED webhook 7420003$")

    assert status == 204


async def test_only_events_of_a_webhook(capsys):
    """The option hides other events."""
    bodies = [encode(with_webhook(make_text_received(), id), api="v2")[1] for id in (1, 2)]

    async with run_listen(capsys, webhook_id=2, as_json=True) as (screen, base):
        statuses = [await post(base, body) for body in bodies]
        await screen.wait_for(r'"type": "event"')

    assert statuses == [204, 204]
    assert [item["webhook_id"] for item in screen.items if item["type"] == "event"] == [2]


async def test_signature_is_verified(capsys, secrets):
    """With a secret, a postback without a signature is refused, and one of an older secret is accepted."""
    _, body = encode(with_webhook(make_text_received(id=7)), api="v2")

    async with run_listen(capsys) as (screen, base):
        signatures = (None, "d3Jvbmc=", SigningSecrets("an-older-signing-secret").sign(body), secrets.sign(body))
        statuses = [await post(base, body, signature) for signature in signatures]
        await screen.wait_for(r"refused signature \(401\)")

    assert statuses == [401, 401, 204, 204]


async def test_unsigned_postbacks_can_be_allowed(capsys, secrets):
    """For subscriptions of API 1.1 on the same endpoint; a wrong signature is still refused."""
    async with run_listen(capsys, allows_unsigned=True) as (_, base):
        statuses = [await post(base, encode(make_text_sent(), "JSON")[1], signature) for signature in (None, "x")]

    assert statuses == [204, 401]


def test_unsigned_postbacks_need_no_permission_without_a_secret(monkeypatch):
    """The option is wrong usage then."""
    monkeypatch.delenv("CALLFIRE_SIGNING_SECRET", raising=False)

    result = run_command("listen", "--port", "0", "--allow-unsigned")

    assert (result.status, "CALLFIRE_SIGNING_SECRET" in result.err) == (2, True)


async def test_forwarded_postback_is_signed(capsys, secrets):
    """The program behind `listen` can verify it."""

    async def respond(_, writer):
        writer.write(response_bytes(b"", "204 No Content"))

    _, body = encode(with_webhook(make_text_received()), api="v2")
    async with serve_with(respond) as target:
        async with run_listen(capsys, forward_to=target.url) as (screen, base):
            await post(base, body, secrets.sign(body))
            await screen.wait_for("<-- 204")
        (request,) = target.requests

    assert (request.body, f": {secrets.sign(body)}\r\n" in request.headers) == (body, True)


@pytest.mark.parametrize("has_inbox", [True, False])
async def test_several_events_in_a_postback(capsys, tmp_path, has_inbox):
    """Each event has a line; with an inbox so does the postback that was split. A repeat is one postback."""
    _, body = encode_envelope([with_webhook(make_text_received(id=7)), with_webhook(make_text_sent(id=8))])

    async with run_listen(capsys, inbox=str(tmp_path / "callfire.db") if has_inbox else None) as (screen, base):
        status = await post(base, body)
        for event in ("--> TextReceived .*text:7:", "--> TextSent .*text:8:", *["split 2 events"] * has_inbox):
            await screen.wait_for(event)
        await post(base, body)
        await screen.wait_for("dup 2 events" if has_inbox else "dup TextReceived")

    assert status == 204


async def test_a_repeated_envelope_that_cannot_be_split(capsys, tmp_path):
    """Its events are counted, although it is a dead letter: its other members would be stored for each of them."""
    _, body = encode_envelope([make_text_received(id=7), make_text_sent(id=8)])
    body = body.replace(b"{", b'{"extra": "' + b"x" * 5000 + b'", ', 1)

    async with run_listen(capsys, inbox=str(tmp_path / "callfire.db")) as (screen, base):
        await post(base, body)
        await screen.wait_for("dead ")
        await post(base, body)
        await screen.wait_for("dup 2 events")


async def test_a_single_event_that_cannot_be_read_is_a_repeat(capsys, tmp_path):
    """It is not a notification, like a body without events."""
    body = b'{"webhookId": 7, "resourceType": "InboundText", "events": [{"eventType": "Finished", "resource": {}}]}'

    async with run_listen(capsys, inbox=str(tmp_path / "callfire.db")) as (screen, base):
        for _ in range(2):
            await post(base, body)
        await screen.wait_for("dup no notification")


async def test_a_body_that_is_not_a_notification_is_a_repeat(capsys, tmp_path):
    """It has no event to name."""
    async with run_listen(capsys, inbox=str(tmp_path / "callfire.db"), as_json=True) as (screen, base):
        for _ in range(2):
            await post(base, b"nonsense")
        await screen.wait_for('"type": "dup"')

    (repeat,) = [item for item in screen.items if item["type"] == "dup"]
    assert repeat["kind"] is None
