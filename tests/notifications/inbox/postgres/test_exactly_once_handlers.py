"""`current_attempt` in receivers with a `PostgresInbox`, alone and behind a spool."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from notifications.inbox.postgres.schemas import Schema
from notifications.retrying_receiver import DEADLINE, post, running

from callfire_async.errors import LeaseLostError
from callfire_async.notifications import Inbox, Reject, Router, SqliteInbox, TextSent, current_attempt
from callfire_async.notifications.inbox.spool import SpoolingInbox


@pytest.fixture
async def connection(schema: Schema) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(schema.dsn())
    yield connection
    await connection.close()


def postgres_inbox(schema: Schema, folder: Path) -> Inbox:
    return schema.inbox()


def spooling_inbox(schema: Schema, folder: Path) -> Inbox:
    return SpoolingInbox(schema.inbox(), SqliteInbox(folder / "spool.db"))


@pytest.mark.parametrize("make", [postgres_inbox, spooling_inbox])
async def test_a_handler_that_raises_after_its_commit_does_not_run_again(schema, connection, tmp_path, make):
    """The next attempt runs only handlers that have not completed; its ack needs none."""
    router, calls = Router(), []

    @router.on(TextSent, name="commits")
    async def commits(event: TextSent) -> None:
        calls.append("commits")
        async with connection.transaction():
            await current_attempt().complete_in(connection)
        raise ValueError

    @router.on(TextSent, name="fails")
    async def fails(event: TextSent) -> None:
        calls.append("fails")
        if calls.count("fails") == 1:
            raise ValueError

    async with running(router, make(schema, tmp_path)) as receiver:
        await post(receiver)
        stats = await receiver.stats()

    assert (calls, stats.inbox.done) == (["commits", "fails", "fails"], 1)


async def test_an_attempt_without_handlers_to_run_acks(schema, connection):
    """The crash, or here the failure, was between the commit and the ack."""
    router, numbers = Router(), []

    @router.on(TextSent)
    async def commits(event: TextSent) -> None:
        numbers.append(current_attempt().number)
        async with connection.transaction():
            await current_attempt().complete_in(connection)
        raise ValueError

    inbox = schema.inbox()
    async with running(router, inbox) as receiver:
        await post(receiver)
        entry = await inbox.get(1)

        assert (numbers, entry.state, entry.attempt) == ([1], "done", 2)
        assert await inbox.handled(["text:17:SENT"])


async def test_a_handler_that_rolls_back_runs_again(schema, connection):
    """The completion is part of the transaction."""
    router, numbers = Router(), []

    @router.on(TextSent)
    async def handle(event: TextSent) -> None:
        numbers.append(current_attempt().number)
        async with connection.transaction():
            await current_attempt().complete_in(connection)
            if len(numbers) == 1:
                raise ValueError

    async with running(router, schema.inbox()) as receiver:
        await post(receiver)

    assert numbers == [1, 2]


async def test_a_rejected_event_with_a_completed_handler_is_dead(schema, connection):
    """Its replay acks, because no handler remains."""
    router, numbers = Router(), []

    @router.on(TextSent)
    async def handle(event: TextSent) -> None:
        numbers.append(current_attempt().number)
        async with connection.transaction():
            await current_attempt().complete_in(connection)
        raise Reject("too old")

    inbox = schema.inbox()
    async with running(router, inbox) as receiver:
        await post(receiver)
        assert (await inbox.get(1)).state == "dead"
        await inbox.replay()
        await receiver.idle(DEADLINE)
        assert ((await inbox.get(1)).state, numbers) == ("done", [1])


async def test_a_task_of_the_handler_completes(schema, connection):
    """It has the attempt of the handler that started it."""
    router, numbers = Router(), []

    @router.on(TextSent, name="parent")
    async def parent(event: TextSent) -> None:
        numbers.append(current_attempt().number)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(child())
        raise ValueError

    async def child() -> None:
        async with connection.transaction():
            await current_attempt().complete_in(connection)

    inbox = schema.inbox()
    async with running(router, inbox) as receiver:
        await post(receiver)

        assert ((await inbox.get(1)).state, numbers) == ("done", [1])


async def test_a_task_that_outlives_the_attempt_cannot_complete(schema, connection):
    """The handler has timed out, and the delivery was released for the next attempt."""
    router, outcomes = Router(), []
    may_continue = asyncio.Event()
    tasks: list[asyncio.Task[None]] = []

    @router.on(TextSent)
    async def handle(event: TextSent) -> None:
        if current_attempt().number == 1:
            tasks.append(asyncio.create_task(late()))
            await asyncio.sleep(DEADLINE)
        may_continue.set()
        await asyncio.wait(tasks)

    async def late() -> None:
        await may_continue.wait()
        with contextlib.suppress(LeaseLostError):
            async with connection.transaction():
                await current_attempt().complete_in(connection)
            outcomes.append("completed")

    async with running(router, schema.inbox(), handler_timeout=0.5) as receiver:
        await post(receiver)

    assert (len(tasks), outcomes) == (1, [])


async def test_a_lost_lease_fails_the_handler(schema, connection, caplog):
    """The transaction is rolled back, and the log says that the lease was lost."""
    caplog.set_level(logging.WARNING, "callfire_async.worker")
    router, calls = Router(), []
    effects = f"public.effects_{schema.name}"
    await schema.fetchval(f"CREATE TABLE {effects} (number int)")

    @router.on(TextSent)
    async def handle(event: TextSent) -> None:
        calls.append(current_attempt())
        async with connection.transaction():
            await connection.execute(f"INSERT INTO {effects} VALUES ($1)", len(calls))
            if len(calls) == 1:
                # Another worker claims the delivery, and crashes.
                await schema.fetchval("UPDATE deliveries SET token = 'another', due_at = now() - interval '1 s'")
            await current_attempt().complete_in(connection)

    async with running(router, schema.inbox()) as receiver:
        await post(receiver)

    assert "LeaseLostError" in caplog.text
    assert "its lease was lost" in caplog.text
    assert await schema.fetchval(f"SELECT array_agg(number) FROM {effects}") == [2]
