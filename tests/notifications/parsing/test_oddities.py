"""Tests of every root of API 1.1 in every format, with each oddity that was observed by real clients."""

import re
from collections.abc import Callable

import pytest
from attrs import evolve
from notifications.parsing.documents import FORMATS, Tree, content_of, objects

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
