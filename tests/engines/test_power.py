"""The disk that can lose its power."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from engines.power import Disk, mounted_disk

pytestmark = pytest.mark.slow


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with mounted_disk(tmp_path / "disk") as disk:
        yield disk


def test_a_power_failure_drops_what_was_not_synced(disk):
    """Synced data remains, also in a file that has grown since."""
    with (disk.path / "synced").open("w") as file:
        file.write("synced")
        file.flush()
        os.fsync(file.fileno())
        file.write(", and more")
    (disk.path / "unsynced").write_text("text")

    disk.cut_power()
    with pytest.raises(OSError, match="Input/output error"):
        (disk.path / "later").write_text("text")
    disk.restore_power()

    assert {path.name for path in disk.path.iterdir()} == {"lost+found", "synced"}
    assert (disk.path / "synced").read_text() == "synced"


def test_a_disk_can_be_synced(disk):
    """Then a power failure drops nothing."""
    (disk.path / "file").write_text("text")
    disk.sync()
    disk.cut_power()
    disk.restore_power()

    assert (disk.path / "file").read_text() == "text"
