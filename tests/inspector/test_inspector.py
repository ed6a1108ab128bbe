"""The inspector's API, history and sources, and the commands that serve it."""

import asyncio
import json
import re
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from io import StringIO

import httpx
import pytest
from cli import command_runner
from cli.command_runner import DEADLINE, run_command
from cli.listen_runner import run_listen
from rich.console import Console

from callfire_async import HandlerErrors, InboxUnavailableError
from callfire_async.cli.commands import demo
from callfire_async.cli.commands.demo import _receiver_process as demo_receiver
from callfire_async.cli.commands.inspect import run as run_inspect
from callfire_async.inspector import BindAddress, FileSource, InspectorApp, ReceiverSource, serve_inspector
from callfire_async.inspector import sources as inspector_sources
from callfire_async.inspector.history import DeliveryHistory, DeliveryView
from callfire_async.inspector.views import to_detail, to_nodes
from callfire_async.notifications import (
    AppendResult,
    AttemptRecord,
    CallFinished,
    Delivery,
    MemoryInbox,
    Notification,
    Postback,
    Receiver,
    Reject,
    RetryPolicy,
    Router,
    SqliteInbox,
    TextFinished,
)

TOKEN = "0123456789abcdef"
NUMBER = "12135551212"
LARGE = 10**20


def text(number, message="see you at noon"):
    return f'{{"TextSent": {{"SubscriptionId": 1, "Text": {{"@id": {number}, "Message": "{message}"}}}}}}'.encode()


class FailingInbox(MemoryInbox):
    """An inbox whose operations fail on demand."""

    is_full = is_unavailable = False

    async def append(self, delivery):
        if self.is_full:
            raise InboxUnavailableError("no space")
        return await super().append(delivery)

    async def stats(self):
        if self.is_unavailable:
            raise InboxUnavailableError("unavailable")
        return await super().stats()

    async def get(self, id):
        if self.is_unavailable:
            raise InboxUnavailableError("unavailable")
        return await super().get(id)


class InspectedReceiver:
    """A receiver with its inspector, and a client of the API."""

    def __init__(self, inbox, **options):
        router = Router()

        @router.on(TextFinished, name="keep")
        async def handle(event):
            if event.text.message == "fail":
                raise LookupError(event.text.message)

        @router.on(CallFinished, name="reject")
        async def reject(event):
            raise Reject("not one of ours")

        self.inbox = inbox
        inbox_options = {} if inbox is None else {"inbox": inbox, "retry": RetryPolicy(max_attempts=1)}
        self.receiver = Receiver(router, tokens=TOKEN, **inbox_options | options)
        self.source = ReceiverSource(inbox, self.receiver)
        self.receiver.observe(self.source)
        self.inspector = InspectorApp(self.source)
        transport = httpx.ASGITransport(self.inspector)
        headers = {"Authorization": f"Bearer {self.inspector.key}"}
        self.client = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8485", headers=headers)

    async def post(self, *bodies, token=TOKEN):
        for body in bodies:
            await self.receiver.receive(Postback("POST", token, {}, body))
        if self.receiver.is_running:
            await self.receiver.idle(timeout=DEADLINE)

    async def get(self, path):
        return (await self.client.get(f"/api/{path}")).json()

    async def send(self, path):
        response = await self.client.post(f"/api/{path}")
        return response.status_code, response.json()

    @property
    def outcomes(self):
        return [item.outcome for item in self.source.history.changed_since(0)]


@asynccontextmanager
async def inspected(inbox, **options):
    receiver = InspectedReceiver(inbox, **options)
    async with receiver.receiver, receiver.client:
        yield receiver


@pytest.fixture
async def service():
    async with inspected(FailingInbox(keep_bodies=True)) as service:
        yield service


# --- access -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["events", "deliveries/1", "dead-letters", "dead-letters/1"])
@pytest.mark.parametrize("key", [None, "", "Bearer ", "Bearer wrong", "Basic wrong"])
async def test_api_requires_the_key(service, path, key):
    """Other programs and other pages on the machine have no access to the API."""
    service.client.headers.pop("Authorization")
    await service.post(text(42))

    response = await service.client.get(f"/api/{path}", headers={} if key is None else {"Authorization": key})

    assert (response.status_code, "TextSent" in response.text) == (401, False)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8485", "127.0.0.1.evil.example"])
async def test_foreign_host_is_rejected(service, host):
    """A request for the host name of another site is rejected (DNS rebinding)."""
    for path in ("/", "/api/dead-letters"):
        assert (await service.client.get(path, headers={"Host": host})).status_code == 400


@pytest.mark.parametrize(
    ("given", "requested", "status"),
    [
        ("inspector.example", "inspector.example:8485", 200),
        ("inspector.example", "evil.example", 400),
        ("0.0.0.0", "192.0.2.7:8485", 200),
        ("::1", "[::1]:8485", 200),
    ],
)
async def test_host_is_accepted(service, given, requested, status):
    """The configured host name is accepted, and any name if the inspector listens on all addresses."""
    transport = httpx.ASGITransport(InspectorApp(service.source, host=given))
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        assert (await client.get("/", headers={"Host": requested})).status_code == status


async def test_replay_requires_a_post_with_the_key(service):
    """A link or a form cannot replay or reveal a delivery."""
    await service.post(text(42))

    assert (await service.client.get("/api/deliveries/1/replay")).status_code == 405
    assert (await service.client.get("/api/deliveries/1/reveal")).status_code == 405
    assert (await service.client.post("/api/deliveries/1/replay", headers={"Authorization": ""})).status_code == 401


async def test_static_files_are_served(service):
    """The static files are served with a strict policy, and contain no inline scripts or foreign URLs."""
    for path, kind in (("/", "text/html"), ("/inspector.js", "text/javascript"), ("/inspector.css", "text/css")):
        response = await service.client.get(path)
        assert (response.status_code, response.headers["Content-Type"].partition(";")[0]) == (200, kind)
        assert response.headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self';")
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", response.text)
    page = (await service.client.get("/")).text

    assert not re.search(r"<script[^>]*>[^<]|<style|\son\w+=|\sstyle=", page)
    assert (await service.client.get("/icon.svg")).headers["Content-Type"] == "image/svg+xml"


def test_script_creates_no_markup():
    """The script does not use APIs that parse markup."""
    script = (static_directory() / "inspector.js").read_text(encoding="utf-8")

    assert not re.search(r"\.(innerHTML|outerHTML)|insertAdjacentHTML|document\.write|eval\(|new Function", script)


def static_directory():
    from importlib.resources import files

    return files("callfire_async.inspector") / "static"


# --- deliveries -------------------------------------------------------------------------------------------


async def test_private_data_is_masked_until_revealed(service):
    """Rows and details contain no number, message or body until they are revealed."""
    body = text(42).replace(b'"@id"', f'"FromNumber": "{NUMBER}", "@id"'.encode())
    await service.post(body)

    shown = json.dumps([await service.get("dead-letters"), await service.get("deliveries/1")])
    _, revealed = await service.send("deliveries/1/reveal")

    assert not [secret for secret in (NUMBER, "noon") if secret in shown]
    assert "***12" in shown
    assert (revealed["body"], revealed["payload"]["pairs"][0][0]) == (body.decode(), "TextSent")


async def test_invalid_body_can_be_revealed(service):
    """A body that is not a notification is revealed with escapes."""
    await service.post(b"\xff{")

    _, revealed = await service.send("deliveries/1/reveal")

    assert (revealed["body"], revealed["event"], revealed["payload"]) == ("\\xff{", None, None)
    assert revealed["kind"] == "not a notification"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b'{"TextSent": {"SubscriptionId": 1, "Text": {"@id": 42, "Message": "\\ud800"}}}', "application/json"),
        (b'{"S\\ud800": {"SubscriptionId": 1}}', "application/json"),
        (text(42), "application/\udcff"),
    ],
)
async def test_lone_surrogates_are_encoded(service, body, content_type):
    """A lone surrogate in a body or header does not break a response."""
    await service.receiver.receive(Postback("POST", TOKEN, {"Content-Type": content_type}, body))
    await service.receiver.idle(timeout=DEADLINE)

    shown = await service.client.get("/api/deliveries/1")
    revealed = await service.client.post("/api/deliveries/1/reveal")
    listed = await service.client.get("/api/dead-letters")

    assert [shown.status_code, revealed.status_code, listed.status_code] == [200, 200, 200]


async def test_unknown_event_is_named_by_its_root(service):
    """The root element of an unknown event is cut, and the payload is shown only if revealed."""
    await service.post(b'{"%s": {"Secret": "words"}}' % (b"x" * 100))

    masked = await service.get("deliveries/1")
    _, revealed = await service.send("deliveries/1/reveal")

    assert (masked["kind"], masked["subject"]) == ("UnknownNotification", "x" * 60)
    assert ("words" in json.dumps(masked), "words" in json.dumps(revealed)) == (False, True)


def test_nodes_are_pairs_and_strings():
    """Keys become values, numbers become strings, and masked leaves are marked."""
    shown = to_nodes({"__proto__": [1, None], "a": "***", "b": "***", "c": []}, {"a": "x", "b": ["x"], "c": [1]})

    assert shown == {
        "pairs": [
            [
                "__proto__",
                {"list": [{"leaf": "1", "kind": "value"}, {"leaf": "", "kind": "none"}]},
            ],
            ["a", {"leaf": "***", "kind": "text", "masked": True}],
            ["b", {"leaf": "***", "kind": "text", "masked": True}],
            ["c", {"list": []}],
        ]
    }
    assert to_nodes({"a": {"b": LARGE}}, {"a": 1})["pairs"][0][1]["pairs"][0][1]["leaf"] == str(LARGE)


async def test_outcomes_of_requests(service):
    """Stored, repeated and refused requests are shown; a delivery that was not stored can be replayed."""
    await service.post(text(42), text(42), b"")
    await service.post(text(42), token="wrong")
    service.inbox.is_full = True
    await service.post(text(43))
    service.inbox.is_full = False
    replayed = await service.send("deliveries/5/replay")
    await service.receiver.idle(timeout=DEADLINE)

    assert service.outcomes == ["handled", "duplicate", "refused", "refused", "refused", "handled"]
    assert (await service.get("deliveries/4"))["reason"] == "wrong or missing token"
    assert (await service.get("deliveries/5"))["reason"] == "the inbox could not store the delivery"
    assert replayed == (200, {"replayed": 1})


async def test_receiver_without_inbox():
    """Without an inbox there are no dead letters and no counts."""
    async with inspected(None) as plain:
        await plain.post(text(42), text(43, "fail"), b"{", b'{"CampaignStarted": {"Broadcast": {"@id": 45}}}')
        replayed = await plain.send("deliveries/1/replay")
        dead = await plain.get("dead-letters")
        all_replayed = await plain.send("dead-letters/replay")
        counts = await plain.source.counts()
        missing = await plain.client.get("/api/dead-letters/1")

    assert plain.outcomes == ["handled", "failed", "refused", "unhandled", "handled"]
    assert (replayed, dead, all_replayed) == ((200, {"replayed": 1}), {"items": []}, (200, {"replayed": 0}))
    assert (counts, missing.status_code) == ({}, 404)


@pytest.mark.parametrize(("inbox", "failed"), [(FailingInbox(), 0), (None, 1)], ids=["on request", "without an inbox"])
async def test_an_event_that_is_ignored_on_request_has_not_failed(inbox, failed):
    """An event that is lost because nothing handles it has."""
    options = {} if inbox is None else {"unhandled": "ignore"}
    async with inspected(inbox, **options) as plain:
        await plain.post(b'{"CampaignStarted": {"Broadcast": {"@id": 45}}}')

        assert plain.outcomes == ["unhandled"]
        assert sum(count for _, count, _ in plain.source.history.last_minute()) == failed


def envelope(*numbers):
    events = [{"eventType": "Finished", "resource": {"id": number, "message": "hello"}} for number in numbers]
    return json.dumps(
        {"webhookId": 7, "webhookName": "texts", "resourceType": "InboundText", "events": events}
    ).encode()


async def test_an_envelope_and_its_events_are_shown(service):
    """Each event is a delivery of its own; the detail of one has its webhook."""
    await service.post(envelope(1, 2))

    split, first, second = [(await service.get(f"deliveries/{number}")) for number in (1, 2, 3)]
    assert service.outcomes == ["split", "handled", "handled"]
    assert (split["kind"], split["parseError"], split["status"]) == ("several events", "", 204)
    assert [one["kind"] for one in (first, second)] == ["TextReceived", "TextReceived"]
    assert (first["webhook"], first["subscription"], split["webhook"]) == ("7", None, None)
    assert "texts" in json.dumps(first["event"])


async def test_an_envelope_that_cannot_be_split_is_shown_as_one(service):
    """With the reason, which says that it is too large."""
    await service.post(envelope(1, 2).replace(b"texts", b"x" * 5_000))

    dead = await service.get("deliveries/1")
    assert (dead["kind"], dead["outcome"]) == ("several events", "dead")
    assert "more than 4096 bytes in addition to its events" in dead["parseError"]


async def test_an_envelope_without_events_is_shown_as_no_notification(service):
    """It is a dead letter, and the reason says why."""
    await service.post(envelope())

    dead = await service.get("deliveries/1")
    assert (dead["kind"], dead["outcome"]) == ("not a notification", "dead")
    assert "has no array of events" in dead["parseError"]


async def test_events_of_an_envelope_without_an_inbox_are_shown():
    """Each with the status of their request."""
    async with inspected(None) as plain:
        await plain.post(envelope(1, 2), text(43, "fail"))
        details = [await plain.get(f"deliveries/{number}") for number in (1, 2, 3)]

    assert [(one["outcome"], one["status"], one["subject"]) for one in details] == [
        ("handled", 204, "text 1"),
        ("handled", 204, "text 2"),
        ("failed", 500, "text 43"),
    ]
    assert [len(one["attempts"][0]["handlers"]) for one in details] == [1, 1, 1]


async def test_cancelled_requests_are_shown(service):
    """A cancelled request is shown, before and after its body was read."""
    released = asyncio.Event()

    async def slowly():
        await released.wait()
        yield b""

    class Slow(MemoryInbox):
        async def append(self, delivery) -> AppendResult:
            await released.wait()
            return await super().append(delivery)

    async with inspected(Slow()) as slow:
        bodies = (slowly(), text(42))
        tasks = [asyncio.create_task(slow.receiver.receive(Postback("POST", TOKEN, {}, body))) for body in bodies]
        async with asyncio.timeout(DEADLINE):
            while not slow.receiver._intake._storing:  # noqa: ASYNC110  # there is no event to wait for
                await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        outcomes = sorted(slow.outcomes)
        released.set()

    assert outcomes == ["cancelled", "refused"]


async def test_impossible_replay_is_an_error(service):
    """A replay fails without a body, for an unknown delivery and if the receiver is not running."""
    await service.post(b"", text(42))
    refused = [await service.send(f"deliveries/{number}/{what}") for number in (1, 9) for what in ("replay", "reveal")]
    await service.receiver.__aexit__(None, None, None)
    stopped = await service.send("deliveries/2/replay")
    await service.receiver.__aenter__()

    assert [status for status, _ in refused] == [409, 200, 404, 404]
    assert stopped == (409, {"error": "the receiver cannot accept deliveries now"})


async def test_dead_letter_is_replayed(service):
    """A dead letter is replayed by its number or by its id, once."""
    await service.post(text(42, "fail"), b'{"CallFinished": {"Call": {"@id": 44}}}')
    listed = [item["id"] for item in (await service.get("dead-letters"))["items"]]
    detail = await service.get("dead-letters/1")
    _, revealed = await service.send("dead-letters/1/reveal")
    by_number = await service.send("deliveries/1/replay")
    await service.receiver.idle(timeout=DEADLINE)
    by_id = await service.send("dead-letters/2/replay")
    await service.receiver.idle(timeout=DEADLINE)
    all_replayed = await service.send("dead-letters/replay")
    none = await service.send("dead-letters/99/replay")

    assert (listed, detail["attempts"][0]["handlers"][0]["error"]) == (["2", "1"], "LookupError")
    assert "fail" in revealed["body"]
    assert (by_number, by_id, all_replayed) == ((200, {"replayed": 1}), (200, {"replayed": 1}), (200, {"replayed": 2}))
    assert none == (409, {"error": "the delivery is no longer a dead letter"})


async def test_delivery_that_is_no_longer_dead_is_not_replayed(service):
    """Another process may have replayed or purged it: a copy of it would be handled as well."""
    await service.post(text(42, "fail"))
    await service.inbox.purge(dead_before=datetime.now(UTC) + timedelta(days=1))

    replayed = await service.send("deliveries/1/replay")

    assert replayed == (409, {"error": "the delivery is no longer a dead letter"})
    assert service.outcomes == ["dead"]


async def test_dropped_body_is_read_from_the_inbox(service):
    """A body that the history has dropped is read from the inbox; the attempts come from the history."""
    await service.post(text(42, "fail"))
    service.source.history.max_body_bytes = 0
    await service.post(text(43))

    detail = await service.get("dead-letters/1")
    _, revealed = await service.send("dead-letters/1/reveal")

    assert (detail["hasBody"], revealed["body"], [run["name"] for run in revealed["attempts"][0]["handlers"]]) == (
        True,
        text(42, "fail").decode(),
        ["keep"],
    )


async def test_older_dead_letters_are_listed(service, monkeypatch):
    """The newest dead letters are listed, even if the history does not have them."""
    monkeypatch.setattr(inspector_sources, "_MAX_DEAD_LETTERS", 2)
    await service.post(*(text(number, "fail") for number in (41, 42, 43)))
    service.source.history = DeliveryHistory()

    listed = (await service.get("dead-letters"))["items"]
    shown = await service.get("dead-letters/3")

    assert [item["subject"] for item in listed] == ["text 43", "text 42"]
    assert shown["reason"] == "the only attempt failed: keep: LookupError"


async def test_inbox_error_is_status_503(service):
    """An error of the inbox is status 503 with its message, and the counts are empty."""
    service.inbox.is_unavailable = True

    response = await service.client.get("/api/dead-letters/1")
    counts = await service.source.counts()
    service.inbox.is_unavailable = False

    assert (response.status_code, response.json(), counts) == (503, {"error": "unavailable"}, {})


# --- live updates -----------------------------------------------------------------------------------------


async def read_messages(client, path, count):
    """Read messages of an event stream."""
    messages = []
    async with client.stream("GET", path) as response, asyncio.timeout(DEADLINE):
        async for line in response.aiter_lines():
            if line.startswith("id: "):
                messages.append({"id": line[4:]})
            if line.startswith("data: "):
                messages[-1] |= json.loads(line[6:])
                if len(messages) == count:
                    break
    return messages


@asynccontextmanager
async def streamed(source):
    async with httpx.AsyncClient() as client, serve_inspector(source) as address:
        client.base_url, _, key = address.partition("#")
        client.headers["Authorization"] = f"Bearer {key}"
        yield client


async def test_stream_continues_after_a_version(service):
    """A client gets only the changes since its last message, or everything of another history."""
    await service.post(text(41), text(42))
    async with streamed(service.source) as client:
        (first,) = await read_messages(client, "api/events", 1)
        await service.post(text(43))
        (second,) = await read_messages(client, f"api/events?after={first['id']}", 1)
        (other,) = await read_messages(client, "api/events?after=other:3", 1)
        heartbeats = await read_messages(client, f"api/events?after={second['id']}", 2)

    assert [len(message["items"]) for message in (first, second, other)] == [2, 1, 3]
    assert (first["counts"]["done"], len(first["minute"]), first["readOnly"]) == (2, 60, None)
    assert [message["items"] for message in heartbeats] == [[], []]


@pytest.mark.parametrize("version", ["9" * 5000, "-1", "²", "x", ""])
async def test_invalid_numbers_are_rejected(service, version):
    """An invalid or very long number is status 400 or 404."""
    events = await service.client.get("/api/events", params={"after": f"{service.source.history.id}:{version}"})
    delivery = await service.client.get(f"/api/deliveries/{'9' * 5000}")

    assert (events.status_code, "must be the id of a message" in events.json()["error"]) == (400, True)
    assert (delivery.status_code, delivery.json()) == (404, {"error": "the delivery is no longer available"})


async def test_changes_are_sent_between_heartbeats(service):
    """A change is sent before the next heartbeat, and the stream ends with the inspector."""
    messages, arrived = [], asyncio.Event()

    async def read(client):
        async with client.stream("GET", "api/events") as response:
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    messages.append(json.loads(line[6:]))
                    arrived.set()

    async with streamed(service.source) as client, asyncio.timeout(DEADLINE):
        reading = asyncio.create_task(read(client))
        await arrived.wait()
        while not any(message["items"] and "minute" not in message for message in messages):
            await service.post(text(len(messages)))
            arrived.clear()
            await arrived.wait()
    await reading


# --- history ----------------------------------------------------------------------------------------------


def item(body=b"x", id=None, outcome="handled"):
    return DeliveryView(datetime.now(UTC), outcome, Delivery(body), id)


def test_history_is_limited():
    """The oldest items are removed; changes are returned in order of arrival."""
    history = DeliveryHistory(max_items=3)
    items = [history.add(item(id=number)) for number in range(5)]
    history.touch(items[2])
    history.touch(items[0])

    assert [item.number for item in history.changed_since(0)] == [3, 4, 5]
    assert [item.number for item in history.changed_since(5)] == [3]
    assert (history.get(1), history.by_id(0), history.by_id(4)) == (None, None, items[4])


def test_removed_item_leaves_nothing_behind():
    """Items with and without a body are removed from all indexes."""
    history = DeliveryHistory(max_items=1, max_body_bytes=1)
    history.add(DeliveryView(datetime.now(UTC), "refused"))
    history.add(item(b"12345", id=1))
    history.add(item(id=1, outcome="duplicate"))
    newest = history.add(item(id=1))
    older = history.add(item(id=1))

    assert (history.by_id(1), history.get(newest.number), len(history.changed_since(0))) == (older, None, 1)


def test_bodies_are_limited():
    """The oldest bodies are dropped; their items and sizes stay."""
    history = DeliveryHistory(max_body_bytes=10)
    first, second = history.add(item(b"12345678")), history.add(item(b"1234"))

    shown = [to_detail(item) for item in (first, second)]

    assert [(item["hasBody"], item["bodySize"]) for item in shown] == [(False, 8), (True, 4)]


def test_dropped_body_drops_the_payload():
    """The payload of the event is dropped with the body."""
    history = DeliveryHistory(max_body_bytes=10)
    view = DeliveryView(datetime.now(UTC), "handled", Delivery(b"12345678"), event=Notification(payload={"a": "b"}))
    history.add(view)
    history.add(item(b"1234"))

    assert view.event == Notification()
    assert view.event.payload == {}


def test_last_minute_is_counted():
    """Received, failed and the 95th percentile are counted for each second, for a limited time."""
    now = [1000.0]
    history = DeliveryHistory(clock=lambda: now[0])
    for number in range(20):
        history.count_received()
        history.count_settled(number, failed=number == 19)
    for _ in range(200):
        now[0] += 1
        history.count_received()
    now[0] = 1000.0 + 200

    minute = history.last_minute()
    now[0] = 1059.0
    assert (len(minute), minute[-1]) == (60, (1, 0, None))
    assert len(history._buckets) == 120


def test_latencies_are_limited():
    """A limited number of latencies is stored for each second."""
    history = DeliveryHistory(clock=lambda: 1000.0)
    for number in range(1000):
        history.count_settled(number, failed=False)

    assert history.last_minute()[-1] == (0, 0, 474)


async def test_attempt_of_a_removed_item():
    """An attempt may end after its item was removed."""
    async with inspected(MemoryInbox()) as receiver:
        receiver.source.history = DeliveryHistory(max_items=1)
        record = AttemptRecord(Delivery(text(42)), 7)
        with receiver.source.attempt(record):
            receiver.source.history.add(item())
            with pytest.raises(HandlerErrors), receiver.source.handler(record, "keep"):
                raise HandlerErrors("x", [ValueError()], completed=frozenset(), failed=["keep"])
        with receiver.source.handler(AttemptRecord(Delivery(b""), None), "keep"):
            pass

    assert receiver.outcomes == ["handled"]


# --- a file -----------------------------------------------------------------------------------------------


async def test_the_path_of_a_file_may_be_a_text(tmp_path):
    """As for `SqliteInbox`."""
    path = str(tmp_path / "inbox.db")
    async with SqliteInbox(path), FileSource.watching(path) as source:
        assert source.title == "inbox.db"


async def test_file_is_polled(tmp_path):
    """Changes in the file are shown, including a second attempt."""
    path = tmp_path / "callfire.db"
    async with SqliteInbox(path) as inbox, FileSource.watching(path) as source:
        for number in (41, 42):
            await inbox.append(Delivery(text(number)))
        await source.refresh()
        waiting = [item.outcome for item in source.history.changed_since(0)]
        first, second = await inbox.claim(2, lease=60)
        await source.refresh()
        running = [item.outcome for item in source.history.changed_since(0)]
        await inbox.ack(first)
        await inbox.nack(second, delay=0, reason="keep: LookupError")
        await source.refresh()
        failed = [item.outcome for item in source.history.changed_since(0)]
        (second,) = await inbox.claim(1, lease=60)
        await inbox.dead_letter(second, "why")
        await source.refresh()
        version = source.history.version
        await source.refresh()
        items = source.history.changed_since(0)
        counts, dead = await source.counts(), await source.dead_letters()
        refused = [await source.replay(items[0]), await source.replay_dead_letters(None)]

    assert (waiting, running, failed) == (["waiting"] * 2, ["running"] * 2, ["handled", "failed"])
    assert [(item.outcome, item.reason, len(item.attempts)) for item in items] == [
        ("handled", "", 1),
        ("dead", "why", 2),
    ]
    assert (counts, [entry.id for entry in dead]) == ({"waiting": 0, "done": 1, "dead": 1}, [2])
    assert (refused, source.history.version) == ([source.read_only, 0], version)


async def test_existing_deliveries_of_a_file_are_shown(tmp_path):
    """A handled delivery has no body."""
    path = tmp_path / "callfire.db"
    async with SqliteInbox(path) as inbox:
        await inbox.append(Delivery(text(41)))
        (lease,) = await inbox.claim(1, lease=60)
        await inbox.ack(lease)
    async with (
        FileSource.watching(path) as source,
        httpx.AsyncClient(
            transport=httpx.ASGITransport(inspector := InspectorApp(source)), base_url="http://localhost"
        ) as client,
    ):
        client.headers["Authorization"] = f"Bearer {inspector.key}"
        shown = (await client.get("/api/deliveries/1")).json()
        refused = [
            (await client.post(f"/api/{path}")).json() for path in ("dead-letters/replay", "dead-letters/1/replay")
        ]

    assert (shown["kind"], shown["outcome"], shown["hasBody"]) == ("body dropped", "handled", False)
    assert refused == [{"error": source.read_only}] * 2


async def test_bodies_are_read_once(tmp_path, monkeypatch):
    """Each poll reads only new bodies."""
    monkeypatch.setattr(inspector_sources, "_POLL_SECONDS", DEADLINE)
    path, newest, read = tmp_path / "callfire.db", SqliteInbox.newest, []

    async def record_bodies(self, *args, **options):
        entries = await newest(self, *args, **options)
        read.append([entry.delivery.body for entry in entries])
        return entries

    monkeypatch.setattr(SqliteInbox, "newest", record_bodies)
    async with SqliteInbox(path) as inbox:
        await inbox.append(Delivery(text(41)))
        async with FileSource.watching(path) as source:
            await inbox.append(Delivery(text(42)))
            await source.refresh()
            (lease, _) = await inbox.claim(2, lease=60)
            await inbox.dead_letter(lease, "why")
            await source.refresh()
            items = source.history.changed_since(0)

    assert read == [[text(41)], [text(42), b""], [b"", b""]]
    assert [(item.outcome, item.body) for item in items] == [("dead", text(41)), ("running", text(42))]


async def test_old_deliveries_are_not_added_later(tmp_path, monkeypatch):
    """A delivery beyond the limit stays out of the history after a purge of newer ones."""
    monkeypatch.setattr(inspector_sources, "_POLL_SECONDS", DEADLINE)
    path = tmp_path / "callfire.db"
    async with SqliteInbox(path) as inbox, FileSource.watching(path) as source:
        source.history.max_items = 2
        await inbox.append_many([Delivery(text(number)) for number in (41, 42, 43)])
        await source.refresh()
        (*_, last) = await inbox.claim(3, lease=60)
        await inbox.dead_letter(last, "why")
        await inbox.purge(dead_before=datetime.max.replace(tzinfo=UTC))
        await source.refresh()
        items = source.history.changed_since(0)

    assert [item.id for item in items] == [2, 3]


@pytest.mark.parametrize("error", [InboxUnavailableError("unavailable"), OverflowError(NUMBER)])
async def test_failed_poll_is_retried(tmp_path, monkeypatch, caplog, error):
    """A poll that fails is logged without private data and retried."""
    monkeypatch.setattr(inspector_sources, "_POLL_SECONDS", 0.01)
    path, failures = tmp_path / "callfire.db", []

    async def fail(self, limit, **options):
        failures.append(limit)
        raise error

    async with SqliteInbox(path) as inbox, FileSource.watching(path) as source, asyncio.timeout(DEADLINE):
        with monkeypatch.context() as patch:
            patch.setattr(SqliteInbox, "newest", fail)
            while not failures:  # noqa: ASYNC110  # there is no event to wait for
                await asyncio.sleep(0)
        await inbox.append(Delivery(text(41)))
        while not source.history.changed_since(0):  # noqa: ASYNC110  # there is no event to wait for
            await asyncio.sleep(0.01)

    assert f"cannot read inbox callfire.db, retrying in 0.01 s: {type(error).__name__}" in caplog.messages
    assert NUMBER not in caplog.text


# --- the commands -----------------------------------------------------------------------------------------


async def test_listen_serves_the_inspector(capsys):
    """`listen --inspect` prints the URL of the inspector, which shows what is posted."""
    async with run_listen(capsys, inspect=BindAddress()) as (screen, base):
        (address,) = (await screen.wait_for(r"Inspector: (\S+)")).groups()
        async with httpx.AsyncClient() as client:
            await client.post(f"{base}/{command_runner.TOKEN}", content=text(42))
            where, _, key = address.partition("#")
            client.headers["Authorization"] = f"Bearer {key}"
            shown = (await client.get(f"{where}api/deliveries/1")).json()

    assert (shown["outcome"], shown["attempts"][0]["handlers"][0]["name"]) == ("handled", "forward")


async def test_listen_prints_the_inspector_as_json(capsys, tmp_path):
    """With --json the URL of the inspector is in the ready line."""
    async with run_listen(capsys, inspect=BindAddress(), inbox=str(tmp_path / "inbox.db"), as_json=True) as (screen, _):
        (ready,) = screen.items

    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/#[\w-]{32}", ready["inspector"])


@pytest.mark.slow
@pytest.mark.parametrize("options", [("inspect", "callfire.db"), ("listen", "--inspect", "--port", "0")])
@pytest.mark.parametrize("as_json", [True, False])
def test_ctrl_c_ends_open_streams(tmp_path, options, as_json):
    """Ctrl-C ends the command while a browser is connected."""

    async def make():
        async with SqliteInbox(tmp_path / "callfire.db"):
            pass

    asyncio.run(make())
    port = "--port" if options[0] == "inspect" else "--inspect-port"
    command = [sys.executable, "-m", "callfire_async", *options, port, "0", *(["--json"] if as_json else [])]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=tmp_path) as process:
        output = ""
        while not (found := re.search(r"http://\S+/#[\w-]+", output)):
            output += process.stdout.readline()
        where, _, key = found[0].partition("#")
        headers = {"Authorization": f"Bearer {key}"}
        with httpx.stream("GET", f"{where}api/events", headers=headers, trust_env=False) as response:
            next(response.iter_lines())
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=DEADLINE)

    assert (process.returncode, err) == (130, "")


def test_missing_file_is_wrong_usage():
    """A missing file exits with status 2."""
    assert run_command("inspect", "missing.db").status == 2


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.1", False), ("::1", False), ("0.0.0.0", True)])
def test_non_loopback_host_is_warned_about(tmp_path, monkeypatch, host, warned):
    """A host other than loopback prints a warning that the traffic is not encrypted."""
    addresses = []

    async def run(path, address, *, as_json):
        addresses.append(address)

    monkeypatch.setattr("callfire_async.cli.commands.inspect.run", run)
    (tmp_path / "callfire.db").touch()

    result = run_command("inspect", str(tmp_path / "callfire.db"), "--host", host)

    assert (result.status, "not encrypted" in result.err) == (0, warned)
    assert addresses == [BindAddress(host, 8485)]


@pytest.mark.parametrize("host", ["192.0.2.1", "inspector..example.com", "ä..example.com"])
def test_unavailable_host_is_reported(tmp_path, host):
    """The error names the host and the options that change the address."""
    path = tmp_path / "callfire.db"
    with asyncio.Runner() as runner:
        inbox = SqliteInbox(path)
        runner.run(inbox.__aenter__())
        runner.run(inbox.__aexit__(None, None, None))

    result = run_command("inspect", str(path), "--host", host)

    assert result.status == 1
    assert re.search(
        rf"^error: cannot listen on .*{host}: .*; choose another with --port or --host$", result.err, re.MULTILINE
    )


async def test_ipv6_address():
    """An IPv6 address is in brackets in the URL."""
    async with (
        inspected(None) as receiver,
        serve_inspector(receiver.source, BindAddress("::1")) as address,
        httpx.AsyncClient() as client,
    ):
        assert (await client.get(address)).status_code == 200

    assert address.startswith("http://[::1]:")


@pytest.mark.slow
async def test_demo_serves_the_inspector(monkeypatch):
    """`demo --inspect` serves the inspector until Enter is pressed."""
    screen, outcomes = Console(file=StringIO(), width=100), []

    class Reader(StringIO):
        def readline(self):
            address = re.search(r"http://\S+", screen.file.getvalue())[0]
            where, _, key = address.partition("#")
            shown = httpx.get(f"{where}api/deliveries/1", headers={"Authorization": f"Bearer {key}"}, trust_env=False)
            outcomes.append(shown.json()["outcome"])
            return "\n"

    monkeypatch.setattr(sys, "stdin", Reader())

    lost = await demo.run(20, screen, inspect=True)

    assert (lost, outcomes) == (0, ["handled"])


@pytest.mark.slow
async def test_inspector_of_the_demo_survives_a_crash(tmp_path):
    """After a restart the inspector has the same URL."""
    options = demo_receiver.ReceiverOptions(
        TOKEN, str(tmp_path / "journal"), str(tmp_path / "inbox.db"), inspector_key="inspector-key"
    )
    async with demo.ReceiverProcess(options, crashes=1) as receiver, httpx.AsyncClient() as client:
        before = receiver.inspector_url
        await receiver.crash_when_due(1.0)
        response = await client.get(f"{before.partition('#')[0]}api/dead-letters", headers=KEY)

    assert (receiver.inspector_url, response.json()) == (before, {"items": []})


KEY = {"Authorization": "Bearer inspector-key"}


async def test_receiver_process_serves_the_inspector(tmp_path, capsys):
    """The demo's receiver prints the port of its inspector."""
    options = demo_receiver.ReceiverOptions(
        TOKEN, str(tmp_path / "journal"), str(tmp_path / "inbox.db"), inspector_key="inspector-key"
    )

    async def check_dead_letters():
        port = int(capsys.readouterr().out.split()[2])
        async with httpx.AsyncClient() as client:
            response = await client.get(f"http://127.0.0.1:{port}/api/dead-letters", headers=KEY)
        assert response.json() == {"items": []}

    await demo_receiver.run_receiver(options, check_dead_letters)


@pytest.mark.parametrize("as_json", [True, False])
async def test_inspect_prints_the_url(tmp_path, capsys, as_json):
    """`inspect` prints the URL, for people and for scripts."""
    path = tmp_path / "callfire.db"
    async with SqliteInbox(path):
        task = asyncio.create_task(run_inspect(path, BindAddress(), as_json=as_json))
        output = ""
        async with asyncio.timeout(DEADLINE):
            while not (found := re.search(r"http://[^\s\"]+#[\w-]+", output)):
                await asyncio.sleep(0)
                output += capsys.readouterr().out
        async with httpx.AsyncClient() as client:
            response = await client.get(found[0])
        task.cancel()
        await asyncio.wait([task])

    assert (response.status_code, output.startswith("{" if as_json else "Ready!")) == (200, True)
