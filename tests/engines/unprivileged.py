"""
Programs that refuse to be run by root, or ought not to be: run as nobody where the tests are root's.

Nobody cannot look into root's folders: what is run is copied to where it can be reached, and it writes where it may.
"""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

# Where the usual folder for what is temporary is somebody's own.
_OPEN_TO_ALL = ("/tmp", "/var/tmp")


def as_nobody() -> dict[str, Any]:
    """Return what `subprocess` has to be told to run something as nobody; nothing unless this is root."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def is_reachable(path: Path) -> bool:
    """Tell whether the program, or the folder, can be used by whoever is to run it."""
    return subprocess.run(["test", "-r", path, "-a", "-x", path], check=False, cwd="/", **as_nobody()).returncode == 0


@contextmanager
def folder_of_nobody(prefix: str) -> Iterator[Path]:
    """Make a folder that is the unprivileged user's own; its path is short enough for a socket's address."""
    parent = next(path for path in (tempfile.gettempdir(), *_OPEN_TO_ALL) if is_reachable(Path(path)))
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        give_to_nobody(folder)
        yield folder
    finally:
        # What was run in it may be writing its last.
        with contextlib.suppress(OSError):
            shutil.rmtree(folder)
        shutil.rmtree(folder, ignore_errors=True)


def give_to_nobody(path: Path) -> None:
    """Make a file or a folder the unprivileged user's own."""
    if user := as_nobody():
        os.chown(path, user["user"], user["group"])


def reachable_copies(*paths: Path, folder: Path) -> list[Path]:
    """Return folders as they are where all can be reached, and else copies of them, beside each other in *folder*."""
    if all(map(is_reachable, paths)):
        return list(paths)
    return [_own_copy(path, folder / path.name) for path in paths]


def _own_copy(path: Path, target: Path) -> Path:
    shutil.copytree(path, target, symlinks=True)
    for copied in (target, *target.rglob("*")):
        if not copied.is_symlink():
            give_to_nobody(copied)
    return target


def missing(what: str, how_to_get_it: str) -> None:
    """Skip a test that lacks its engine; where nothing may be missing, fail."""
    message = f"{what} is missing: {how_to_get_it}"
    if "CI" in os.environ:
        pytest.fail(message)
    pytest.skip(message)
