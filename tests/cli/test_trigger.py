"""`trigger`."""

import pytest
from cli.command_runner import TOKEN, run_command
from cli.listen_runner import run_listen
from loopback import response_bytes, serve_with

from callfire_async.cli._exit import CliError
from callfire_async.cli.commands import trigger as trigger_command
from callfire_async.models import NotificationFormat
from callfire_async.notifications import parse


def make(event="TextSent", to="http://127.0.0.1:9/callfire/{token}", **options):
    defaults = {
        "format": NotificationFormat.XML,
        "settings": (),
        "count": 1,
        "duplicate": 0,
        "as_json": False,
    } | options
    return trigger_command.TriggerOptions(event, to, **defaults)


EVENTS = [item["event"] for item in run_command("trigger", "--json").items]


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("format", ["xml", "json", "soap"])
def test_events_can_be_printed(event, format):
    """Each event type can be printed in each format, under its own root element."""
    shown = run_command("trigger", event, "--format", format, "--print")

    assert parse(shown.out).name == event


def test_event_types_are_listed():
    """Without an event type the command lists all types and their fields."""
    assert "CallFinished" in run_command("trigger").out
    assert "call.result" in run_command("trigger").out


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
def test_fields_can_be_set(event, setting, found):
    """--set PATH=VALUE sets a field of the event."""
    shown = run_command("trigger", event, "--set", setting, "--print")

    assert found(parse(shown.out)) == setting.partition("=")[2]


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("call.colour=red", "expected PATH=VALUE with one of subscription_id, call.id"),
        ("call.result", "expected PATH=VALUE"),
        ("call.id=one", "invalid value"),
        ("call.inbound=perhaps", "invalid value"),
        ("call.result=", "invalid value"),
    ],
)
def test_invalid_setting_is_wrong_usage(setting, problem):
    """An unknown path, a missing value or an invalid value exits with status 2."""
    shown = run_command("trigger", "CallFinished", "--set", setting, "--print")

    assert (shown.status, problem in shown.err) == (2, True)


@pytest.mark.parametrize(
    "arguments",
    [
        ["Nothing"],
        ["TextSent", "--to", "ftp://x"],
        ["TextSent", "--to", "http://hooks..example.com/"],
        ["TextSent", "--count", "0"],
        ["TextSent", "--print", "--duplicate", "1"],
        ["TextSent", "--print", "--set", "text.id=99999999999999999999"],
    ],
)
def test_wrong_usage_is_status_2(arguments):
    """An unknown event type, an invalid URL or count, or a value beyond its range exits with status 2."""
    assert run_command("trigger", *arguments).status == 2


async def test_listen_receives_triggered_events(capsys):
    """--count posts different events, and --duplicate repeats each of them."""
    async with run_listen(capsys) as (screen, base):
        status = await trigger_command.run(make(to=f"{base}/{{token}}", count=2, duplicate=1))
        await screen.wait_for("dup")

    assert (status, screen.read().count("-->"), screen.text.count("again: 204")) == (0, 4, 2)
    assert len({line.split()[-1] for line in screen.text.splitlines() if "-->" in line}) == 2


async def test_rejection_is_status_1(capsys):
    """A non-2xx response exits with status 1; --json prints the response."""

    async def respond(_, writer):
        writer.write(response_bytes(b"", "503 Service Unavailable"))

    async with serve_with(respond) as target:
        status = await trigger_command.run(make(to=f"{target.url}/{TOKEN}", as_json=True))

    shown = capsys.readouterr().out
    assert (status, '"status": 503' in shown, '"repeat": false' in shown) == (1, True, True)


async def test_no_response_is_status_1(capsys):
    """No response exits with status 1 and is printed, with what to check."""
    assert await trigger_command.run(make()) == 1
    shown = capsys.readouterr()
    assert ("no response in" in shown.out, shown.err) == (
        True,
        "error: no response: check that a receiver is running at this address\n",
    )


@pytest.mark.parametrize(
    ("status", "remedy"),
    [(401, "--api v2"), (404, "check CALLFIRE_TOKEN"), (418, "see the log of the endpoint"), (503, "not running")],
)
async def test_rejection_is_explained(capsys, status, remedy):
    """The last line on standard error is what to do about the first response that is not 2xx."""

    async def respond(_, writer):
        writer.write(response_bytes(b"", f"{status} No"))

    async with serve_with(respond) as target:
        await trigger_command.run(make(to=f"{target.url}/{TOKEN}", count=2))

    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert remedy in line


def test_command_returns_the_status(monkeypatch):
    """The command posts to the endpoint of `listen` by default and exits with the status of the run."""
    calls = []

    async def run(options):
        calls.append(options)
        return 1

    monkeypatch.setattr(trigger_command, "run", run)

    assert run_command("trigger", "TextSent", "--format", "JSON").status == 2
    assert run_command("trigger", "TextSent", "--format", "json").status == 1
    assert calls == [make(to="http://127.0.0.1:8484/callfire/{token}", format=NotificationFormat.JSON)]


def test_print_with_json():
    """--print --json prints the content type and the body."""
    (item,) = run_command("trigger", "TextSent", "--print", "--json").items

    assert (item["event"], item["content_type"]) == ("TextSent", "text/xml; charset=UTF-8")


async def test_invalid_endpoint_is_an_error():
    """An endpoint that is not a URL is an error."""
    with pytest.raises(CliError):
        await trigger_command.run(make(to="nowhere"))


# --- API v2 -----------------------------------------------------------------------------------------------

V2_EVENTS = [item["event"] for item in run_command("trigger", "--api", "v2", "--json").items]


@pytest.mark.parametrize("event", V2_EVENTS)
def test_events_of_api_2_can_be_printed(event):
    """Each event type that API v2 has can be printed, in an envelope."""
    shown = run_command("trigger", event, "--api", "v2", "--set", "webhook_id=7", "--print")

    parsed = parse(shown.out)
    # The result of a finished text is SENT unless it is set.
    assert type(parsed).__name__ == {"SomethingNew": "UnknownNotification", "TextFinished": "TextSent"}.get(
        event, event
    )
    assert (parsed.webhook_id, parsed.subscription_id) == (7, None)


@pytest.mark.parametrize(
    ("event", "setting", "found"),
    [
        ("TextReceived", "text.message=STOP", lambda event: event.text.message),
        ("TextSent", "webhook_name=texts", lambda event: event.webhook_name),
        ("CampaignStarted", "broadcast.type=CCC", lambda event: event.broadcast.type),
        ("ContactListValidationFailed", "contact_list.size=3", lambda event: str(event.contact_list.size)),
        ("DeliveryReportReceived", "report.delivery_state=UNSENT", lambda event: event.report.delivery_state),
        ("AccountNotification", "resource_type=MonthlyRenewal", lambda event: event.resource_type),
    ],
)
def test_fields_of_api_2_can_be_set(event, setting, found):
    """--set PATH=VALUE sets a field of the event."""
    shown = run_command("trigger", event, "--api", "v2", "--set", setting, "--print", "--json")

    assert found(parse(shown.items[0]["body"])) == setting.partition("=")[2]


@pytest.mark.parametrize(
    "arguments",
    [
        ["TextNotification", "--api", "v2"],
        ["ContactListValidationFailed"],
        ["TextSent", "--api", "v2", "--format", "xml"],
        ["TextSent", "--api", "v2", "--set", "subscription_id=7"],
        ["TextSent", "--set", "webhook_id=7"],
        ["CampaignStarted", "--api", "v2", "--set", "broadcast.type=OTHER"],
        ["AccountNotification", "--api", "v2", "--set", "resource_type=InboundText"],
        ["TextSent", "--api", "3"],
    ],
    ids=" ".join,
)
def test_what_an_api_does_not_have_is_wrong_usage(arguments):
    """Status 2; nothing is posted."""
    assert run_command("trigger", *arguments, "--print").status == 2


@pytest.mark.parametrize("secret", [None, "a-signing-secret-of-the-tests"])
async def test_postbacks_of_api_2_are_signed(capsys, monkeypatch, secret):
    """With the secret in the environment; a receiver with that secret accepts them. API 1.1 does not sign."""
    monkeypatch.setenv("CALLFIRE_SIGNING_SECRET", secret or "")

    async with run_listen(capsys, as_json=True) as (screen, base):
        options = {"to": f"{base}/{{token}}", "as_json": True}
        webhook = {"api": trigger_command.Api.api_2, "settings": ["webhook_id=7"]}
        status = await trigger_command.run(make(**options, **webhook))
        unsigned = await trigger_command.run(make(**options))
        await screen.wait_for('"type": "refused"' if secret else '"subscription_id"')

    assert (status, unsigned) == (0, 1 if secret else 0)
    assert next(item["webhook_id"] for item in screen.items if item.get("type") == "event") == 7
