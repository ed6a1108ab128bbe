"""`trigger`: events of one's own, posted for real."""

import pytest
from cli.listening import listening
from cli.typing_commands import TOKEN, typed
from loopback import answer_bytes, serving

from callfire_async.cli._exit import CliError
from callfire_async.cli.commands import trigger as triggering
from callfire_async.models import NotificationFormat
from callfire_async.notifications import parse


def make(event="TextSent", to="http://127.0.0.1:9/callfire/{token}", **options):
    chosen = {"format": NotificationFormat.XML, "settings": (), "count": 1, "duplicate": 0, "as_json": False} | options
    return triggering.TriggerOptions(event, to, **chosen)


EVENTS = [item["event"] for item in typed("trigger", "--json").items]


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("format", ["xml", "json", "soap"])
def test_each_event_can_be_shown(event, format):
    """In each format, under the root that was asked for."""
    shown = typed("trigger", event, "--format", format, "--print")

    assert parse(shown.out).name == event


def test_without_an_event_there_is_a_list():
    """With what can be set of each."""
    assert "CallFinished" in typed("trigger").out
    assert "call.result" in typed("trigger").out


@pytest.mark.parametrize(
    ("event", "setting", "found"),
    [
        ("CallFinished", "call.result=AM", lambda event: event.call.records[0].result),
        ("CallFinished", "call.inbound=true", lambda event: str(event.call.inbound).lower().replace("true", "true")),
        ("TextReceived", "text.message=STOP", lambda event: event.text.message),
        ("TextSent", "subscription_id=5", lambda event: str(event.subscription_id)),
        ("TextSent", "text.created=2026-01-31T10:00:00+00:00", lambda event: event.text.created.isoformat()),
        ("TextSent", "text.labels=a,b", lambda event: ",".join(event.text.labels)),
        ("BroadcastNotification", "broadcast.status=PAUSED", lambda event: event.broadcast.status),
        ("SomethingNew", "subscription_id=5", lambda event: str(event.subscription_id)),
    ],
)
def test_what_is_set_is_posted(event, setting, found):
    """A path, an equals sign, a value."""
    shown = typed("trigger", event, "--set", setting, "--print")

    assert found(parse(shown.out)) == setting.partition("=")[2]


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("call.colour=red", "there are subscription_id, call.id"),
        ("call.result", "each with =VALUE"),
        ("call.id=one", "no value for it"),
        ("call.inbound=perhaps", "no value for it"),
        ("call.result=", "no value for it"),
    ],
)
def test_what_cannot_be_set_is_wrong_use(setting, problem):
    """The error lists what can be."""
    shown = typed("trigger", "CallFinished", "--set", setting, "--print")

    assert (shown.status, problem in shown.err) == (2, True)


@pytest.mark.parametrize("arguments", [["Nothing"], ["TextSent", "--to", "ftp://x"], ["TextSent", "--count", "0"]])
def test_wrong_use_is_status_2(arguments):
    """An event that there is none of, a URL of another kind."""
    assert typed("trigger", *arguments).status == 2


async def test_listen_takes_what_is_triggered(capsys):
    """Different events, and each as often as it is asked for."""
    async with listening(capsys) as (screen, base):
        status = await triggering.run(make(to=f"{base}/{{token}}", count=2, duplicate=1))
        await screen.shows("dup")

    assert (status, screen.look().count("-->"), screen.text.count("once more: 204")) == (0, 4, 2)
    assert len({line.split()[-1] for line in screen.text.splitlines() if "-->" in line}) == 2


async def test_a_refusal_is_status_1(capsys):
    """Whichever of them it was; a script reads a line of JSON each."""

    async def answer(_, writer):
        writer.write(answer_bytes(b"", "503 Service Unavailable"))

    async with serving(answer) as target:
        status = await triggering.run(make(to=f"{target.url}/{TOKEN}", as_json=True))

    shown = capsys.readouterr().out
    assert (status, '"status": 503' in shown, '"repeat": false' in shown) == (1, True, True)


async def test_no_answer_is_status_1(capsys):
    """It is said that there was none."""
    assert await triggering.run(make()) == 1
    assert "no answer in" in capsys.readouterr().out


def test_the_command_ends_with_that_status(monkeypatch):
    """And has its own place to post to, with the token of listen."""
    seen = []

    async def run(trigger):
        seen.append(trigger)
        return 1

    monkeypatch.setattr(triggering, "run", run)

    assert typed("trigger", "TextSent", "--format", "JSON").status == 2
    assert typed("trigger", "TextSent", "--format", "json").status == 1
    assert seen == [make(to="http://127.0.0.1:8484/callfire/{token}", format=NotificationFormat.JSON)]


def test_a_body_is_shown_to_a_script():
    """With its content type."""
    (item,) = typed("trigger", "TextSent", "--print", "--json").items

    assert (item["event"], item["content_type"]) == ("TextSent", "text/xml; charset=UTF-8")


async def test_an_endpoint_may_bear_its_token():
    """Then it is posted there as it is."""
    with pytest.raises(CliError):
        await triggering.run(make(to="nowhere"))
