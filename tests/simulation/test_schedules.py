"""Receivers in a simulated world keep their promises, whatever the order of events and faults."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from simulation.run import simulate
from simulation.settings import SCENARIOS
from unmeasured import unmeasured

SEEDS = 500
#: Coverage is measured in the first schedules only, because that doubles their time.
MEASURED = 20
TEST = "tests/simulation/test_schedules.py::test_promises_hold_in_all_schedules"

pytestmark = pytest.mark.parametrize("scenario", SCENARIOS)


def test_promises_hold_in_all_schedules(scenario, first_seed, torture, seeds):
    """
    Nothing acknowledged is lost, and each event is handled once unless a lease ended or a response was lost.

    Only the holder of a lease settles it, suspects run alone, stops end in time and leave no task, counters are right.
    """
    last_seed = first_seed + (seeds if torture else SEEDS)
    check(scenario, range(first_seed, min(first_seed + MEASURED, last_seed)))
    with unmeasured():
        check(scenario, range(first_seed + MEASURED, last_seed))


def check(scenario: str, seeds: range) -> None:
    for each in seeds:
        with replayable(f"to replay: pytest '{TEST}[{scenario}]' --seed {each}"):
            assert simulate(each, SCENARIOS[scenario]) == []


@contextmanager
def replayable(note: str) -> Iterator[None]:
    """Add a note to an exception: to a failed assertion, or to one that a run did not handle."""
    try:
        yield
    except Exception as error:
        error.add_note(note)
        raise


def test_a_seed_replays_exactly(scenario, first_seed):
    """The same seed gives the same schedule."""
    assert simulate(first_seed, SCENARIOS[scenario], is_repeated=True) == []
