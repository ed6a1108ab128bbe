"""Checks of the path of a `SqliteInbox`, and of the place of its file."""

from __future__ import annotations

import os
from pathlib import Path

from callfire_async.errors import InboxUnavailableError

__all__ = ["check_place", "to_path"]


def to_path(path: object) -> Path:
    """
    Return a path in a file system.

    Raises:
        TypeError: *path* is neither a string nor a path of strings.
        ValueError: *path* is empty, a URI, or SQLite's name of a database in memory.
    """
    text = os.fspath(path) if isinstance(path, os.PathLike) else path
    if not isinstance(text, str):
        raise TypeError(f"path must be a str or a pathlib.Path, not {type(path).__name__}")
    if not text or text == ":memory:" or text.startswith("file:"):
        raise ValueError(
            f"path must be the path of a file, not {text!r}; use MemoryInbox() for an inbox in memory,"
            " and a plain path instead of a file: URI"
        )
    if "://" in text or "\0" in text:
        raise ValueError("path must be the path of a file, without '://' and null characters; it is not a URL")
    return Path(text)


def check_place(path: Path) -> None:
    """
    Check that a path can be that of an inbox file.

    Raises:
        InboxUnavailableError: It is a directory, or its directory does not exist.
    """
    if path.is_dir():
        raise InboxUnavailableError(
            f"the inbox {path} cannot be used: unable to open a directory as a file; add a file name, or use"
            " SqliteInbox.in_directory()"
        )
    if not path.absolute().parent.is_dir():
        raise InboxUnavailableError(
            f"the inbox {path} cannot be used: the directory {path.absolute().parent} does not exist; create it, or"
            " mount its volume, before the service starts"
        )
