"""Acknowledged deliveries survive a power failure: 204 means that they are on disk."""

import shutil
from pathlib import Path

import pytest
from notifications.inbox.sqlite.power.promises import AuditReport
from notifications.inbox.sqlite.power.recording import Life, compile_recorder, random_lives, record, survey

CUTS_PER_RECORDING = 50
FEW_CUTS = 20
RECORDINGS = 2


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "number" in metafunc.fixturenames:
        option = metafunc.config.option
        metafunc.parametrize("number", range(option.seeds if option.torture else RECORDINGS))


@pytest.fixture(scope="module")
def recorder(tmp_path_factory) -> Path:
    return compile_recorder(tmp_path_factory.mktemp("recorder"))


def test_a_power_failure_loses_no_acknowledged_delivery(recorder, tmp_path, seed, number):
    """Whatever the disk did with unsynced writes, each acknowledged operation is there."""
    # Every other recording has failing syncs too; operations that raise need not be durable.
    lives = random_lives(seed + number, failing=number % 2 == 1)
    findings = survey(record(tmp_path, recorder, seed + number, lives), CUTS_PER_RECORDING)
    assert findings == AuditReport(), f"seed {seed}"
    shutil.rmtree(tmp_path)


def test_a_duplicate_is_acknowledged_only_once_the_first_is_durable(recorder, tmp_path, seed):
    """The last owner may have died before its sync."""
    lives = [Life(workers=0, dies_at_sync=15), Life(workers=0, deliveries=0)]
    assert survey(record(tmp_path, recorder, seed, lives), FEW_CUTS) == AuditReport(), f"seed {seed}"


def test_deliveries_after_a_failed_sync_are_durable(recorder, tmp_path, seed):
    """A commit and the close after it fail; later acknowledged deliveries do not depend on them."""
    lives = [Life(failing_syncs=(15, 2))]
    assert survey(record(tmp_path, recorder, seed, lives), FEW_CUTS) == AuditReport(), f"seed {seed}"


def test_the_search_finds_losses_without_syncs_of_the_log(recorder, tmp_path, seed):
    """With ``synchronous=NORMAL``: the harness can find a loss."""
    recording = record(tmp_path, recorder, seed, [Life(), Life()], synchronous="NORMAL")
    assert survey(recording, FEW_CUTS).lost, f"seed {seed}"


def test_the_search_finds_damage_without_syncs(recorder, tmp_path, seed):
    """With ``synchronous=OFF``: the harness can find damage."""
    recording = record(tmp_path, recorder, seed, [Life(), Life()], synchronous="OFF")
    assert survey(recording, 2 * FEW_CUTS).corrupt, f"seed {seed}"


def test_the_recording_is_complete(recorder, tmp_path, seed):
    """Replayed to its end with nothing dropped, it yields the files on the disk."""
    recording = record(tmp_path, recorder, seed, [Life(), Life(dies_after=200)])
    on_disk = {path.name: path.read_bytes() for path in recording.folder.iterdir() if _on_disk(path)}
    assert recording.replayed() == on_disk


def _on_disk(path: Path) -> bool:
    # A power failure leaves nothing in a socket.
    return path.name != "marks" and not path.name.endswith("-shm") and not path.is_socket()
