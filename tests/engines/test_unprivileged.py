"""Servers run as an unprivileged user even if the tests run as root."""

import subprocess
from pathlib import Path

from engines.unprivileged import is_reachable, reachable_copies, unprivileged_folder, user_options


def test_the_folder_belongs_to_the_unprivileged_user():
    """Programs of that user can write in it; it is deleted with its contents afterwards."""
    with unprivileged_folder("engine-") as folder:
        subprocess.run(["touch", folder / "written"], check=True, cwd="/", **user_options())
        assert (folder / "written").exists()

    assert not folder.exists()


def test_folders_that_the_user_cannot_read_are_copied(tmp_path):
    """Readable folders are used in place."""
    closed = tmp_path / "closed"
    closed.mkdir()
    (closed / "library").write_text("here")
    closed.chmod(0o700)

    with unprivileged_folder("engine-") as folder:
        (copy,) = reachable_copies(closed, folder=folder)
        assert (copy / "library").read_text() == "here"
        assert is_reachable(copy)
        assert reachable_copies(Path("/usr/bin"), folder=folder) == [Path("/usr/bin")]
