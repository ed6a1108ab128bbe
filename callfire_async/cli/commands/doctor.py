"""Check what a service needs: credentials, endpoint and machine. Nothing is changed."""

import asyncio
import platform
import sqlite3
import ssl
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit
from xml.parsers import expat

import httpx
import typer
from attrs import frozen

from callfire_async.cli._client_options import AsJson, BaseUrl, ClientOptions, Login
from callfire_async.cli._exit import FAILED, MISSING_CREDENTIALS, CliError
from callfire_async.cli._output import echo, echo_json, escape_control_characters
from callfire_async.cli._tokens import fill_in_token, tokens_from_environment
from callfire_async.cli._validators import check_url
from callfire_async.client.failure_reasons import failure_reason
from callfire_async.errors import AuthenticationError, CallFireError, PermissionDeniedError
from callfire_async.notifications.inbox.sqlite._database import EPHEMERAL_FILE_SYSTEMS, file_system
from callfire_async.notifications.security.tokens import EndpointTokens

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")

# Earlier versions can corrupt a file that has two connections.
SQLITE_FIXED = (3, 51, 3)
# In earlier versions a small document can use a large amount of memory.
EXPAT_FIXED = (2, 7, 2)
# Enough time to renew a certificate by hand.
MIN_CERTIFICATE_DAYS = 14
TIMEOUT_SECONDS = 10.0

_SIGNS = {True: "✓", False: "✗", None: "–"}  # noqa: RUF001  # an en dash for a skipped check
_NETWORK_FILE_SYSTEMS = ("nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "glusterfs", "ceph", "lustre")
_REMEDIES = {
    404: "wrong token or path: check CALLFIRE_TOKEN and the path",
    405: "another application responds, which does not accept POST",
    503: "the receiver is not running: start its application",
}


@app.command(
    epilog="Example: `callfire-async doctor --endpoint 'https://hooks.example.com/callfire/{token}'`",
    help="""
    Check the credentials, the endpoint and this machine.

    Each check passes (✓), fails (✗) or is skipped (–). Read-only: the endpoint only receives empty postbacks, which it
    rejects. The status is 1 if a check fails, and 3 if only the credentials fail.
    """,  # noqa: RUF001  # an en dash for a skipped check
)
def doctor(
    *,
    endpoint: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Your receiver's URL. {token} is replaced with the current token in CALLFIRE_TOKEN."
        ),
    ] = None,
    inbox: Annotated[str | None, typer.Option(metavar="FILE", help="File or directory of your inbox.")] = None,
    login: Login = None,
    base_url: BaseUrl = None,
    as_json: AsJson = False,
) -> None:
    sys.exit(asyncio.run(_doctor(ClientOptions(login, base_url), endpoint, inbox, as_json=as_json)))


@frozen
class Check:
    """The result of a check."""

    name: str
    #: The finding; for a failed check also what to do.
    message: str
    #: None for a skipped check.
    is_ok: bool | None
    #: The exit status if the check failed.
    status: int = FAILED


_passed, _failed, _skipped = (partial(Check, is_ok=is_ok) for is_ok in (True, False, None))


async def _doctor(options: ClientOptions, endpoint: str | None, inbox: str | None, *, as_json: bool) -> int:
    """Run all checks, print a line for each and return the exit status."""
    statuses = []
    async for check in _checks(options, endpoint, inbox):
        if check.is_ok is False:
            statuses.append(check.status)
        if as_json:
            echo_json({"check": check.name, "is_well": check.is_ok, "words": check.message})
        else:
            echo(escape_control_characters(f"{_SIGNS[check.is_ok]} {check.name}: {check.message}"))
    return min(statuses, default=0)


async def _checks(options: ClientOptions, endpoint: str | None, inbox: str | None) -> AsyncIterator[Check]:
    yield await _check_credentials(options)
    url = None if endpoint is None else _endpoint_url(endpoint)
    async for check in _check_endpoint(url):
        yield check
    yield await _check_certificate(url)
    for check in _check_versions(sqlite3.sqlite_version_info, expat.version_info):
        yield check
    yield _check_inbox(inbox)


# --- account ----------------------------------------------------------------------------------------------


async def _check_credentials(options: ClientOptions) -> Check:
    try:
        async with options.client() as callfire:
            page = await callfire.subscriptions.query(max_results=1)
    except CliError as error:
        if error.status != MISSING_CREDENTIALS:
            raise
        return _failed("credentials", str(error), status=MISSING_CREDENTIALS)
    except (AuthenticationError, PermissionDeniedError) as error:
        return _failed("credentials", str(error), status=MISSING_CREDENTIALS)
    except CallFireError as error:
        return _failed("credentials", f"{error}; check the network connection")
    count = len(page.items) if page.total_results is None else page.total_results
    return _passed("credentials", f"accepted by CallFire; subscriptions: {count}")


# --- endpoint ---------------------------------------------------------------------------------------------


def _endpoint_url(endpoint: str) -> str:
    check_url("--endpoint", endpoint)
    return fill_in_token(endpoint, tokens_from_environment())


async def _check_endpoint(url: str | None) -> AsyncIterator[Check]:
    """
    Post empty bodies to the endpoint, with the right token and with another one.

    A receiver responds to an empty body with 400 after it has verified the token, and with 404 to a wrong token.
    """
    if url is None:
        yield _skipped("endpoint", "skipped; name your endpoint with --endpoint")
        yield _skipped("token", "skipped")
        return
    base, _, _ = url.rstrip("/").rpartition("/")
    context = ssl.create_default_context()
    async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS, trust_env=False, verify=context) as client:
        response = await _post_empty(client, url)
        yield _check_reachable(response)
        if response != 400:
            yield _skipped("token", "skipped, since the endpoint does not respond as expected")
            return
        yield _check_wrong_token(await _post_empty(client, f"{base}/{EndpointTokens.generate()}"))


async def _post_empty(client: httpx.AsyncClient, url: str) -> int | str:
    """Post an empty body; return the status, or why there was no response."""
    try:
        return (await client.post(url, content=b"")).status_code
    except httpx.HTTPError as error:
        return failure_reason(error) or type(error).__name__


def _check_reachable(response: int | str) -> Check:
    if response == 400:
        return _passed("endpoint", "reachable, and accepts the token")
    if isinstance(response, str):
        return _failed("endpoint", f"no response ({response}): check that it is running and reachable from here")
    remedy = _REMEDIES.get(response, "another application, or a proxy in front of the receiver, responds")
    return _failed("endpoint", f"response {response} to an empty postback, expected 400: {remedy}")


def _check_wrong_token(response: int | str) -> Check:
    if response == 404:
        return _passed("token", "a wrong token is rejected with 404")
    if response == 400:
        return _failed("token", "any token is accepted: pass tokens=EndpointTokens(…) to the receiver")
    return _failed("token", f"response {response} to a wrong token, expected 404")


async def _check_certificate(url: str | None) -> Check:
    """Check the host name and the expiry date of the certificate."""
    parts = urlsplit(url or "")
    if parts.scheme != "https":
        return _skipped("certificate", "an http endpoint: tokens and numbers are not encrypted" if url else "skipped")
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            context = ssl.create_default_context()
            _, writer = await asyncio.open_connection(parts.hostname, parts.port or 443, ssl=context)
    except ssl.SSLCertVerificationError as error:
        return _failed("certificate", f"{error.verify_message}: renew the certificate for this host name")
    except (OSError, TimeoutError) as error:
        return _skipped("certificate", f"skipped: no connection ({failure_reason(error) or type(error).__name__})")
    try:
        certificate = writer.get_extra_info("peercert")
    finally:
        writer.transport.abort()
    return _check_expiry(ssl.cert_time_to_seconds(certificate["notAfter"]), datetime.now(UTC))


def _check_expiry(expires_at: float, now: datetime) -> Check:
    expiry = datetime.fromtimestamp(expires_at, UTC)
    days = (expiry - now).days
    if days < MIN_CERTIFICATE_DAYS:
        return _failed("certificate", f"expires in {days} days, on {expiry:%Y-%m-%d}: renew the certificate")
    return _passed("certificate", f"valid for the host name, expires on {expiry:%Y-%m-%d}")


# --- machine ----------------------------------------------------------------------------------------------


def _check_versions(sqlite: Sequence[int], xml: Sequence[int]) -> Iterator[Check]:
    yield _passed("Python", platform.python_version())
    yield _check_version("SQLite", sqlite, SQLITE_FIXED, "several connections to a file can corrupt it")
    yield _check_version("expat", xml, EXPAT_FIXED, "a small document can use a large amount of memory")


def _check_version(name: str, found: Sequence[int], fixed: Sequence[int], fault: str) -> Check:
    version, fixed_version = (".".join(map(str, numbers[:3])) for numbers in (found, fixed))
    if tuple(found[:3]) >= tuple(fixed):
        return _passed(name, version)
    return _failed(name, f"{version}: {fault}; fixed in {fixed_version}, or by a patch of your system")


def _check_inbox(inbox: str | None) -> Check:
    if inbox is None:
        return _skipped("inbox", "skipped; name your inbox with --inbox")
    if "://" in inbox:
        return _skipped("inbox", "on a server, which must be checked there")
    kind = file_system(Path(inbox).resolve())
    if kind is None:
        return _skipped("inbox", "the type of the file system is not available on this system")
    if kind in EPHEMERAL_FILE_SYSTEMS:
        return _failed("inbox", f"on {kind}, which is lost with the machine or container: put the file on a volume")
    if kind in _NETWORK_FILE_SYSTEMS:
        return _failed("inbox", f"on {kind}, where locks are not reliable: put the file on a local disk")
    return _passed("inbox", f"on {kind}")
