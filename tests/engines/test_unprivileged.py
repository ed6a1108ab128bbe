"""Whoever runs the tests, an engine finds its programs and may write where it should."""

import subprocess
from pathlib import Path

from engines.unprivileged import as_nobody, folder_of_nobody, is_reachable, reachable_copies


def test_the_folder_belongs_to_whoever_runs_there():
    """A program that is run as nobody can write in it; afterwards it is gone, with all that is in it."""
    with folder_of_nobody("engine-") as folder:
        subprocess.run(["touch", folder / "written"], check=True, cwd="/", **as_nobody())
        assert (folder / "written").exists()

    assert not folder.exists()


def test_what_cannot_be_reached_is_copied(tmp_path):
    """Root's own folders are closed to nobody; what all may read stays where it is."""
    closed = tmp_path / "closed"
    closed.mkdir()
    (closed / "library").write_text("here")
    closed.chmod(0o700)

    with folder_of_nobody("engine-") as folder:
        (copy,) = reachable_copies(closed, folder=folder)
        assert (copy / "library").read_text() == "here"
        assert is_reachable(copy)
        assert reachable_copies(Path("/usr/bin"), folder=folder) == [Path("/usr/bin")]
