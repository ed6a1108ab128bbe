"""What an inbox has acknowledged outlasts a failure of the power: 204 means that it is on disk."""

import os
import shutil
import sys
from pathlib import Path

import pytest
from notifications.inbox.sqlite.power.promises import AuditReport
from notifications.inbox.sqlite.power.recording import Life, compile_recorder, random_lives, record, survey

CUTS_A_RECORDING = 50
FEW_CUTS = 20
RECORDINGS = 2
RECORDINGS_OF_TORTURE = 40


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "number" in metafunc.fixturenames:
        torture = metafunc.config.getoption("--torture")
        metafunc.parametrize("number", range(RECORDINGS_OF_TORTURE if torture else RECORDINGS))


@pytest.fixture(scope="module")
def recorder(tmp_path_factory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if sys.platform != "linux" or compiler is None:
        message = "recording what SQLite writes takes Linux and a C compiler"
        pytest.fail(message) if "CI" in os.environ else pytest.skip(message)
    return compile_recorder(tmp_path_factory.mktemp("recorder"), compiler)


def test_nothing_acknowledged_is_lost_with_the_power(recorder, tmp_path, seed, number):
    """Whatever the disk makes of what was not synced, each delivery is there and as settled as its caller was told."""
    # Every other inbox has a disk that fails now and then, too: whoever was told of that was promised nothing.
    lives = random_lives(seed + number, failing=number % 2 == 1)
    findings = survey(record(tmp_path, recorder, seed + number, lives), CUTS_A_RECORDING)
    assert findings == AuditReport(), f"seed {seed}"
    shutil.rmtree(tmp_path)


def test_what_a_dead_owner_had_not_synced_is_durable_before_it_is_vouched_for(recorder, tmp_path, seed):
    """A delivery that is there already is acknowledged to whoever posts it again only once it is on disk."""
    lives = [Life(workers=0, dies_at_sync=15), Life(workers=0, deliveries=0)]
    assert survey(record(tmp_path, recorder, seed, lives), FEW_CUTS) == AuditReport(), f"seed {seed}"


def test_nothing_is_built_on_what_a_failed_sync_has_covered(recorder, tmp_path, seed):
    """A commit and the closing after it fail; what is acknowledged once the disk is back is not lost with them."""
    lives = [Life(failing_syncs=(15, 2))]
    assert survey(record(tmp_path, recorder, seed, lives), FEW_CUTS) == AuditReport(), f"seed {seed}"


def test_a_log_that_is_not_synced_is_found_out(recorder, tmp_path, seed):
    """With ``synchronous=NORMAL`` the same search finds losses: it would have found ours."""
    recording = record(tmp_path, recorder, seed, [Life(), Life()], synchronous="NORMAL")
    assert survey(recording, FEW_CUTS).lost, f"seed {seed}"


def test_a_file_that_is_not_synced_is_found_out(recorder, tmp_path, seed):
    """With ``synchronous=OFF`` the same search finds damage: it would have found ours."""
    recording = record(tmp_path, recorder, seed, [Life(), Life()], synchronous="OFF")
    assert survey(recording, 2 * FEW_CUTS).corrupt, f"seed {seed}"


def test_the_recording_misses_nothing(recorder, tmp_path, seed):
    """Played to its end with nothing dropped, a recording gives the very files that are there."""
    recording = record(tmp_path, recorder, seed, [Life(), Life(dies_after=200)])
    there = {path.name: path.read_bytes() for path in recording.folder.iterdir() if _on_disk(path)}
    assert recording.replayed() == there


def _on_disk(path: Path) -> bool:
    return path.name != "marks" and not path.name.endswith("-shm")
