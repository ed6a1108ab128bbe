"""`listen` on a local port."""

import asyncio
import resource
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial

import httpx
import pytest
from cli.command_runner import DEADLINE, TOKEN, run_command
from cli.listen_runner import run_listen
from loopback import response_bytes, serve_with

from callfire_async.cli import _tokens
from callfire_async.cli._exit import CliError
from callfire_async.cli._http_forwarder import HttpForwarder
from callfire_async.cli.commands import listen
from callfire_async.errors import InboxLockedError
from callfire_async.inspector import BindAddress
from callfire_async.notifications import Delivery, SqliteInbox, UnknownNotification
from callfire_async.testing import encode, make_call_finished, make_text_received, make_text_sent


async def post(base, event, format="XML", token=TOKEN):
    content_type, body = event if isinstance(event, tuple) else encode(event, format)
    async with httpx.AsyncClient() as client:
        response = await client.post(f"{base}/{token}", content=body, headers={"Content-Type": content_type})
    return response.status_code


def respond_with(status, body=b""):
    async def respond(_, writer):
        writer.write(response_bytes(body, status))

    return serve_with(respond)


async def test_event_is_printed(capsys):
    """An event is printed with its kind, key and subscription, but without numbers, messages or the token."""
    event = make_text_received(id=7, subscription_id=5, message="a secret")

    async with run_listen(capsys) as (screen, base):
        status = await post(base, event)
        await screen.wait_for(r"^\d\d:\d\d:\d\d --> TextReceived \(TextNotification\) text:7:RECEIVED subscription 5$")

    assert (status, "secret" in screen.text, "1213555" in screen.text, TOKEN in screen.text) == (
        204,
        False,
        False,
        False,
    )


async def test_ready_message_shows_how_to_subscribe(capsys, monkeypatch):
    """The command to subscribe uses the token of the environment, or that of a file that is kept between runs."""
    async with run_listen(capsys) as (screen, base):
        assert f"\n  callfire-async subscriptions create '{base}/{{token}}' OUTBOUND_TEXT_FINISHED" in screen.read()
    monkeypatch.delenv("CALLFIRE_TOKEN")
    async with run_listen(capsys) as (screen, base):
        path = _tokens.token_file()
        token = path.read_text().strip()
        assert f"  CALLFIRE_TOKEN=$(cat {path}) callfire-async" in screen.read()
        assert (await post(base, make_text_sent(), token=token), token in screen.read()) == (204, False)

    assert (stat.S_IMODE(path.stat().st_mode), _tokens.listen_tokens().verify(token)) == (0o600, True)


def test_token_that_cannot_be_stored_is_an_error(monkeypatch, tmp_path):
    """If the token cannot be stored, the error asks for CALLFIRE_TOKEN."""
    monkeypatch.delenv("CALLFIRE_TOKEN")
    (tmp_path / "home").write_text("")

    with pytest.raises(CliError, match="set CALLFIRE_TOKEN"):
        _tokens.listen_tokens()


def test_token_file_is_never_partial(monkeypatch):
    """A full disk leaves no partial token file, which would stay invalid."""
    monkeypatch.delenv("CALLFIRE_TOKEN")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(CliError, match="File too large"):
            _tokens.listen_tokens()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    left = list(_tokens.token_file().parent.iterdir())

    _tokens.listen_tokens()
    assert (left, list(_tokens.token_file().parent.iterdir())) == ([], [_tokens.token_file()])


def test_concurrent_processes_share_a_token(monkeypatch):
    """Concurrent first runs use the same token."""
    monkeypatch.delenv("CALLFIRE_TOKEN")
    start = threading.Barrier(8)

    def endpoint(_):
        start.wait(DEADLINE)
        return _tokens.listen_tokens().url("https://host")

    with ThreadPoolExecutor(8) as threads:
        endpoints = set(threads.map(endpoint, range(8)))

    assert endpoints == {_tokens.listen_tokens().url("https://host")}


async def test_postback_is_forwarded_unchanged(capsys):
    """The body and the content type are forwarded unchanged, and the response is printed."""
    event = encode(make_call_finished(), "SOAP")

    async with respond_with("200 OK", b"thanks") as target:
        async with run_listen(capsys, forward_to=f"{target.url}/hook/secret") as (screen, base):
            status = await post(base, event)
            await screen.wait_for(r"<-- 200 in \d+ ms$")
        (request,) = target.requests

    assert (status, request.body, request.target) == (204, event[1], "/hook/secret")
    assert f"content-type: {event[0].lower()}" in request.headers.lower()
    assert (f"forwards them to {target.url}/hook/***" in screen.text, "secret" in screen.text) == (True, False)


async def test_failed_forward_is_printed(capsys):
    """The beginning of an error response is printed with escapes; without an inbox the postback gets status 500."""
    async with (
        respond_with("500 Oops", b"Traceback:\n  \x1b[31mnope") as target,
        run_listen(capsys, forward_to=target.url) as (screen, base),
    ):
        status = await post(base, make_text_sent())
        await screen.wait_for(r"<-- 500 in \d+ ms: Traceback: \\x1b\[31mnope$")

    assert status == 500


async def test_failed_forward_is_retried_with_an_inbox(capsys, tmp_path):
    """With an inbox a failed forward is retried."""
    remaining = iter(["500 Oops", "204 No Content"])

    async def respond(_, writer):
        writer.write(response_bytes(b"", next(remaining)))

    async with (
        serve_with(respond) as target,
        run_listen(capsys, forward_to=target.url, inbox=str(tmp_path / "a.db")) as (screen, base),
    ):
        status = await post(base, make_text_sent(id=9))
        await screen.wait_for("--> TextSent .* text:9:SENT attempt 2$")
        await screen.wait_for("<-- 204 in")

    assert status == 204


async def test_failed_connection_is_a_result():
    """A failed connection is a result without a status."""
    async with httpx.AsyncClient() as client:
        response = await HttpForwarder(client, "http://127.0.0.1:9/").forward(Delivery(b"x"))

    assert (response.status, response.message, response.is_success) == (None, "connection refused", False)


async def test_other_lines_start_with_a_word(capsys, tmp_path):
    """Repeats, refused requests, dead letters and unknown events have their own words."""
    event = make_text_sent(id=3)
    async with run_listen(capsys, inbox=str(tmp_path / "a.db")) as (screen, base):
        await post(base, event)
        await post(base, event)
        await post(base, event, token="x" * 20)
        await post(base, ("text/plain", b"what?"))
        await post(base, UnknownNotification(name="Thing", payload={"A": "1"}))
        await screen.wait_for(r"dup TextSent \(TextNotification\) text:3:SENT$")
        await screen.wait_for(r"refused token \(404\)$")
        await screen.wait_for(r"dead neither XML nor JSON")
        await screen.wait_for(r"--> unknown \(Thing\) unknown:[0-9a-f]{20}$")


async def test_repeats_are_detected_without_an_inbox(capsys, monkeypatch):
    """Without an inbox a limited number of keys is remembered; a repeat is handled again."""
    monkeypatch.setattr(listen, "_MAX_REMEMBERED_KEYS", 1)
    event = make_text_sent(id=3)
    async with run_listen(capsys) as (screen, base):
        for body in (event, event, ("text/plain", b"what?"), ("text/plain", b"what?"), event):
            await post(base, body)
        await screen.wait_for(r"refused no notification \(400\)$")

    starts = [line.split()[1:3] for line in screen.text.splitlines() if line[:2].isdigit()]
    assert starts == [
        ["-->", "TextSent"],
        ["dup", "TextSent"],
        ["-->", "TextSent"],
        ["refused", "no"],
        ["dup", "no"],
        ["refused", "no"],
        ["-->", "TextSent"],
    ]


async def test_json_output(capsys):
    """--json prints each line as a JSON document."""
    async with (
        respond_with("500 Oops", b"nope") as target,
        run_listen(capsys, forward_to=target.url, as_json=True) as (screen, base),
    ):
        await post(base, make_text_sent(id=3, subscription_id=5))
        await post(base, make_text_sent(), token="x" * 20)
        await screen.wait_for("refused")

    ready, event, response, refused = screen.items
    assert (ready["type"], ready["forward_to"]) == ("ready", target.url)
    assert (event["type"], event["kind"], event["key"]) == ("event", "TextSent", ["text", 3, "SENT"])
    assert (response["status"], response["body"], refused["reason"], refused["status"]) == (500, "nope", "token", 404)


@asynccontextmanager
async def closed_port():
    async with respond_with("200 OK") as target:
        pass
    yield target


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        (partial(respond_with, "503 Away", b"secret"), "responded 503"),
        (closed_port, "no response (connection refused)"),
    ],
)
async def test_inbox_has_the_reason_of_a_failed_forward(capsys, tmp_path, server, reason):
    """The reason of a failed attempt contains the response."""
    path = tmp_path / "callfire.db"
    async with server() as target, run_listen(capsys, forward_to=target.url, inbox=str(path)) as (screen, base):
        await post(base, make_text_sent())
        await screen.wait_for("<-- ")

    async with SqliteInbox(path) as inbox:
        assert [entry.reason async for entry in inbox.entries()] == [f"forward: {reason}"]


async def test_other_events_are_acknowledged(capsys):
    """Events of other types and subscriptions are acknowledged and not printed."""
    async with run_listen(capsys, events=("CallFinished", "TextReceived"), subscription_id=5) as (screen, base):
        statuses = [
            await post(base, make_text_sent(subscription_id=5)),
            await post(base, make_text_received(subscription_id=6)),
            await post(base, make_text_received(subscription_id=5, id=1)),
        ]
        await screen.wait_for("--> TextReceived .*text:1")

    assert (statuses, screen.text.count("-->")) == ([204, 204, 204], 1)


async def test_unknown_event_type_is_wrong_usage(capsys):
    """The error lists the known event types."""
    with pytest.raises(CliError, match=r"unknown event type Text; expected one of .*TextSent"):
        async with run_listen(capsys, events=("Text",)):
            pass


@pytest.mark.parametrize(
    "url",
    [
        "nowhere",
        "ftp://127.0.0.1/",
        "http://[",
        "http://127.0.0.1:0/",
        "http://a\n/",
        "http://127.0.0.256/",
        "http://hooks..example.com/",
        f"http://{'a' * 64}.example.com/",
        "http://☃☃.example.com/",
    ],
)
async def test_invalid_url_is_wrong_usage(capsys, url):
    """The error does not quote the URL, which may contain a token."""
    with pytest.raises(CliError, match=r"^--forward-to must be an http or https URL$"):
        async with run_listen(capsys, forward_to=url):
            pass


async def test_port_in_use_is_reported(capsys):
    """The error names the port and the option that changes it."""
    async with run_listen(capsys) as (_, base):
        port = int(base.split(":")[2].split("/")[0])
        with pytest.raises(CliError, match=rf"cannot listen on port {port}: .*; choose another with --port$"):
            async with run_listen(capsys, port=port):
                pass


async def test_inspector_port_in_use_is_reported(capsys):
    """The error names the option that changes the port of the inspector."""
    async with run_listen(capsys) as (_, base):
        port = int(base.split(":")[2].split("/")[0])
        option = "--inspect-port or --inspect-host"
        with pytest.raises(CliError, match=rf"cannot listen on port {port}: .*; choose another with {option}$"):
            async with run_listen(capsys, inspect=BindAddress(port=port)):
                pass


async def test_locked_inbox_is_reported(capsys, tmp_path, monkeypatch):
    """An inbox that another receiver owns is an error."""
    monkeypatch.setattr(listen, "LOCK_TIMEOUT_SECONDS", 0.1)
    async with SqliteInbox(tmp_path / "a.db"):
        with pytest.raises(InboxLockedError):
            async with run_listen(capsys, inbox=str(tmp_path / "a.db")):
                pass


async def test_closed_output_stops_the_command(capsys, monkeypatch):
    """The command stops if standard output is closed; the current event is still handled."""

    def fail(_):
        raise BrokenPipeError

    async with run_listen(capsys) as (screen, base):
        monkeypatch.setattr(listen, "echo", fail)
        status = await post(base, make_text_sent())
        await asyncio.wait([screen.task], timeout=DEADLINE)

    assert (status, type(screen.task.exception())) == (204, BrokenPipeError)


@pytest.mark.parametrize("option", [["--inspect-port", "8000"], ["--inspect-host", "::1"]])
def test_options_of_the_inspector_require_it(option):
    """Without --inspect there is no page at that address."""
    shown = run_command("listen", *option)

    assert (shown.status, "require --inspect" in shown.err) == (2, True)


def test_command_passes_its_options(monkeypatch):
    """The options of the command are passed to the run."""
    calls = []

    async def run(options):
        calls.append(options)

    monkeypatch.setattr("callfire_async.cli.commands.listen.run", run)
    run_command(
        "listen", "--port", "1", "--events", "TextSent", "--events", "CallFinished", "--subscription", "5", "--json"
    )

    assert calls == [listen.ListenOptions(1, None, ("TextSent", "CallFinished"), 5, None, as_json=True)]
