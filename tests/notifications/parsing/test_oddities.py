"""Every root of API 1.1 in every format, with and without each oddity that real clients had to cope with."""

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


def same(event: Notification) -> Notification:
    """Expect the event as it is."""
    return event


def subject_of(event: Notification) -> str:
    """Name the attribute that holds what an event is about."""
    return next(name for name in ("text", "call", "broadcast") if hasattr(event, name))


def with_subject_of(event: Notification, **changes) -> Notification:
    """Change what an event is about, where it has such fields."""
    thing = getattr(event, subject_of(event))
    known = {name: value for name, value in changes.items() if hasattr(thing, name)}
    return evolve(event, **{subject_of(event): evolve(thing, **known)})


def renamed(content: Tree, name: str, change: Callable[[object], object]) -> None:
    """Change every value of a name, wherever it stands."""
    for node in objects(content):
        if name in node:
            node[name] = change(node[name])


def ids_as(kind: Callable[[object], object]) -> Callable[[Tree], None]:
    """Word each id in another way."""
    return lambda content: renamed(content, "@id", kind)


def numbers_as(change: Callable[[str], object]) -> Callable[[Tree], None]:
    """Word each number in another way; what is attached to one stays with it."""

    def change_all(content: Tree) -> None:
        for name in NUMBERS:
            renamed(content, name, lambda number: number if isinstance(number, dict) else change(number))

    return change_all


def set_numbers(number: str) -> Callable[[Tree], None]:
    """Put another number in the place of each."""

    def set_all(content: Tree) -> None:
        for name in NUMBERS:
            renamed(content, name, lambda old: old | {"#text": number} if isinstance(old, dict) else number)

    return set_all


def numbers_set_to(number: str | None) -> Callable[[Notification], Notification]:
    """Expect another number."""

    def changed(event: Notification) -> Notification:
        if subject_of(event) != "broadcast":
            return with_subject_of(event, from_number=number, to_number=number)
        config = evolve(event.broadcast.config, from_number=number)
        return with_subject_of(event, config=config)

    return changed


def bare_lists(content: Tree) -> None:
    """Word a list of one as the bare object."""
    for name in LISTS:
        renamed(content, name, lambda items: items[0] if len(items) == 1 else items)


def lists_of_one(content: Tree) -> None:
    """Word the thing that is carried as a list of one."""
    for name in ("Text", "Call", "Broadcast"):
        renamed(content, name, lambda item: [item])


def drop(*names: str) -> Callable[[Tree], None]:
    """Leave out all of some names."""

    def drop_all(content: Tree) -> None:
        for node in objects(content):
            for name in names:
                node.pop(name, None)

    return drop_all


def no_lists(event: Notification) -> Notification:
    """Expect that nothing repeated is there."""
    return with_subject_of(event, labels=(), records=())


def bare_labels(content: Tree) -> None:
    """Word each label as a bare string."""
    renamed(content, "Label", lambda labels: [label["Name"] for label in labels])


def message_beside_records(content: Tree) -> None:
    """Give a text a message of its own."""
    if "Text" in content:
        content["Text"]["Message"] = "KEYWORD yes"


def big_ids(content: Tree) -> None:
    """Make each id as big as 64 bits allow."""
    renamed(content, "@id", lambda _: 2**63 - 1)
    renamed(content, "BroadcastId", lambda _: 2**63 - 1)


def with_big_ids(event: Notification) -> Notification:
    """Expect that the ids are as big as 64 bits allow."""
    thing = getattr(event, subject_of(event))
    parts: dict[str, object] = {"id": 2**63 - 1}
    if subject_of(event) == "broadcast":
        return with_subject_of(event, **parts, config=evolve(thing.config, **parts))
    parts["broadcast_id"] = thing.broadcast_id and 2**63 - 1
    recordings = [
        {"recordings": tuple(evolve(item, id=2**63 - 1) for item in record.recordings)}
        if hasattr(record, "recordings")
        else {}
        for record in thing.records
    ]
    records = (evolve(record, id=2**63 - 1, **more) for record, more in zip(thing.records, recordings, strict=True))
    return with_subject_of(event, **parts, records=tuple(records))


def reversed_order(content: Tree) -> None:
    """Turn the order of all fields round."""
    for node in list(objects(content)):
        items = list(node.items())
        node.clear()
        node.update(reversed(items))


def unknown_elements(content: Tree) -> None:
    """Put elements that nobody knows between the others."""
    for node in list(objects(content)):
        if "#text" not in node:
            node.update({"Added": "later", "AddedToo": {"@id": "x", "Deep": ["a", "b"]}})


def padded(content: Tree) -> None:
    """Put white space round every text."""
    for node in objects(content):
        node.update({name: f"\n  {value}\t" for name, value in node.items() if isinstance(value, str)})


def without_messages(event: Notification) -> Notification:
    """Expect no message anywhere."""
    if subject_of(event) == "broadcast":
        thing = event.broadcast
        config = evolve(thing.config, message=None) if hasattr(thing.config, "message") else thing.config
        return with_subject_of(event, config=config)
    if subject_of(event) == "call":
        return event
    records = tuple(evolve(record, message=None) for record in event.text.records)
    return with_subject_of(event, message=None, records=records)


each_root = pytest.mark.parametrize("root", samples.EVENTS)
each_format = pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)


ODDITIES: dict[str, tuple[Callable[[Tree], None], Callable[[Notification], Notification]]] = {
    "none": (same, same),
    "1 ids as text": (ids_as(str), same),
    "1 ids as numbers": (ids_as(lambda number: int(str(number))), same),
    "2 numbers as numbers": (numbers_as(int), same),
    "2 numbers as objects": (numbers_as(lambda number: {"#text": number}), same),
    "2 numbers as objects of numbers": (numbers_as(lambda number: {"#text": int(number)}), same),
    "3 lists of one as bare objects": (bare_lists, same),
    "3 a bare object as a list of one": (lists_of_one, same),
    "3 lists missing": (drop(*LISTS), no_lists),
    "3 labels as bare strings": (bare_labels, same),
    "4 message missing": (drop("Message"), without_messages),
    "4 message beside the records": (
        message_beside_records,
        lambda event: with_subject_of(event, message="KEYWORD yes"),
    ),
    "5 subscription as text": (lambda content: renamed(content, "SubscriptionId", str), same),
    "5 subscription missing": (drop("SubscriptionId"), lambda event: evolve(event, subscription_id=None)),
    "5 subscription in lower case": (
        lambda content: content.update(subscriptionId=content.pop("SubscriptionId")),
        same,
    ),
    "6 ids of 63 bits": (big_ids, with_big_ids),
    "7 a short number": (set_numbers("18"), numbers_set_to("18")),
    "7 a leading plus": (set_numbers("+12135551212"), numbers_set_to("+12135551212")),
    "7 an empty number": (set_numbers(""), numbers_set_to(None)),
    "7 a withheld number": (set_numbers("Anonymous"), numbers_set_to("Anonymous")),
    # The samples of texts were modified a second before they were created.
    "8 modified before created": (
        lambda content: renamed(content, "Modified", lambda _: "2012-10-26T21:32:51Z"),
        lambda event: with_subject_of(event, modified=samples._MODIFIED),
    ),
    "9 any order": (reversed_order, same),
    "9 unknown elements": (unknown_elements, same),
    "9 white space": (padded, same),
}


@each_root
@each_format
@pytest.mark.parametrize(("oddity", "expected"), ODDITIES.values(), ids=ODDITIES)
def test_every_root_in_every_format_with_every_oddity(root, write, oddity, expected):
    """The event is what the document says, however oddly it is worded, and nothing in it is a problem."""
    content = content_of(root)
    oddity(content)

    event = parse(write(root, content))

    assert (event, type(event)) == (expected(samples.EVENTS[root]), type(samples.EVENTS[root]))
    assert event.problems == ()


@each_root
@pytest.mark.parametrize("version", ["1.1", "1.2"])
def test_the_samples_are_equal_in_every_format(root, version):
    """The XML, JSON and SOAP of one event are one event, with one key."""
    bodies = [samples.body(root, "XML"), samples.body(root, "JSON"), samples.body(root, "SOAP", soap_version=version)]

    events = [parse(body) for body in bodies]

    assert events == [samples.EVENTS[root]] * 3
    assert len({event.key for event in events}) == 1


@each_root
def test_comments_and_cdata_in_xml(root):
    """Comments, instructions and CDATA around and inside values change nothing."""
    body = samples.body(root).decode()
    body = re.sub(r">(\d)(\d+)<", r"> <!-- a --><![CDATA[\1]]>\2<?note b?> <", body)

    assert parse(body) == samples.EVENTS[root]


@each_root
@pytest.mark.parametrize("prefix", ["x:", "ns2:", ""])
def test_any_prefix_in_xml(root, prefix):
    """Names are matched without their prefix, whatever it is."""
    declaration = f"xmlns:{prefix[:-1]}=" if prefix else "xmlns:unused="
    body = samples.body(root).decode().replace("xmlns:n=", declaration).replace("<n:", f"<{prefix}")

    event = parse(body.replace("</n:", f"</{prefix}"))

    assert event == samples.EVENTS[root]


@each_root
def test_no_namespace_at_all_in_xml(root):
    """A sender that leaves the namespaces out is understood."""
    body = re.sub(r' xmlns(:n)?="[^"]*"', "", samples.body(root).decode()).replace("n:", "")

    assert parse(body) == samples.EVENTS[root]
