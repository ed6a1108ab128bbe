"""
The demo: a campaign on a fake CallFire, and a receiver in a process of its own.

Everything between the two goes over real HTTP on loopback; nothing that the receiver says of itself is counted.
"""

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

from rich.console import Console

from callfire_async.cli.demo_receiver import Settings
from callfire_async.cli.demo_report import Ledger, Watch, report
from callfire_async.cli.loopback import served
from callfire_async.client import CallFire
from callfire_async.models import NotificationFormat, SubscriptionFilter, TriggerEvent
from callfire_async.notifications import EndpointTokens, Notification
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

_FORMATS = (NotificationFormat.XML, NotificationFormat.JSON, NotificationFormat.SOAP)
_FILTERED = (
    (TriggerEvent.OUTBOUND_TEXT_FINISHED, SubscriptionFilter(broadcast_id=BROADCAST_ID)),
    (TriggerEvent.INBOUND_TEXT_FINISHED, SubscriptionFilter(to_number="67076:KEYWORD")),
)


async def run(events: int, console: Console) -> int:
    """
    Run the demo.

    Returns:
        How many events were acknowledged and neither handled nor kept as dead letters.
    """
    console.print(f"A fake CallFire and a receiver on loopback; a campaign of {events} texts and calls.\n")
    with tempfile.TemporaryDirectory(prefix="callfire-demo-") as folder:
        ledger = Ledger(Path(folder, "handled.jsonl"))
        settings = Settings(EndpointTokens.generate(), str(ledger.journal))
        fake = FakeCallFire(concurrency=CONCURRENCY)
        async with served(fake) as callfire_port, receiver(settings) as port:
            await subscribe(callfire_port, EndpointTokens(settings.token).url(f"http://127.0.0.1:{port}"), console)
            with Watch(console, ledger, events + 3) as watch:
                await post(fake, campaign(events), watch)
        return report(ledger, console)


@asynccontextmanager
async def receiver(settings: Settings) -> AsyncIterator[int]:
    """Start the receiver's process; stop it by ending its input."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "callfire_async.cli.demo_receiver", settings.dumps(),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield await _announced_port(process)
    finally:
        await process.communicate(b"")


async def _announced_port(process: asyncio.subprocess.Process) -> int:
    said = await process.stdout.readline() if process.stdout else b""
    if not said.startswith(b"ready "):
        raise RuntimeError("the receiver's process did not start")
    return int(said.removeprefix(b"ready "))


async def subscribe(callfire_port: int, endpoint: str, console: Console) -> None:
    """Subscribe to every trigger, in one format after the other, and twice with a filter."""
    wanted = [(trigger, None) for trigger in TriggerEvent if trigger != TriggerEvent.UNDEFINED_EVENT]
    base_url = f"http://127.0.0.1:{callfire_port}/api/1.1/rest"
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


async def post(fake: FakeCallFire, events: Iterator[Notification], watch: Watch) -> None:
    """Post events, several at once, and keep what their sender saw."""

    async def emit() -> None:
        for event in events:
            watch.update(await fake.emit(event))

    async with asyncio.TaskGroup() as tasks:
        for _ in range(CONCURRENCY):
            tasks.create_task(emit())
