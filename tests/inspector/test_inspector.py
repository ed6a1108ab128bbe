"""What the inspector keeps, says and refuses; its page is tried in a browser elsewhere."""

import asyncio
import json
import re
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from io import StringIO

import httpx
import pytest
from cli import typing_commands
from cli.listening import listening
from cli.typing_commands import DEADLINE, typed
from rich.console import Console

from callfire_async import HandlerErrors, InboxUnavailableError
from callfire_async.cli.commands import demo
from callfire_async.cli.commands.demo import _receiver_process as demo_receiver
from callfire_async.cli.commands.inspect import run as run_inspect
from callfire_async.inspector import BindAddress, FileSource, InspectorApp, ReceiverSource, serve_inspector
from callfire_async.inspector import sources as inspector_sources
from callfire_async.inspector.history import DeliveryHistory, DeliveryView
from callfire_async.inspector.views import detail, to_nodes
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


class Filling(MemoryInbox):
    """An inbox that is full, or gone, when a test wants it to be."""

    is_full = is_gone = False

    async def append(self, delivery):
        if self.is_full:
            raise InboxUnavailableError("no space")
        return await super().append(delivery)

    async def stats(self):
        if self.is_gone:
            raise InboxUnavailableError("gone")
        return await super().stats()

    async def get(self, id):
        if self.is_gone:
            raise InboxUnavailableError("gone")
        return await super().get(id)


class Asked:
    """A receiver, its inspector, and a browser's requests without the browser."""

    def __init__(self, inbox, **options):
        router = Router()

        @router.on(TextFinished, name="keep")
        async def keep(event):
            if event.text.message == "fail":
                raise LookupError(event.text.message)

        @router.on(CallFinished, name="reject")
        async def refuse(event):
            raise Reject("not one of ours")

        self.inbox = inbox
        kept = {} if inbox is None else {"inbox": inbox, "retry": RetryPolicy(max_attempts=1)}
        self.receiver = Receiver(router, tokens=TOKEN, **kept | options)
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
        return [item.outcome for item in self.source.recent.changed_since(0)]


@asynccontextmanager
async def asked(inbox, **options):
    asked = Asked(inbox, **options)
    async with asked.receiver, asked.client:
        yield asked


@pytest.fixture
async def kept():
    async with asked(Filling(keep_bodies=True)) as kept:
        yield kept


# --- who may look -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["events", "deliveries/1", "dead", "dead/1"])
@pytest.mark.parametrize("key", [None, "", "Bearer ", "Bearer wrong", "Basic wrong"])
async def test_without_the_key_nobody_is_told_anything(kept, path, key):
    """Whoever is on the same machine, and whatever page is open beside it."""
    kept.client.headers.pop("Authorization")
    await kept.post(text(42))

    response = await kept.client.get(f"/api/{path}", headers={} if key is None else {"Authorization": key})

    assert (response.status_code, "TextSent" in response.text) == (401, False)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8485", "127.0.0.1.evil.example"])
async def test_a_name_that_somebody_made_point_here_is_not_answered(kept, host):
    """So no page of another origin becomes one of this."""
    for path in ("/", "/api/dead"):
        assert (await kept.client.get(path, headers={"Host": host})).status_code == 400


@pytest.mark.parametrize(
    ("given", "asked_for", "status"),
    [
        ("inspector.example", "inspector.example:8485", 200),
        ("inspector.example", "evil.example", 400),
        ("0.0.0.0", "192.0.2.7:8485", 200),
        ("::1", "[::1]:8485", 200),
    ],
)
async def test_another_host_must_be_said(kept, given, asked_for, status):
    """One name; any, where it listens at all addresses."""
    transport = httpx.ASGITransport(InspectorApp(kept.source, host=given))
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        assert (await client.get("/", headers={"Host": asked_for})).status_code == status


async def test_a_replay_cannot_be_had_by_a_link(kept):
    """Nor by a form: it is a POST, and its key a header."""
    await kept.post(text(42))

    assert (await kept.client.get("/api/deliveries/1/replay")).status_code == 405
    assert (await kept.client.get("/api/deliveries/1/reveal")).status_code == 405
    assert (await kept.client.post("/api/deliveries/1/replay", headers={"Authorization": ""})).status_code == 401


async def test_the_page_is_served_from_the_package(kept):
    """With a policy that lets nothing else in; nothing in it is inline, and nothing is asked of anybody else."""
    for path, kind in (("/", "text/html"), ("/inspector.js", "text/javascript"), ("/inspector.css", "text/css")):
        response = await kept.client.get(path)
        assert (response.status_code, response.headers["Content-Type"].partition(";")[0]) == (200, kind)
        assert response.headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self';")
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", response.text)
    page = (await kept.client.get("/")).text

    assert not re.search(r"<script[^>]*>[^<]|<style|\son\w+=|\sstyle=", page)
    assert (await kept.client.get("/icon.svg")).headers["Content-Type"] == "image/svg+xml"


def test_the_script_makes_no_markup_of_text():
    """What comes from outside is text wherever it is put."""
    script = (inspector_page() / "inspector.js").read_text(encoding="utf-8")

    assert not re.search(r"\.(innerHTML|outerHTML)|insertAdjacentHTML|document\.write|eval\(|new Function", script)


def inspector_page():
    from importlib.resources import files

    return files("callfire_async.inspector") / "static"


# --- what is shown ----------------------------------------------------------------------------------------


async def test_what_is_private_stays_on_the_server(kept):
    """A row and a detail have no number, no text and no body; revealed they do."""
    body = text(42).replace(b'"@id"', f'"FromNumber": "{NUMBER}", "@id"'.encode())
    await kept.post(body)

    shown = json.dumps([await kept.get("dead"), await kept.get("deliveries/1")])
    _, revealed = await kept.send("deliveries/1/reveal")

    assert not [secret for secret in (NUMBER, "noon") if secret in shown]
    assert "***12" in shown
    assert (revealed["body"], revealed["payload"]["pairs"][0][0]) == (body.decode(), "TextSent")


async def test_a_body_that_is_none_can_be_revealed_too(kept):
    """As it came, whatever its encoding; there is no event in it."""
    await kept.post(b"\xff{")

    _, revealed = await kept.send("deliveries/1/reveal")

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
async def test_half_a_character_is_shown_too(kept, body, content_type):
    """JSON can say it, and a server hands over what it could not decode as one; no answer fails for it."""
    await kept.receiver.receive(Postback("POST", TOKEN, {"Content-Type": content_type}, body))
    await kept.receiver.idle(timeout=DEADLINE)

    shown = await kept.client.get("/api/deliveries/1")
    revealed = await kept.client.post("/api/deliveries/1/reveal")
    listed = await kept.client.get("/api/dead")

    assert [shown.status_code, revealed.status_code, listed.status_code] == [200, 200, 200]


async def test_an_unknown_event_is_shown_by_its_root(kept):
    """Cut short, for it may be as long as a body; what is inside is shown when it is revealed."""
    await kept.post(b'{"%s": {"Secret": "words"}}' % (b"x" * 100))

    masked = await kept.get("deliveries/1")
    _, revealed = await kept.send("deliveries/1/reveal")

    assert (masked["kind"], masked["subject"]) == ("UnknownNotification", "x" * 60)
    assert ("words" in json.dumps(masked), "words" in json.dumps(revealed)) == (False, True)


def test_a_tree_is_made_of_pairs():
    """Names are values in it, numbers are texts, and what differs from the truth is marked."""
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


async def test_what_became_of_each_request_is_shown(kept):
    """Stored, repeated, refused at the door and by the inbox; the last can be replayed."""
    await kept.post(text(42), text(42), b"")
    await kept.post(text(42), token="wrong")
    kept.inbox.is_full = True
    await kept.post(text(43))
    kept.inbox.is_full = False
    replayed = await kept.send("deliveries/5/replay")
    await kept.receiver.idle(timeout=DEADLINE)

    assert kept.outcomes == ["handled", "duplicate", "refused", "refused", "refused", "handled"]
    assert (await kept.get("deliveries/4"))["reason"] == "the token is wrong, or there is none"
    assert (await kept.get("deliveries/5"))["reason"] == "the inbox could not keep it"
    assert replayed == (200, {"replayed": 1})


async def test_without_an_inbox_it_is_shown_likewise():
    """The handling is inside the request; there are no dead letters, and nothing that waits."""
    async with asked(None) as plain:
        await plain.post(text(42), text(43, "fail"), b"{", b'{"CampaignStarted": {"Broadcast": {"@id": 45}}}')
        replayed = await plain.send("deliveries/1/replay")
        dead = await plain.get("dead")
        all_replayed = await plain.send("dead/replay")
        counts = await plain.source.counts()
        gone = await plain.client.get("/api/dead/1")

    assert plain.outcomes == ["handled", "failed", "refused", "unhandled", "handled"]
    assert (replayed, dead, all_replayed) == ((200, {"replayed": 1}), {"items": []}, (200, {"replayed": 0}))
    assert (counts, gone.status_code) == ({}, 404)


async def test_a_request_that_the_server_gives_up_is_shown(kept):
    """Whether or not its body was read."""
    holding = asyncio.Event()

    async def slowly():
        await holding.wait()
        yield b""

    class Slow(MemoryInbox):
        async def append(self, delivery) -> AppendResult:
            await holding.wait()
            return await super().append(delivery)

    async with asked(Slow()) as slow:
        bodies = (slowly(), text(42))
        tasks = [asyncio.create_task(slow.receiver.receive(Postback("POST", TOKEN, {}, body))) for body in bodies]
        async with asyncio.timeout(DEADLINE):
            while not slow.receiver._intake._storing:  # noqa: ASYNC110  # nothing tells of it
                await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        outcomes = sorted(slow.outcomes)
        holding.set()

    assert outcomes == ["cancelled", "refused"]


async def test_a_replay_that_cannot_be_is_refused(kept):
    """The body is gone, the delivery is, or the receiver stands still."""
    await kept.post(b"", text(42))
    refused = [await kept.send(f"deliveries/{number}/{what}") for number in (1, 9) for what in ("replay", "reveal")]
    await kept.receiver.__aexit__(None, None, None)
    stopped = await kept.send("deliveries/2/replay")
    await kept.receiver.__aenter__()

    assert [status for status, _ in refused] == [409, 200, 404, 404]
    assert stopped == (409, {"error": "the receiver cannot take it now"})


async def test_a_dead_letter_is_replayed_as_itself(kept):
    """By its number in the list, or by the inbox's id; twice it is none any more."""
    await kept.post(text(42, "fail"), b'{"CallFinished": {"Call": {"@id": 44}}}')
    listed = [item["id"] for item in (await kept.get("dead"))["items"]]
    seen = await kept.get("dead/1")
    _, revealed = await kept.send("dead/1/reveal")
    by_number = await kept.send("deliveries/1/replay")
    await kept.receiver.idle(timeout=DEADLINE)
    by_id = await kept.send("dead/2/replay")
    await kept.receiver.idle(timeout=DEADLINE)
    all_of_them = await kept.send("dead/replay")
    none = await kept.send("dead/99/replay")

    assert (listed, seen["tries"][0]["runs"][0]["error"]) == (["2", "1"], "LookupError")
    assert "fail" in revealed["body"]
    assert (by_number, by_id, all_of_them) == ((200, {"replayed": 1}), (200, {"replayed": 1}), (200, {"replayed": 2}))
    assert none == (409, {"error": "it is no dead letter any more"})


async def test_a_dead_letter_whose_body_is_held_by_the_inbox_alone_is_shown(kept):
    """The inspector forgets bodies before an inbox does; what each attempt was is known from the inspector."""
    await kept.post(text(42, "fail"))
    kept.source.recent.most_bytes = 0
    await kept.post(text(43))

    letter = await kept.get("dead/1")
    _, revealed = await kept.send("dead/1/reveal")

    assert (letter["held"], revealed["body"], [run["name"] for run in revealed["tries"][0]["runs"]]) == (
        True,
        text(42, "fail").decode(),
        ["keep"],
    )


async def test_dead_letters_of_an_earlier_day_are_shown(kept, monkeypatch):
    """Which the inspector has not seen die; the newest of too many."""
    monkeypatch.setattr(inspector_sources, "_MOST_DEAD", 2)
    await kept.post(*(text(number, "fail") for number in (41, 42, 43)))
    kept.source.recent = DeliveryHistory()

    listed = (await kept.get("dead"))["items"]
    shown = await kept.get("dead/3")

    assert [item["subject"] for item in listed] == ["text 43", "text 42"]
    assert shown["reason"] == "the only attempt failed: keep: LookupError"


async def test_an_inbox_that_fails_is_said(kept):
    """In its own words, which are ours; the rest goes on."""
    kept.inbox.is_gone = True

    response = await kept.client.get("/api/dead/1")
    counts = await kept.source.counts()
    kept.inbox.is_gone = False

    assert (response.status_code, response.json(), counts) == (503, {"error": "gone"}, {})


# --- live -------------------------------------------------------------------------------------------------


async def told(client, path, count):
    """Read so many messages of a stream."""
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


async def test_what_has_changed_is_told_and_nothing_twice(kept):
    """Whoever comes back says how far they were; of another run they begin anew."""
    await kept.post(text(41), text(42))
    async with streamed(kept.source) as client:
        (first,) = await told(client, "api/events", 1)
        await kept.post(text(43))
        (again,) = await told(client, f"api/events?after={first['id']}", 1)
        (anew,) = await told(client, "api/events?after=other:3", 1)
        beats = await told(client, f"api/events?after={again['id']}", 2)

    assert [len(message["items"]) for message in (first, again, anew)] == [2, 1, 3]
    assert (first["counts"]["done"], len(first["minute"]), first["readOnly"]) == (2, 60, None)
    assert [message["items"] for message in beats] == [[], []]


@pytest.mark.parametrize("version", ["9" * 5000, "-1", "²", "x", ""])
async def test_what_is_no_number_is_refused_aloud(kept, version):
    """However long it is: Python's own words for that are an error of ours."""
    events = await kept.client.get("/api/events", params={"after": f"{kept.source.recent.name}:{version}"})
    delivery = await kept.client.get(f"/api/deliveries/{'9' * 5000}")

    assert (events.status_code, "the id of a message" in events.json()["error"]) == (400, True)
    assert (delivery.status_code, delivery.json()) == (404, {"error": "it is not held any more"})


async def test_what_changes_between_two_beats_is_told_at_once(kept):
    """In a message of its own; and all ends when the inspector does."""
    messages, arrived = [], asyncio.Event()

    async def read(client):
        async with client.stream("GET", "api/events") as response:
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    messages.append(json.loads(line[6:]))
                    arrived.set()

    async with streamed(kept.source) as client, asyncio.timeout(DEADLINE):
        reading = asyncio.create_task(read(client))
        await arrived.wait()
        while not any(message["items"] and "minute" not in message for message in messages):
            await kept.post(text(len(messages)))
            arrived.clear()
            await arrived.wait()
    await reading


# --- what is kept -----------------------------------------------------------------------------------------


def item(body=b"x", id=None, outcome="handled"):
    return DeliveryView(datetime.now(UTC), outcome, Delivery(body), id)


def test_the_last_so_many_are_kept():
    """With what changed last at the end of what is told."""
    recent = DeliveryHistory(most=3)
    items = [recent.add(item(id=number)) for number in range(5)]
    recent.touch(items[2])
    recent.touch(items[0])

    assert [one.number for one in recent.changed_since(0)] == [3, 4, 5]
    assert [one.number for one in recent.changed_since(5)] == [3]
    assert (recent.get(1), recent.by_id(0), recent.by_id(4)) == (None, None, items[4])


def test_what_is_forgotten_is_forgotten_wholly():
    """With a body or without, under its own id or another's."""
    recent = DeliveryHistory(most=1, most_bytes=1)
    recent.add(DeliveryView(datetime.now(UTC), "refused"))
    recent.add(item(b"12345", id=1))
    recent.add(item(id=1, outcome="duplicate"))
    newest = recent.add(item(id=1))
    older = recent.add(item(id=1))

    assert (recent.by_id(1), recent.get(newest.number), len(recent.changed_since(0))) == (older, None, 1)


def test_only_so_many_bytes_are_kept():
    """The oldest bodies go first; the deliveries stay, and say how large they were."""
    recent = DeliveryHistory(most_bytes=10)
    first, second = recent.add(item(b"12345678")), recent.add(item(b"1234"))

    shown = [detail(one) for one in (first, second)]

    assert [(one["held"], one["size"]) for one in shown] == [(False, 8), (True, 4)]


def test_a_body_that_is_dropped_takes_the_payload_with_it():
    """Else it would be held all the same."""
    recent = DeliveryHistory(most_bytes=10)
    one = DeliveryView(datetime.now(UTC), "handled", Delivery(b"12345678"), event=Notification(payload={"a": "b"}))
    recent.add(one)
    recent.add(item(b"1234"))

    assert one.event == Notification()
    assert one.event.payload == {}


def test_the_last_minute_is_counted_by_the_second():
    """How many came, how many failed, and how long 95 of a hundred took at most; older ones are forgotten."""
    now = [1000.0]
    recent = DeliveryHistory(clock=lambda: now[0])
    for number in range(20):
        recent.note_received()
        recent.note_settled(number, failed=number == 19)
    for _ in range(200):
        now[0] += 1
        recent.note_received()
    now[0] = 1000.0 + 200

    minute = recent.minute()
    now[0] = 1059.0
    assert (len(minute), minute[-1]) == (60, (1, 0, None))
    assert len(recent._seconds) == 120


def test_latencies_are_counted_up_to_a_number():
    """Enough for a percentile."""
    recent = DeliveryHistory(clock=lambda: 1000.0)
    for number in range(1000):
        recent.note_settled(number, failed=False)

    assert recent.minute()[-1] == (0, 0, 474)


async def test_a_handling_that_was_forgotten_meanwhile_does_no_harm():
    """There was more to remember."""
    async with asked(MemoryInbox()) as one:
        one.source.recent = DeliveryHistory(most=1)
        record = AttemptRecord(Delivery(text(42)), 7)
        with one.source.attempt(record):
            one.source.recent.add(item())
            with pytest.raises(HandlerErrors), one.source.handler(record, "keep"):
                raise HandlerErrors("x", [ValueError()], completed=frozenset(), failed=["keep"])
        with one.source.handler(AttemptRecord(Delivery(b""), None), "keep"):
            pass

    assert one.outcomes == ["handled"]


# --- a file -----------------------------------------------------------------------------------------------


async def test_a_file_is_looked_at_as_it_changes(tmp_path):
    """From what waits to what is done, or dead; a second attempt is one more."""
    path = tmp_path / "callfire.db"
    async with SqliteInbox(path) as inbox, FileSource.watching(path) as source:
        for number in (41, 42):
            await inbox.append(Delivery(text(number)))
        await source.look()
        waiting = [one.outcome for one in source.recent.changed_since(0)]
        first, second = await inbox.claim(2, lease=60)
        await source.look()
        running = [one.outcome for one in source.recent.changed_since(0)]
        await inbox.ack(first)
        await inbox.nack(second, delay=0, reason="keep: LookupError")
        await source.look()
        failed = [one.outcome for one in source.recent.changed_since(0)]
        (second,) = await inbox.claim(1, lease=60)
        await inbox.dead_letter(second, "why")
        await source.look()
        version = source.recent.version
        await source.look()
        items = source.recent.changed_since(0)
        counts, dead = await source.counts(), await source.dead()
        refused = [await source.replay(items[0]), await source.replay_dead(None)]

    assert (waiting, running, failed) == (["waiting"] * 2, ["running"] * 2, ["handled", "failed"])
    assert [(one.outcome, one.reason, len(one.attempts)) for one in items] == [("handled", "", 1), ("dead", "why", 2)]
    assert (counts, [entry.id for entry in dead]) == ({"waiting": 0, "done": 1, "dead": 1}, [2])
    assert (refused, source.recent.version) == ([source.read_only, 0], version)


async def test_what_a_file_holds_already_is_shown(tmp_path):
    """Of what was handled the body is gone, and so is what it was."""
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
        refused = [(await client.post(f"/api/{path}")).json() for path in ("dead/replay", "dead/1/replay")]

    assert (shown["kind"], shown["outcome"], shown["held"]) == ("body dropped", "handled", False)
    assert refused == [{"error": source.read_only}] * 2


async def test_a_body_is_read_once(tmp_path, monkeypatch):
    """However often the file is looked at: a thousand of the largest would be a gigabyte each second."""
    monkeypatch.setattr(inspector_sources, "_POLL_SECONDS", DEADLINE)
    path, newest, read = tmp_path / "callfire.db", SqliteInbox.newest, []

    async def noted(self, *args, **options):
        entries = await newest(self, *args, **options)
        read.append([entry.delivery.body for entry in entries])
        return entries

    monkeypatch.setattr(SqliteInbox, "newest", noted)
    async with SqliteInbox(path) as inbox:
        await inbox.append(Delivery(text(41)))
        async with FileSource.watching(path) as source:
            await inbox.append(Delivery(text(42)))
            await source.look()
            (lease, _) = await inbox.claim(2, lease=60)
            await inbox.dead_letter(lease, "why")
            await source.look()
            items = source.recent.changed_since(0)

    assert read == [[text(41)], [text(42), b""], [b"", b""]]
    assert [(one.outcome, one.body) for one in items] == [("dead", text(41)), ("running", text(42))]


async def test_what_was_too_old_to_be_shown_stays_so(tmp_path, monkeypatch):
    """Where what came after it is purged, it is one of the last again; but nothing has happened to it."""
    monkeypatch.setattr(inspector_sources, "_POLL_SECONDS", DEADLINE)
    path = tmp_path / "callfire.db"
    async with SqliteInbox(path) as inbox, FileSource.watching(path) as source:
        source.recent.most = 2
        await inbox.append_many([Delivery(text(number)) for number in (41, 42, 43)])
        await source.look()
        (*_, last) = await inbox.claim(3, lease=60)
        await inbox.dead_letter(last, "why")
        await inbox.purge(dead_before=datetime.max.replace(tzinfo=UTC))
        await source.look()
        items = source.recent.changed_since(0)

    assert [one.id for one in items] == [2, 3]


@pytest.mark.parametrize("error", [InboxUnavailableError("gone"), OverflowError(NUMBER)])
async def test_a_file_that_cannot_be_read_for_a_while_is_looked_at_again(tmp_path, monkeypatch, caplog, error):
    """It may be on a disk that is full, or being moved, or hold what nobody has thought of."""
    monkeypatch.setattr(inspector_sources, "_POLL_SECONDS", 0.01)
    path, failures = tmp_path / "callfire.db", []

    async def fail(self, limit, **options):
        failures.append(limit)
        raise error

    async with SqliteInbox(path) as inbox, FileSource.watching(path) as source, asyncio.timeout(DEADLINE):
        with monkeypatch.context() as patch:
            patch.setattr(SqliteInbox, "newest", fail)
            while not failures:  # noqa: ASYNC110  # nothing tells of it
                await asyncio.sleep(0)
        await inbox.append(Delivery(text(41)))
        while not source.recent.changed_since(0):  # noqa: ASYNC110  # likewise
            await asyncio.sleep(0.01)

    told = f"the inbox callfire.db cannot be looked at now ({type(error).__name__}); it is tried again"
    assert told in caplog.messages
    assert NUMBER not in caplog.text


# --- the commands -----------------------------------------------------------------------------------------


async def test_listen_serves_it_beside(capsys):
    """Its address is printed, with the key; what is posted is there."""
    async with listening(capsys, inspect=BindAddress()) as (screen, base):
        (address,) = (await screen.shows(r"To inspect it: (\S+)")).groups()
        async with httpx.AsyncClient() as client:
            await client.post(f"{base}/{typing_commands.TOKEN}", content=text(42))
            where, _, key = address.partition("#")
            client.headers["Authorization"] = f"Bearer {key}"
            shown = (await client.get(f"{where}api/deliveries/1")).json()

    assert (shown["outcome"], shown["tries"][0]["runs"][0]["name"]) == ("handled", "forward")


async def test_listen_tells_scripts_where_it_is(capsys, tmp_path):
    """In the line that says that it is ready; with an inbox it can replay dead letters."""
    async with listening(capsys, inspect=BindAddress(), inbox=str(tmp_path / "inbox.db"), as_json=True) as (screen, _):
        (ready,) = screen.items

    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/#[\w-]{32}", ready["inspector"])


@pytest.mark.parametrize("options", [("inspect", "callfire.db"), ("listen", "--inspect", "--port", "0")])
@pytest.mark.parametrize("as_json", [True, False])
def test_it_ends_with_ctrl_c_while_somebody_looks(tmp_path, options, as_json):
    """What is told without end ends then."""

    async def make():
        async with SqliteInbox(tmp_path / "callfire.db"):
            pass

    asyncio.run(make())
    port = "--port" if options[0] == "inspect" else "--inspect-port"
    command = [sys.executable, "-m", "callfire_async", *options, port, "0", *(["--json"] if as_json else [])]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=tmp_path) as process:
        said = ""
        while not (found := re.search(r"http://\S+/#[\w-]+", said)):
            said += process.stdout.readline()
        where, _, key = found[0].partition("#")
        headers = {"Authorization": f"Bearer {key}"}
        with httpx.stream("GET", f"{where}api/events", headers=headers, trust_env=False) as response:
            next(response.iter_lines())
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=DEADLINE)

    assert (process.returncode, err) == (130, "")


def test_a_file_that_is_not_there_is_wrong_use():
    """Nothing is made."""
    assert typed("inspect", "missing.db").status == 2


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.1", False), ("::1", False), ("0.0.0.0", True)])
def test_beyond_loopback_there_is_a_warning(tmp_path, monkeypatch, host, warned):
    """The key, and all that is shown, go unencrypted."""
    seen = []

    async def run(path, place, *, as_json):
        seen.append(place)

    monkeypatch.setattr("callfire_async.cli.commands.inspect.run", run)
    (tmp_path / "callfire.db").touch()

    ended = typed("inspect", str(tmp_path / "callfire.db"), "--host", host)

    assert (ended.status, "may be read" in ended.err or "can be read" in ended.err) == (0, warned)
    assert seen == [BindAddress(host, 8485)]


async def test_it_is_served_at_another_address():
    """One that is written with colons stands in brackets."""
    async with (
        asked(None) as one,
        serve_inspector(one.source, BindAddress("::1")) as address,
        httpx.AsyncClient() as client,
    ):
        assert (await client.get(address)).status_code == 200

    assert address.startswith("http://[::1]:")


async def test_the_demo_shows_its_campaign(monkeypatch):
    """Until Enter is pressed."""
    screen, seen = Console(file=StringIO(), width=100), []

    class Reader(StringIO):
        def readline(self):
            address = re.search(r"http://\S+", screen.file.getvalue())[0]
            where, _, key = address.partition("#")
            shown = httpx.get(f"{where}api/deliveries/1", headers={"Authorization": f"Bearer {key}"}, trust_env=False)
            seen.append(shown.json()["outcome"])
            return "\n"

    monkeypatch.setattr(sys, "stdin", Reader())

    lost = await demo.run(20, screen, inspect=True)

    assert (lost, seen) == (0, ["handled"])


async def test_the_demo_s_inspector_comes_back_where_it_was(tmp_path):
    """After a crash: at the same address, with the same key."""
    settings = demo_receiver.ReceiverOptions(
        TOKEN, str(tmp_path / "journal"), str(tmp_path / "inbox.db"), inspector_key="a-key-of-its-own"
    )
    async with demo.ReceiverProcess(settings, crashes=1) as receiver, httpx.AsyncClient() as client:
        before = receiver.inspector
        await receiver.crash_when_due(1.0)
        response = await client.get(f"{before.partition('#')[0]}api/dead", headers=KEY)

    assert (receiver.inspector, response.json()) == (before, {"items": []})


KEY = {"Authorization": "Bearer a-key-of-its-own"}


async def test_the_demo_s_receiver_serves_it(tmp_path, capsys):
    """In its own process, beside its endpoint, and says where."""
    settings = demo_receiver.ReceiverOptions(
        TOKEN, str(tmp_path / "journal"), str(tmp_path / "inbox.db"), inspector_key="a-key-of-its-own"
    )

    async def look():
        port = int(capsys.readouterr().out.split()[2])
        async with httpx.AsyncClient() as client:
            response = await client.get(f"http://127.0.0.1:{port}/api/dead", headers=KEY)
        assert response.json() == {"items": []}

    await demo_receiver.serve(settings, look)


@pytest.mark.parametrize("as_json", [True, False])
async def test_inspect_says_where_it_is(tmp_path, capsys, as_json):
    """For people and for scripts."""
    path = tmp_path / "callfire.db"
    async with SqliteInbox(path):
        task = asyncio.create_task(run_inspect(path, BindAddress(), as_json=as_json))
        said = ""
        async with asyncio.timeout(DEADLINE):
            while not (found := re.search(r"http://[^\s\"]+#[\w-]+", said)):
                await asyncio.sleep(0)
                said += capsys.readouterr().out
        async with httpx.AsyncClient() as client:
            response = await client.get(found[0])
        task.cancel()
        await asyncio.wait([task])

    assert (response.status_code, said.startswith("{" if as_json else "Ready!")) == (200, True)
