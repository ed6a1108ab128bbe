"""Commits that fail, although they may have reached the disk."""

import sqlite3
from collections.abc import Callable

import pytest


def connect_with(monkeypatch: pytest.MonkeyPatch, commit: Callable[[sqlite3.Connection], None]) -> None:
    """Make *commit* commit the transactions of connections that are opened from now on."""
    connect = sqlite3.connect

    class Connection(sqlite3.Connection):
        def execute(self, *arguments: object) -> sqlite3.Cursor:
            if arguments == ("COMMIT",):
                commit(self)
            return super().execute(*arguments)

    monkeypatch.setattr(sqlite3, "connect", lambda *args, **kwargs: connect(*args, **kwargs, factory=Connection))


class FailingCommit:
    """
    A commit that fails once it is armed, and then no more.

    Args:
        monkeypatch: Replaces the connections that are opened from now on.
        is_on_disk: Whether the failed commit is carried out, as after a failed sync.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, is_on_disk: bool) -> None:
        self.is_armed = False
        self._is_on_disk = is_on_disk
        connect_with(monkeypatch, self._commit)

    def _commit(self, connection: sqlite3.Connection) -> None:
        if self.is_armed:
            self.is_armed = False
            if self._is_on_disk:
                sqlite3.Connection.execute(connection, "COMMIT")
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR
            raise error
