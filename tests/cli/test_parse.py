"""`parse`."""

import json

import pytest
from cli.command_runner import run_command

from callfire_async.notifications import UnknownNotification
from callfire_async.notifications.encoding import encode_envelope
from callfire_async.testing import encode, make_call_finished, make_text_received, samples


def test_event_is_printed_as_json(tmp_path):
    """An event is printed with the names of its attributes and without masks."""
    event = make_text_received(message="grüß\u202egott\n", subscription_id=5)
    _, body = encode(event)
    (tmp_path / "body").write_bytes(body)

    shown, line = run_command("parse", "body"), run_command("parse", "body", "--json")

    assert json.loads(shown.out) == line.items[0]
    assert (line.items[0]["kind"], line.items[0]["key"], line.items[0]["problems"]) == (
        "TextReceived",
        list(event.key),
        [],
    )
    assert (line.items[0]["text"]["message"], line.items[0]["text"]["from_number"]) == (
        event.text.message,
        event.text.from_number,
    )
    assert (line.items[0]["subscription_id"], "grüß" in shown.out) == (5, True)


@pytest.mark.parametrize("root", samples.EVENTS)
@pytest.mark.parametrize("format", ["XML", "JSON", "SOAP"])
def test_samples_are_printed(root, format):
    """Every sample can be read from standard input, in each format."""
    shown = run_command("parse", "-", "--json", input=samples.body(root, format))

    assert (shown.status, shown.items[0]["name"]) == (0, root)


def test_unknown_event_has_its_payload():
    """The payload of an unknown event is printed."""
    _, body = encode(UnknownNotification(name="Thing", payload={"A": {"@id": "1"}}))

    assert run_command("parse", "-", "--json", input=body).items[0]["payload"] == {"A": {"@id": "1"}}


def test_all_events_of_an_envelope_are_printed():
    """Each on one line for scripts."""
    events = [make_text_received(), make_call_finished()]
    body = encode_envelope(events)[1]

    shown, in_json = run_command("parse", "-", input=body), run_command("parse", "-", "--json", input=body)

    assert [(item["kind"], item["key"]) for item in in_json.items] == [
        (type(event).__name__, list(event.key)) for event in events
    ]
    assert shown.out.count('"kind"') == 2


def test_unreadable_field_is_a_problem():
    """An unreadable field is listed under problems, and the rest of the event is printed."""
    _, body = encode(make_call_finished())

    shown = run_command("parse", "-", "--json", input=body.replace(b"<Duration>33", b"<Duration>long"))

    assert shown.items[0]["problems"] == ["not a duration @ Call.CallRecord[0].Duration"]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("<a>\n<b></a>", "invalid XML: mismatched tag at line 2, column 6"),
        ('{"a":\n x}', "neither XML nor JSON: at line 2, column 2"),
        ("[]", "not a notification: the JSON document is not an object with exactly one key, or with the key events"),
    ],
)
def test_invalid_body_is_status_2(body, problem):
    """An invalid body exits with status 2 and names the position of the error; --json prints the same."""
    shown, line = run_command("parse", "-", input=body), run_command("parse", "-", "--json", input=body)

    assert (shown.status, shown.out, shown.err) == (2, "", f"error: standard input: {problem}\n")
    assert (line.status, line.items) == (2, [{"error": problem, "problems": []}])


def test_problems_of_an_invalid_notification_are_listed():
    """--json lists the problems of an invalid notification."""
    line = run_command("parse", "-", "--json", input='{"CallFinished": {"Call": {}}}')

    assert (line.status, line.items[0]["problems"]) == (2, ["missing @ Call.@id"])


def test_content_type_names_the_encoding(tmp_path):
    """--content-type names the encoding of a body that does not declare one."""
    body = '{"Thing": {"a": "ü"}}'.encode("latin-1")

    shown = run_command("parse", "-", "--json", "--content-type", "application/json; charset=iso-8859-1", input=body)

    assert shown.items[0]["payload"] == {"a": "ü"}


def test_missing_file_is_status_2():
    """A missing file is named, and the status is 2."""
    shown = run_command("parse", "missing")

    assert (shown.status, "cannot read missing: No such file" in shown.err) == (2, True)
