"""The simulation finds bugs: each of these is planted in the package, and found."""

import asyncio
from collections.abc import Callable

import pytest
from attrs import evolve, frozen
from simulation.run import simulate
from simulation.settings import SCENARIOS

from callfire_async.errors import InboxError
from callfire_async.notifications import worker
from callfire_async.notifications.inbox.memory import MemoryInbox
from callfire_async.notifications.inbox.spool import SpoolingInbox
from callfire_async.notifications.inbox.spool._forwarder import SpoolForwarder
from callfire_async.notifications.inbox.sqlite._directory import SqliteDirectoryInbox
from callfire_async.notifications.inbox.sqlite._directory_files import DirectoryFiles
from callfire_async.notifications.intake import QueuedIntake
from callfire_async.notifications.retry import Outcome
from callfire_async.notifications.routing.router import Router
from callfire_async.notifications.security.request_validation import Reply
from callfire_async.notifications.worker import Worker
from callfire_async.notifications.worker._envelope_splitter import deliveries_of

MAX_SEEDS = 2_000


def ack_before_the_handlers_run(patch: pytest.MonkeyPatch) -> None:
    dispatch = Worker._parse_and_dispatch

    async def ack_first(self, lease, completed, record):
        await self.inbox.ack(lease)
        return await dispatch(self, lease, completed, record)

    patch.setattr(Worker, "_parse_and_dispatch", ack_first)


def ignore_the_token_of_a_lease(patch: pytest.MonkeyPatch) -> None:
    def settle(self, lease, change):
        change(self._rows[lease.id])
        return True

    patch.setattr(MemoryInbox, "_settle", settle)


def drop_what_cannot_be_forwarded(patch: pytest.MonkeyPatch) -> None:
    async def drop(self):
        await self._delete(self._leases)

    patch.setattr(SpoolForwarder, "_send_each", drop)


def respond_before_the_append(patch: pytest.MonkeyPatch) -> None:
    accept = QueuedIntake.accept
    # The event loop has only weak references to its tasks.
    appends = set()

    async def respond(self, delivery, record):
        appends.add(asyncio.create_task(accept(self, delivery, record)))
        return Reply(204)

    patch.setattr(QueuedIntake, "accept", respond)


def run_suspects_beside_others(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(worker, "SUSPECT_CRASHES", 1000)


def run_completed_handlers_again(patch: pytest.MonkeyPatch) -> None:
    dispatch = Router.dispatch

    async def dispatch_all(self, event, *, skip, **options):
        return await dispatch(self, event, skip=frozenset(), **options)

    patch.setattr(Router, "dispatch", dispatch_all)


def leave_tasks_after_a_stop(patch: pytest.MonkeyPatch) -> None:
    async def do_nothing(self):
        pass

    patch.setattr(Worker, "_give_up", do_nothing)
    patch.setattr(Worker, "_cancel_tasks", do_nothing)


def ack_an_envelope_whose_events_are_not_stored(patch: pytest.MonkeyPatch) -> None:
    async def store_once(inbox, lease, bodies):
        deliveries = deliveries_of(lease.delivery, bodies, lease.id)
        await asyncio.gather(inbox.append_many(deliveries), return_exceptions=True)
        return Outcome.split()

    patch.setattr(worker, "store_events", store_once)


def count_attempts_as_handled(patch: pytest.MonkeyPatch) -> None:
    settle = Worker._settle

    async def count_first(self, lease, outcome):
        self.counts["handled"] += 1
        is_settled = await settle(self, lease, outcome)
        self.counts["handled"] -= is_settled and outcome.name == "handled"
        return is_settled

    patch.setattr(Worker, "_settle", count_first)


def settle_everything_before_a_stop_ends(patch: pytest.MonkeyPatch) -> None:
    async def wait_until_settled(self):
        await asyncio.wait({*self._tasks[:1], *self._work.running})

    patch.setattr(Worker, "_give_up", wait_until_settled)


def spool_one_event_of_an_envelope(patch: pytest.MonkeyPatch) -> None:
    async def append_first(self, deliveries):
        try:
            return await self._breaker.call(lambda primary: primary.append_many(deliveries), self._timeout)
        except InboxError:
            return await self._spool.append_many(deliveries[:1]) * len(deliveries)

    patch.setattr(SpoolingInbox, "append_many", append_first)


def never_take_over(patch: pytest.MonkeyPatch) -> None:
    async def do_nothing(self):
        return False

    patch.setattr(DirectoryFiles, "take_over", do_nothing)


def split_an_envelope_into_the_wrong_file(patch: pytest.MonkeyPatch) -> None:
    append_many = SqliteDirectoryInbox.append_many

    async def append_to_own(self, deliveries):
        return await append_many(self, [evolve(each, envelope_id=None) for each in deliveries])

    patch.setattr(SqliteDirectoryInbox, "append_many", append_to_own)


@frozen
class PlantedBug:
    """A bug, and the run that finds it."""

    plant: Callable[[pytest.MonkeyPatch], None]
    scenario: str
    #: The first seed from 0 that finds it.
    seed: int
    #: Part of the report.
    report: str


BUGS = [
    PlantedBug(ack_before_the_handlers_run, "shared", 0, "handler succeeded less often"),
    PlantedBug(ignore_the_token_of_a_lease, "clock", 0, "by a worker that had lost its lease"),
    PlantedBug(drop_what_cannot_be_forwarded, "spool", 0, "was acknowledged and lost"),
    PlantedBug(respond_before_the_append, "shared", 0, "was acknowledged and lost"),
    PlantedBug(run_suspects_beside_others, "suspects", 0, "one of them was a suspect"),
    PlantedBug(run_completed_handlers_again, "shared", 0, "without a reason"),
    PlantedBug(leave_tasks_after_a_stop, "shared", 0, "tasks remained after the stop"),
    PlantedBug(ack_an_envelope_whose_events_are_not_stored, "envelopes", 2, "was acknowledged and lost"),
    PlantedBug(count_attempts_as_handled, "shared", 0, "wrong counters"),
    PlantedBug(settle_everything_before_a_stop_ends, "stops", 14, "the stop took"),
    PlantedBug(spool_one_event_of_an_envelope, "spooled-envelopes", 0, "was acknowledged and lost"),
    PlantedBug(never_take_over, "directory", 0, "pending after"),
    PlantedBug(split_an_envelope_into_the_wrong_file, "directory", 32, "without a reason"),
]


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.plant.__name__)
def test_a_planted_bug_is_found(bug, monkeypatch, seed, torture):
    """A run starts at a seed that finds the bug; the long form starts at a random one, and needs at most 2,000."""
    bug.plant(monkeypatch)
    first = seed if torture else bug.seed
    assert any(is_found(bug, each) for each in range(first, first + MAX_SEEDS))


def is_found(bug: PlantedBug, seed: int) -> bool:
    """Return whether a run with this seed reports the promise that the bug breaks."""
    return any(bug.report in violation for violation in simulate(seed, SCENARIOS[bug.scenario]))
