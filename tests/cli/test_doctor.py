"""`doctor`: each check, well and not."""

import asyncio
import ssl
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from cli.typing_commands import TOKEN, typed
from loopback import answer_bytes, serving
from notifications.servers import serve_asgi

from callfire_async.cli._client_options import ClientOptions
from callfire_async.cli._exit import CliError
from callfire_async.cli.commands import doctor
from callfire_async.notifications import Notification, Receiver, Router
from callfire_async.testing import Fault


def make_receiver(tokens=TOKEN):
    router = Router()

    @router.on(Notification)
    async def take(event):
        raise AssertionError("nothing is posted that could be handled")

    return Receiver(router, tokens=tokens)


async def endpoint_checks(url):
    return {check.name: check async for check in doctor._endpoint(doctor._url(url))}


def lines(shown):
    return {item["check"]: item for item in shown.items}


def test_every_check_is_a_line(run):
    """For people with a sign; what was not named was not looked at."""
    shown = run("doctor")

    signs = [line.split(":")[0] for line in shown.out.splitlines()]
    assert signs[:4] == ["✓ credentials", "– endpoint", "– token", "– certificate"]  # noqa: RUF001  # the sign
    assert (signs[4], signs[-1]) == ("✓ Python", "– inbox")  # noqa: RUF001  # likewise


def test_credentials_that_are_missing_or_refused_are_status_3(run, monkeypatch):
    """Where nothing else is wrong."""
    monkeypatch.setattr(doctor, "SQLITE_SOUND", (3, 0, 0))
    monkeypatch.setattr(doctor, "EXPAT_SOUND", (2, 0, 0))
    well, refused = run("doctor", "--json"), run("doctor", "--login", "somebody", "--json")
    monkeypatch.delenv("CALLFIRE_API_PASSWORD")
    missing = run("doctor", "--json")

    assert (well.status, refused.status, missing.status) == (0, 3, 3)
    assert [lines(one)["credentials"]["is_well"] for one in (well, refused, missing)] == [True, False, False]


def test_an_account_that_cannot_be_reached_is_status_1(run, account):
    """It is not the credentials."""
    account.faults.extend([Fault(status=500)] * 4)

    shown = run("doctor", "--json")

    assert (shown.status, "500" in lines(shown)["credentials"]["words"]) == (1, True)


def test_another_kind_of_account_is_wrong_use():
    """It says nothing of the credentials."""
    assert typed("doctor", "--base-url", "ftp://example.com").status == 2
    assert typed("doctor", "--base-url", "http://127.0.0.1:9", "--endpoint", "nowhere").status == 2


async def test_a_total_that_is_not_told_is_counted():
    """As far as it was asked for."""
    from callfire_async.testing import FakeCallFire

    class Untold(ClientOptions):
        @asynccontextmanager
        async def client(self):
            async with FakeCallFire().client() as callfire:
                page = await callfire.subscriptions.query()
                callfire.subscriptions.query = lambda **_: asyncio.sleep(0, page.__class__((), None, 0))
                yield callfire

    assert (await doctor._credentials(Untold())).words.endswith("subscriptions: 0")


async def test_a_live_receiver_is_asked_without_harm():
    """Nothing is stored or handled: an empty body is refused once the token was taken."""
    async with serve_asgi(receiver := make_receiver()) as endpoint:
        checks = await endpoint_checks(endpoint.url("{token}"))
        stats = await receiver.stats()

    assert [(check.is_well, check.name) for check in checks.values()] == [(True, "endpoint"), (True, "token")]
    assert (dict(stats.refused), stats.handled) == ({"empty": 1, "token": 1}, 0)


async def test_a_wrong_token_is_found():
    """The endpoint answers 404 to it."""
    async with serve_asgi(make_receiver("another-token-0123456789")) as endpoint:
        checks = await endpoint_checks(endpoint.url("{token}"))

    assert (checks["endpoint"].is_well, "CALLFIRE_TOKEN" in checks["endpoint"].words) == (False, True)
    assert checks["token"].is_well is None


async def test_an_open_endpoint_is_found():
    """Whatever token it is given."""
    async with serve_asgi(make_receiver(None)) as endpoint:
        checks = await endpoint_checks(endpoint.url("{token}"))

    assert (checks["endpoint"].is_well, checks["token"].is_well) == (True, False)


@pytest.mark.parametrize("statuses", [["200 OK"], ["400 Bad Request", "302 Found"]])
async def test_something_else_is_found(statuses):
    """That answers as no receiver does."""
    answers = iter(statuses)

    async def answer(_, writer):
        writer.write(answer_bytes(b"", next(answers)))

    async with serving(answer) as target:
        checks = await endpoint_checks(f"{target.url}/{TOKEN}")

    assert [check.is_well for check in checks.values()][len(statuses) - 1] is False


async def test_nobody_there_is_found():
    """The cause is named."""
    checks = await endpoint_checks("http://127.0.0.1:9/{token}")

    assert "ConnectError" in checks["endpoint"].words


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
    """An authority that this process trusts, as it trusts those of the system."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    return authority


@pytest.mark.parametrize(
    ("names", "days", "is_well", "words"),
    [
        (["localhost"], 400, True, "fits the name"),
        (["localhost"], 3, False, "renew it"),
        (["other.example"], 400, False, "Hostname mismatch"),
        (["localhost"], -1, False, "certificate has expired"),
    ],
)
async def test_a_certificate_is_looked_at(authority, names, days, is_well, words):
    """Its name, and its end."""
    now = datetime.now(UTC)
    certificate = authority.issue_cert(
        *names, not_before=now - timedelta(days=90), not_after=now + timedelta(days=days, hours=1)
    )
    async with tls_server(certificate) as url:
        check = await doctor._certificate(url)

    assert (check.is_well, words in check.words) == (is_well, True), check.words


async def test_a_certificate_needs_a_connection():
    """And https."""
    unreachable, in_the_open = [await doctor._certificate(f"{scheme}://127.0.0.1:9/x") for scheme in ("https", "http")]

    assert ("ConnectionRefusedError" in unreachable.words, "in the open" in in_the_open.words) == (True, True)
    assert {unreachable.is_well, in_the_open.is_well} == {None}


def test_versions_with_known_faults_are_found():
    """With the first that is without."""
    faulty = {check.name: check for check in doctor._versions((3, 51, 2), (2, 7, 1))}
    sound = {check.name: check for check in doctor._versions((3, 51, 3), (2, 8, 0))}

    assert [faulty[name].is_well for name in ("SQLite", "expat")] == [False, False]
    assert [sound[name].is_well for name in ("SQLite", "expat")] == [True, True]
    assert "3.51.3" in faulty["SQLite"].words


@pytest.mark.parametrize(
    ("kind", "is_well"), [("ext4", True), ("overlay", False), ("tmpfs", False), ("nfs4", False), (None, None)]
)
def test_the_inbox_s_file_system_is_looked_at(monkeypatch, kind, is_well):
    """What ends with the machine, or keeps no locks, holds no inbox."""
    monkeypatch.setattr(doctor, "file_system", lambda path: kind)

    assert doctor._disk("callfire.db").is_well is is_well
    assert doctor._disk("postgresql://localhost/callfire").is_well is None


def test_a_real_file_system_is_named(tmp_path):
    """As the system has it."""
    assert doctor._disk(str(tmp_path / "callfire.db")).name == "inbox"
    assert Path("/proc/self/mounts").exists() is (doctor._disk(str(tmp_path)).is_well is not None)
    with pytest.raises(CliError):
        doctor._url("nowhere")
