"""Open the inbox that a command names: a SQLite file, a directory of them, or the URL of a server."""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from callfire_async.cli._exit import WRONG_USE, CliError, usage_errors
from callfire_async.notifications.inbox.base import Inbox
from callfire_async.notifications.inbox.sqlite import SqliteInbox
from callfire_async.notifications.inbox.sqlite.control import OwnerConnection, connect_to_owner

__all__ = ["LOCK_TIMEOUT_SECONDS", "connect_to", "inbox_files", "local_path", "open_for_writing", "open_read_only"]

# Enough for an owner that is about to exit; a command does not wait for a rolling deployment.
LOCK_TIMEOUT_SECONDS = 2.0

# The options of the service's inbox are unknown: a command deletes nothing that the service may keep longer.
_POSTGRES_OPTIONS: dict[str, Any] = {"create": False, "retention": math.inf, "allow_lossy_commits": True}
# Records of deliveries that a command acks have a lifetime of their own, so the retention is the default.
_JETSTREAM_OPTIONS: dict[str, Any] = {"create": False}

# The module, the class, the extra and the options for each URL scheme.
_POSTGRES = ("postgres", "PostgresInbox", "postgres", _POSTGRES_OPTIONS)
_JETSTREAM = ("jetstream", "JetStreamInbox", "nats", _JETSTREAM_OPTIONS)
_SERVERS = {"postgresql": _POSTGRES, "postgres": _POSTGRES, "nats": _JETSTREAM, "tls": _JETSTREAM}


def _scheme(target: str) -> str:
    """Return the scheme of a URL without a driver, which the inbox refuses with an explanation."""
    try:
        return urlsplit(target).scheme.partition("+")[0]
    except ValueError:
        # Its message may quote the password.
        raise CliError("INBOX is not a valid URL: check the host and its brackets", WRONG_USE) from None


def _is_server(target: str) -> bool:
    return _scheme(target) in _SERVERS


def inbox_files(target: str) -> dict[str, str]:
    """Return the inboxes to open for writing, by the prefix of their ids: several for a directory, otherwise one."""
    if _is_server(target) or not _existing_path(target).is_dir():
        return {"": target}
    return {f"{path.stem}/": str(path) for path in sorted(Path(target).glob("*.db"))}


@asynccontextmanager
async def open_read_only(target: str) -> AsyncIterator[Inbox]:
    """Open an inbox for reading, even if another process owns its file."""
    if _is_server(target):
        inbox = _create_server_inbox(target)
    elif _existing_path(target).is_dir():
        inbox = SqliteInbox.in_directory(target, read_only=True)
    else:
        inbox = SqliteInbox(target, read_only=True)
    async with inbox:
        yield inbox


async def open_for_writing(target: str) -> Inbox:
    """Return an inbox of `inbox_files` for the caller to enter, which fails if another process owns the file."""
    # Entering a writable SqliteInbox would turn any other file into an inbox: check the file first.
    async with open_read_only(target) as inbox:
        if _is_server(target):
            return inbox
        return SqliteInbox(target, lock_timeout=LOCK_TIMEOUT_SECONDS, retention=math.inf)


async def connect_to(target: str) -> OwnerConnection | None:
    """Connect to the process that owns the file; return None without one. Servers have no owner."""
    return None if _is_server(target) else await connect_to_owner(Path(target), LOCK_TIMEOUT_SECONDS)


def local_path(target: str, *, must_exist: bool) -> Path:
    """Return the path of a SQLite file or of a directory of them."""
    if _is_server(target):
        message = "INBOX must be a file or a directory: back up an inbox on a server with the server's own tools"
        raise CliError(message, WRONG_USE)
    return _existing_path(target) if must_exist else Path(target)


def _existing_path(target: str) -> Path:
    if "://" in target:
        schemes = ", ".join(f"{scheme}://" for scheme in _SERVERS)
        raise CliError(f"INBOX must be a file, a directory, or a URL that starts with one of {schemes}", WRONG_USE)
    try:
        Path(target).stat()
    except (FileNotFoundError, NotADirectoryError):
        raise CliError(f"inbox {target} does not exist", WRONG_USE) from None
    except OSError as error:
        raise CliError(f"inbox {target} cannot be read: {error.strerror}", WRONG_USE) from None
    return Path(target)


def _create_server_inbox(target: str) -> Inbox:
    """Return the inbox at a URL; the path of a NATS URL is the name of the inbox."""
    url = urlsplit(target)
    module, class_name, extra, options = _SERVERS[_scheme(target)]
    try:
        inbox_class = getattr(import_module(f"callfire_async.notifications.inbox.{module}"), class_name)
    except ImportError:
        message = f"an inbox at {url.scheme}:// needs its driver: pip install 'callfire-async[{extra}]'"
        raise CliError(message, WRONG_USE) from None
    names = {"name": url.path.strip("/")} if module == "jetstream" and url.path.strip("/") else {}
    with usage_errors():
        inbox: Inbox = inbox_class(url._replace(path="").geturl() if names else target, **options, **names)
    return inbox
