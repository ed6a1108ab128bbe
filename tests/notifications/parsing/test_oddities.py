"""Tests of every root of API 1.1 in every format, with each oddity that was observed by real clients."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, time

import pytest
from attrs import evolve
from notifications.parsing.documents import FORMATS, Tree, as_json, as_xml, content_of, objects

from callfire_async.errors import InvalidNotificationError
from callfire_async.models import CccBroadcastConfig, Note, VoiceBroadcastConfig
from callfire_async.notifications.events import Notification
from callfire_async.notifications.parsing import parse
from callfire_async.testing import samples

LISTS = ("TextRecord", "CallRecord", "Label", "QuestionResponse", "RecordingMeta")
NUMBERS = ("FromNumber", "ToNumber")


def unchanged(event: Notification) -> Notification:
    """Expect an equal event."""
    return event


def subject_name(event: Notification) -> str:
    """Return the name of the attribute that has the event's subject."""
    return next(name for name in ("text", "call", "broadcast") if hasattr(event, name))


def with_subject(event: Notification, **changes) -> Notification:
    """Return the event with those changes to its subject that the subject has fields for."""
    subject = getattr(event, subject_name(event))
    known = {name: value for name, value in changes.items() if hasattr(subject, name)}
    return evolve(event, **{subject_name(event): evolve(subject, **known)})


def change_field(content: Tree, name: str, change: Callable[[object], object]) -> None:
    """Replace every value of a field, at any depth."""
    for node in objects(content):
        if name in node:
            node[name] = change(node[name])


def convert_ids(kind: Callable[[object], object]) -> Callable[[Tree], None]:
    """Return a change that converts each id."""
    return lambda content: change_field(content, "@id", kind)


def convert_numbers(change: Callable[[str], object]) -> Callable[[Tree], None]:
    """Return a change that converts each phone number without attributes."""

    def change_all(content: Tree) -> None:
        for name in NUMBERS:
            change_field(content, name, lambda number: number if isinstance(number, dict) else change(number))

    return change_all


def set_numbers(number: str) -> Callable[[Tree], None]:
    """Return a change that replaces each phone number."""

    def set_all(content: Tree) -> None:
        for name in NUMBERS:
            change_field(content, name, lambda old: old | {"#text": number} if isinstance(old, dict) else number)

    return set_all


def expect_numbers(number: str | None) -> Callable[[Notification], Notification]:
    """Expect another phone number."""

    def changed(event: Notification) -> Notification:
        if subject_name(event) != "broadcast":
            return with_subject(event, from_number=number, to_number=number)
        config = evolve(event.broadcast.config, from_number=number)
        return with_subject(event, config=config)

    return changed


def bare_lists(content: Tree) -> None:
    """Replace each list of one by its item."""
    for name in LISTS:
        change_field(content, name, lambda items: items[0] if len(items) == 1 else items)


def lists_of_one(content: Tree) -> None:
    """Replace the subject by a list of one."""
    for name in ("Text", "Call", "Broadcast"):
        change_field(content, name, lambda item: [item])


def drop(*names: str) -> Callable[[Tree], None]:
    """Return a change that removes some fields."""

    def drop_all(content: Tree) -> None:
        for node in objects(content):
            for name in names:
                node.pop(name, None)

    return drop_all


def without_lists(event: Notification) -> Notification:
    """Expect no labels and records."""
    return with_subject(event, labels=(), records=())


def bare_labels(content: Tree) -> None:
    """Replace each label by a bare string."""
    change_field(content, "Label", lambda labels: [label["Name"] for label in labels])


def add_message(content: Tree) -> None:
    """Add a message to a text that has messages in its records."""
    if "Text" in content:
        content["Text"]["Message"] = "KEYWORD yes"


def set_big_ids(content: Tree) -> None:
    """Set each id to the maximum of 64 bits."""
    change_field(content, "@id", lambda _: 2**63 - 1)
    change_field(content, "BroadcastId", lambda _: 2**63 - 1)


def expect_big_ids(event: Notification) -> Notification:
    """Expect each id to be the maximum of 64 bits."""
    subject = getattr(event, subject_name(event))
    parts: dict[str, object] = {"id": 2**63 - 1}
    if subject_name(event) == "broadcast":
        return with_subject(event, **parts, config=evolve(subject.config, **parts))
    parts["broadcast_id"] = subject.broadcast_id and 2**63 - 1
    recordings = [
        {"recordings": tuple(evolve(item, id=2**63 - 1) for item in record.recordings)}
        if hasattr(record, "recordings")
        else {}
        for record in subject.records
    ]
    records = (evolve(record, id=2**63 - 1, **more) for record, more in zip(subject.records, recordings, strict=True))
    return with_subject(event, **parts, records=tuple(records))


def reverse_order(content: Tree) -> None:
    """Reverse the order of all fields."""
    for node in list(objects(content)):
        items = list(node.items())
        node.clear()
        node.update(reversed(items))


def add_unknown_fields(content: Tree) -> None:
    """Add unknown fields to every object."""
    for node in list(objects(content)):
        if "#text" not in node:
            node.update({"Added": "later", "AddedToo": {"@id": "x", "Deep": ["a", "b"]}})


def pad(content: Tree) -> None:
    """Add white space around every text."""
    for node in objects(content):
        node.update({name: f"\n  {value}\t" for name, value in node.items() if isinstance(value, str)})


def without_messages(event: Notification) -> Notification:
    """Expect no messages."""
    if subject_name(event) == "broadcast":
        subject = event.broadcast
        config = evolve(subject.config, message=None) if hasattr(subject.config, "message") else subject.config
        return with_subject(event, config=config)
    if subject_name(event) == "call":
        return event
    records = tuple(evolve(record, message=None) for record in event.text.records)
    return with_subject(event, message=None, records=records)


each_root = pytest.mark.parametrize("root", samples.EVENTS)
each_format = pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)


ODDITIES: dict[str, tuple[Callable[[Tree], None], Callable[[Notification], Notification]]] = {
    "none": (unchanged, unchanged),
    "1 ids as text": (convert_ids(str), unchanged),
    "1 ids as numbers": (convert_ids(lambda number: int(str(number))), unchanged),
    "2 numbers as numbers": (convert_numbers(int), unchanged),
    "2 numbers as objects": (convert_numbers(lambda number: {"#text": number}), unchanged),
    "2 numbers as objects of numbers": (convert_numbers(lambda number: {"#text": int(number)}), unchanged),
    "3 lists of one as bare objects": (bare_lists, unchanged),
    "3 a bare object as a list of one": (lists_of_one, unchanged),
    "3 lists missing": (drop(*LISTS), without_lists),
    "3 labels as bare strings": (bare_labels, unchanged),
    "4 message missing": (drop("Message"), without_messages),
    "4 message beside the records": (
        add_message,
        lambda event: with_subject(event, message="KEYWORD yes"),
    ),
    "5 subscription as text": (lambda content: change_field(content, "SubscriptionId", str), unchanged),
    "5 subscription missing": (drop("SubscriptionId"), lambda event: evolve(event, subscription_id=None)),
    "5 subscription in lower case": (
        lambda content: content.update(subscriptionId=content.pop("SubscriptionId")),
        unchanged,
    ),
    "6 ids of 63 bits": (set_big_ids, expect_big_ids),
    "7 a short number": (set_numbers("18"), expect_numbers("18")),
    "7 a leading plus": (set_numbers("+12135551212"), expect_numbers("+12135551212")),
    "7 an empty number": (set_numbers(""), expect_numbers(None)),
    "7 a withheld number": (set_numbers("Anonymous"), expect_numbers("Anonymous")),
    # The samples of texts were modified a second before they were created.
    "8 modified before created": (
        lambda content: change_field(content, "Modified", lambda _: "2012-10-26T21:32:51Z"),
        lambda event: with_subject(event, modified=samples._MODIFIED),
    ),
    "9 any order": (reverse_order, unchanged),
    "9 unknown elements": (add_unknown_fields, unchanged),
    "9 white space": (pad, unchanged),
}


@each_root
@each_format
@pytest.mark.parametrize(("oddity", "expected"), ODDITIES.values(), ids=ODDITIES)
def test_every_root_in_every_format_with_every_oddity(root, write, oddity, expected):
    """The event is as expected and has no problems."""
    content = content_of(root)
    oddity(content)

    event = parse(write(root, content))

    assert (event, type(event)) == (expected(samples.EVENTS[root]), type(samples.EVENTS[root]))
    assert event.problems == ()


@each_root
@pytest.mark.parametrize("version", ["1.1", "1.2"])
def test_the_samples_are_equal_in_every_format(root, version):
    """XML, JSON and SOAP are parsed into equal events with one key."""
    bodies = [samples.body(root, "XML"), samples.body(root, "JSON"), samples.body(root, "SOAP", soap_version=version)]

    events = [parse(body) for body in bodies]

    assert events == [samples.EVENTS[root]] * 3
    assert len({event.key for event in events}) == 1


@each_root
def test_comments_and_cdata_are_ignored(root):
    """So are processing instructions, around and inside values."""
    body = samples.body(root).decode()
    body = re.sub(r">(\d)(\d+)<", r"> <!-- a --><![CDATA[\1]]>\2<?note b?> <", body)

    assert parse(body) == samples.EVENTS[root]


@each_root
@pytest.mark.parametrize("prefix", ["x:", "ns2:", ""])
def test_namespace_prefixes_are_ignored(root, prefix):
    """Names are matched without their prefix."""
    declaration = f"xmlns:{prefix[:-1]}=" if prefix else "xmlns:unused="
    body = samples.body(root).decode().replace("xmlns:n=", declaration).replace("<n:", f"<{prefix}")

    event = parse(body.replace("</n:", f"</{prefix}"))

    assert event == samples.EVENTS[root]


@each_root
def test_namespaces_are_optional(root):
    """XML without namespaces is parsed into the same event."""
    body = re.sub(r' xmlns(:n)?="[^"]*"', "", samples.body(root).decode()).replace("n:", "")

    assert parse(body) == samples.EVENTS[root]


# --- values that the schema allows and that were never observed -------------------------------------------


def call_with(field: str, value: str) -> bytes:
    """Return a call with one field of it, or of its record."""
    element = f"<{field}>{value}</{field}>"
    record = f'<CallRecord id="1">{element}</CallRecord>' if field in ("BilledAmount", "Duration") else element
    return f'<CallFinished><Call id="1">{record}</Call></CallFinished>'.encode()


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2012-10-26T24:00:00Z", datetime(2012, 10, 27, tzinfo=UTC)),
        ("2012-12-31T24:00:00", datetime(2013, 1, 1)),  # noqa: DTZ001  # sent without an offset
        ("2012-10-26T24:00:00.000Z", datetime(2012, 10, 27, tzinfo=UTC)),
        (" 2012-10-26T24:00Z ", datetime(2012, 10, 27, tzinfo=UTC)),
    ],
)
def test_the_end_of_a_day_is_the_next_midnight(text, moment):
    """On every version of Python."""
    event = parse(call_with("Created", text))

    assert (event.call.created, event.problems) == (moment, ())


@pytest.mark.parametrize(
    "text", ["9999-12-31T24:00:00Z", "2012-10-26T24:00:01Z", "2012-10-26T24:01:00Z", "2012-10-26T25:00Z"]
)
def test_a_time_beyond_the_end_of_a_day_is_a_problem(text):
    """So is the end of the last day that Python has."""
    assert parse(call_with("Created", text)).problems == ("not a time @ Call.Created",)


@pytest.mark.parametrize(("text", "end"), [("24:00:00", time(0)), ("24:00", time(0)), ("20:30:00", time(20, 30))])
def test_the_hours_of_a_campaign_may_end_at_midnight(text, end):
    """It is 00:00."""
    event = parse(
        "<BroadcastStarted><Broadcast id='1'><TextBroadcastConfig><LocalTimeZoneRestriction>"
        f"<EndTime>{text}</EndTime></LocalTimeZoneRestriction></TextBroadcastConfig></Broadcast></BroadcastStarted>"
    )

    assert (event.broadcast.config.local_time_zone_restriction.end_time, event.problems) == (end, ())


@pytest.mark.parametrize("amount", ["INF", "-INF", "NaN"])
def test_an_amount_that_is_not_a_number_is_a_problem(amount):
    """It would make every sum of amounts meaningless."""
    event = parse(call_with("BilledAmount", amount))

    assert event.call.records[0].billed_amount is None
    assert event.problems == ("not a decimal @ Call.CallRecord[0].BilledAmount",)


@pytest.mark.parametrize("text", ["0042", "+042", f"{'0' * 100}42", "-0", "00"])
def test_an_integer_may_be_padded_with_zeros(text):
    """Its value counts."""
    event = parse(call_with("ContactId", text))

    assert (event.call.contact_id, event.problems) == (int(text), ())


@pytest.mark.parametrize("text", ["0" * 5_000, f"{'0' * 1_000_000}x", f"0{'9' * 19}", "0_1", "+", "--1"])
def test_an_integer_with_too_many_digits_is_a_problem(text):
    """So is anything else that is not an integer, in a short time."""
    assert parse(call_with("ContactId", text)).problems == ("not an integer @ Call.ContactId",)


def test_a_broadcast_without_an_id_is_an_error():
    """Its event would have no key."""
    with pytest.raises(InvalidNotificationError, match=r"missing @ Broadcast\.@id"):
        parse("<BroadcastStarted><Broadcast><Name>Spring</Name></Broadcast></BroadcastStarted>")


@pytest.mark.parametrize("prefix", ["xsi", "i"])
def test_attributes_of_xml_schema_are_not_attached_to_a_number(prefix):
    """A sender's own attribute with the same name is."""
    event = parse(
        f"<CallFinished xmlns:{prefix}='http://www.w3.org/2001/XMLSchema-instance'><Call id='1'><ToNumber "
        f"{prefix}:type='ToNumber' type='mobile' ClientData='a'>12135551212</ToNumber>"
        f"<BatchId {prefix}:nil='true'/></Call></CallFinished>"
    )

    assert event.call.to_number == "12135551212"
    assert event.call.to_number_attributes == (("ClientData", "a"), ("type", "mobile"))
    assert (event.call.batch_id, event.problems) == (None, ())


# --- fields that only some clients read -------------------------------------------------------------------


@pytest.mark.parametrize("write", [as_xml, as_json])
def test_the_voice_of_a_text_in_its_older_form(write):
    """It was an attribute of the text; the element takes precedence."""
    config = {
        "LiveSoundText": {"#text": "Hello", "@Voice": "FEMALE1"},
        "MachineSoundText": {"#text": "Call back", "@Voice": "FEMALE2"},
        "MachineSoundTextVoice": "MALE1",
    }

    event = parse(write("BroadcastStarted", {"Broadcast": {"@id": 1, "VoiceBroadcastConfig": config}}))

    assert event.problems == ()
    assert event.broadcast.config == VoiceBroadcastConfig(
        live_sound_text="Hello",
        live_sound_text_voice="FEMALE1",
        machine_sound_text="Call back",
        machine_sound_text_voice="MALE1",
    )


def test_a_voice_that_cannot_be_read_is_a_problem():
    """Both in its older form and beside another problem."""
    config = {"LiveSoundText": {"#text": "Hello", "@Voice": [1]}, "DncSoundId": "x", "LiveSoundId": 5}

    event = parse(as_json("BroadcastStarted", {"Broadcast": {"@id": 1, "VoiceBroadcastConfig": config}}))

    assert set(event.problems) == {
        "not a string @ Broadcast.VoiceBroadcastConfig.LiveSoundTextVoice",
        "not an integer @ Broadcast.VoiceBroadcastConfig.DncSoundId",
    }
    assert event.broadcast.config == VoiceBroadcastConfig(live_sound_text="Hello", live_sound_id=5)


@pytest.mark.parametrize("write", [as_xml, as_json])
def test_a_campaign_of_a_call_center(write):
    """Its configuration has ids in one value."""
    config = {"AgentGroupId": 1, "TransferNumberIdList": "2 3", "AllowAnyTransfer": "true", "TransferCallerId": "67076"}

    event = parse(
        write("CampaignStarted", {"Broadcast": {"@id": 1, "CccBroadcastConfig": config, "ResumeNextDay": "true"}})
    )

    assert event.problems == ()
    assert event.broadcast.resume_next_day is True
    assert event.broadcast.config == CccBroadcastConfig(
        agent_group_id=1, transfer_number_id_list=(2, 3), allow_any_transfer=True, transfer_caller_id="67076"
    )


@pytest.mark.parametrize("write", [as_xml, as_json])
def test_the_notes_of_a_call(write):
    """A call and its records may have some."""
    note = {"Text": "Call back", "Created": "2012-10-26T21:32:52Z"}

    event = parse(
        write("CallFinished", {"Call": {"@id": 1, "Note": note, "CallRecord": {"@id": 2, "Note": [note, note]}}})
    )

    expected = Note("Call back", datetime(2012, 10, 26, 21, 32, 52, tzinfo=UTC))
    assert (event.call.notes, event.call.records[0].notes, event.problems) == ((expected,), (expected,) * 2, ())
