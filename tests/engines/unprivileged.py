"""
Run servers that refuse to run as root: as the user ``nobody``, if the tests run as root.

That user cannot read root's folders, so programs are copied to a folder that belongs to the user.
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

# Used if the default folder for temporary files is private.
_OPEN_TO_ALL = ("/tmp", "/var/tmp")


def user_options() -> dict[str, Any]:
    """Return the options for `subprocess` to run a program as ``nobody``; empty unless the tests run as root."""
    if os.geteuid() != 0:
        return {}
    account = pwd.getpwnam("nobody")
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def is_reachable(path: Path) -> bool:
    """Return whether the unprivileged user can use a program or folder."""
    return (
        subprocess.run(["test", "-r", path, "-a", "-x", path], check=False, cwd="/", **user_options()).returncode == 0
    )


@contextmanager
def unprivileged_folder(prefix: str) -> Iterator[Path]:
    """Create a folder of the unprivileged user, with a path that is short enough for a socket's address."""
    parent = next(path for path in (tempfile.gettempdir(), *_OPEN_TO_ALL) if is_reachable(Path(path)))
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        give_to_unprivileged_user(folder)
        yield folder
    finally:
        # A program may still write files while the folder is deleted.
        with contextlib.suppress(OSError):
            shutil.rmtree(folder)
        shutil.rmtree(folder, ignore_errors=True)


def give_to_unprivileged_user(path: Path) -> None:
    """Make the unprivileged user the owner of a file or folder."""
    if user := user_options():
        os.chown(path, user["user"], user["group"])


def reachable_copies(*paths: Path, folder: Path) -> list[Path]:
    """Return *paths* if the unprivileged user can read all of them, else copies next to each other in *folder*."""
    if all(map(is_reachable, paths)):
        return list(paths)
    return [_copy_for_unprivileged_user(path, folder / path.name) for path in paths]


def _copy_for_unprivileged_user(path: Path, target: Path) -> Path:
    shutil.copytree(path, target, symlinks=True)
    for copied in (target, *target.rglob("*")):
        if not copied.is_symlink():
            give_to_unprivileged_user(copied)
    return target


def report_missing(name: str, installation: str) -> None:
    """Skip a test whose engine is missing; fail on CI."""
    message = f"{name} is missing: {installation}"
    if "CI" in os.environ:
        pytest.fail(message)
    pytest.skip(message)
