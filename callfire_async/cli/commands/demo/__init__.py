"""
The demo: a campaign on a fake CallFire, and a receiver in a process of its own.

Everything between the two goes over real HTTP on loopback; nothing that the receiver says of itself is counted.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from attrs import evolve
from rich.console import Console

from callfire_async.cli._server import serve
from callfire_async.cli.commands.demo._receiver_process import ReceiverOptions, journal_line
from callfire_async.cli.commands.demo._report import DemoResults, ProgressDisplay, report
from callfire_async.client import CallFire
from callfire_async.models import NotificationFormat, SubscriptionFilter, TriggerEvent
from callfire_async.notifications import (
    CallFinished,
    CampaignNotification,
    EndpointTokens,
    Notification,
    SqliteInbox,
    TextNotification,
    parse,
)
from callfire_async.reconcile import ReconcileResult, reconcile
from callfire_async.testing import (
    FakeCallFire,
    make_call_finished,
    make_campaign_finished,
    make_campaign_started,
    make_campaign_stopped,
    make_text_finished,
    make_text_received,
    make_text_sent,
)

BROADCAST_ID = 12345
# What the fake has under way at once; CallFire's own concurrency is not known.
CONCURRENCY = 16
PAUSE_SECONDS = 0.1
# Handlers that do nothing but write a line are done long before.
PATIENCE_SECONDS = 30.0

_FORMATS = (NotificationFormat.XML, NotificationFormat.JSON, NotificationFormat.SOAP)
_FILTERED = (
    (TriggerEvent.OUTBOUND_TEXT_FINISHED, SubscriptionFilter(broadcast_id=BROADCAST_ID)),
    (TriggerEvent.INBOUND_TEXT_FINISHED, SubscriptionFilter(to_number="67076:KEYWORD")),
)


async def run(events: int, console: Console, *, crashes: int = 0, drop: float = 0.0, inspect: bool = False) -> int:
    """
    Run the demo.

    Args:
        events: How many texts and calls there are.
        console: Where it is shown.
        crashes: How often the receiver's process is killed in the middle of it, and started again.
        drop: How many of the postbacks about texts and calls never come, from 0 to 1; what was missed is then found.
        inspect: Whether the inspector shows it, until a line is read from standard input.

    Returns:
        How many events were acknowledged and neither handled nor kept as dead letters; with *drop* also how many
        texts and calls no handler ever got.
    """
    console.print(f"A fake CallFire and a receiver on loopback; a campaign of {events} texts and calls.\n")
    with tempfile.TemporaryDirectory(prefix="callfire-demo-") as folder:
        ledger = DemoResults(Path(folder, "handled.jsonl"))
        inspector_key = EndpointTokens.generate() if inspect else ""
        settings = ReceiverOptions(
            EndpointTokens.generate(), str(ledger.journal), str(Path(folder, "inbox.db")), inspector_key=inspector_key
        )
        fake = FakeCallFire(concurrency=CONCURRENCY)
        async with serve(fake) as callfire_port, ReceiverProcess(settings, crashes) as receiver:
            endpoint = EndpointTokens(settings.token).url(f"http://127.0.0.1:{receiver.port}")
            base_url = f"http://127.0.0.1:{callfire_port}/api/1.1/rest"
            if inspect:
                console.print(f"To inspect it: {receiver.inspector}\n", soft_wrap=True)
            await subscribe(base_url, endpoint, console)
            with ProgressDisplay(console, ledger, events + 3) as watch:
                await post(fake, drop_some_postbacks(fake, campaign(events), drop), watch, receiver)
            await wait_until_settled(ledger)
            if drop:
                ledger.dropped.extend(fake.dropped)
                async with receiver.stopped():
                    ledger.found = await catch_up(base_url, Path(settings.inbox))
                await wait_until_settled(ledger)
            if inspect:
                console.print("\nThe inspector stays until you press Enter.")
                await asyncio.to_thread(sys.stdin.readline)
        ledger.dead.update([line async for line in dead_letters(Path(settings.inbox))])
        return report(ledger, console)


class ReceiverProcess:
    """The receiver's process, which can be killed and started again on the same port."""

    def __init__(self, settings: ReceiverOptions, crashes: int = 0) -> None:
        self._settings = settings
        self._crashes = crashes
        self._crashed = 0

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._settings.port

    @property
    def inspector(self) -> str:
        """The address of its inspector."""
        return f"http://127.0.0.1:{self._settings.inspector_port}/#{self._settings.inspector_key}"

    async def __aenter__(self) -> Self:
        """Start it."""
        await self._start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it by ending its input."""
        await self._process.communicate(b"")

    @asynccontextmanager
    async def stopped(self) -> AsyncIterator[None]:
        """Stop it, and start it again: nobody else can open its inbox while it runs."""
        await self._process.communicate(b"")
        yield
        await self._start()

    async def _start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "callfire_async.cli.commands.demo._receiver_process", self._settings.dumps(),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        said = await self._process.stdout.readline() if self._process.stdout else b""
        if not said.startswith(b"ready "):
            await self._process.communicate(b"")
            raise RuntimeError("the receiver's process did not start")
        port, inspector_port = map(int, said.removeprefix(b"ready ").split())
        self._settings = evolve(self._settings, port=port, inspector_port=inspector_port)
        self._is_up = True

    async def crash_when_due(self, share: float) -> None:
        """Kill it, as the system would, once the campaign has come so far; start it again."""
        if self._is_up and share > (self._crashed + 1) / (self._crashes + 1):
            self._is_up = False
            self._crashed += 1
            self._process.kill()
            await self._process.wait()
            await self._start()


async def subscribe(base_url: str, endpoint: str, console: Console) -> None:
    """Subscribe to every trigger, in one format after the other, and twice with a filter."""
    wanted = [(trigger, None) for trigger in TriggerEvent if trigger != TriggerEvent.UNDEFINED_EVENT]
    async with CallFire("login", "password", base_url=base_url) as callfire:
        for number, (trigger, chosen) in enumerate([*wanted, *_FILTERED]):
            await callfire.subscriptions.create(
                endpoint, trigger, notification_format=_FORMATS[number % len(_FORMATS)], filter=chosen
            )
        async for subscription in callfire.subscriptions.all():
            filtered = ", filtered" if subscription.filter else ""
            console.print(
                f"  subscription {subscription.id}: {subscription.trigger_event}"
                f" as {subscription.notification_format}{filtered}"
            )


def campaign(events: int) -> Iterator[Notification]:
    """Make a campaign: its start, its texts and calls, its stop and its end."""
    yield make_campaign_started(id=BROADCAST_ID)
    for number in range(events):
        yield _made(number)
    yield make_campaign_stopped(id=BROADCAST_ID)
    yield make_campaign_finished(id=BROADCAST_ID)


def _made(number: int) -> Notification:
    """Make one text or call; of ten, six are texts."""
    match number % 10:
        case 0 | 1 | 2:
            return make_text_sent(broadcast_id=BROADCAST_ID)
        case 3:
            return make_text_finished(result="CARRIER_ERROR")
        case 4:
            return make_text_received()
        case 5:
            return make_text_received(message="something else")
        case 6:
            return make_call_finished(result="BUSY", inbound=True)
        case _:
            return make_call_finished(result="LA" if number % 3 else "AM", broadcast_id=BROADCAST_ID)


def drop_some_postbacks(fake: FakeCallFire, events: Iterator[Notification], drop: float) -> Iterator[Notification]:
    """Let a share of the postbacks about texts and calls be dropped: those about campaigns could not be found again."""
    for event in events:
        if drop and isinstance(event, TextNotification):
            fake.add(event.text)
        if drop and isinstance(event, CallFinished):
            fake.add(event.call)
        # Read by the fake before anything else can run.
        fake.drop_rate = 0.0 if isinstance(event, CampaignNotification) else drop
        yield event


async def catch_up(base_url: str, path: Path) -> ReconcileResult:
    """Put what the inbox has not seen there."""
    since = datetime.now(UTC) - timedelta(hours=1)
    async with CallFire("login", "password", base_url=base_url) as callfire, SqliteInbox(path) as inbox:
        return await reconcile(callfire, inbox, callfire.subscriptions, since=since)


async def post(
    fake: FakeCallFire, events: Iterator[Notification], watch: ProgressDisplay, receiver: ReceiverProcess
) -> None:
    """Post events, several at once, and keep what their sender saw."""

    async def emit() -> None:
        for event in events:
            posted = await fake.emit(event)
            watch.update(posted)
            await receiver.crash_when_due(watch.share)
            if any(one.status is None for one in posted):
                # A campaign has a pace of its own; ours would be over before the receiver is back.
                await asyncio.sleep(PAUSE_SECONDS)

    async with fake, asyncio.TaskGroup() as tasks:
        for _ in range(CONCURRENCY):
            tasks.create_task(emit())


async def wait_until_settled(ledger: DemoResults) -> None:
    """Wait until all that was acknowledged is handled, or nothing more happens."""
    left, since = ledger.left(), time.monotonic()
    while left and time.monotonic() - since < PATIENCE_SECONDS:
        await asyncio.sleep(0.1)
        still = ledger.left()
        if still < left:
            left, since = still, time.monotonic()


async def dead_letters(path: Path) -> AsyncIterator[str]:
    """Say of each dead letter which event it is, and for which subscription."""
    async with SqliteInbox(path, read_only=True) as inbox:
        async for entry in inbox.entries("dead"):
            event = parse(entry.delivery.body, entry.delivery.content_type)
            yield journal_line(event.subscription_id, event.key)
