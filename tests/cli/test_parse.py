"""A body on the command line."""

import json

import pytest
from cli.typing_commands import typed

from callfire_async.notifications import UnknownNotification
from callfire_async.testing import encode, make_call_finished, make_text_received, samples


def test_an_event_is_shown_as_json(tmp_path):
    """With the names of its attributes, and nothing masked: whoever has the body has all of it."""
    event = make_text_received(message="grüß\u202egott\n", subscription_id=5)
    _, body = encode(event)
    (tmp_path / "body").write_bytes(body)

    shown, line = typed("parse", "body"), typed("parse", "body", "--json")

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
def test_every_sample_is_shown(root, format):
    """In each format, from standard input."""
    shown = typed("parse", "-", "--json", input=samples.body(root, format))

    assert (shown.status, shown.items[0]["name"]) == (0, root)


def test_an_unknown_event_is_shown_with_its_payload():
    """Nothing else is known of it."""
    _, body = encode(UnknownNotification(name="Thing", payload={"A": {"@id": "1"}}))

    assert typed("parse", "-", "--json", input=body).items[0]["payload"] == {"A": {"@id": "1"}}


def test_a_call_with_a_field_that_cannot_be_read_has_problems():
    """They are named, and the rest is shown."""
    _, body = encode(make_call_finished())

    shown = typed("parse", "-", "--json", input=body.replace(b"<Duration>33", b"<Duration>long"))

    assert shown.items[0]["problems"] == ["not a duration @ Call.CallRecord[0].Duration"]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("<a>\n<b></a>", "invalid XML: mismatched tag at line 2, column 6"),
        ('{"a":\n x}', "neither XML nor JSON: at line 2, column 2"),
        ("[]", "not a notification: expected a JSON object with exactly one key"),
    ],
)
def test_what_is_no_notification_is_status_2(body, problem):
    """The place is named where the parser knows it; a script reads the same in JSON."""
    shown, line = typed("parse", "-", input=body), typed("parse", "-", "--json", input=body)

    assert (shown.status, shown.out, shown.err) == (2, "", f"error: standard input: {problem}\n")
    assert (line.status, line.items) == (2, [{"error": problem, "problems": []}])


def test_problems_of_what_is_no_notification_are_named():
    """As far as it was read."""
    line = typed("parse", "-", "--json", input='{"CallFinished": {"Call": {}}}')

    assert (line.status, line.items[0]["problems"]) == (2, ["missing @ Call.@id"])


def test_a_content_type_is_a_hint(tmp_path):
    """For a body that does not say its own encoding."""
    body = '{"Thing": {"a": "ü"}}'.encode("latin-1")

    shown = typed("parse", "-", "--json", "--content-type", "application/json; charset=iso-8859-1", input=body)

    assert shown.items[0]["payload"] == {"a": "ü"}


def test_a_file_that_is_not_there_is_status_2():
    """And named."""
    shown = typed("parse", "missing")

    assert (shown.status, "missing cannot be read: No such file" in shown.err) == (2, True)
