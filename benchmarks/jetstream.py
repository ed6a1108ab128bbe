"""
An inbox on JetStream, beside what nats-py alone takes for the same messages.

A server of one's own, from the package of the tests' group, that syncs the disk before each answer, as an inbox should
have it. ``TMPDIR`` names a folder on the disk to be measured.
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
AT_ONCE = 256
COUNT = 2_048
SEQUENTIALLY = 256
LEASE = 60.0


def _appended(number: int) -> Any:
    from callfire_async.notifications.inbox import Delivery  # noqa: PLC0415  # what is measured loads it

    return Delivery(BODY, key=f"{number} {secrets.token_hex(8)}")


@asynccontextmanager
async def _opened(url: str, name: str | None = None) -> AsyncIterator[Any]:
    from callfire_async.notifications.inbox.jetstream import JetStreamInbox  # noqa: PLC0415  # it may not be there

    # One server is what is measured: that it is one need not be said each time.
    logging.getLogger("callfire_async").setLevel(logging.ERROR)
    async with JetStreamInbox(url, name=name or f"bench_{secrets.token_hex(4)}", timeout=60.0) as inbox:
        yield inbox


@asynccontextmanager
async def _bare(url: str) -> AsyncIterator[Callable[[int], Awaitable[Any]]]:
    """Yield what publishes one message with nats-py alone, under a name of its own, and waits for the answer."""
    import nats  # noqa: PLC0415  # it may not be there

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


async def _each(work: Callable[[int], Awaitable[Any]], count: int, at_once: int) -> float:
    """Do something so often, so many at once; return the seconds for one."""
    numbers = iter(range(count))

    async def some() -> None:
        for number in numbers:
            await work(number)

    begun = time.perf_counter()
    await asyncio.gather(*(some() for _ in range(at_once)))
    return (time.perf_counter() - begun) / count


def _with_server(measure: Callable[[str, Effort], Awaitable[Costs]]) -> Callable[[Effort], Costs]:
    def measured(effort: Effort) -> Costs:
        from engines.nats import running_nats  # noqa: PLC0415  # from the tests, which may not be there

        with running_nats(sync_interval="always") as server:
            return asyncio.run(measure(server.url(), effort))

    return measured


async def _one_by_one(url: str, effort: Effort) -> Costs:
    count = effort.of(SEQUENTIALLY, least=16)
    async with _opened(url) as inbox, _bare(url) as publish:
        return Costs(
            await _each(lambda number: inbox.append(_appended(number)), count, 1), await _each(publish, count, 1)
        )


async def _at_once(url: str, effort: Effort) -> Costs:
    count = effort.of(COUNT, least=AT_ONCE)
    async with _opened(url) as inbox, _bare(url) as publish:
        ours = await _each(lambda number: inbox.append(_appended(number)), count, AT_ONCE)
        return Costs(ours, await _each(publish, count, AT_ONCE))


async def _beside_sequential(url: str, effort: Effort) -> Costs:
    async with _opened(url) as inbox:

        async def append(number: int) -> None:
            await inbox.append(_appended(number))

        await _each(append, 16, 1)
        alone = await _each(append, effort.of(SEQUENTIALLY, least=16), 1)
        return Costs(await _each(append, effort.of(COUNT, least=AT_ONCE), AT_ONCE), alone)


async def _claims(url: str, effort: Effort) -> Costs:
    """Hand out and settle, beside storing."""
    count = effort.of(COUNT // 4, least=64)
    async with _opened(url) as inbox:
        begun = time.perf_counter()
        await inbox.append_many([_appended(number) for number in range(count)])
        stored = (time.perf_counter() - begun) / count
        begun = time.perf_counter()
        await _handle_all(inbox)
        return Costs((time.perf_counter() - begun) / count, stored)


async def _handle_all(inbox: Any) -> None:
    """Handle what there is, sixteen at once as a receiver does."""
    while leases := await inbox.claim(16, lease=LEASE):
        await asyncio.gather(*(inbox.ack(lease, event_key=str(lease.id)) for lease in leases))


def _processes(processes: int) -> Callable[[str, Effort], Awaitable[Costs]]:
    async def measure(url: str, effort: Effort) -> Costs:
        share = effort.of(COUNT // 4, least=64)
        return Costs(await _by_processes(url, share, processes), await _by_processes(url, share, 1))

    return measure


async def _by_processes(url: str, count: int, processes: int) -> float:
    """Handle so many by processes that share an inbox; return the seconds for one."""
    name = f"bench_{secrets.token_hex(4)}"
    async with _opened(url, name) as inbox:
        await inbox.append_many([_appended(number) for number in range(count)])
    context = multiprocessing.get_context("spawn")
    loop = asyncio.get_running_loop()
    with context.Manager() as manager:
        ready = manager.Barrier(processes + 1)
        workers = [context.Process(target=_work, args=(url, name, ready)) for _ in range(processes)]
        for worker in workers:
            worker.start()
        await loop.run_in_executor(None, ready.wait)
        begun = time.perf_counter()
        for worker in workers:
            await loop.run_in_executor(None, worker.join)
        return (time.perf_counter() - begun) / count


def _work(url: str, name: str, ready: Any) -> None:
    async def work() -> None:
        async with _opened(url, name) as inbox:
            await asyncio.get_running_loop().run_in_executor(None, ready.wait)
            await _handle_all(inbox)

    asyncio.run(work())


ROWS = (
    Row("an append to JetStream, one after the other", "`publish` of nats-py", 1.5, _with_server(_one_by_one)),
    Row(
        f"an append to JetStream, {AT_ONCE} at once",
        "`publish` of nats-py, as many at once",
        1.0,
        _with_server(_at_once),
    ),
    Row(
        f"an append to JetStream, {AT_ONCE} at once",
        "one after the other",
        6.0,
        _with_server(_beside_sequential),
        better="higher",
    ),
    Row("a delivery of JetStream handed out and acked", "stored", None, _with_server(_claims)),
    *(
        Row(
            f"a delivery of JetStream handed out and acked by {processes} processes",
            "by one",
            None,
            _with_server(_processes(processes)),
            better="higher",
        )
        for processes in (2, 4)
    ),
)
