"""`inbox`: files, directories, and servers whose drivers are missing."""

import asyncio
import json
import math
import secrets
import sqlite3
import sys
import time
import types
from asyncio.subprocess import PIPE
from datetime import UTC, datetime, timedelta

import pytest
from cli.command_runner import CommandResult, run_command

from callfire_async.cli.commands import inbox as inbox_command
from callfire_async.notifications import Delivery, Receiver, Router, SqliteInbox, TextReceived
from callfire_async.notifications.inbox import Clock
from callfire_async.testing import encode, make_text_received

SERVICE = """\
from callfire_async.notifications import Router, TextReceived

router, empty, number = Router(), Router(), 1

@router.on(TextReceived)
async def handle(event: TextReceived) -> None:
    if event.text.message == "fail":
        raise ValueError

@router.on(TextReceived, name="slow")
async def slow(event: TextReceived) -> None:
    if event.text.message == "slow":
        import asyncio
        await asyncio.Event().wait()
"""


def delivery(message="KEYWORD yes"):
    content_type, body = encode(make_text_received(message=message))
    return Delivery(body, content_type)


async def add_dead_letters(inbox, *messages, reason="why"):
    """Append deliveries and dead-letter them."""
    await inbox.append_many([delivery(message) for message in messages])
    for lease in await inbox.claim(len(messages), lease=60):
        await inbox.dead_letter(lease, reason)


async def fill(path, *messages):
    async with SqliteInbox(path) as inbox:
        await add_dead_letters(inbox, *messages)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "callfire.db"
    asyncio.run(fill(path, "one", "two"))
    return str(path)


@pytest.fixture
def directory(tmp_path):
    path = tmp_path / "inboxes"
    path.mkdir()
    asyncio.run(fill(path / "a.db", "one"))
    asyncio.run(fill(path / "b.db", "two"))
    return str(path)


@pytest.fixture
def service(tmp_path, monkeypatch):
    """Provide a module with a router in the working directory."""
    (tmp_path / "cli_service.py").write_text(SERVICE)
    (tmp_path / "cli_importing.py").write_text("import no_such_module_here")
    monkeypatch.syspath_prepend("")


@pytest.fixture
def owned(file):
    with asyncio.Runner() as runner:
        inbox = SqliteInbox(file)
        runner.run(inbox.__aenter__())
        yield file
        runner.run(inbox.__aexit__(None, None, None))


def test_stats_of_an_owned_file(owned):
    """An inbox can be counted while another process owns its file, for people and for scripts."""
    assert run_command("inbox", "stats", owned, "--json").items == [
        {"ready": 0, "delayed": 0, "leased": 0, "done": 0, "dead": 2, "oldest_ready_age": None}
    ]
    assert "dead     2" in run_command("inbox", "stats", owned).out


def test_stats_show_the_age_of_the_oldest(tmp_path):
    """The age of the oldest ready delivery is printed if there is one."""

    async def wait():
        async with SqliteInbox(tmp_path / "a.db") as inbox:
            await inbox.append(delivery())

    asyncio.run(wait())

    assert "oldest ready  " in run_command("inbox", "stats", "a.db").out


def test_list_of_an_owned_file(owned):
    """Each delivery is listed on a line; an invalid state exits with status 2."""
    rows = run_command("inbox", "list", owned, "--state", "dead").out.splitlines()
    items = run_command("inbox", "list", owned, "--json").items

    assert [row.split()[:3] for row in rows[1:]] == [["1", "dead", "TextReceived"], ["2", "dead", "TextReceived"]]
    assert [(item["id"], item["reason"]) for item in items] == [(1, "why"), (2, "why")]
    assert run_command("inbox", "list", owned, "--state", "done").out == "no deliveries\n"
    assert run_command("inbox", "list", owned, "--state", "delayed").out == "no deliveries\n"
    assert run_command("inbox", "list", owned, "--state", "asleep").status == 2


def test_directory_is_read_as_one_inbox(directory):
    """The ids of a directory contain the name of the file."""
    assert run_command("inbox", "stats", directory, "--json").items[0]["dead"] == 2
    assert [item["id"] for item in run_command("inbox", "list", directory, "--json").items] == ["a/1", "b/1"]
    assert run_command("inbox", "show", directory, "b/1", "--json").items[0]["id"] == "b/1"
    assert run_command("inbox", "show", directory, "c/1").status == 1


def test_delivery_is_masked(file):
    """Numbers and messages are printed only with --raw."""
    shown, raw = run_command("inbox", "show", file, "1"), run_command("inbox", "show", file, "1", "--raw")

    assert ("12135550142" in shown.out, "one" in shown.out, '"***42"' in shown.out) == (False, False, True)
    assert ("12135550142" in raw.out, "<Message>one</Message>" in raw.out) == (True, True)


def test_delivery_as_json(file):
    """--json prints one document, which is masked without --raw."""
    (item,) = run_command("inbox", "show", file, "1", "--json").items
    (raw,) = run_command("inbox", "show", file, "1", "--json", "--raw").items

    assert (item["event"]["text"]["message"], "body" in item) == ("***", False)
    assert (raw["event"]["text"]["message"], "<Message>one" in raw["body"]) == ("one", True)


def test_invalid_body_has_no_event(tmp_path):
    """A body that is not a notification is printed with escapes, and without an event."""

    async def append():
        async with SqliteInbox(tmp_path / "a.db") as inbox:
            await inbox.append(Delivery(b"\x1b[2J what?\xff"))

    asyncio.run(append())

    assert "***" not in run_command("inbox", "show", "a.db", "1").out
    assert run_command("inbox", "show", "a.db", "1", "--raw").out.splitlines()[-1] == "\\x1b[2J what?\\xff"
    assert run_command("inbox", "list", "a.db", "--json").items[0]["kind"] is None


@pytest.fixture
def envelopes(tmp_path):
    """A waiting envelope of three events, one of them unreadable, and a dead one of two that is too large to split."""

    async def append():
        texts = [{"eventType": "Finished", "resource": {"id": id, "message": "secret"}} for id in (1, 2)]
        bodies = [
            {"resourceType": "InboundText", "events": [*texts, {}]},
            {"resourceType": "InboundText", "events": texts, "webhookName": "x" * 5_000},
        ]
        async with SqliteInbox(tmp_path / "a.db") as inbox:
            await inbox.append_many([Delivery(json.dumps(body).encode()) for body in bodies])
            waiting, dead = await inbox.claim(2, lease=60)
            await inbox.release(waiting)
            await inbox.dead_letter(dead, "too large")

    asyncio.run(append())
    return "a.db"


def test_an_envelope_is_listed_with_the_number_of_its_events(envelopes):
    """Waiting or dead."""
    rows = [row.split()[:4] for row in run_command("inbox", "list", envelopes).out.splitlines()[1:]]

    assert rows == [["1", "ready", "3", "events"], ["2", "dead", "2", "events"]]
    assert [item["kind"] for item in run_command("inbox", "list", envelopes, "--json").items] == [
        "3 events",
        "2 events",
    ]


def test_each_event_of_an_envelope_is_shown(envelopes):
    """Masked without --raw; an unreadable one with its error."""
    (waiting,) = run_command("inbox", "show", envelopes, "1", "--json").items
    (dead,) = run_command("inbox", "show", envelopes, "2", "--json", "--raw").items
    shown = run_command("inbox", "show", envelopes, "1").out

    assert (waiting["kind"], waiting["event"], dead["event"]) == ("3 events", None, None)
    assert [event["kind"] for event in waiting["events"]] == ["TextReceived", "TextReceived", None]
    assert waiting["events"][2]["error"] == "not a notification: missing @ events[2].eventType"
    assert [event["text"]["message"] for event in waiting["events"][:2]] == ["***", "***"]
    assert [event["text"]["message"] for event in dead["events"]] == ["secret", "secret"]
    assert (shown.count('"kind": "TextReceived"'), shown.count('"error"'), "secret" in shown) == (2, 1, False)


def test_an_unreadable_event_that_is_alone_is_not_shown(tmp_path):
    """Its body is not a notification."""

    async def append():
        async with SqliteInbox(tmp_path / "a.db") as inbox:
            await inbox.append(Delivery(b'{"events": [{}]}'))

    asyncio.run(append())
    (item,) = run_command("inbox", "show", "a.db", "1", "--json").items

    assert (item["kind"], item["event"], "events" in item) == (None, None, False)


def test_dead_letters_are_replayed(file):
    """Without ids all dead letters are replayed, otherwise the given ones."""
    one, rest = run_command("inbox", "replay", file, "1"), run_command("inbox", "replay", file)

    assert (one.out, rest.out) == ("1 replayed\n", "1 replayed\n")


@pytest.mark.parametrize("options", [[], ["--router", "cli_service:router"]])
def test_ids_are_checked_before_anything_is_replayed(file, service, options):
    """If one of the ids does not exist or is not a dead letter, nothing is replayed and the status is 1."""
    run_command("inbox", "replay", file, "1")

    missing = run_command("inbox", "replay", file, "2", "7", *options)
    not_dead = run_command("inbox", "replay", file, "2", "1", *options)

    assert (missing.status, missing.out) == (1, "")
    assert missing.err == "error: nothing was replayed: delivery 7 does not exist\n"
    assert (not_dead.status, not_dead.out) == (1, "")
    assert not_dead.err == "error: nothing was replayed: delivery 1 is not a dead letter, but ready\n"
    assert run_command("inbox", "stats", file, "--json").items[0]["dead"] == 1


def test_ids_in_a_directory_are_checked_before_anything_is_replayed(directory):
    """A wrong id for one file prevents the replay in the others."""
    result = run_command("inbox", "replay", directory, "a/1", "b/7", "c/1")

    assert (result.status, result.out) == (1, "")
    assert result.err == "error: nothing was replayed: delivery b/7 does not exist; delivery c/1 does not exist\n"
    assert run_command("inbox", "stats", directory, "--json").items[0]["dead"] == 2


def test_handlers_run_in_this_process(file, service):
    """With --router the dead letters are handled, and the results are counted."""
    shown = run_command("inbox", "replay", file, "--router", "cli_service:router")

    assert (shown.status, shown.out.splitlines()[-1]) == (0, "2 replayed: 2 done")
    assert run_command("inbox", "stats", file, "--json").items[0]["done"] == 2


def test_failed_handler_is_reported(tmp_path, service):
    """A failed handler is printed with its reason and its traceback, and the status is 1."""
    asyncio.run(fill(tmp_path / "a.db", "fail", "fine"))

    shown = run_command("inbox", "replay", "a.db", "--router", "cli_service:router")

    assert (shown.status, shown.out.splitlines()[-1]) == (1, "2 replayed: 1 delayed, 1 done")
    assert "cli_service.handle: ValueError" in shown.out
    assert "error: handler cli_service.handle failed: ValueError" in shown.err


class ImpatientReceiver(Receiver):
    """A receiver that does not wait ten seconds for its handlers when it stops."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options, shutdown_timeout=0.05)


def test_timeout_reports_the_current_state(tmp_path, service, monkeypatch):
    """A delivery that is not done in time is reported in its current state."""
    monkeypatch.setattr("callfire_async.cli.commands.inbox.Receiver", ImpatientReceiver)
    asyncio.run(fill(tmp_path / "a.db", "slow"))

    shown = run_command("inbox", "replay", "a.db", "--router", "cli_service:router", "--timeout", "0.2", "--json")

    assert (shown.status, shown.items[0]["state"]) == (1, "leased")


def test_timeout_requires_a_router(file):
    """Without --router nothing is handled, and nothing is waited for."""
    shown = run_command("inbox", "replay", file, "--timeout", "5")

    assert (shown.status, "--timeout requires --router" in shown.err) == (2, True)


@pytest.mark.parametrize(
    "router",
    [
        "cli_service",
        ":router",
        ".cli_service:router",
        "no_such_module:router",
        "cli_importing:router",
        "cli_service:number",
        "cli_service:empty",
    ],
)
def test_invalid_router_is_wrong_usage(file, service, router):
    """A missing module, or an attribute that is not a router with handlers, exits with status 2."""
    shown = run_command("inbox", "replay", file, "--router", router)

    assert (shown.status, "--router" in shown.err) == (2, True)


async def run_beside(*arguments):
    """Run a command in a process of its own, while this process continues."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "callfire_async", "inbox", *arguments, stdout=PIPE, stderr=PIPE
    )
    async with asyncio.timeout(60):
        out, error = await process.communicate()
    return CommandResult(process.returncode, out.decode(), error.decode())


@pytest.mark.slow
async def test_dead_letters_of_a_running_service_are_replayed(tmp_path):
    """The service handles them at once and need not be stopped; output and status are those without a service."""
    path, handled = tmp_path / "a.db", []
    router = Router()

    @router.on(TextReceived)
    async def handle(event):
        handled.append(event.text.message)

    await fill(path, "one", "two", "three")
    inbox = SqliteInbox(path)
    async with Receiver(router, tokens=None, inbox=inbox) as receiver:
        one = await run_beside("replay", str(path), "1")
        missing = await run_beside("replay", str(path), "2", "7")
        rest = await run_beside("replay", str(path), "--json")
        none = await run_beside("replay", str(path))
        await receiver.idle(timeout=30)

        assert (await inbox.stats()).done == 3
    assert one == (0, "1 replayed\n", "")
    assert missing == (1, "", "error: nothing was replayed: delivery 7 does not exist\n")
    assert (rest.status, [item["id"] for item in rest.items], rest.err) == (0, ["2", "3"], "")
    assert none == (0, "0 replayed\n", "")
    assert sorted(handled) == ["one", "three", "two"]


async def test_dead_letters_of_a_running_and_a_stopped_process_are_replayed(directory):
    """Each file of a directory by its owner, and those without one by the command."""
    async with SqliteInbox(f"{directory}/a.db") as inbox:
        shown = await asyncio.to_thread(run_command, "inbox", "replay", directory, "--json")

        assert (shown.status, [item["id"] for item in shown.items]) == (0, ["a/1", "b/1"])
        assert (await inbox.stats()).ready == 1


@pytest.mark.slow
async def test_a_router_needs_the_file_of_a_running_service(tmp_path, service):
    """The handlers of two processes would run on the same deliveries."""
    await fill(tmp_path / "a.db", "one")
    async with SqliteInbox(tmp_path / "a.db") as inbox:
        shown = await run_beside("replay", "a.db", "--router", "cli_service:router")

        assert (shown.status, "owned by process" in shown.err, (await inbox.stats()).dead) == (1, True, 1)


@pytest.mark.parametrize("command", [["replay"], ["purge", "--dead-before", "0d", "--yes"]])
def test_owner_of_a_file_is_named(owned, command, monkeypatch):
    """The owning process is named, with what to do, if its event loop is blocked; nothing is changed."""
    monkeypatch.setattr("callfire_async.cli._inbox_target.LOCK_TIMEOUT_SECONDS", 0.1)
    name, *options = command

    shown = run_command("inbox", name, owned, *options)

    assert (shown.status, "owned by process" in shown.err, "stop the service first" in shown.err) == (1, True, True)
    assert shown.out == ""
    assert run_command("inbox", "stats", owned, "--json").items[0]["dead"] == 2


def test_directory_is_replayed(directory, service):
    """The dead letters of all files in a directory are replayed."""
    one = run_command("inbox", "replay", directory, "b/1", "--json")
    rest = run_command("inbox", "replay", directory, "--router", "cli_service:router")

    assert one.items == [{"id": "b/1", "state": "ready", "attempt": 1, "reason": "why"}]
    assert rest.out.splitlines()[1].split()[:2] == ["a/1", "done"]
    assert run_command("inbox", "replay", directory).out == "0 replayed\n"


def test_purge_deletes_dead_letters(directory, file):
    """Dead letters are deleted after a confirmation, or with --yes."""
    refused = run_command("inbox", "purge", file, "--dead-before", "0m", input="n\n")
    purged = run_command("inbox", "purge", file, "--dead-before", "0m", input="y\n")
    in_json = run_command("inbox", "purge", directory, "--dead-before", "0h", "--done-before", "1d", "--yes", "--json")

    assert (refused.status, purged.out.splitlines()[-1], in_json.items) == (1, "2 deleted", [{"purged": 2}])


def test_prompt_without_an_answer_is_an_error(file):
    """The end of standard input is an error that names --yes, and nothing is deleted."""
    ended = run_command("inbox", "purge", file, "--dead-before", "0m", input="")

    assert (ended.status, ended.err.strip()) == (1, "error: standard input has no answer: confirm with --yes")
    assert run_command("inbox", "stats", file, "--json").items[0]["dead"] == 2


@pytest.mark.parametrize(
    "options",
    [[], ["--dead-before", "soon"], ["--dead-before", "999999d"], ["--dead-before", "1d", "--json"]],
)
def test_purge_needs_a_valid_time(file, options):
    """A missing or invalid time, or --json without --yes, exits with status 2."""
    assert run_command("inbox", "purge", file, *options).status == 2


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31T10:00:00+02:00", datetime(2026, 1, 31, 8, tzinfo=UTC)),
    ],
)
def test_absolute_time(text, time):
    """An ISO 8601 time without an offset is in UTC."""
    assert inbox_command.parse_time(text) == time


@pytest.mark.parametrize(("text", "age"), [("2d", timedelta(days=2)), ("3h", timedelta(hours=3))])
def test_age(text, age):
    """An age in days, hours or minutes is subtracted from the current time."""
    assert abs(datetime.now(UTC) - inbox_command.parse_time(text) - age) < timedelta(minutes=5)


@pytest.mark.parametrize(
    ("target", "module", "extra"),
    [
        ("postgresql://u:sesame@h/d", "postgres", "postgres"),
        ("postgres://h/d", "postgres", "postgres"),
        ("nats://u:sesame@h:4222", "jetstream", "nats"),
    ],
)
@pytest.mark.parametrize("command", [["stats"], ["replay"]])
def test_missing_driver_names_its_extra(monkeypatch, target, module, extra, command):
    """The error names the extra to install, and contains no password."""
    monkeypatch.setitem(sys.modules, f"callfire_async.notifications.inbox.{module}", None)

    shown = run_command("inbox", *command, target)

    assert (shown.status, f"pip install 'callfire-async[{extra}]'" in shown.err) == (2, True)
    assert "sesame" not in shown.err


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("missing.db", "does not exist"),
        ("file/missing.db", "does not exist"),
        ("x" * 300, "cannot be read: File name too long"),
        ("redis://localhost", "postgresql://"),
        ("postgresql://u:sesame@[::1/d", "not a valid URL"),
    ],
)
@pytest.mark.parametrize("command", [["stats"], ["replay"]])
def test_invalid_inbox_is_wrong_usage(tmp_path, target, problem, command):
    """A missing or inaccessible file, an invalid URL or an unknown scheme exits with status 2."""
    (tmp_path / "file").touch()

    shown = run_command("inbox", *command, target)

    assert (shown.status, problem in shown.err, "sesame" in shown.err) == (2, True, False)


@pytest.mark.parametrize("command", [["stats"], ["purge", "--dead-before", "1d", "--yes"]])
def test_other_files_are_not_changed(tmp_path, command):
    """A text file and another program's database are errors, and stay unchanged."""
    (tmp_path / "notes").write_text("notes")
    connection = sqlite3.connect(tmp_path / "other.db")
    connection.execute("CREATE TABLE things (id)")
    connection.close()
    name, *options = command

    results = [run_command("inbox", name, file, *options) for file in ("notes", "other.db")]

    assert [result.status for result in results] == [1, 1]
    assert all(result.err.count("error:") == 1 for result in results)


@pytest.mark.parametrize(("target", "name"), [("nats://localhost", "callfire"), ("nats://localhost/hooks", "hooks")])
def test_path_of_a_nats_url_is_the_name(monkeypatch, tmp_path, target, name):
    """The path of a NATS URL is the name of the inbox."""

    class FakeJetStreamInbox(SqliteInbox):
        def __init__(self, server, *, name="callfire", **options):
            assert server == "nats://localhost"
            super().__init__(tmp_path / f"{name}.db")

    module = types.SimpleNamespace(JetStreamInbox=FakeJetStreamInbox)
    monkeypatch.setitem(sys.modules, "callfire_async.notifications.inbox.jetstream", module)

    assert run_command("inbox", "stats", target).status == 0
    assert run_command("inbox", "purge", target, "--dead-before", "1d", "--yes").out == "0 deleted\n"
    assert (tmp_path / f"{name}.db").exists()


def test_replaying_with_a_router_deletes_nothing(tmp_path, service):
    """Not even what is older than the default retention: the service may keep it longer."""

    async def prepare():
        async with SqliteInbox(tmp_path / "a.db", clock=Clock(system=lambda: time.time() - 40 * 86400)) as inbox:
            await inbox.append(delivery("old"))
            await inbox.ack((await inbox.claim(1, lease=60))[0], event_key="old")
        async with SqliteInbox(tmp_path / "a.db", retention=math.inf) as inbox:
            await add_dead_letters(inbox, "one")

    asyncio.run(prepare())

    assert run_command("inbox", "replay", "a.db", "--router", "cli_service:router").status == 0
    assert run_command("inbox", "stats", "a.db", "--json").items[0]["done"] == 2


@pytest.mark.parametrize(
    ("target", "inbox_class"),
    [("postgresql://h/d", "postgres.PostgresInbox"), ("nats://h/hooks", "jetstream.JetStreamInbox")],
)
@pytest.mark.parametrize("command", [["stats"], ["replay"], ["purge", "--dead-before", "1d", "--yes"]])
def test_an_inbox_on_a_server_is_neither_created_nor_changed(monkeypatch, tmp_path, target, inbox_class, command):
    """The command does not know the settings of the service, and may be of another version."""
    created, (module, class_name) = [], inbox_class.split(".")

    class FakeInbox(SqliteInbox):
        def __init__(self, server, *, create, **options):
            created.append(create)
            super().__init__(tmp_path / "fake.db")

    namespace = types.SimpleNamespace(**{class_name: FakeInbox})
    monkeypatch.setitem(sys.modules, f"callfire_async.notifications.inbox.{module}", namespace)
    name, *options = command

    assert run_command("inbox", name, target, *options).status == 0
    assert set(created) == {False}


def test_an_inbox_that_is_missing_on_a_server_is_an_error(nats_server):
    """A wrong name would otherwise show an empty inbox, and leave streams on the server."""
    target = f"{nats_server.url()}/{secrets.token_hex(8)}"

    shown = [run_command("inbox", "stats", target) for _ in range(2)]

    assert [result.status for result in shown] == [1, 1]
    assert all("has no inbox with this name" in result.err for result in shown)


def test_invalid_nats_name_is_wrong_usage():
    """An invalid name exits with status 2, before anything is connected."""
    assert run_command("inbox", "stats", "nats://localhost/a.b").status == 2


# --- backups ------------------------------------------------------------------------------------------------------


def test_backup_of_a_running_service_is_restored(owned, tmp_path):
    """A backup needs no downtime; a restore is refused until the service is stopped."""
    backed_up = run_command("inbox", "backup", owned, "backup.db", "--json")
    again = run_command("inbox", "backup", owned, "backup.db")
    forced = run_command("inbox", "backup", owned, "backup.db", "--force")

    assert backed_up.items == [{"backup": "backup.db"}]
    assert (again.status, "--force" in again.err) == (1, True)
    assert forced.out == "backup.db is a complete copy\n"
    assert run_command("inbox", "stats", "backup.db", "--json").items[0]["dead"] == 2


def test_restore_is_refused_while_the_file_is_owned(owned, monkeypatch):
    """The owner is named, and nothing is changed."""
    monkeypatch.setattr("callfire_async.cli._inbox_target.LOCK_TIMEOUT_SECONDS", 0.1)
    run_command("inbox", "backup", owned, "backup.db")

    refused = run_command("inbox", "restore", owned, "backup.db")

    assert (refused.status, "nothing was restored" in refused.err, "owned by process" in refused.err) == (1, True, True)
    assert "stop the service first" in refused.err


def test_backup_that_cannot_be_written_is_an_error(file, tmp_path):
    """The error names the file, and is one line."""
    (tmp_path / "notes").touch()

    failed = run_command("inbox", "backup", file, "notes/backup.db")

    assert (failed.status, "notes/backup.db" in failed.err, len(failed.err.splitlines())) == (1, True, 1)


def test_restore_keeps_the_old_file(file):
    """Its path is printed, for people and for scripts."""
    run_command("inbox", "backup", file, "backup.db")
    run_command("inbox", "purge", file, "--dead-before", "0m", "--yes")

    (item,) = run_command("inbox", "restore", file, "backup.db", "--json").items
    restored = run_command("inbox", "restore", "new.db", "backup.db")
    replaced = run_command("inbox", "restore", file, "backup.db")

    assert restored.out == "new.db is restored\n"
    assert f"{file} is restored; the old file is {file}.replaced-" in replaced.out
    counts = [run_command("inbox", "stats", path, "--json").items[0]["dead"] for path in (file, item["replaced"])]
    assert counts == [2, 0]


def test_directory_is_backed_up_and_restored(directory):
    """Each file by itself."""
    run_command("inbox", "backup", directory, "copies")
    restored = run_command("inbox", "restore", "other", "copies")

    assert len(restored.out.splitlines()) == 2
    assert run_command("inbox", "stats", "other", "--json").items[0]["dead"] == 2


@pytest.mark.parametrize(
    "command",
    [
        ["backup", "missing.db", "backup.db"],
        ["backup", "postgresql://u:sesame@h/d", "backup.db"],
        ["restore", "inbox.db", "missing.db"],
        ["restore", "nats://h", "backup.db"],
    ],
)
def test_backup_needs_files(command):
    """A missing file or a server is wrong usage."""
    result = run_command("inbox", *command)

    assert (result.status, "sesame" in result.err) == (2, False)
