"""
`JetStreamInbox`, compared with nats-py alone for the same messages.

The server is the tests' own, and syncs each message to disk before it responds, as recommended for an inbox. Set
``TMPDIR`` to a directory on the disk to be measured.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.rows import Costs, Effort, Row

BODY = b'{"TextNotification": {"Text": {"@id": 896807881003}}}'.ljust(1500)
CONCURRENCY = 256
COUNT = 2_048
SEQUENTIAL_COUNT = 256
LEASE_SECONDS = 60.0


def _delivery(number: int) -> Any:
    from callfire_async.notifications.inbox import Delivery  # noqa: PLC0415  # loaded by what is measured

    return Delivery(BODY, key=f"{number} {secrets.token_hex(8)}")


@asynccontextmanager
async def _open_inbox(url: str, name: str | None = None) -> AsyncIterator[Any]:
    from callfire_async.notifications.inbox.jetstream import JetStreamInbox  # noqa: PLC0415  # needs nats-py

    # Suppress the warning that a single server is not redundant.
    logging.getLogger("callfire_async").setLevel(logging.ERROR)
    async with JetStreamInbox(url, name=name or f"bench_{secrets.token_hex(4)}", timeout=60.0) as inbox:
        yield inbox


@asynccontextmanager
async def _open_bare(url: str) -> AsyncIterator[Callable[[int], Awaitable[Any]]]:
    """Yield a function that publishes a message with nats-py to a new stream and waits for the acknowledgement."""
    import nats  # noqa: PLC0415  # may not be installed

    client = await nats.connect(url)
    try:
        jetstream = client.jetstream(timeout=60.0)
        name = f"bare_{secrets.token_hex(4)}"
        await jetstream.add_stream(name=name, subjects=[name], retention="workqueue", duplicate_window=3600)

        async def publish(number: int) -> Any:
            headers = {"Nats-Msg-Id": f"{number} {secrets.token_hex(8)}"}
            return await jetstream.publish(name, BODY, headers=headers)

        yield publish
    finally:
        await client.close()


async def _seconds(operation: Callable[[int], Awaitable[Any]], count: int, concurrency: int) -> float:
    """Run an operation *count* times, *concurrency* at once; return the seconds per operation."""
    numbers = iter(range(count))

    async def run_next() -> None:
        for number in numbers:
            await operation(number)

    start = time.perf_counter()
    await asyncio.gather(*(run_next() for _ in range(concurrency)))
    return (time.perf_counter() - start) / count


def _with_server(measure: Callable[[str, Effort], Awaitable[Costs]]) -> Callable[[Effort], Costs]:
    def measured(effort: Effort) -> Costs:
        from engines.nats import running_nats  # noqa: PLC0415  # the tests may not be there

        with running_nats(sync_interval="always") as server:
            return asyncio.run(measure(server.url(), effort))

    return measured


async def _sequential(url: str, effort: Effort) -> Costs:
    count = effort.of(SEQUENTIAL_COUNT, minimum=16)
    async with _open_inbox(url) as inbox, _open_bare(url) as publish:
        return Costs(
            await _seconds(lambda number: inbox.append(_delivery(number)), count, 1), await _seconds(publish, count, 1)
        )


async def _concurrent(url: str, effort: Effort) -> Costs:
    count = effort.of(COUNT, minimum=CONCURRENCY)
    async with _open_inbox(url) as inbox, _open_bare(url) as publish:
        ours = await _seconds(lambda number: inbox.append(_delivery(number)), count, CONCURRENCY)
        return Costs(ours, await _seconds(publish, count, CONCURRENCY))


async def _concurrent_and_sequential(url: str, effort: Effort) -> Costs:
    async with _open_inbox(url) as inbox:

        async def append(number: int) -> None:
            await inbox.append(_delivery(number))

        await _seconds(append, 16, 1)
        alone = await _seconds(append, effort.of(SEQUENTIAL_COUNT, minimum=16), 1)
        return Costs(await _seconds(append, effort.of(COUNT, minimum=CONCURRENCY), CONCURRENCY), alone)


async def _claim_and_ack(url: str, effort: Effort) -> Costs:
    """Claim and ack deliveries, compared with storing them."""
    count = effort.of(COUNT // 4, minimum=64)
    async with _open_inbox(url) as inbox:
        start = time.perf_counter()
        await inbox.append_many([_delivery(number) for number in range(count)])
        stored = (time.perf_counter() - start) / count
        start = time.perf_counter()
        await _handle_all(inbox)
        return Costs((time.perf_counter() - start) / count, stored)


async def _handle_all(inbox: Any) -> None:
    """Claim and ack all deliveries, 16 at a time as a receiver does."""
    while leases := await inbox.claim(16, lease=LEASE_SECONDS):
        await asyncio.gather(*(inbox.ack(lease, event_key=str(lease.id)) for lease in leases))


def _processes(processes: int) -> Callable[[str, Effort], Awaitable[Costs]]:
    async def measure(url: str, effort: Effort) -> Costs:
        count = effort.of(COUNT // 4, minimum=64)
        return Costs(await _by_processes(url, count, processes), await _by_processes(url, count, 1))

    return measure


async def _by_processes(url: str, count: int, processes: int) -> float:
    """Handle deliveries by processes that share an inbox; return the seconds per delivery."""
    name = f"bench_{secrets.token_hex(4)}"
    async with _open_inbox(url, name) as inbox:
        await inbox.append_many([_delivery(number) for number in range(count)])
    context = multiprocessing.get_context("spawn")
    loop = asyncio.get_running_loop()
    with context.Manager() as manager:
        ready = manager.Barrier(processes + 1)
        workers = [context.Process(target=_work, args=(url, name, ready)) for _ in range(processes)]
        for worker in workers:
            worker.start()
        await loop.run_in_executor(None, ready.wait)
        start = time.perf_counter()
        for worker in workers:
            await loop.run_in_executor(None, worker.join)
        return (time.perf_counter() - start) / count


def _work(url: str, name: str, ready: Any) -> None:
    async def work() -> None:
        async with _open_inbox(url, name) as inbox:
            await asyncio.get_running_loop().run_in_executor(None, ready.wait)
            await _handle_all(inbox)

    asyncio.run(work())


ROWS = (
    Row("`JetStreamInbox.append`, one at a time", "`publish` of nats-py", 1.5, _with_server(_sequential)),
    Row(
        f"`JetStreamInbox.append`, {CONCURRENCY} concurrent",
        f"`publish` of nats-py, {CONCURRENCY} concurrent",
        1.0,
        _with_server(_concurrent),
    ),
    Row(
        f"`JetStreamInbox.append`, {CONCURRENCY} concurrent",
        "one at a time",
        6.0,
        _with_server(_concurrent_and_sequential),
        better="higher",
    ),
    Row(
        "`JetStreamInbox`: claim and ack, per delivery",
        "`append_many`, per delivery",
        8.0,
        _with_server(_claim_and_ack),
    ),
    *(
        Row(
            f"`JetStreamInbox`: claim and ack by {processes} processes",
            "1 process",
            None,
            _with_server(_processes(processes)),
            better="higher",
        )
        for processes in (2, 4)
    ),
)
