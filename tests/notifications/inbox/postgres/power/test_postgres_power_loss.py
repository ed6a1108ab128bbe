"""Acknowledged deliveries survive a power failure of PostgreSQL's machine."""

from pathlib import Path

import pytest
from notifications.inbox.postgres.power.recorded_server import recorded_server
from notifications.inbox.sqlite.power.promises import AuditReport
from notifications.inbox.sqlite.power.recording import compile_recorder

CUTS = 20
CUTS_IN_TORTURE = 100


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "number" in metafunc.fixturenames:
        option = metafunc.config.option
        metafunc.parametrize("number", range(option.seeds if option.torture else 1))


@pytest.fixture(scope="module")
def recorder(tmp_path_factory) -> Path:
    return compile_recorder(tmp_path_factory.mktemp("recorder"))


def test_a_power_failure_of_the_server_loses_no_acknowledged_delivery(recorder, seed, torture, number):
    """Whatever its disk did with unsynced writes, it starts, and each acknowledged operation is there."""
    findings = AuditReport()
    with recorded_server(recorder, seed + number) as server:
        assert _differences(server) == []
        for found in server.survey(CUTS_IN_TORTURE if torture else CUTS):
            findings.add(found)
    assert findings == AuditReport(), f"seed {seed + number}"


def _differences(server) -> list[str]:
    """Return the files that a replay of the complete recording does not yield as they are."""
    # PostgreSQL writes these through the C library's streams, which are not recorded, and does not need them.
    files = {name: content for name, content in server.replayed().items() if not name.startswith(("pg_stat/", "marks"))}
    return [name for name, content in files.items() if (server.server.data / name).read_bytes() != content]


def test_the_search_finds_losses_with_asynchronous_commits(recorder, seed):
    """The harness can find a loss."""
    with recorded_server(recorder, seed, "synchronous_commit=off") as server:
        assert any(found.lost for found in server.survey(CUTS)), f"seed {seed}"


def test_the_search_finds_damage_without_syncs_of_the_server(recorder, seed):
    """The harness can find damage."""
    with recorded_server(recorder, seed, "fsync=off") as server:
        assert any(found.corrupt for found in server.survey(CUTS)), f"seed {seed}"
