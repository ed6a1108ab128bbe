"""The commands `inbox backup` and `inbox restore`."""

import asyncio
from typing import Annotated

import typer

from callfire_async.cli import _inbox_target
from callfire_async.cli._client_options import AsJson
from callfire_async.cli._exit import CliError
from callfire_async.cli._output import echo, echo_json
from callfire_async.errors import InboxLockedError
from callfire_async.notifications.inbox.sqlite.backup import back_up
from callfire_async.notifications.inbox.sqlite.backup import restore as restore_backup

__all__ = ["backup", "restore"]

LocalTarget = Annotated[str, typer.Argument(metavar="INBOX", help="SQLite file or directory of SQLite files.")]


def backup(
    inbox: LocalTarget,
    target: Annotated[
        str, typer.Argument(metavar="TO", help="File to create; for a directory of SQLite files, a directory.")
    ],
    *,
    force: Annotated[bool, typer.Option("--force", help="Overwrite TO if it exists.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run `inbox backup`."""
    source = _inbox_target.local_path(inbox, must_exist=True)
    for path in asyncio.run(back_up(source, _inbox_target.local_path(target, must_exist=False), overwrite=force)):
        if as_json:
            echo_json({"backup": str(path)})
        else:
            echo(f"{path} is a complete copy")


def restore(
    inbox: LocalTarget,
    source: Annotated[
        str, typer.Argument(metavar="FROM", help="Backup; for a directory of SQLite files, a directory of backups.")
    ],
    *,
    as_json: AsJson = False,
) -> None:
    """Run `inbox restore`."""
    target = _inbox_target.local_path(inbox, must_exist=False)
    try:
        restored = asyncio.run(
            restore_backup(
                target,
                _inbox_target.local_path(source, must_exist=True),
                lock_timeout=_inbox_target.LOCK_TIMEOUT_SECONDS,
            )
        )
    except InboxLockedError as error:
        raise CliError(f"nothing was restored: {error}; stop the service first") from None
    for path, kept in restored.items():
        if as_json:
            echo_json({"restored": str(path), "replaced": None if kept is None else str(kept)})
        else:
            echo(f"{path} is restored" + ("" if kept is None else f"; the old file is {kept}"))
