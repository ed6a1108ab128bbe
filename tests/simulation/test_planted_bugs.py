"""The simulation finds bugs: each of these is planted in the package, and found."""

import asyncio
from collections.abc import Callable

import pytest
from attrs import frozen
from simulation.run import simulate
from simulation.settings import SCENARIOS

from callfire_async.notifications import worker
from callfire_async.notifications.inbox.memory import MemoryInbox
from callfire_async.notifications.inbox.spool._forwarder import SpoolForwarder
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


@frozen
class PlantedBug:
    """A bug, and what finds it."""

    plant: Callable[[pytest.MonkeyPatch], None]
    scenario: str
    #: The first seed from 0 that finds it.
    seed: int
    #: Part of the report.
    report: str


BUGS = [
    PlantedBug(ack_before_the_handlers_run, "shared", 0, "handler never succeeded"),
    PlantedBug(ignore_the_token_of_a_lease, "clock", 0, "by a worker that had lost its lease"),
    PlantedBug(drop_what_cannot_be_forwarded, "spool", 20, "was acknowledged and lost"),
    PlantedBug(respond_before_the_append, "shared", 0, "was acknowledged and lost"),
    PlantedBug(run_suspects_beside_others, "suspects", 0, "one of them was a suspect"),
    PlantedBug(run_completed_handlers_again, "shared", 0, "without a reason"),
    PlantedBug(leave_tasks_after_a_stop, "shared", 0, "tasks remained after the stop"),
    PlantedBug(ack_an_envelope_whose_events_are_not_stored, "envelopes", 4, "was acknowledged and lost"),
    PlantedBug(count_attempts_as_handled, "shared", 0, "wrong counters"),
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
