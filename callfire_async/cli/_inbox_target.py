"""Where an inbox is: a SQLite file, a folder of them, or a server, by the name that a command was given."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from urllib.parse import urlsplit

from callfire_async.cli._exit import WRONG_USE, CliError
from callfire_async.notifications.inbox.base import Inbox
from callfire_async.notifications.inbox.sqlite import SqliteInbox

__all__ = ["LOCK_TIMEOUT_SECONDS", "inbox_files", "open_for_writing", "open_read_only"]

# As long as an owner may take that is about to leave; whoever types a command does not wait for a rolling deploy.
LOCK_TIMEOUT_SECONDS = 2.0

# The module and class for what an address begins with, and the extra that brings the driver.
_POSTGRES, _JETSTREAM = ("postgres", "PostgresInbox", "postgres"), ("jetstream", "JetStreamInbox", "nats")
_SERVERS = {"postgresql": _POSTGRES, "postgres": _POSTGRES, "nats": _JETSTREAM}


def _is_server(place: str) -> bool:
    """Tell whether an inbox is on a server; any number of processes may use one of those."""
    return urlsplit(place).scheme in _SERVERS


def inbox_files(place: str) -> dict[str, str]:
    """
    Name what is opened to write to an inbox, by what its ids begin with.

    Of a folder those are the files, each of which somebody may own; everything else is one.
    """
    if _is_server(place) or not _path(place).is_dir():
        return {"": place}
    return {f"{path.stem}/": str(path) for path in sorted(Path(place).glob("*.db"))}


@asynccontextmanager
async def open_read_only(place: str) -> AsyncIterator[Inbox]:
    """Open an inbox to look at it; whoever owns its files is not disturbed."""
    if _is_server(place):
        inbox = _on_server(place)
    elif _path(place).is_dir():
        inbox = SqliteInbox.in_directory(place, read_only=True)
    else:
        inbox = SqliteInbox(place, read_only=True)
    async with inbox:
        yield inbox


async def open_for_writing(part: str) -> Inbox:
    """Make the inbox of what `inbox_files` names, not open yet; somebody may own it, which opening will tell."""
    # To open a file is to make an inbox of it: look first whether it is one.
    async with open_read_only(part) as inbox:
        return inbox if _is_server(part) else SqliteInbox(part, lock_timeout=LOCK_TIMEOUT_SECONDS)


def _path(place: str) -> Path:
    if "://" in place:
        raise CliError(f"an inbox is a file, a folder, or at one of {', '.join(_SERVERS)}", WRONG_USE)
    if not Path(place).exists():
        raise CliError(f"there is no inbox {place}", WRONG_USE)
    return Path(place)


def _on_server(place: str) -> Inbox:
    """Make the inbox at an address; on NATS, where many have one server, the last part is its name."""
    address = urlsplit(place)
    module, name, extra = _SERVERS[address.scheme]
    try:
        made = getattr(import_module(f"callfire_async.notifications.inbox.{module}"), name)
    except ImportError:
        needed = f"an inbox at {address.scheme}:// needs its driver"
        raise CliError(f"{needed}: pip install 'callfire-async[{extra}]'", WRONG_USE) from None
    names = {"name": address.path.strip("/")} if module == "jetstream" and address.path.strip("/") else {}
    try:
        inbox: Inbox = made(address._replace(path="").geturl() if names else place, **names)
    except ValueError as error:
        raise CliError(str(error), WRONG_USE) from None
    return inbox
