"""
Run a campaign between a fake CallFire and a receiver in another process.

The two communicate over HTTP on localhost. The results do not rely on the receiver's own counts.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import groupby, islice
from pathlib import Path
from types import TracebackType
from typing import Annotated, Self

import typer
from attrs import evolve
from rich.console import Console

from callfire_async.cli._help import CommandApp
from callfire_async.cli.commands.demo._receiver_process import ReceiverOptions, journal_line, main, source_of
from callfire_async.cli.commands.demo._report import DemoResults, ProgressDisplay, report
from callfire_async.client import CallFire
from callfire_async.client.migration import plan_migration
from callfire_async.inspector._server import serve
from callfire_async.models import Call, NotificationFormat, SubscriptionFilter, Text, TriggerEvent
from callfire_async.notifications import (
    CallFinished,
    CampaignNotification,
    EndpointTokens,
    Notification,
    SigningSecrets,
    SqliteInbox,
    TextNotification,
    parse_all,
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

app: typer.Typer = CommandApp()

BROADCAST_ID = 12345
# IDs of texts and calls, of twelve digits as in CallFire's own.
_FIRST_ID = 300_000_000_000
# After this number the kinds of texts and calls repeat.
_EVENT_KINDS = 30
# CallFire's own concurrency is not documented. With more, most of a postback's latency is waiting for the others.
CONCURRENCY = 8
# Slows the campaign down while the receiver restarts, so that not all of it is refused.
PAUSE_SECONDS = 0.1
# A webhook's postback has several events, if they are of its resource.
EVENTS_PER_POSTBACK = 10
# The handlers write one line each and need far less time.
SETTLE_TIMEOUT_SECONDS = 30.0

_FORMATS = (NotificationFormat.XML, NotificationFormat.JSON, NotificationFormat.SOAP)
_FILTERED = (
    (TriggerEvent.OUTBOUND_TEXT_FINISHED, SubscriptionFilter(broadcast_id=BROADCAST_ID)),
    (TriggerEvent.INBOUND_TEXT_FINISHED, SubscriptionFilter(to_number="67076:KEYWORD")),
)


def parse_fraction(text: str | float) -> float:
    """Parse a fraction, such as ``5%`` or ``0.05``."""
    digits = str(text).strip()
    try:
        number = float(digits.removesuffix("%")) / (100 if digits.endswith("%") else 1)
    except ValueError:
        number = -1.0
    if not 0 <= number < 1:
        raise typer.BadParameter("must be at least 0 and less than 1, or a percentage such as 5%")
    return number


@app.command(
    epilog="Example: `callfire-async demo --events 5000 --crash 3`",
    help="""
    Run an end-to-end demo on localhost; no account needed.

    A fake CallFire and a receiver communicate over HTTP: the demo creates subscriptions of API 1.1 and signed webhooks
    of API v2 for one endpoint, runs a campaign through both and counts the results. Postbacks that arrive while the
    receiver is down are refused and not repeated, as with CallFire. The status is 0 only if no acknowledged event was
    lost and, with `--drop`, every text and call was handled.
    """,
)
def demo(
    events: Annotated[int, typer.Option(min=1, max=1_000_000, help="Number of texts and calls.")] = 2000,
    crash: Annotated[
        int, typer.Option(min=0, max=100, help="Number of times that the receiver is killed and restarted.")
    ] = 0,
    drop: Annotated[
        float,
        typer.Option(
            parser=parse_fraction, metavar="FRACTION", help="Fraction of postbacks to drop and reconcile, e.g. 5%."
        ),
    ] = 0.0,
    *,
    inspect: Annotated[
        bool, typer.Option("--inspect", help="Serve a web page that shows the deliveries, until Enter is pressed.")
    ] = False,
) -> None:
    lost = asyncio.run(run(events, Console(highlight=False), crashes=crash, drop=drop, inspect=inspect))
    sys.exit(1 if lost else 0)


async def run(events: int, console: Console, *, crashes: int = 0, drop: float = 0.0, inspect: bool = False) -> int:
    """
    Run the demo.

    Args:
        events: The number of texts and calls.
        console: The console to print to.
        crashes: The number of times that the receiver's process is killed and restarted.
        drop: The fraction of postbacks about texts and calls to drop, from 0 to 1; they are reconciled at the end.
        inspect: Whether to serve the inspector until a line is read from standard input.

    Returns:
        The number of acknowledged events that are neither handled nor dead letters; with *drop* plus the number of
        texts and calls that were never handled.
    """
    console.print(f"A fake CallFire and a receiver on localhost; a campaign of {events} texts and calls.\n")
    with tempfile.TemporaryDirectory(prefix="callfire-demo-") as directory:
        results = DemoResults(Path(directory, "handled.jsonl"))
        options = ReceiverOptions(
            EndpointTokens.generate(),
            str(results.journal),
            str(Path(directory, "inbox.db")),
            inspector_key=EndpointTokens.generate() if inspect else "",
            signing_secret=SigningSecrets.generate(),
        )
        await _run_campaign(options, results, console, events=events, crashes=crashes, drop=drop)
        results.dead.update([line async for line in dead_letters(Path(options.inbox))])
        return report(results, console)


async def _run_campaign(
    options: ReceiverOptions, results: DemoResults, console: Console, *, events: int, crashes: int, drop: float
) -> None:
    fake = FakeCallFire(concurrency=CONCURRENCY, events_per_postback=EVENTS_PER_POSTBACK)
    async with serve(fake) as callfire_port, ReceiverProcess(options, crashes) as receiver:
        endpoint = EndpointTokens(options.token).url(f"http://127.0.0.1:{receiver.port}")
        root = f"http://127.0.0.1:{callfire_port}"
        base_url = f"{root}/api/1.1/rest"
        if options.inspector_key:
            console.print(f"Inspector: {receiver.inspector_url}\n", soft_wrap=True)
        async with CallFire("login", "password", base_url=base_url, webhooks_base_url=f"{root}/v2") as callfire:
            await subscribe(callfire, endpoint, console)
            await create_webhooks(callfire, options.signing_secret, console)
        with ProgressDisplay(console, results, events + 3) as display:
            await post(fake, drop_some_postbacks(fake, groups_of(campaign(events)), drop), display, receiver)
        await wait_until_settled(results)
        if drop:
            results.dropped.extend(fake.dropped)
            async with receiver.stopped():
                results.reconciled = await reconcile_inbox(base_url, Path(options.inbox))
            await wait_until_settled(results)
        if options.inspector_key:
            console.print("\nPress Enter to stop the inspector.")
            await asyncio.to_thread(sys.stdin.readline)


class ReceiverProcess:
    """The receiver's process, which can be killed and restarted on the same port."""

    def __init__(self, options: ReceiverOptions, crashes: int = 0) -> None:
        self._options = options
        self._crashes = crashes
        self._crash_count = 0

    @property
    def port(self) -> int:
        """The port of the receiver."""
        return self._options.port

    @property
    def inspector_url(self) -> str:
        """The URL of the inspector."""
        return f"http://127.0.0.1:{self._options.inspector_port}/#{self._options.inspector_key}"

    async def __aenter__(self) -> Self:
        """Start the process."""
        await self._start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the process by closing its standard input."""
        await self._process.communicate(b"")

    @asynccontextmanager
    async def stopped(self) -> AsyncIterator[None]:
        """Stop the process, which owns the inbox, and restart it afterwards."""
        await self._process.communicate(b"")
        yield
        await self._start()

    async def _start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", f"from {main.__module__} import main; main()", self._options.dumps(),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            # Ctrl-C in the terminal is for this process, which then closes the standard input of the other.
            start_new_session=True,
        )  # fmt: skip
        line = await self._process.stdout.readline() if self._process.stdout else b""
        if not line.startswith(b"ready "):
            await self._process.communicate(b"")
            raise RuntimeError("the receiver's process did not start")
        port, inspector_port = map(int, line.removeprefix(b"ready ").split())
        self._options = evolve(self._options, port=port, inspector_port=inspector_port)
        self._is_running = True

    async def crash_when_due(self, progress: float) -> None:
        """Kill the process at regular points of the campaign, and restart it."""
        if self._is_running and progress > (self._crash_count + 1) / (self._crashes + 1):
            self._is_running = False
            self._crash_count += 1
            self._process.kill()
            await self._process.wait()
            await self._start()


async def subscribe(callfire: CallFire, endpoint: str, console: Console) -> None:
    """Subscribe the endpoint to every trigger event in alternating formats, and twice more with a filter."""
    wanted = [(trigger, None) for trigger in TriggerEvent if trigger != TriggerEvent.UNDEFINED_EVENT]
    for number, (trigger, filter) in enumerate([*wanted, *_FILTERED]):
        await callfire.subscriptions.create(
            endpoint, trigger, notification_format=_FORMATS[number % len(_FORMATS)], filter=filter
        )
    async for subscription in callfire.subscriptions.all():
        filtered = ", filtered" if subscription.filter else ""
        console.print(
            f"  subscription {subscription.id}: {subscription.trigger_event}"
            f" as {subscription.notification_format}{filtered}"
        )


async def create_webhooks(callfire: CallFire, secret: str, console: Console) -> None:
    """Create the webhooks that post the same events as the subscriptions without a filter."""
    subscriptions = [item async for item in callfire.subscriptions.all() if item.filter is None]
    await callfire.webhooks.ensure(*(evolve(spec, secret=secret) for spec in plan_migration(subscriptions).specs))
    async for webhook in callfire.webhooks.all():
        console.print(f"  webhook {webhook.id}: {webhook.resource} {', '.join(webhook.events)}, signed")


def campaign(events: int) -> Iterator[Notification]:
    """Yield the events of a campaign: started, texts and calls, stopped, finished."""
    # The factories encode and parse each event, which takes longer than to post it.
    templates = [_make_event(number) for number in range(min(events, _EVENT_KINDS))]
    yield make_campaign_started(id=BROADCAST_ID)
    for number in range(events):
        yield _with_id(templates[number % _EVENT_KINDS], _FIRST_ID + number)
    yield make_campaign_stopped(id=BROADCAST_ID)
    yield make_campaign_finished(id=BROADCAST_ID)


def _make_event(number: int) -> Notification:
    """Return a text or call; six of ten are texts."""
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


def _with_id(event: Notification, id: int) -> Notification:
    if isinstance(event, CallFinished):
        return evolve(event, call=evolve(event.call, id=id))
    return evolve(event, text=evolve(event.text, id=id)) if isinstance(event, TextNotification) else event


def groups_of(events: Iterator[Notification]) -> Iterator[Sequence[Notification]]:
    """Yield texts and calls in groups, each of which can be one postback, and campaign events alone."""
    for is_campaign, run_of_events in groupby(events, lambda event: isinstance(event, CampaignNotification)):
        while group := list(islice(run_of_events, 1 if is_campaign else EVENTS_PER_POSTBACK)):
            yield group


def drop_some_postbacks(
    fake: FakeCallFire, groups: Iterator[Sequence[Notification]], drop: float
) -> Iterator[Sequence[Notification]]:
    """Drop a fraction of the postbacks about texts and calls; the API lists those, but not campaign events."""
    for group in groups:
        subjects = [event.subject for event in group]
        listed = [subject for subject in subjects if isinstance(subject, Text | Call)]
        if drop:
            fake.add(*listed)
        # The fake reads the rate before it yields to other tasks.
        fake.drop_rate = drop if listed else 0.0
        yield group


async def reconcile_inbox(base_url: str, path: Path) -> ReconcileResult:
    """Append the missed events to the inbox."""
    since = datetime.now(UTC) - timedelta(hours=1)
    async with CallFire("login", "password", base_url=base_url) as callfire, SqliteInbox(path) as inbox:
        return await reconcile(callfire, inbox, callfire.subscriptions, since=since)


async def post(
    fake: FakeCallFire, groups: Iterator[Sequence[Notification]], display: ProgressDisplay, receiver: ReceiverProcess
) -> None:
    """Post groups of events concurrently, and record the sender's results."""

    async def emit() -> None:
        for group in groups:
            posted = await fake.emit(*group)
            display.update(posted, len(group))
            await receiver.crash_when_due(display.progress)
            if any(result.status is None for result in posted):
                await asyncio.sleep(PAUSE_SECONDS)

    async with fake, asyncio.TaskGroup() as tasks:
        for _ in range(CONCURRENCY):
            tasks.create_task(emit())


async def wait_until_settled(results: DemoResults) -> None:
    """Wait until all acknowledged events are handled, or there is no progress within a timeout."""
    pending, since = results.pending(), time.monotonic()
    while pending and time.monotonic() - since < SETTLE_TIMEOUT_SECONDS:
        await asyncio.sleep(0.1)
        still_pending = results.pending()
        if still_pending < pending:
            pending, since = still_pending, time.monotonic()


async def dead_letters(path: Path) -> AsyncIterator[str]:
    """Yield a journal line for each dead letter."""
    async with SqliteInbox(path, read_only=True) as inbox:
        async for entry in inbox.entries("dead"):
            for event in parse_all(entry.delivery.body, entry.delivery.content_type):
                yield journal_line(source_of(event), event.key)
