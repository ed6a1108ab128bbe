"""The demo with few events, and its report."""

import asyncio
import json
import sys
from io import StringIO
from pathlib import Path

import httpx
import pytest
from rich.console import Console

from callfire_async.cli.commands import demo
from callfire_async.cli.commands.demo import _receiver_process as demo_receiver
from callfire_async.cli.commands.demo._report import DemoResults, ProgressDisplay, Tally, report
from callfire_async.notifications import Delivery, SqliteInbox
from callfire_async.reconcile import ReconcileResult
from callfire_async.testing import PostbackResult, encode, make_text_sent

TOKEN = "0123456789abcdef"


@pytest.fixture
def results(tmp_path: Path) -> DemoResults:
    return DemoResults(tmp_path / "handled.jsonl")


def console(*, terminal: bool = False) -> Console:
    return Console(file=StringIO(), width=100, force_terminal=terminal, highlight=False)


def posted(number: int, status: int | None = 204) -> PostbackResult:
    return PostbackResult(subscription_id=1, status=status, latency=0.01 * number, key=("text", number, "SENT"))


def handle(results: DemoResults, *numbers: int) -> None:
    with results.journal.open("a") as journal:
        for number in numbers:
            journal.write(demo_receiver.journal_line(1, ("text", number, "SENT")) + "\n")


@pytest.mark.slow
@pytest.mark.parametrize("terminal", [True, False])
async def test_demo_loses_nothing(terminal):
    """The demo prints its results and loses no event, on a terminal and without one."""
    screen = console(terminal=terminal)

    lost = await demo.run(20, screen)

    shown = screen.file.getvalue()
    # One subscription for each of seven trigger events, and two with a filter.
    assert (lost, "No acknowledged events were lost" in shown) == (0, True)
    assert (shown.count(" as XML") + shown.count(" as JSON") + shown.count(" as SOAP")) == 9
    # One webhook for each of seven resources.
    assert (shown.count(", signed"), "texts 1.1" in shown, "texts v2" in shown) == (7, True, True)


async def test_receiver_that_does_not_start_is_an_error(tmp_path):
    """The demo fails if the receiver cannot start."""
    options = make_options(tmp_path, token="not valid")

    with pytest.raises(RuntimeError, match="did not start"):
        async with demo.ReceiverProcess(options):
            pass


@pytest.mark.slow
async def test_killed_receiver_loses_nothing():
    """A receiver that is killed loses no acknowledged event."""
    screen = console()

    lost = await demo.run(200, screen, crashes=2)

    assert (lost, "No acknowledged events were lost" in screen.file.getvalue()) == (0, True)


@pytest.mark.slow
async def test_dropped_postbacks_are_reconciled():
    """With dropped postbacks and a killed receiver, every text and call is handled in the end."""
    screen = console()

    lost = await demo.run(100, screen, crashes=1, drop=0.2)

    shown = screen.file.getvalue()
    assert (lost, "All texts and calls were handled" in shown) == (0, True)
    assert "appended" in shown


def test_missed_events_are_reported(results):
    """Texts and calls that were never handled count for the exit status; campaign events do not."""
    results.dropped.extend([(1, ("text", 1, "SENT")), (2, ("text", 2, "SENT")), (3, ("broadcast", 3, "started", 0))])
    results.posted.extend([posted(1), posted(3, None)])
    results.reconciled = ReconcileResult(listed=3)
    handle(results, 1)
    screen = console()

    assert (report(results, screen), results.pending()) == (2, 2)
    assert "2 texts and calls were never handled" in screen.file.getvalue()


async def test_wait_ends_without_progress(results, monkeypatch):
    """The demo stops waiting if there is no progress, and reports the event as lost."""
    monkeypatch.setattr(demo, "SETTLE_TIMEOUT_SECONDS", 0.3)
    results.posted.extend([posted(1), posted(2), posted(3)])
    handle(results, 1)
    asyncio.get_running_loop().call_later(0.05, handle, results, 2)

    await demo.wait_until_settled(results)

    assert results.tally().lost == 1


async def test_dead_letters_are_not_lost(results, tmp_path):
    """Dead letters are counted as dead, not as lost."""
    event = make_text_sent(subscription_id=1, id=2)
    content_type, body = encode(event)
    async with SqliteInbox(tmp_path / "inbox.db") as inbox:
        await inbox.append(Delivery(body, content_type))
        (lease,) = await inbox.claim(1, lease=60)
        await inbox.dead_letter(lease, "why")
    results.posted.extend([posted(2)])
    handle(results)

    results.dead.update([line async for line in demo.dead_letters(tmp_path / "inbox.db")])

    assert (results.tally().dead, results.tally().lost) == (1, 0)


def make_options(folder: Path, token: str = TOKEN) -> demo_receiver.ReceiverOptions:
    return demo_receiver.ReceiverOptions(token, str(folder / "journal"), str(folder / "inbox.db"))


async def test_receiver_writes_a_journal(tmp_path, capsys):
    """The receiver prints its port, and appends a line for each handled event."""
    options = make_options(tmp_path)
    event = make_text_sent(subscription_id=5)
    content_type, body = encode(event)

    async def post_one() -> None:
        port = int(capsys.readouterr().out.split()[1])
        async with httpx.AsyncClient() as client:
            url = f"http://127.0.0.1:{port}/{TOKEN}"
            await client.post(url, content=body, headers={"Content-Type": content_type})
        async with asyncio.timeout(20):
            while not (tmp_path / "journal").read_text():  # noqa: ASYNC110  # written by another thread
                await asyncio.sleep(0.01)

    await demo_receiver.run_receiver(options, post_one)

    assert (tmp_path / "journal").read_text() == demo_receiver.journal_line(5, event.key) + "\n"


def test_receiver_stops_when_stdin_is_closed(tmp_path, monkeypatch, capsys):
    """The receiver stops when its standard input is closed, so it does not outlive its parent."""
    monkeypatch.setattr(sys, "argv", ["", make_options(tmp_path).dumps()])
    monkeypatch.setattr(sys, "stdin", StringIO())

    demo_receiver.main()

    assert capsys.readouterr().out.startswith("ready ")


def test_tally_compares_sender_and_journal(results):
    """An event is lost if it was acknowledged and is neither in the journal nor a dead letter."""
    results.posted.extend([posted(1), posted(2), posted(3), posted(4, 503), posted(5, None)])
    handle(results, 1, 2, 2)

    assert results.tally("text") == Tally(sent=5, refused=2, acknowledged=3, handled=2, handled_twice=1, dead=0, lost=1)


def test_tally_counts_each_event_of_a_postback(results):
    """A postback of a webhook can have several; each API generation has its own counts."""
    keys = tuple(("text", number, "SENT") for number in (1, 2))
    results.posted.extend([posted(1), PostbackResult(None, 204, 0.01, keys[0], webhook_id=7, keys=keys)])
    handle(results, 1)
    with results.journal.open("a") as journal:
        journal.write(demo_receiver.journal_line("webhook 7", keys[0]) + "\n")

    counts = [results.tally("text", is_v2=is_v2) for is_v2 in (False, True, None)]
    assert [(tally.sent, tally.handled, tally.lost) for tally in counts] == [(1, 1, 0), (2, 1, 1), (3, 2, 1)]


def test_lost_events_are_reported(results):
    """The report prints and returns the number of lost events."""
    results.posted.extend([posted(1)])
    handle(results)
    screen = console()

    assert (report(results, screen), "1 acknowledged events were lost" in screen.file.getvalue()) == (1, True)


def test_display_reads_new_journal_lines_only(results):
    """Each refresh of the display counts the lines added since the last one."""
    screen = console(terminal=True)
    with ProgressDisplay(screen, results, 2) as display:
        display.update([posted(1), posted(2, None)])
        handle(results, 1)
        screen.print(display._render())
        screen.print(display._render())

    row = next(line for line in screen.file.getvalue().splitlines() if "texts" in line)
    assert row.split()[-4:] == ["2", "1", "1", "1"]


def test_display_counts_the_handled_events_of_webhooks(results):
    """A line of the journal that is not complete is counted once it is."""
    screen = console(terminal=True)
    key = ("text", 1, "SENT")
    line = demo_receiver.journal_line("webhook 7", key) + "\n"
    with ProgressDisplay(screen, results, 1) as display:
        display.update([PostbackResult(None, 204, 0.01, key, webhook_id=7)])
        for part in (line[:9], line[9:]):
            with results.journal.open("a") as journal:
                journal.write(part)
            screen.print(display._render())

    rows = [tuple(line.split()[-4:]) for line in screen.file.getvalue().splitlines() if "texts v2" in line]
    assert rows.index(("1", "0", "1", "0")) < rows.index(("1", "0", "1", "1"))


def test_events_are_posted_in_groups():
    """Campaign events are posted alone, because they are never dropped."""
    groups = [len(group) for group in demo.groups_of(demo.campaign(25))]

    assert groups == [1, 10, 10, 5, 1, 1]


def test_receiver_options_round_trip():
    """Options survive the conversion to an argument and back."""
    options = demo_receiver.ReceiverOptions(TOKEN, "journal", "inbox", 7)

    assert demo_receiver.ReceiverOptions(**json.loads(options.dumps())) == options


def test_campaign_has_all_kinds_of_events():
    """A campaign has sent, failed and received texts, calls, and campaign events."""
    kinds = {type(event).__name__ for event in demo.campaign(10)}

    assert kinds == {
        "TextSent", "TextFinished", "TextReceived", "CallFinished",
        "CampaignStarted", "CampaignStopped", "CampaignFinished",
    }  # fmt: skip


def test_campaign_events_have_ids_of_their_own():
    """Also when their kinds repeat; otherwise, the receiver would deduplicate them."""
    keys = [event.key for event in demo.campaign(100)]

    assert (len(set(keys)), len(keys)) == (103, 103)


@pytest.mark.slow
def test_demo_runs_without_a_running_loop():
    """The demo can be started with asyncio.run."""
    assert asyncio.run(demo.run(1, console())) == 0
