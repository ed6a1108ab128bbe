"""`current_attempt`: the attributes in a handler, `complete_in` in a receiver, and which inboxes refuse it."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from notifications.inbox.clocks import Clocks
from notifications.retrying_receiver import DEADLINE, EVENT, post, running

from callfire_async.notifications import (
    CurrentAttempt,
    Lease,
    MemoryInbox,
    Receiver,
    Router,
    SqliteInbox,
    TextSent,
    current_attempt,
)
from callfire_async.notifications.inbox.spool import SpoolingInbox
from callfire_async.notifications.receiver import Postback
from callfire_async.testing import deliver, make_text_sent

# --- the attributes ---------------------------------------------------------------------------------------


def test_there_is_no_attempt_outside_a_handler():
    """The message names the tool for tests."""
    with pytest.raises(RuntimeError, match=r"current_attempt must be called in a handler.*record_completions"):
        current_attempt()


async def test_a_handler_sees_its_attempt():
    """With the numbers and names that the inbox has."""
    attempts: list[CurrentAttempt] = []
    router = Router()

    @router.on(TextSent, name="first")
    async def first(event: TextSent) -> None:
        attempts.append(current_attempt())

    @router.on(TextSent, name="second")
    async def second(event: TextSent) -> None:
        attempts.append(current_attempt())
        if len(attempts) == 2:
            raise ValueError

    inbox = MemoryInbox()
    started = datetime.now(UTC)
    async with running(router, inbox) as receiver:
        await post(receiver)
        handled = await inbox.handled([attempts[0].event_key])
    shown = [(attempt.delivery_id, attempt.number, attempt.handler) for attempt in attempts]

    assert shown == [(1, 1, "first"), (1, 1, "second"), (1, 2, "second")]
    assert {attempt.event_key for attempt in attempts} == handled == {"text:17:SENT"}
    assert all(started < attempt.lease_expires_at < started + timedelta(seconds=70) for attempt in attempts)


async def test_the_lease_expires_later_after_each_extension(monkeypatch):
    """The attempt that a handler holds is up to date."""
    monkeypatch.setattr("callfire_async.notifications.worker._MIN_LEASE_SECONDS", 0.3)
    router, times, attempts = Router(), [], []

    @router.on(TextSent)
    async def wait_for_extensions(event: TextSent) -> None:
        attempt = current_attempt()
        attempts.append(attempt.number)
        while len(times) < 3:
            if attempt.lease_expires_at not in times:
                times.append(attempt.lease_expires_at)
            await asyncio.sleep(0.001)

    # The time of the inbox does not pass, so the lease does not expire, however slow the machine is.
    async with running(router, MemoryInbox(clock=Clocks().clock()), handler_timeout=None) as receiver:
        await post(receiver)

    assert (attempts, times) == ([1], sorted(times))


async def test_without_an_inbox_there_is_no_delivery():
    """The other attributes are there."""
    router, attempts = Router(), []

    @router.on(TextSent, name="only")
    async def only(event: TextSent) -> None:
        attempts.append(current_attempt())

    await deliver(Receiver(router, tokens=None), EVENT)
    (attempt,) = attempts

    assert (attempt.delivery_id, attempt.number, attempt.handler) == (None, 1, "only")
    assert (attempt.event_key, attempt.lease_expires_at) == ("text:17:SENT", None)
    assert "17" not in repr(attempt)


async def test_each_of_several_handlers_at_once_sees_its_own_attempt():
    """Also in the tasks that they start."""
    router, seen = Router(), {}
    everyone_runs = asyncio.Barrier(5)

    @router.on(TextSent)
    async def handle(event: TextSent) -> None:
        await everyone_runs.wait()
        seen[event.text.id] = await asyncio.create_task(key_of_current())

    async def key_of_current() -> str:
        return current_attempt().event_key

    async with running(router, MemoryInbox()) as receiver:
        for id in range(5):
            body = make_text_sent(id=id).to_json()
            await receiver.receive(Postback("POST", None, {}, body))
        await receiver.idle(DEADLINE)

    assert seen == {id: f"text:{id}:SENT" for id in range(5)}


# --- inboxes without transactions -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda _: None, "a receiver without an inbox"),
        (lambda _: MemoryInbox(), "MemoryInbox"),
        (lambda path: SqliteInbox(path / "inbox.db"), "SqliteInbox"),
        (SqliteInbox.in_directory, ".*"),
        (lambda path: SpoolingInbox(MemoryInbox(), SqliteInbox(path / "spool.db")), "MemoryInbox"),
    ],
    ids=["none", "memory", "sqlite", "directory", "spool"],
)
async def test_an_inbox_elsewhere_is_a_type_error(tmp_path, make, name):
    """The message says what to do instead."""
    router, errors = Router(), []

    @router.on(TextSent)
    async def handle(event: TextSent) -> None:
        try:
            await current_attempt().complete_in(object())
        except TypeError as error:
            errors.append(str(error))

    await deliver(Receiver(router, tokens=None, inbox=make(tmp_path)), EVENT)

    (message,) = errors
    assert message.startswith("complete_in needs a PostgresInbox, not ")
    assert "insert event.key into a table with a unique index" in message


async def test_a_delivery_in_the_spool_is_a_type_error(tmp_path):
    """Its completion would not be in the primary's database."""
    inbox = SpoolingInbox(MemoryInbox(), SqliteInbox(tmp_path / "spool.db"))
    lease = Lease("spool/1", "token", 1, 0, None, frozenset())

    with pytest.raises(TypeError, match=r"complete_in needs a delivery of the primary inbox, not one .* in the spool"):
        await inbox.complete_in(lease, "handler", None)
