"""`listen`, on a real port of loopback."""

import asyncio
import resource
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial

import httpx
import pytest
from cli.listening import listening
from cli.typing_commands import DEADLINE, TOKEN, typed
from loopback import answer_bytes, serving

from callfire_async.cli import _tokens as listen_token
from callfire_async.cli._exit import CliError
from callfire_async.cli._http_forwarder import HttpForwarder
from callfire_async.cli.commands import listen
from callfire_async.errors import InboxLockedError
from callfire_async.notifications import Delivery, SqliteInbox, UnknownNotification
from callfire_async.testing import encode, make_call_finished, make_text_received, make_text_sent


async def post(base, event, format="XML", token=TOKEN):
    content_type, body = event if isinstance(event, tuple) else encode(event, format)
    async with httpx.AsyncClient() as client:
        response = await client.post(f"{base}/{token}", content=body, headers={"Content-Type": content_type})
    return response.status_code


def answering(status, body=b""):
    async def answer(_, writer):
        writer.write(answer_bytes(body, status))

    return serving(answer)


async def test_each_event_is_a_line(capsys):
    """With its kind, its key and its subscription; neither number nor message is shown, nor the token."""
    event = make_text_received(id=7, subscription_id=5, message="a secret")

    async with listening(capsys) as (screen, base):
        status = await post(base, event)
        await screen.shows(r"^\d\d:\d\d:\d\d --> TextReceived \(TextNotification\) text:7:RECEIVED subscription 5$")

    assert (status, "secret" in screen.text, "1213555" in screen.text, TOKEN in screen.text) == (
        204,
        False,
        False,
        False,
    )


async def test_what_is_shown_tells_how_to_subscribe(capsys, monkeypatch):
    """With the environment's token, or with that of a file, which stays the same from one run to the next."""
    async with listening(capsys) as (screen, base):
        assert f"\n  callfire-async subscriptions create '{base}/{{token}}' OUTBOUND_TEXT_FINISHED" in screen.look()
    monkeypatch.delenv("CALLFIRE_TOKEN")
    async with listening(capsys) as (screen, base):
        kept = listen_token.token_file()
        token = kept.read_text().strip()
        assert f"  CALLFIRE_TOKEN=$(cat {kept}) callfire-async" in screen.look()
        assert (await post(base, make_text_sent(), token=token), token in screen.look()) == (204, False)

    assert (stat.S_IMODE(kept.stat().st_mode), listen_token.listen_tokens().verify(token)) == (0o600, True)


def test_a_token_that_cannot_be_kept_is_asked_for(monkeypatch, tmp_path):
    """The home may be read only, or hold something else."""
    monkeypatch.delenv("CALLFIRE_TOKEN")
    (tmp_path / "home").write_text("")

    with pytest.raises(CliError, match="set CALLFIRE_TOKEN"):
        listen_token.listen_tokens()


def test_a_token_is_kept_whole_or_not_at_all(monkeypatch):
    """Half a token, of a disk that was full once, would be in the way for ever."""
    monkeypatch.delenv("CALLFIRE_TOKEN")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(CliError, match="File too large"):
            listen_token.listen_tokens()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    left = list(listen_token.token_file().parent.iterdir())

    listen_token.listen_tokens()
    assert (left, list(listen_token.token_file().parent.iterdir())) == ([], [listen_token.token_file()])


def test_those_who_keep_a_token_at_once_keep_the_same_one(monkeypatch):
    """What one of them shows how to subscribe is opened by all, in this run and in the next."""
    monkeypatch.delenv("CALLFIRE_TOKEN")
    start = threading.Barrier(8)

    def listened(_):
        start.wait(DEADLINE)
        return listen_token.listen_tokens().url("https://host")

    with ThreadPoolExecutor(8) as threads:
        endpoints = set(threads.map(listened, range(8)))

    assert endpoints == {listen_token.listen_tokens().url("https://host")}


async def test_a_postback_is_handed_on_as_it_came(capsys):
    """The same bytes, the same content type; the answer is a line."""
    event = encode(make_call_finished(), "SOAP")

    async with answering("200 OK", b"thanks") as target:
        async with listening(capsys, forward_to=f"{target.url}/hook/secret") as (screen, base):
            status = await post(base, event)
            await screen.shows(r"<-- 200 in \d+ ms$")
        (request,) = target.requests

    assert (status, request.body, request.target) == (204, event[1], "/hook/secret")
    assert f"content-type: {event[0].lower()}" in request.headers.lower()
    assert (f"hands it on to {target.url}/hook/***" in screen.text, "secret" in screen.text) == (True, False)


async def test_a_refusal_of_the_other_side_is_shown(capsys):
    """With the beginning of its body, as it can be printed; without an inbox the postback is refused too."""
    async with (
        answering("500 Oops", b"Traceback:\n  \x1b[31mnope") as target,
        listening(capsys, forward_to=target.url) as (screen, base),
    ):
        status = await post(base, make_text_sent())
        await screen.shows(r"<-- 500 in \d+ ms: Traceback: \\x1b\[31mnope$")

    assert status == 500


async def test_what_is_kept_is_handed_on_again(capsys, tmp_path):
    """With an inbox a forward that fails is another attempt; nobody there is a failure like others."""
    answers = iter(["500 Oops", "204 No Content"])

    async def answer(_, writer):
        writer.write(answer_bytes(b"", next(answers)))

    async with (
        serving(answer) as target,
        listening(capsys, forward_to=target.url, inbox=str(tmp_path / "a.db")) as (screen, base),
    ):
        status = await post(base, make_text_sent(id=9))
        await screen.shows("--> TextSent .* text:9:SENT attempt 2$")
        await screen.shows("<-- 204 in")

    assert status == 204


async def test_nobody_there_is_shown():
    """As no answer, and why."""
    async with httpx.AsyncClient() as client:
        answer = await HttpForwarder(client, "http://127.0.0.1:9/").forward(Delivery(b"x"))

    assert (answer.status, answer.words, answer.is_success) == (None, "ConnectError", False)


async def test_other_lines_have_words_of_their_own(capsys, tmp_path):
    """dup, refused and dead, with an inbox; what API 1.1 does not name is unknown."""
    event = make_text_sent(id=3)
    async with listening(capsys, inbox=str(tmp_path / "a.db")) as (screen, base):
        await post(base, event)
        await post(base, event)
        await post(base, event, token="x" * 20)
        await post(base, ("text/plain", b"what?"))
        await post(base, UnknownNotification(name="Thing", payload={"A": "1"}))
        await screen.shows(r"dup TextSent \(TextNotification\) text:3:SENT$")
        await screen.shows(r"refused token \(404\)$")
        await screen.shows(r"dead neither XML nor JSON")
        await screen.shows(r"--> unknown \(Thing\) unknown:[0-9a-f]{20}$")


async def test_without_an_inbox_it_remembers_what_came(capsys, monkeypatch):
    """Of so many as it can; a repeat is handled all the same, and what is no notification may come twice too."""
    monkeypatch.setattr(listen, "_REMEMBERED", 1)
    event = make_text_sent(id=3)
    async with listening(capsys) as (screen, base):
        for body in (event, event, ("text/plain", b"what?"), ("text/plain", b"what?"), event):
            await post(base, body)
        await screen.shows(r"refused no notification \(400\)$")

    words = [line.split()[1:3] for line in screen.text.splitlines() if line[:2].isdigit()]
    assert words == [
        ["-->", "TextSent"],
        ["dup", "TextSent"],
        ["-->", "TextSent"],
        ["refused", "no"],
        ["dup", "no"],
        ["refused", "no"],
        ["-->", "TextSent"],
    ]


async def test_a_script_reads_the_same_in_json(capsys):
    """A line of JSON each."""
    async with (
        answering("500 Oops", b"nope") as target,
        listening(capsys, forward_to=target.url, as_json=True) as (screen, base),
    ):
        await post(base, make_text_sent(id=3, subscription_id=5))
        await post(base, make_text_sent(), token="x" * 20)
        await screen.shows("refused")

    ready, event, answer, refused = screen.items
    assert (ready["what"], ready["forward_to"]) == ("ready", target.url)
    assert (event["what"], event["kind"], event["key"]) == ("event", "TextSent", ["text", 3, "SENT"])
    assert (answer["status"], answer["body"], refused["reason"], refused["status"]) == (500, "nope", "token", 404)


@asynccontextmanager
async def gone():
    async with answering("200 OK") as target:
        pass
    yield target


@pytest.mark.parametrize(
    ("other_side", "reason"),
    [(partial(answering, "503 Away", b"secret"), "answered 503"), (gone, "no answer (ConnectError)")],
)
async def test_what_the_other_side_answered_is_why_it_failed(capsys, tmp_path, other_side, reason):
    """Whoever looks at the inbox later sees more than that it did."""
    path = tmp_path / "callfire.db"
    async with other_side() as target, listening(capsys, forward_to=target.url, inbox=str(path)) as (screen, base):
        await post(base, make_text_sent())
        await screen.shows("<-- ")

    async with SqliteInbox(path) as inbox:
        assert [entry.reason async for entry in inbox.entries()] == [f"forward: {reason}"]


async def test_what_is_not_asked_for_is_passed_over(capsys):
    """Other kinds, and other subscriptions; it is acknowledged all the same."""
    async with listening(capsys, events=("CallFinished", "TextReceived"), subscription_id=5) as (screen, base):
        statuses = [
            await post(base, make_text_sent(subscription_id=5)),
            await post(base, make_text_received(subscription_id=6)),
            await post(base, make_text_received(subscription_id=5, id=1)),
        ]
        await screen.shows("--> TextReceived .*text:1")

    assert (statuses, screen.text.count("-->")) == ([204, 204, 204], 1)


async def test_an_event_that_is_none_is_wrong_use(capsys):
    """The message has the list."""
    with pytest.raises(CliError, match=r"no event Text; there are .*TextSent"):
        async with listening(capsys, events=("Text",)):
            pass


@pytest.mark.parametrize("url", ["nowhere", "ftp://127.0.0.1/", "http://[", "http://127.0.0.1:0/", "http://a\n/"])
async def test_a_url_that_is_none_is_wrong_use(capsys, url):
    """It is not quoted, since it may have a token."""
    with pytest.raises(CliError, match=r"^--forward-to must be a URL of http or https$"):
        async with listening(capsys, forward_to=url):
            pass


async def test_a_port_that_is_taken_is_told(capsys):
    """With the way out."""
    async with listening(capsys) as (_, base):
        port = int(base.split(":")[2].split("/")[0])
        with pytest.raises(CliError, match=rf"port {port} cannot be had .*--port"):
            async with listening(capsys, port=port):
                pass


async def test_an_inbox_that_is_owned_is_told(capsys, tmp_path, monkeypatch):
    """As everywhere."""
    monkeypatch.setattr(listen, "LOCK_TIMEOUT_SECONDS", 0.1)
    async with SqliteInbox(tmp_path / "a.db"):
        with pytest.raises(InboxLockedError):
            async with listening(capsys, inbox=str(tmp_path / "a.db")):
                pass


async def test_it_ends_when_nobody_reads(capsys, monkeypatch):
    """The event that found that out was handled all the same."""

    def gone(_):
        raise BrokenPipeError

    async with listening(capsys) as (screen, base):
        monkeypatch.setattr(listen, "say", gone)
        status = await post(base, make_text_sent())
        await asyncio.wait([screen.ended], timeout=DEADLINE)

    assert (status, type(screen.ended.exception())) == (204, BrokenPipeError)


def test_settings_of_the_command_are_its_own(monkeypatch):
    """What is typed is what is run."""
    seen = []

    async def run(settings):
        seen.append(settings)

    monkeypatch.setattr("callfire_async.cli.commands.listen.run", run)
    typed("listen", "--port", "1", "--events", "TextSent", "--events", "CallFinished", "--subscription", "5", "--json")

    assert seen == [listen.ListenOptions(1, None, ("TextSent", "CallFinished"), 5, None, as_json=True)]
