"""Checks of what a service needs, each with a way out; none of them changes anything."""

import asyncio
import platform
import sqlite3
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit
from xml.parsers import expat

import httpx
from attrs import frozen

from callfire_async.cli._client_options import ClientOptions
from callfire_async.cli._exit import FAILED, MISSING_CREDENTIALS, CliError
from callfire_async.cli._output import echo, escape_control_characters, say_json
from callfire_async.cli._own_tokens import fill_in_token, tokens_from_environment
from callfire_async.cli._validators import check_url
from callfire_async.errors import AuthenticationError, CallFireError, PermissionDeniedError
from callfire_async.notifications.inbox.sqlite._database import EPHEMERAL_FILE_SYSTEMS, file_system
from callfire_async.notifications.security.tokens import EndpointTokens

__all__ = ["Check", "run"]

# Two connections to one file could damage it before this one.
SQLITE_SOUND = (3, 51, 3)
# A small document could take much memory before this one.
EXPAT_SOUND = (2, 7, 2)
# Time enough to renew a certificate by hand.
CERTIFICATE_DAYS = 14
TIMEOUT_SECONDS = 10.0

_SIGNS = {True: "✓", False: "✗", None: "–"}  # noqa: RUF001  # the dash of what was not checked
_NETWORKS = ("nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "glusterfs", "ceph", "lustre")
_NOT_RECEIVED = {
    404: "the token is wrong, or nothing is there: see CALLFIRE_TOKEN and the path",
    405: "something else is there that takes no POST",
    503: "the receiver is not running: start it with its application",
}


@frozen
class Check:
    """What was looked at, and what came of it."""

    name: str
    #: None where it was not looked at.
    is_well: bool | None
    #: What was found, and where it is not well, a way out.
    words: str
    #: The exit status that it asks for.
    status: int = FAILED


async def run(account: ClientOptions, endpoint: str | None, inbox: str | None, *, as_json: bool) -> int:
    """Carry out all checks; show a line for each, and return the exit status."""
    statuses = []
    async for check in _checks(account, endpoint, inbox):
        if check.is_well is False:
            statuses.append(check.status)
        if as_json:
            say_json({"check": check.name, "is_well": check.is_well, "words": check.words})
        else:
            echo(escape_control_characters(f"{_SIGNS[check.is_well]} {check.name}: {check.words}"))
    return min(statuses, default=0)


async def _checks(account: ClientOptions, endpoint: str | None, inbox: str | None) -> AsyncIterator[Check]:
    yield await _credentials(account)
    url = None if endpoint is None else _url(endpoint)
    async for check in _endpoint(url):
        yield check
    yield await _certificate(url)
    for check in _versions(sqlite3.sqlite_version_info, expat.version_info):
        yield check
    yield _disk(inbox)


# --- the account ------------------------------------------------------------------------------------------


async def _credentials(account: ClientOptions) -> Check:
    try:
        async with account.client() as callfire:
            page = await callfire.subscriptions.query(max_results=1)
    except CliError as ended:
        if ended.status != MISSING_CREDENTIALS:
            raise
        return Check("credentials", is_well=False, words=str(ended), status=MISSING_CREDENTIALS)
    except (AuthenticationError, PermissionDeniedError) as error:
        return Check("credentials", is_well=False, words=str(error), status=MISSING_CREDENTIALS)
    except CallFireError as error:
        return Check("credentials", is_well=False, words=f"{error}; is the network there?")
    count = len(page.items) if page.total_results is None else page.total_results
    return Check("credentials", is_well=True, words=f"CallFire takes them; subscriptions: {count}")


# --- the endpoint -----------------------------------------------------------------------------------------


def _url(endpoint: str) -> str:
    check_url("--endpoint", endpoint)
    return fill_in_token(endpoint, tokens_from_environment())


async def _endpoint(url: str | None) -> AsyncIterator[Check]:
    """
    Post nothing to the endpoint, with the token and with another one.

    An empty body is answered 400 once the token was taken, and is stored nowhere; a wrong token is answered 404.
    """
    if url is None:
        yield Check("endpoint", is_well=None, words="not looked at; say which with --endpoint")
        yield Check("token", is_well=None, words="not looked at")
        return
    folder, _, _ = url.rstrip("/").rpartition("/")
    context = ssl.create_default_context()
    async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS, trust_env=False, verify=context) as client:
        right = await _answer(client, url)
        yield _check_reachable(right)
        if right != 400:
            yield Check("token", is_well=None, words="not looked at, since the endpoint does not answer as it should")
            return
        yield _check_wrong_token(await _answer(client, f"{folder}/{EndpointTokens.generate()}"))


async def _answer(client: httpx.AsyncClient, url: str) -> int | str:
    """Post nothing; return the status, or why there is none."""
    try:
        return (await client.post(url, content=b"")).status_code
    except httpx.HTTPError as error:
        return type(error).__name__


def _check_reachable(answer: int | str) -> Check:
    if answer == 400:
        return Check("endpoint", is_well=True, words="it answers, and takes the token")
    if isinstance(answer, str):
        return Check("endpoint", is_well=False, words=f"no answer ({answer}): is it running, and reached from here?")
    way_out = _NOT_RECEIVED.get(answer, "that is not this library's receiver, or something stands before it")
    return Check("endpoint", is_well=False, words=f"an empty postback was answered {answer} instead of 400: {way_out}")


def _check_wrong_token(answer: int | str) -> Check:
    if answer == 404:
        return Check("token", is_well=True, words="a wrong one is answered 404")
    if answer == 400:
        return Check("token", is_well=False, words="any token opens it: give the receiver tokens=EndpointTokens(…)")
    return Check("token", is_well=False, words=f"a wrong one was answered {answer} instead of 404")


async def _certificate(url: str | None) -> Check:
    """Look at the certificate as CallFire would: whom it is for, and until when."""
    parts = urlsplit(url or "")
    if parts.scheme != "https":
        words = "an http endpoint: tokens and numbers travel in the open" if url else "not looked at"
        return Check("certificate", is_well=None, words=words)
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            context = ssl.create_default_context()
            _, writer = await asyncio.open_connection(parts.hostname, parts.port or 443, ssl=context)
    except ssl.SSLCertVerificationError as error:
        return Check("certificate", is_well=False, words=f"{error.verify_message}: renew it, with this name in it")
    except (OSError, TimeoutError) as error:
        return Check("certificate", is_well=None, words=f"not looked at: no connection ({type(error).__name__})")
    try:
        certificate = writer.get_extra_info("peercert")
    finally:
        writer.transport.abort()
    return _lasting(ssl.cert_time_to_seconds(certificate["notAfter"]), datetime.now(UTC))


def _lasting(ends: float, now: datetime) -> Check:
    last = datetime.fromtimestamp(ends, UTC)
    days = (last - now).days
    if days < CERTIFICATE_DAYS:
        return Check("certificate", is_well=False, words=f"it ends in {days} days, on {last:%Y-%m-%d}: renew it")
    return Check("certificate", is_well=True, words=f"it fits the name, and ends on {last:%Y-%m-%d}")


# --- this machine -----------------------------------------------------------------------------------------


def _versions(sqlite: Sequence[int], xml: Sequence[int]) -> Iterator[Check]:
    yield Check("Python", is_well=True, words=platform.python_version())
    yield _version("SQLite", sqlite, SQLITE_SOUND, "several connections to a file can damage it")
    yield _version("expat", xml, EXPAT_SOUND, "a small document can take much memory")


def _version(name: str, found: Sequence[int], sound: Sequence[int], fault: str) -> Check:
    words, wanted = (".".join(map(str, version[:3])) for version in (found, sound))
    if tuple(found[:3]) >= tuple(sound):
        return Check(name, is_well=True, words=words)
    return Check(
        name, is_well=False, words=f"{words}: {fault}; {wanted} has that put right, or your system's own patch"
    )


def _disk(inbox: str | None) -> Check:
    if inbox is None:
        return Check("inbox", is_well=None, words="not looked at; say which with --inbox")
    if "://" in inbox:
        return Check("inbox", is_well=None, words="on a server, which has to be looked at there")
    kind = file_system(Path(inbox).resolve())
    if kind is None:
        return Check("inbox", is_well=None, words="this system does not tell which file system it is on")
    if kind in EPHEMERAL_FILE_SYSTEMS:
        words = f"on {kind}, which ends with its machine or container: put it on a volume"
        return Check("inbox", is_well=False, words=words)
    if kind in _NETWORKS:
        return Check("inbox", is_well=False, words=f"on {kind}, where locks are not kept: put it on a local disk")
    return Check("inbox", is_well=True, words=f"on {kind}")
