"""Inboxes on the command line: files that somebody may own, folders, and servers whose drivers are missing."""

import asyncio
import sqlite3
import sys
import types
from datetime import UTC, datetime, timedelta

import pytest
from cli.typing_commands import typed

from callfire_async.cli.commands import inbox as work
from callfire_async.notifications import Delivery, SqliteInbox
from callfire_async.testing import encode, make_text_received

SERVICE = """\
from callfire_async.notifications import Router, TextReceived

router, empty, number = Router(), Router(), 1

@router.on(TextReceived)
async def take(event: TextReceived) -> None:
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


async def dead_letter(inbox, *messages, reason="why"):
    """Keep deliveries, and make dead letters of them."""
    await inbox.append_many([delivery(message) for message in messages])
    for lease in await inbox.claim(len(messages), lease=60):
        await inbox.dead_letter(lease, reason)


async def fill(path, *messages):
    async with SqliteInbox(path) as inbox:
        await dead_letter(inbox, *messages)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "callfire.db"
    asyncio.run(fill(path, "one", "two"))
    return str(path)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "inboxes"
    path.mkdir()
    asyncio.run(fill(path / "a.db", "one"))
    asyncio.run(fill(path / "b.db", "two"))
    return str(path)


@pytest.fixture
def service(tmp_path, monkeypatch):
    """A module with a router, in the working directory."""
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


def test_an_inbox_is_counted_while_somebody_owns_it(owned):
    """For people and for scripts."""
    assert typed("inbox", "stats", owned, "--json").items == [
        {"ready": 0, "delayed": 0, "leased": 0, "done": 0, "dead": 2, "oldest_ready_age": None}
    ]
    assert "dead     2" in typed("inbox", "stats", owned).out


def test_the_age_of_the_oldest_is_shown(tmp_path):
    """Where something waits."""

    async def wait():
        async with SqliteInbox(tmp_path / "a.db") as inbox:
            await inbox.append(delivery())

    asyncio.run(wait())

    assert "oldest ready  " in typed("inbox", "stats", "a.db").out


def test_deliveries_are_listed_while_somebody_owns_them(owned):
    """One line each, or one line of JSON."""
    rows = typed("inbox", "list", owned, "--state", "dead").out.splitlines()
    items = typed("inbox", "list", owned, "--json").items

    assert [row.split()[:3] for row in rows[1:]] == [["1", "dead", "TextReceived"], ["2", "dead", "TextReceived"]]
    assert [(item["id"], item["reason"]) for item in items] == [(1, "why"), (2, "why")]
    assert typed("inbox", "list", owned, "--state", "done").out == "no deliveries\n"
    assert typed("inbox", "list", owned, "--state", "asleep").status == 2


def test_a_folder_is_looked_at_as_one(folder):
    """Ids are file and number; none of the files is taken over, and none is made."""
    assert typed("inbox", "stats", folder, "--json").items[0]["dead"] == 2
    assert [item["id"] for item in typed("inbox", "list", folder, "--json").items] == ["a/1", "b/1"]
    assert typed("inbox", "show", folder, "b/1", "--json").items[0]["id"] == "b/1"
    assert typed("inbox", "show", folder, "c/1").status == 1


def test_a_delivery_is_shown_masked(file):
    """Neither number nor message, unless they are asked for."""
    shown, raw = typed("inbox", "show", file, "1"), typed("inbox", "show", file, "1", "--raw")

    assert ("12135550142" in shown.out, "one" in shown.out, '"***42"' in shown.out) == (False, False, True)
    assert ("12135550142" in raw.out, "<Message>one</Message>" in raw.out) == (True, True)


def test_a_delivery_is_shown_to_a_script(file):
    """One JSON document, masked as well unless raw."""
    (item,) = typed("inbox", "show", file, "1", "--json").items
    (raw,) = typed("inbox", "show", file, "1", "--json", "--raw").items

    assert (item["event"]["text"]["message"], "body" in item) == ("***", False)
    assert (raw["event"]["text"]["message"], "<Message>one" in raw["body"]) == ("one", True)


def test_a_body_that_is_none_is_shown_without_an_event(tmp_path):
    """There is nothing to mask; what would move the cursor is an escape."""

    async def append():
        async with SqliteInbox(tmp_path / "a.db") as inbox:
            await inbox.append(Delivery(b"\x1b[2J what?\xff"))

    asyncio.run(append())

    assert "***" not in typed("inbox", "show", "a.db", "1").out
    assert typed("inbox", "show", "a.db", "1", "--raw").out.splitlines()[-1] == "\\x1b[2J what?\\xff"
    assert typed("inbox", "list", "a.db", "--json").items[0]["kind"] is None


def test_dead_letters_are_ready_again(file):
    """All, or those that are named; one that is no dead letter is named in return, status 1."""
    one, rest = typed("inbox", "replay", file, "1"), typed("inbox", "replay", file)
    none = typed("inbox", "replay", file, "7")

    assert (one.out, rest.out) == ("1 replayed\n", "1 replayed\n")
    assert (none.status, none.err) == (1, "error: 7 is no dead letter\n")


def test_handlers_are_run_here(file, service):
    """Until it is quiet; the table says what became of each."""
    shown = typed("inbox", "replay", file, "--app", "cli_service:router")

    assert (shown.status, shown.out.splitlines()[-1]) == (0, "2 replayed: 2 done")
    assert typed("inbox", "stats", file, "--json").items[0]["done"] == 2


def test_a_handler_that_fails_is_told(tmp_path, service):
    """With its reason in the table, its traceback beside it, and status 1."""
    asyncio.run(fill(tmp_path / "a.db", "fail", "fine"))

    shown = typed("inbox", "replay", "a.db", "--app", "cli_service:router")

    assert (shown.status, shown.out.splitlines()[-1]) == (1, "2 replayed: 1 delayed, 1 done")
    assert "cli_service.take: ValueError" in shown.out
    assert "error: handler cli_service.take failed: ValueError" in shown.err


def test_what_is_not_done_in_time_is_shown_as_it_stands(tmp_path, service):
    """For a script a line each."""
    asyncio.run(fill(tmp_path / "a.db", "slow"))

    shown = typed("inbox", "replay", "a.db", "--app", "cli_service:router", "--timeout", "0.2", "--json")

    assert (shown.status, shown.items[0]["state"]) == (1, "leased")


@pytest.mark.parametrize(
    "app",
    [
        "cli_service",
        ":router",
        "no_such_module:router",
        "cli_importing:router",
        "cli_service:number",
        "cli_service:empty",
    ],
)
def test_what_is_no_router_is_wrong_use(file, service, app):
    """A module that is missing, or an attribute of another kind."""
    shown = typed("inbox", "replay", file, "--app", app)

    assert (shown.status, "--app" in shown.err) == (2, True)


@pytest.mark.parametrize("command", [["replay"], ["purge", "--dead-before", "0d", "--yes"]])
def test_who_owns_a_file_is_named(owned, command, monkeypatch):
    """With what can be done; nothing has changed."""
    monkeypatch.setattr("callfire_async.cli._inbox_target.LOCK_TIMEOUT_SECONDS", 0.1)
    name, *options = command

    shown = typed("inbox", name, owned, *options)

    assert (shown.status, "owned by process" in shown.err, "from inside it" in shown.err) == (1, True, True)
    assert shown.out == ""
    assert typed("inbox", "stats", owned, "--json").items[0]["dead"] == 2


def test_a_folder_is_replayed_file_by_file(folder, service):
    """Each that nobody owns."""
    one = typed("inbox", "replay", folder, "b/1", "--json")
    rest = typed("inbox", "replay", folder, "--app", "cli_service:router")

    assert one.items == [{"id": "b/1", "state": "ready", "attempt": 1, "reason": "why"}]
    assert rest.out.splitlines()[1].split()[:2] == ["a/1", "done"]
    assert typed("inbox", "replay", folder).out == "0 replayed\n"


def test_dead_letters_are_deleted_for_good(folder, file):
    """Once somebody has said yes."""
    refused = typed("inbox", "purge", file, "--dead-before", "0m", input="n\n")
    purged = typed("inbox", "purge", file, "--dead-before", "0m", input="y\n")
    in_json = typed("inbox", "purge", folder, "--dead-before", "0h", "--done-before", "1d", "--yes", "--json")

    assert (refused.status, purged.out.splitlines()[-1], in_json.items) == (1, "2 deleted", [{"purged": 2}])


@pytest.mark.parametrize(
    "options",
    [[], ["--dead-before", "soon"], ["--dead-before", "999999d"], ["--dead-before", "1d", "--json"]],
)
def test_a_purge_says_what_and_when(file, options):
    """Else it is wrong use."""
    assert typed("inbox", "purge", file, *options).status == 2


@pytest.mark.parametrize(
    ("words", "at"),
    [
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31T10:00:00+02:00", datetime(2026, 1, 31, 8, tzinfo=UTC)),
    ],
)
def test_a_time_may_be_written_out(words, at):
    """In UTC where it has no offset."""
    assert work.parse_time(words) == at


@pytest.mark.parametrize(("words", "age"), [("2d", timedelta(days=2)), ("3h", timedelta(hours=3))])
def test_a_time_may_be_so_long_ago(words, age):
    """Days, hours, minutes."""
    assert abs(datetime.now(UTC) - work.parse_time(words) - age) < timedelta(minutes=5)


@pytest.mark.parametrize(
    ("place", "module", "extra"),
    [
        ("postgresql://u:sesame@h/d", "postgres", "postgres"),
        ("postgres://h/d", "postgres", "postgres"),
        ("nats://u:sesame@h:4222", "jetstream", "nats"),
    ],
)
@pytest.mark.parametrize("command", [["stats"], ["replay"]])
def test_a_missing_driver_names_its_extra(monkeypatch, place, module, extra, command):
    """And shows no password."""
    monkeypatch.setitem(sys.modules, f"callfire_async.notifications.inbox.{module}", None)

    shown = typed("inbox", *command, place)

    assert (shown.status, f"pip install 'callfire-async[{extra}]'" in shown.err) == (2, True)
    assert "sesame" not in shown.err


@pytest.mark.parametrize("place", ["missing.db", "redis://localhost"])
@pytest.mark.parametrize("command", [["stats"], ["replay"]])
def test_a_place_that_is_none_is_wrong_use(place, command):
    """And nothing is made there."""
    assert typed("inbox", *command, place).status == 2


@pytest.mark.parametrize("command", [["stats"], ["purge", "--dead-before", "1d", "--yes"]])
def test_a_file_that_is_no_inbox_stays_as_it_is(tmp_path, command):
    """Text, and another program's database."""
    (tmp_path / "notes").write_text("notes")
    connection = sqlite3.connect(tmp_path / "other.db")
    connection.execute("CREATE TABLE things (id)")
    connection.close()
    name, *options = command

    ended = [typed("inbox", name, file, *options) for file in ("notes", "other.db")]

    assert [one.status for one in ended] == [1, 1]
    assert all(one.err.count("error:") == 1 for one in ended)


@pytest.mark.parametrize(("place", "name"), [("nats://localhost", "callfire"), ("nats://localhost/hooks", "hooks")])
def test_an_inbox_on_nats_is_opened_by_its_name(monkeypatch, tmp_path, place, name):
    """The last part of the address is the name of one of several."""

    class Elsewhere(SqliteInbox):
        def __init__(self, server, *, name="callfire"):
            assert server == "nats://localhost"
            super().__init__(tmp_path / f"{name}.db")

    module = types.SimpleNamespace(JetStreamInbox=Elsewhere)
    monkeypatch.setitem(sys.modules, "callfire_async.notifications.inbox.jetstream", module)

    assert typed("inbox", "stats", place).status == 0
    assert typed("inbox", "purge", place, "--dead-before", "1d", "--yes").out == "0 deleted\n"
    assert (tmp_path / f"{name}.db").exists()


def test_a_name_that_no_inbox_on_nats_can_have_is_wrong_use():
    """Before anything is connected to."""
    assert typed("inbox", "stats", "nats://localhost/a.b").status == 2
