"""Check the requirements of a service: credentials, endpoint and machine. Nothing is changed."""

import asyncio
import platform
import sqlite3
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit
from xml.parsers import expat

import httpx
import typer
from attrs import frozen

from callfire_async.cli._client_options import AsJson, BaseUrl, ClientOptions, Login, WebhooksBaseUrl
from callfire_async.cli._exit import FAILED, MISSING_CREDENTIALS, REMEDIES, CliError
from callfire_async.cli._help import CommandApp
from callfire_async.cli._output import echo, echo_json, escape_control_characters
from callfire_async.cli._tokens import fill_in_token, signing_secrets_from_environment, tokens_from_environment
from callfire_async.cli._validators import check_url
from callfire_async.client import CallFire
from callfire_async.client.failure_reasons import failure_reason
from callfire_async.errors import AuthenticationError, CallFireError, PermissionDeniedError
from callfire_async.models import Page
from callfire_async.notifications.inbox.sqlite._database import EPHEMERAL_FILE_SYSTEMS, file_system
from callfire_async.notifications.inbox.sqlite._files import log_path
from callfire_async.notifications.security.signatures import SIGNATURE_HEADER, SigningSecrets
from callfire_async.notifications.security.tokens import EndpointTokens

app: typer.Typer = CommandApp()

# Earlier versions can corrupt a file that has two connections.
SQLITE_FIXED = (3, 51, 3)
# In earlier versions a small document can use a large amount of memory.
EXPAT_FIXED = (2, 7, 2)
# Enough time to renew a certificate by hand.
MIN_CERTIFICATE_DAYS = 14
TIMEOUT_SECONDS = 10.0

_SIGNS = {True: "✓", False: "✗", None: "–"}  # noqa: RUF001  # an en dash for a skipped check
# Always the same bytes, so that an inbox stores it once within its dedupe_window. No application has its resource.
_TEST_EVENT = (
    b'{"timestamp":0,"webhookId":0,"webhookName":"callfire-async doctor","resourceType":"CallFireAsyncDoctor",'
    b'"events":[{"timestamp":0,"resourceType":"CallFireAsyncDoctor","eventType":"Test","resource":{}}]}'
)
_ACCEPTED = "The receiver has accepted a test event, CallFireAsyncDoctor"
_NETWORK_FILE_SYSTEMS = ("nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "glusterfs", "ceph", "lustre")


@app.command(
    epilog="Example: `callfire-async doctor --endpoint 'https://hooks.example.com/callfire/{token}'`",
    help="""
    Check the credentials, the endpoint and this machine.

    Each check passes (✓), fails (✗) or is skipped (–). Read-only: the endpoint receives empty postbacks, and with
    CALLFIRE_SIGNING_SECRET a test event without a valid signature. It should reject all of them. The status is 1 if a
    check fails, and 3 if only the credentials fail.
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
    post_event: Annotated[
        bool,
        typer.Option(
            "--post-event",
            help="Also post a signed test event. In an inbox it becomes a dead letter, unless a handler matches.",
        ),
    ] = False,
    inbox: Annotated[str | None, typer.Option(metavar="FILE", help="File or directory of your inbox.")] = None,
    login: Login = None,
    base_url: BaseUrl = None,
    webhooks_base_url: WebhooksBaseUrl = None,
    as_json: AsJson = False,
) -> None:
    options = ClientOptions(login, base_url, webhooks_base_url)
    sys.exit(asyncio.run(_doctor(options, endpoint, inbox, post_event=post_event, as_json=as_json)))


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


async def _doctor(
    options: ClientOptions, endpoint: str | None, inbox: str | None, *, post_event: bool, as_json: bool
) -> int:
    """Run all checks, print a line for each and return the exit status."""
    statuses = []
    async for check in _checks(options, endpoint, inbox, post_event=post_event):
        if check.is_ok is False:
            statuses.append(check.status)
        if as_json:
            echo_json({"check": check.name, "ok": check.is_ok, "message": check.message})
        else:
            echo(escape_control_characters(f"{_SIGNS[check.is_ok]} {check.name}: {check.message}"))
    return min(statuses, default=0)


async def _checks(
    options: ClientOptions, endpoint: str | None, inbox: str | None, *, post_event: bool
) -> AsyncIterator[Check]:
    yield await _check_credentials(options)
    yield await _check_webhooks(options)
    url = None if endpoint is None else _endpoint_url(endpoint)
    async for check in _check_endpoint(url):
        yield check
    yield await _check_signature(url, signing_secrets_from_environment(), post_event=post_event)
    yield await _check_certificate(url)
    for check in _check_versions(sqlite3.sqlite_version_info, expat.version_info):
        yield check
    yield _check_inbox(inbox)


# --- account ----------------------------------------------------------------------------------------------


async def _check_credentials(options: ClientOptions) -> Check:
    async def query(callfire: CallFire) -> str:
        return f"subscriptions: {_count(await callfire.subscriptions.query(max_results=1))}"

    return await _check_account(options, "credentials", query)


async def _check_webhooks(options: ClientOptions) -> Check:
    async def query(callfire: CallFire) -> str:
        return f"webhooks: {_count(await callfire.webhooks.query(limit=1))}"

    # Credentials for another server are not sent to CallFire.
    if options.base_url and not options.webhooks_base_url:
        return _skipped("API v2", "skipped; give --webhooks-base-url together with --base-url")
    return await _check_account(options, "API v2", query)


async def _check_account(options: ClientOptions, name: str, query: Callable[[CallFire], Awaitable[str]]) -> Check:
    try:
        async with options.client() as callfire:
            return _passed(name, f"accepted by CallFire; {await query(callfire)}")
    except CliError as error:
        if error.status != MISSING_CREDENTIALS:
            raise
        return _failed(name, str(error), status=MISSING_CREDENTIALS)
    except (AuthenticationError, PermissionDeniedError) as error:
        return _failed(name, str(error), status=MISSING_CREDENTIALS)
    except CallFireError as error:
        return _failed(name, f"{error}; check the network connection")


def _count(page: Page[Any]) -> int:
    return len(page.items) if page.total_results is None else page.total_results


# --- endpoint ---------------------------------------------------------------------------------------------


def _endpoint_url(endpoint: str) -> str:
    check_url("--endpoint", endpoint)
    return fill_in_token(endpoint, tokens_from_environment())


async def _check_endpoint(url: str | None) -> AsyncIterator[Check]:
    """
    Post empty bodies to the endpoint, with the right token and with another one.

    A receiver responds to an empty body with 400 after it has verified the token, and with 404 to a wrong token. One
    that requires no token may have no token in its URL: a further segment is then a wrong token, too.
    """
    if url is None:
        yield _skipped("endpoint", "skipped; name your endpoint with --endpoint")
        yield _skipped("token", "skipped")
        return
    whole = url.rstrip("/")
    base, wrong_token = whole.rpartition("/")[0], EndpointTokens.generate()
    async with _http_client() as client:
        response = await _post(client, url)
        yield _check_reachable(response)
        if response != 400:
            yield _skipped("token", "skipped, because the endpoint does not respond as expected")
            return
        below = await _post(client, f"{whole}/{wrong_token}")
        yield _check_wrong_token(below if below == 400 else await _post(client, f"{base}/{wrong_token}"))


def _http_client() -> httpx.AsyncClient:
    return httpx.AsyncClient(timeout=TIMEOUT_SECONDS, trust_env=False, verify=ssl.create_default_context())


async def _post(client: httpx.AsyncClient, url: str, body: bytes = b"", signature: str | None = None) -> int | str:
    """Post a body; return the status, or why there was no response."""
    headers = {} if signature is None else {SIGNATURE_HEADER: signature}
    try:
        return (await client.post(url, content=body, headers=headers)).status_code
    except httpx.HTTPError as error:
        return failure_reason(error) or type(error).__name__


def _check_reachable(response: int | str) -> Check:
    if response == 400:
        return _passed("endpoint", "reachable, and accepts the token")
    if isinstance(response, str):
        return _failed("endpoint", f"no response ({response}): check that it is running and reachable from here")
    remedy = REMEDIES.get(response, "another application, or a proxy in front of the receiver, responds")
    return _failed("endpoint", f"response {response} to an empty postback, expected 400: {remedy}")


def _check_wrong_token(response: int | str) -> Check:
    if response == 404:
        return _passed("token", "a wrong token is rejected with 404")
    if response == 400:
        return _failed("token", "any token is accepted: pass tokens=EndpointTokens(…) to the receiver")
    return _failed("token", f"response {response} to a wrong token, expected 404")


async def _check_signature(url: str | None, secrets: SigningSecrets | None, *, post_event: bool) -> Check:
    """
    Post a test event with a wrong signature, without one and, with *post_event*, with a valid one.

    The wrong signature comes first: a receiver that accepts unsigned postbacks during a migration rejects it, and one
    that accepts it verifies nothing.
    """
    if url is None or secrets is None:
        reason = "" if url is None else "; set CALLFIRE_SIGNING_SECRET if CallFire signs your postbacks"
        return _skipped("signature", f"skipped{reason}")
    async with _http_client() as client:
        for signature, check in _SIGNATURE_CHECKS.items():
            if found := check(await _post(client, url, _TEST_EVENT, signature)):
                return found
        if not post_event:
            return _passed("signature", "wrong and missing signatures are rejected with 401")
        return _check_valid_signature(await _post(client, url, _TEST_EVENT, secrets.sign(_TEST_EVENT)))


def _check_wrong_signature(response: int | str) -> Check | None:
    if response == 401:
        return None
    if not _is_accepted(response):
        return _failed("signature", f"response {response} to a wrong signature, expected 401")
    return _failed("signature", f"not verified: pass signing_secrets= to the receiver. {_ACCEPTED}")


def _check_missing_signature(response: int | str) -> Check | None:
    if response == 401:
        return None
    if not _is_accepted(response):
        return _failed("signature", f"response {response} to a postback without a signature, expected 401")
    remedy = "remove require_signature=False once the subscriptions of API 1.1 are disabled"
    return _failed("signature", f"postbacks without a signature are accepted: {remedy}. {_ACCEPTED}")


def _check_valid_signature(response: int | str) -> Check:
    if _is_accepted(response):
        return _passed("signature", f"only valid signatures are accepted. {_ACCEPTED}")
    remedy = "the receiver has a different secret: compare it with CALLFIRE_SIGNING_SECRET"
    return _failed("signature", f"response {response} to a valid signature: {remedy}")


def _is_accepted(response: int | str) -> bool:
    """Return whether a postback was not rejected; without an inbox the handlers have run, with any result."""
    return response in (204, 400, 422, 500)


_SIGNATURE_CHECKS = {"d3Jvbmc=": _check_wrong_signature, None: _check_missing_signature}


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
    path = Path(inbox).resolve()
    # Without its directory, a file that is mounted into a container has its log in the container.
    kinds = [file_system(file) for file in ([path] if path.is_dir() else [path, log_path(path)])]
    kind = next((found for found in kinds if found in (*EPHEMERAL_FILE_SYSTEMS, *_NETWORK_FILE_SYSTEMS)), kinds[0])
    if kind is None:
        return _skipped("inbox", "the type of the file system is not available on this system")
    if kind in EPHEMERAL_FILE_SYSTEMS:
        return _failed(
            "inbox", f"on {kind}, which is lost with the container or machine: put the directory on a volume"
        )
    if kind in _NETWORK_FILE_SYSTEMS:
        return _failed("inbox", f"on {kind}, where locks are not reliable: put the file on a local disk")
    return _passed("inbox", f"on {kind}")
