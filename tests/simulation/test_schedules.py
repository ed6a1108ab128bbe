"""Receivers in a simulated world keep their promises, whatever the order of events and faults."""

import pytest
from simulation.run import simulate
from simulation.settings import SCENARIOS

SEEDS = 60
TORTURE_SEEDS = 100 * SEEDS
TEST = "tests/simulation/test_schedules.py::test_promises_hold_in_all_schedules"

pytestmark = pytest.mark.parametrize("scenario", SCENARIOS)


def test_promises_hold_in_all_schedules(scenario, seed, torture):
    """
    Nothing acknowledged is lost, and each event is handled once unless a lease ended or a response was lost.

    Only the holder of a lease settles it, suspects run alone, stops end in time and leave no task, counters are right.
    """
    for each in range(seed, seed + (TORTURE_SEEDS if torture else SEEDS)):
        assert find_violations(each, scenario) == [], f"to replay: pytest '{TEST}[{scenario}]' --seed {each}"


def find_violations(seed: int, scenario: str) -> list[str]:
    """Return the broken promises of a run; an exception that nothing handled is one."""
    try:
        return simulate(seed, SCENARIOS[scenario])
    except Exception as error:  # noqa: BLE001  # the seed is reported with it
        return [repr(error)]


def test_a_seed_replays_exactly(scenario, seed):
    """The same seed gives the same schedule."""
    assert simulate(seed, SCENARIOS[scenario], is_repeated=True) == []
