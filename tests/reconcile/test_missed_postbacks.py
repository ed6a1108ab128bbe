"""End to end: each event is handled although postbacks are dropped or duplicated and the receiver is killed."""

from collections import Counter
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from callfire_async import CallFire
from callfire_async.cli.commands import demo
from callfire_async.cli.commands.demo._receiver_process import ReceiverOptions
from callfire_async.cli.commands.demo._report import DemoResults, ProgressDisplay
from callfire_async.inspector._server import serve
from callfire_async.notifications import EndpointTokens, SigningSecrets
from callfire_async.testing import FakeCallFire

DROPPED, DUPLICATED, KILLED = 0.05, 0.03, 2


@pytest.mark.slow
async def test_each_event_reaches_its_handler(tmp_path: Path, torture, seed, record_property):
    """At least once; the number of second deliveries is reported as a property and printed."""
    events = 20_000 if torture else 400
    console = Console(file=StringIO())
    results = DemoResults(tmp_path / "handled.jsonl")
    settings = ReceiverOptions(
        EndpointTokens.generate(),
        str(results.journal),
        str(tmp_path / "inbox.db"),
        signing_secret=SigningSecrets.generate(),
    )
    fake = FakeCallFire(
        concurrency=demo.CONCURRENCY,
        duplicate_rate=DUPLICATED,
        seed=seed,
        events_per_postback=demo.EVENTS_PER_POSTBACK,
    )
    async with serve(fake) as port, demo.ReceiverProcess(settings, KILLED) as receiver:
        root = f"http://127.0.0.1:{port}"
        base_url = f"{root}/api/1.1/rest"
        endpoint = EndpointTokens(settings.token).url(f"http://127.0.0.1:{receiver.port}")
        async with CallFire("login", "password", base_url=base_url, webhooks_base_url=f"{root}/v2") as callfire:
            await demo.subscribe(callfire, endpoint, console)
            await demo.create_webhooks(callfire, settings.signing_secret, console)
        with ProgressDisplay(console, results, events + 3) as watch:
            groups = demo.groups_of(demo.campaign(events))
            await demo.post(fake, demo.drop_some_postbacks(fake, groups, DROPPED), watch, receiver)
        await demo.wait_until_settled(results)
        results.dropped.extend(fake.dropped)
        async with receiver.stopped():
            results.reconciled = await demo.reconcile_inbox(base_url, Path(settings.inbox))
        await demo.wait_until_settled(results)

    handled = Counter(results.journal.read_text().splitlines())
    second = handled.total() - len(handled)
    record_property("second_deliveries", second)
    print(f"{events} events, {len(results.dropped)} postbacks dropped: {results.reconciled}, {second} repeated")  # noqa: T201  # the report
    assert (results.missed(), results.tally().lost, len(results.dropped) > 0) == (0, 0, True)
