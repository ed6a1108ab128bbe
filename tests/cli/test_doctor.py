"""`doctor`: each check, passed, failed and skipped."""

import asyncio
import ssl
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from cli.command_runner import TOKEN, run_command
from loopback import response_bytes, serve_with
from notifications.servers import serve_asgi, serve_fastapi

from callfire_async.cli._client_options import ClientOptions
from callfire_async.cli._exit import CliError
from callfire_async.cli.commands import doctor
from callfire_async.notifications import Notification, Receiver, Router, SigningSecrets
from callfire_async.testing import Fault


def make_receiver(tokens=TOKEN):
    router = Router()

    @router.on(Notification)
    async def handle(event):
        raise AssertionError("doctor posts empty bodies only")

    return Receiver(router, tokens=tokens)


async def endpoint_checks(url):
    return {check.name: check async for check in doctor._check_endpoint(doctor._endpoint_url(url))}


def checks_by_name(result):
    return {item["check"]: item for item in result.items}


def test_checks_are_printed(run):
    """Each check is printed with a sign; checks without their option are skipped."""
    shown = run("doctor")

    signs = [line.split(":")[0] for line in shown.out.splitlines()]
    skipped = ["API v2", "endpoint", "token", "signature", "certificate"]
    assert signs[:6] == ["✓ credentials", *(f"– {name}" for name in skipped)]  # noqa: RUF001  # the sign
    assert (signs[6], signs[-1]) == ("✓ Python", "– inbox")  # noqa: RUF001  # the sign


def test_missing_or_rejected_credentials_are_status_3(run, monkeypatch):
    """Missing or rejected credentials exit with status 3 if no other check fails."""
    monkeypatch.setattr(doctor, "SQLITE_FIXED", (3, 0, 0))
    monkeypatch.setattr(doctor, "EXPAT_FIXED", (2, 0, 0))
    accepted, rejected = run("doctor", "--json"), run("doctor", "--login", "someone", "--json")
    monkeypatch.delenv("CALLFIRE_API_PASSWORD")
    missing = run("doctor", "--json")

    assert (accepted.status, rejected.status, missing.status) == (0, 3, 3)
    assert [checks_by_name(result)["credentials"]["ok"] for result in (accepted, rejected, missing)] == [
        True,
        False,
        False,
    ]


def test_unreachable_account_is_status_1(run, account):
    """A failure of the API exits with status 1."""
    account.faults.extend([Fault(status=500)] * 4)

    shown = run("doctor", "--json")

    assert (shown.status, "500" in checks_by_name(shown)["credentials"]["message"]) == (1, True)


def test_invalid_urls_are_wrong_usage():
    """An invalid base URL or endpoint exits with status 2."""
    assert run_command("doctor", "--base-url", "ftp://example.com").status == 2
    for url in ("nowhere", "http://127.0.0.256/callfire", "http://hooks..example.com/callfire"):
        assert run_command("doctor", "--base-url", "http://127.0.0.1:9", "--endpoint", url).status == 2


async def test_missing_total_is_counted():
    """Without a total in the response, the subscriptions of the page are counted."""
    from callfire_async.testing import FakeCallFire

    class WithoutTotal(ClientOptions):
        @asynccontextmanager
        async def client(self):
            async with FakeCallFire().client() as callfire:
                page = await callfire.subscriptions.query()
                callfire.subscriptions.query = lambda **_: asyncio.sleep(0, page.__class__((), None, 0))
                yield callfire

    assert (await doctor._check_credentials(WithoutTotal())).message.endswith("subscriptions: 0")


async def test_check_of_a_receiver_has_no_effect():
    """The check stores and handles nothing: an empty body is rejected after the token was verified."""
    async with serve_asgi(receiver := make_receiver()) as endpoint:
        checks = await endpoint_checks(endpoint.url("{token}"))
        stats = await receiver.stats()

    assert [(check.is_ok, check.name) for check in checks.values()] == [(True, "endpoint"), (True, "token")]
    assert (dict(stats.refused), stats.handled) == ({"empty": 1, "token": 2}, 0)


async def test_wrong_token_is_found():
    """An endpoint with another token fails with a hint at CALLFIRE_TOKEN."""
    async with serve_asgi(make_receiver("another-token-0123456789")) as endpoint:
        checks = await endpoint_checks(endpoint.url("{token}"))

    assert (checks["endpoint"].is_ok, "CALLFIRE_TOKEN" in checks["endpoint"].message) == (False, True)
    assert checks["token"].is_ok is None


async def test_endpoint_without_token_is_found():
    """An endpoint that accepts any token fails."""
    async with serve_asgi(make_receiver(None)) as endpoint:
        checks = await endpoint_checks(endpoint.url("{token}"))

    assert (checks["endpoint"].is_ok, checks["token"].is_ok) == (True, False)


@pytest.mark.parametrize("end", ["", "/"])
async def test_bare_endpoint_without_token_is_found(end):
    """A receiver that requires no token may have none in its URL; the path beside it is another application's."""
    async with serve_fastapi(make_receiver(None)) as endpoint:
        checks = await endpoint_checks(endpoint.url("").rstrip("/") + end)

    assert (checks["endpoint"].is_ok, checks["token"].is_ok) == (True, False)
    assert "any token is accepted" in checks["token"].message


@pytest.mark.parametrize("statuses", [["200 OK"], ["400 Bad Request", "302 Found"]])
async def test_other_application_is_found(statuses):
    """An application that is not a receiver fails."""
    remaining = iter([*statuses, statuses[-1]])

    async def respond(_, writer):
        writer.write(response_bytes(b"", next(remaining)))

    async with serve_with(respond) as target:
        checks = await endpoint_checks(f"{target.url}/{TOKEN}")

    assert [check.is_ok for check in checks.values()][len(statuses) - 1] is False


async def test_unreachable_endpoint_is_found():
    """The cause of a failed connection is printed."""
    checks = await endpoint_checks("http://127.0.0.1:9/{token}")

    assert "connection refused" in checks["endpoint"].message


@asynccontextmanager
async def tls_server(certificate):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)

    async def silent(_, writer):
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"https://localhost:{server.sockets[0].getsockname()[1]}/{TOKEN}"


@pytest.fixture
def authority(tmp_path, monkeypatch):
    """Create a certificate authority that this process trusts."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    return authority


@pytest.mark.parametrize(
    ("names", "days", "is_ok", "text"),
    [
        (["localhost"], 400, True, "valid for the host name"),
        (["localhost"], 3, False, "renew the certificate"),
        (["other.example"], 400, False, "Hostname mismatch"),
        (["localhost"], -1, False, "certificate has expired"),
    ],
)
async def test_certificate_is_checked(authority, names, days, is_ok, text):
    """The host name and the expiry date of the certificate are checked."""
    now = datetime.now(UTC)
    certificate = authority.issue_cert(
        *names, not_before=now - timedelta(days=90), not_after=now + timedelta(days=days, hours=1)
    )
    async with tls_server(certificate) as url:
        check = await doctor._check_certificate(url)

    assert (check.is_ok, text in check.message) == (is_ok, True), check.message


async def test_certificate_check_needs_https():
    """The check of the certificate is skipped without a connection or without https."""
    unreachable, unencrypted = [
        await doctor._check_certificate(f"{scheme}://127.0.0.1:9/x") for scheme in ("https", "http")
    ]

    assert ("connection refused" in unreachable.message, "not encrypted" in unencrypted.message) == (True, True)
    assert {unreachable.is_ok, unencrypted.is_ok} == {None}


def test_faulty_versions_are_found():
    """Versions of SQLite and expat with known faults fail, and the first fixed version is printed."""
    faulty = {check.name: check for check in doctor._check_versions((3, 51, 2), (2, 7, 1))}
    fixed = {check.name: check for check in doctor._check_versions((3, 51, 3), (2, 8, 0))}

    assert [faulty[name].is_ok for name in ("SQLite", "expat")] == [False, False]
    assert [fixed[name].is_ok for name in ("SQLite", "expat")] == [True, True]
    assert "3.51.3" in faulty["SQLite"].message


@pytest.mark.parametrize(
    ("kind", "is_ok"), [("ext4", True), ("overlay", False), ("tmpfs", False), ("nfs4", False), (None, None)]
)
def test_file_system_is_checked(monkeypatch, kind, is_ok):
    """An inbox on an ephemeral or network file system fails."""
    monkeypatch.setattr(doctor, "file_system", lambda path: kind)

    assert doctor._check_inbox("callfire.db").is_ok is is_ok
    assert doctor._check_inbox("postgresql://localhost/callfire").is_ok is None


def test_the_file_system_of_the_log_is_checked(monkeypatch, tmp_path):
    """A file that is mounted without its directory has its log in the container; a directory contains its logs."""
    mounted = {tmp_path / "inbox.db", tmp_path / "inboxes"}
    (tmp_path / "inboxes").mkdir()
    monkeypatch.setattr(doctor, "file_system", lambda path: "ext4" if path in mounted else "overlay")

    assert doctor._check_inbox(str(tmp_path / "inbox.db")).is_ok is False
    assert doctor._check_inbox(str(tmp_path / "inboxes")).is_ok is True


def test_real_file_system_is_detected(tmp_path):
    """The type of a real file system is detected if the system lists its mounts."""
    assert doctor._check_inbox(str(tmp_path / "callfire.db")).name == "inbox"
    assert Path("/proc/self/mounts").exists() is (doctor._check_inbox(str(tmp_path)).is_ok is not None)
    with pytest.raises(CliError):
        doctor._endpoint_url("nowhere")


# --- API v2 -----------------------------------------------------------------------------------------------


def test_webhooks_are_counted(run, account):
    """The credentials are checked with API v2 too, if its URL is given beside that of API 1.1."""
    skipped, counted = (
        run("doctor", "--json"),
        run("doctor", "--webhooks-base-url", account.webhooks_base_url, "--json"),
    )
    account.faults.extend([None, Fault(status=401)])
    rejected = run("doctor", "--webhooks-base-url", account.webhooks_base_url, "--json")

    checks = [checks_by_name(result)["API v2"] for result in (skipped, counted, rejected)]
    assert [check["ok"] for check in checks] == [None, True, False]
    assert "--webhooks-base-url" in checks[0]["message"]
    assert "webhooks: 0" in checks[1]["message"]


SECRETS = SigningSecrets("a-signing-secret-of-the-tests")


async def signature_check(receiver, *, secrets=SECRETS, post_event=False):
    async with serve_asgi(receiver) as endpoint:
        url = doctor._endpoint_url(endpoint.url("{token}"))
        check = await doctor._check_signature(url, secrets, post_event=post_event)
        return check, dict((await receiver.stats()).refused)


def signed_receiver(events, **options):
    router = Router()

    @router.on(Notification)
    async def handle(event):
        events.append(event)

    return Receiver(router, tokens=TOKEN, **({"signing_secrets": SECRETS} | options))


async def test_signature_check_stores_nothing():
    """Wrong and missing signatures are rejected."""
    events = []

    check, refused = await signature_check(signed_receiver(events))

    assert (check.is_ok, refused, events) == (True, {"signature": 2}, [])


async def test_a_valid_signature_is_checked_on_request():
    """The test event has a name that no application has."""
    events = []

    accepted, _ = await signature_check(signed_receiver(events), post_event=True)
    other, _ = await signature_check(signed_receiver([], signing_secrets="another-signing-secret"), post_event=True)

    assert (accepted.is_ok, [event.name for event in events]) == (True, ["CallFireAsyncDoctor.Test"])
    assert (other.is_ok, "a different secret" in other.message) == (False, True)


@pytest.mark.parametrize(
    ("options", "remedy"),
    [({"signing_secrets": None}, "signing_secrets="), ({"require_signature": False}, "remove require_signature=False")],
)
async def test_a_receiver_without_required_signatures_is_found(options, remedy):
    """The message names the argument of the receiver."""
    check, _ = await signature_check(signed_receiver([], **options))

    assert (check.is_ok, remedy in check.message) == (False, True)


async def test_signature_check_is_skipped():
    """Without an endpoint or a secret."""
    url = f"http://127.0.0.1:9/{TOKEN}"
    checks = [
        await doctor._check_signature(endpoint, secrets, post_event=False)
        for endpoint, secrets in ((None, SECRETS), (url, None))
    ]

    assert [check.is_ok for check in checks] == [None, None]
    assert "CALLFIRE_SIGNING_SECRET" in checks[1].message


@pytest.mark.parametrize(("statuses", "problem"), [([404], "wrong signature"), ([401, 404], "without a signature")])
async def test_another_response_to_a_test_event_fails(statuses, problem):
    """It is not what a receiver responds."""
    remaining = iter(statuses)

    async def respond(_, writer):
        writer.write(response_bytes(b"", f"{next(remaining)} Reason"))

    async with serve_with(respond) as target:
        check = await doctor._check_signature(f"{target.url}/{TOKEN}", SECRETS, post_event=False)

    assert (check.is_ok, problem in check.message) == (False, True)
