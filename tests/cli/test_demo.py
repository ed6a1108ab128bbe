"""The demo, run for real and small, and what it counts."""

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
def ledger(tmp_path: Path) -> DemoResults:
    return DemoResults(tmp_path / "handled.jsonl")


def console(*, terminal: bool = False) -> Console:
    return Console(file=StringIO(), width=100, force_terminal=terminal, highlight=False)


def posted(number: int, status: int | None = 204) -> PostbackResult:
    return PostbackResult(subscription_id=1, status=status, latency=0.01 * number, key=("text", number, "SENT"))


def handle(ledger: DemoResults, *numbers: int) -> None:
    with ledger.journal.open("a") as journal:
        for number in numbers:
            journal.write(demo_receiver.journal_line(1, ("text", number, "SENT")) + "\n")


@pytest.mark.parametrize("terminal", [True, False])
async def test_the_demo_ends_with_its_table_and_nothing_lost(terminal):
    """A fake CallFire, a receiver's process, and real HTTP between; on a terminal and without one."""
    screen = console(terminal=terminal)

    lost = await demo.run(20, screen)

    shown = screen.file.getvalue()
    # Two texts in ten match a filtered subscription twice over, and the campaign has three events of its own.
    assert (lost, "Nothing of what was acknowledged was lost" in shown) == (0, True)
    assert (shown.count(" as XML") + shown.count(" as JSON") + shown.count(" as SOAP")) == 9


async def test_a_receiver_that_does_not_start_ends_the_demo(tmp_path):
    """There is nothing to show without one."""
    settings = make_settings(tmp_path, token="no good token")

    with pytest.raises(RuntimeError, match="did not start"):
        async with demo.ReceiverProcess(settings):
            pass


async def test_a_receiver_that_is_killed_loses_nothing_that_it_acknowledged():
    """What was posted meanwhile is refused, and shown as refused."""
    screen = console()

    lost = await demo.run(200, screen, crashes=2)

    assert (lost, "Nothing of what was acknowledged was lost" in screen.file.getvalue()) == (0, True)


async def test_what_never_came_is_found_again():
    """With a share of the postbacks dropped, and the receiver killed, every text and call is handled all the same."""
    screen = console()

    lost = await demo.run(100, screen, crashes=1, drop=0.2)

    shown = screen.file.getvalue()
    assert (lost, "Every one of them has reached a handler" in shown) == (0, True)
    assert "found again" in shown


def test_what_was_never_found_again_is_reported(ledger):
    """It counts for the exit status; campaigns are in no list, and so do not."""
    ledger.dropped.extend([(1, ("text", 1, "SENT")), (2, ("text", 2, "SENT")), (3, ("broadcast", 3, "started", 0))])
    ledger.posted.extend([posted(1), posted(3, None)])
    ledger.found = ReconcileResult(listed=3)
    handle(ledger, 1)
    screen = console()

    assert (report(ledger, screen), ledger.left()) == (2, 2)
    assert "2 never reached a handler" in screen.file.getvalue()


async def test_what_is_never_handled_is_waited_for_in_vain(ledger, monkeypatch):
    """The demo ends, and says that it was lost."""
    monkeypatch.setattr(demo, "PATIENCE_SECONDS", 0.3)
    ledger.posted.extend([posted(1), posted(2), posted(3)])
    handle(ledger, 1)
    asyncio.get_running_loop().call_later(0.05, handle, ledger, 2)

    await demo.wait_until_settled(ledger)

    assert ledger.tally().lost == 1


async def test_dead_letters_are_not_lost(ledger, tmp_path):
    """They are kept, and named."""
    event = make_text_sent(subscription_id=1, id=2)
    content_type, body = encode(event)
    async with SqliteInbox(tmp_path / "inbox.db") as inbox:
        await inbox.append(Delivery(body, content_type))
        (lease,) = await inbox.claim(1, lease=60)
        await inbox.dead_letter(lease, "why")
    ledger.posted.extend([posted(2)])
    handle(ledger)

    ledger.dead.update([line async for line in demo.dead_letters(tmp_path / "inbox.db")])

    assert (ledger.tally().dead, ledger.tally().lost) == (1, 0)


def make_settings(folder: Path, token: str = TOKEN) -> demo_receiver.ReceiverOptions:
    return demo_receiver.ReceiverOptions(token, str(folder / "journal"), str(folder / "inbox.db"))


async def test_the_receiver_writes_down_what_it_handled(tmp_path, capsys):
    """One line an event; it says where it listens, and ends when it is told."""
    settings = make_settings(tmp_path)
    event = make_text_sent(subscription_id=5)
    content_type, body = encode(event)

    async def one_postback() -> None:
        port = int(capsys.readouterr().out.split()[1])
        async with httpx.AsyncClient() as client:
            url = f"http://127.0.0.1:{port}/{TOKEN}"
            await client.post(url, content=body, headers={"Content-Type": content_type})
        async with asyncio.timeout(20):
            while not (tmp_path / "journal").read_text():  # noqa: ASYNC110  # another thread writes it
                await asyncio.sleep(0.01)

    await demo_receiver.serve(settings, one_postback)

    assert (tmp_path / "journal").read_text() == demo_receiver.journal_line(5, event.key) + "\n"


def test_the_receiver_s_process_ends_with_its_input(tmp_path, monkeypatch, capsys):
    """So it never outlives whoever started it."""
    monkeypatch.setattr(sys, "argv", ["", make_settings(tmp_path).dumps()])
    monkeypatch.setattr(sys, "stdin", StringIO())

    demo_receiver.main()

    assert capsys.readouterr().out.startswith("ready ")


def test_the_tally_counts_both_sides(ledger):
    """Lost is what was acknowledged and neither handled nor dead: nothing that the receiver says of itself."""
    ledger.posted.extend([posted(1), posted(2), posted(3), posted(4, 503), posted(5, None)])
    handle(ledger, 1, 2, 2)

    assert ledger.tally("text") == Tally(sent=5, refused=2, acknowledged=3, handled=2, handled_twice=1, dead=0, lost=1)


def test_a_loss_is_reported(ledger):
    """The number that the exit status is made of."""
    ledger.posted.extend([posted(1)])
    handle(ledger)
    screen = console()

    assert (report(ledger, screen), "1 of what was acknowledged was lost" in screen.file.getvalue()) == (1, True)


def test_the_picture_counts_on(ledger):
    """On a terminal each look adds what came since the last one."""
    screen = console(terminal=True)
    with ProgressDisplay(screen, ledger, 2) as watch:
        watch.update([posted(1), posted(2, None)])
        handle(ledger, 1)
        screen.print(watch._picture())
        screen.print(watch._picture())

    row = next(line for line in screen.file.getvalue().splitlines() if "texts" in line)
    assert row.split()[-4:] == ["2", "1", "1", "1"]


def test_settings_go_through_one_argument():
    """What one process writes the other reads."""
    settings = demo_receiver.ReceiverOptions(TOKEN, "journal", "inbox", 7)

    assert demo_receiver.ReceiverOptions(**json.loads(settings.dumps())) == settings


def test_the_campaign_has_every_kind():
    """Texts both ways, sent and failed, calls both ways, and what happens to a campaign."""
    kinds = {type(event).__name__ for event in demo.campaign(10)}

    assert kinds == {
        "TextSent", "TextFinished", "TextReceived", "CallFinished",
        "CampaignStarted", "CampaignStopped", "CampaignFinished",
    }  # fmt: skip


def test_the_demo_can_be_run_from_outside_a_loop():
    """As the command does."""
    assert asyncio.run(demo.run(1, console())) == 0
