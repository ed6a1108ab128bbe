"""Property tests of `parse`: any input is an event or our error, and all formats of an event are equal."""

import copy
import json
import pickle
import string
from collections.abc import Callable
from datetime import UTC, time, timedelta
from typing import Any, TypeVar

import pytest
from attrs import evolve
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from callfire_async import models
from callfire_async._codec.scalars import normalize
from callfire_async.errors import NotificationError
from callfire_async.notifications.encoding import encode_envelope
from callfire_async.notifications.events import (
    CallFinished,
    CampaignFinished,
    CampaignNotification,
    CampaignStarted,
    Notification,
    TextFinished,
    TextNotification,
    TextReceived,
    TextSent,
    UnknownNotification,
)
from callfire_async.notifications.parsing import parse, parse_all, parse_or_split
from callfire_async.testing import encode, samples

T = TypeVar("T")
# The strategies are large, and the machine may be busy.
no_deadline = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

# --- any bytes --------------------------------------------------------------------------------------------

BODIES = [samples.body(root, form) for root in samples.EVENTS for form in ("XML", "JSON", "SOAP")]
BODIES += [samples.body(name, api="v2") for name in samples.EVENTS_V2]
BODIES.append(encode_envelope([*samples.EVENTS_V2.values()])[1])
content_types = st.none() | st.text() | st.sampled_from(["text/xml", "application/json", "text/xml; charset=latin-1"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(), inside, max_size=4),
    max_leaves=8,
)


@st.composite
def damaged_bodies(draw: st.DrawFn) -> bytes:
    """Draw the body of a sample in which a few bytes are replaced."""
    body = draw(st.sampled_from(BODIES))
    start = draw(st.integers(0, len(body)))
    end = draw(st.integers(start, min(len(body), start + 20)))
    return (
        body[:start] + draw(st.binary(max_size=8) | st.sampled_from([b"<", b">", b"{", b'"', b"&", b"[]"])) + body[end:]
    )


@no_deadline
@given(body=st.binary() | damaged_bodies(), content_type=content_types)
@example(body=b"\xff\xfe", content_type=None)
@example(body=b"<a>\xe9</a>", content_type="text/xml; charset=cp1252")
@example(body=b"<a>\x81</a>", content_type="text/xml; charset=windows-1252")
def test_any_bytes_are_an_event_or_our_error(body, content_type):
    """No other exception is raised, and the event can be used as a value."""
    assert_event_or_our_error(body, content_type)


@no_deadline
@given(body=st.text(), content_type=content_types)
@example(body="\ud800", content_type=None)
@example(body="<a>\ud800</a>", content_type=None)
@example(body='{"TextSent":{"Text":{"@id":1,"Message":"\\ud800"}}}', content_type=None)
def test_any_text_is_an_event_or_our_error(body, content_type):
    """The same is true for text."""
    assert_event_or_our_error(body, content_type)


@no_deadline
@given(st.sampled_from([*samples.EVENTS, "FaxFinished"]), st.sampled_from(["Text", "Call", "Broadcast"]), json_values)
def test_any_json_under_a_known_root_is_an_event_or_our_error(root, subject, content):
    """The subject may be any JSON value."""
    assert_event_or_our_error(as_json(root, {subject: content}), None)


FIELDS = """
    FromNumber ToNumber State BatchId Inbound Created FinalResult Label Message TextRecord CallRecord
    Name Status LastModified Type Config TextBroadcastConfig VoiceBroadcastConfig
    @id Result FinishTime QuestionResponse Question RecordingMeta LengthInSeconds Duration BilledAmount
    LocalTimeZoneRestriction BeginTime RetryConfig RetryResults MaxAttempts #text value
""".split()
fields = st.recursive(
    json_values,
    lambda inside: st.dictionaries(st.sampled_from(FIELDS), inside | st.lists(inside, max_size=3)),
    max_leaves=8,
)


@no_deadline
@given(
    st.sampled_from([("TextFinished", "Text"), ("CallFinished", "Call"), ("BroadcastStarted", "Broadcast")]),
    st.dictionaries(st.sampled_from(FIELDS), fields),
)
@example(("BroadcastStarted", "Broadcast"), {"TextBroadcastConfig": True, "VoiceBroadcastConfig": 1})
@example(("BroadcastStarted", "Broadcast"), {"Config": 5})
def test_any_fields_are_read_or_problems(kind, content):
    """Any content with an id is an event; unreadable fields are problems."""
    root, subject = kind

    event = parse(as_json(root, {subject: {**content, "@id": 7}}))

    assert all(f" @ {subject}" in problem for problem in event.problems)
    assert_value(event)


FIELDS_V2 = """
    id fromNumber toNumber attributes state campaignId batchId contact inbound created modified labels message records
    finalTextResult finalCallResult media agentCall textResult result billedAmount finishTime duration recordings mp3Url
    questionResponses name status lastModified localTimeRestriction beginHour endMinute retryConfig retryResults sounds
    liveSoundId dialplanXml size actionId timestamp deliveryState resourceType eventType webhookId resource
""".split()
fields_v2 = st.recursive(
    json_values,
    lambda inside: st.dictionaries(st.sampled_from(FIELDS_V2), inside | st.lists(inside, max_size=3)),
    max_leaves=8,
)


@no_deadline
@given(
    st.sampled_from([*samples.EVENTS_V2, "Fax.Sent", "InboundText.Started"]).map(lambda name: name.split(".")),
    st.dictionaries(st.sampled_from(FIELDS_V2), fields_v2),
)
def test_any_fields_of_v2_are_read_or_problems(names, content):
    """Any resource with an id is an event; unreadable fields are problems."""
    resource_type, event_type = names
    resource = {**content, "id": 7}

    event = parse(as_envelope({"resourceType": resource_type, "eventType": event_type, "resource": resource}))

    assert all(" @ resource" in problem for problem in event.problems)
    assert_value(event)


@no_deadline
@given(json_values | fields_v2, st.dictionaries(st.sampled_from(FIELDS_V2), json_values))
def test_any_element_of_an_envelope_is_an_event_or_our_error(element, members):
    """So are any members of the envelope."""
    assert_event_or_our_error(as_envelope(element, **members), None)


@no_deadline
@given(st.lists(st.sampled_from([*samples.EVENTS_V2.values(), None, 5, {}]), min_size=2, max_size=4), st.text())
def test_an_envelope_with_any_events_is_split_without_a_loss(chosen, name):
    """Each part is parsed to its event, or is an error by itself."""
    elements = [item if not isinstance(item, Notification) else element_of(item) for item in chosen]

    parts = parse_or_split(as_envelope(*elements, webhookName=name))

    for item, part in zip(chosen, parts, strict=True):
        event = outcome(parse, part, None)
        assert event == item if isinstance(item, Notification) else isinstance(event, NotificationError)


def element_of(event: Notification) -> Any:
    """Return the element of an event in an envelope."""
    return json.loads(encode(event, api="v2")[1])["events"][0]


def as_envelope(*elements: object, **members: object) -> bytes:
    """Write an envelope with any members."""
    body = json.dumps({**members, "events": elements}).encode()
    return body.replace(b"NaN", b"1").replace(b"Infinity", b"1")


def as_json(root: str, content: dict[str, object]) -> bytes:
    """Write any content as JSON by encoding an unknown notification."""
    return (
        encode(UnknownNotification(name=root, payload=content), "JSON")[1]
        .replace(b"NaN", b"1")
        .replace(b"Infinity", b"1")
    )


def assert_event_or_our_error(body: bytes | str, content_type: str | None) -> None:
    """Assert that a body is parsed into events or raises our error, with the same result from each function."""
    events, parsed, parts = (outcome(read, body, content_type) for read in (parse_all, parse, parse_or_split))
    if isinstance(parts, tuple):
        assert isinstance(parsed, NotificationError)
        each = [outcome(parse, part, content_type) for part in parts]
        is_read = not any(isinstance(event, NotificationError) for event in each)
        assert events == tuple(each) if is_read else isinstance(events, NotificationError)
    elif isinstance(events, tuple):
        assert (parsed,) == (parts,) == events
    else:
        assert str(parsed) == str(parts)
        assert type(parsed) is type(parts) is type(events)


def outcome(read: Callable[..., T], body: bytes | str, content_type: str | None) -> T | NotificationError:
    """Return what was read, or our error."""
    try:
        result = read(body, content_type)
    except NotificationError as error:
        repr(pickle.loads(pickle.dumps(error))).encode()
        return error
    for value in result if isinstance(result, tuple) else [result]:
        if isinstance(value, Notification):
            assert_value(value)
    return result


def assert_value(event: Notification) -> None:
    """Assert that an event can be compared, hashed, printed, copied and pickled."""
    assert copy.deepcopy(event) == pickle.loads(pickle.dumps(event)) == event
    hash((event, event.key))
    repr(event)


# --- one event in every format ----------------------------------------------------------------------------

# Characters that XML allows; attacks.py tests the others.
letters = st.characters(exclude_categories=["Cc", "Cs", "Cn"], include_characters="\n")
words = st.none() | st.text(letters).map(normalize)
# Hypothesis stops a test that discards many examples.
some_words = st.text(letters, min_size=1).map(normalize).filter(bool)
names = st.text(string.ascii_letters, min_size=1, max_size=8)
ids = st.integers(-(2**63), 2**63 - 1)
some_ids = st.none() | ids
counts = st.none() | st.integers(0, 1000)
moments = st.none() | st.datetimes() | st.datetimes(timezones=st.just(UTC))
credits_ = st.none() | st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**9), max_value=10**9)
lengths = st.none() | st.integers(0, 10**6).map(lambda seconds: timedelta(seconds=seconds))
booleans = st.none() | st.booleans()


def tuples(items: st.SearchStrategy[object]) -> st.SearchStrategy[tuple[object, ...]]:
    """Draw a tuple of up to three items."""
    return st.lists(items, max_size=3).map(tuple)


def open_enums(kind: type[models.OpenEnum]) -> st.SearchStrategy[models.OpenEnum | None]:
    """Draw a known value, an unknown value or None."""
    return st.none() | st.sampled_from(kind) | st.from_regex("[A-Z]{2,9}", fullmatch=True).map(kind)


results = open_enums(models.Result)
record = {
    "id": ids,
    "result": results,
    "finish_time": moments,
    "billed_amount": credits_,
    "question_responses": tuples(st.builds(models.QuestionResponse, question=some_words, response=words)),
    "switch_id": words,
    "caller_name": words,
}
recordings = st.builds(models.RecordingMeta, id=ids, name=words, created=moments, length=lengths, link=words)
text_records = st.builds(models.TextRecord, **record, message=words)
call_records = st.builds(
    models.CallRecord,
    **record,
    originate_time=moments,
    answer_time=moments,
    duration=lengths,
    recordings=tuples(recordings),
)
action = {
    "id": ids,
    "from_number": words,
    "to_number": words,
    "to_number_attributes": st.dictionaries(
        names.filter(lambda name: name[:3].lower() != "xml"), words.map(lambda text: text or "")
    ).map(lambda attached: tuple(sorted(attached.items()))),
    "state": open_enums(models.ActionState),
    "batch_id": some_ids,
    "broadcast_id": some_ids,
    "contact_id": some_ids,
    "inbound": booleans,
    "created": moments,
    "modified": moments,
    "final_result": results,
    "labels": tuples(some_words),
}
texts = st.builds(models.Text, **action, message=words, records=tuples(text_records))
calls = st.builds(models.Call, **action, records=tuples(call_records), agent_call=booleans)
config = {
    "id": ids,
    "created": moments,
    "from_number": words,
    "local_time_zone_restriction": st.none()
    | st.builds(models.LocalTimeZoneRestriction, begin_time=st.times(), end_time=st.none() | st.times()),
    "retry_config": st.none()
    | st.builds(
        models.RetryConfig,
        max_attempts=st.integers(0, 9),
        minutes_between_attempts=counts,
        retry_results=tuples(results.filter(bool)),
        retry_phone_types=tuples(st.from_regex("[A-Z]{2,9}", fullmatch=True)),
    ),
}
configs = (
    st.none()
    | st.builds(models.TextBroadcastConfig, **config, message=words, big_message_strategy=words)
    | st.builds(models.IvrBroadcastConfig, **config, dialplan_xml=words)
    | st.builds(
        models.VoiceBroadcastConfig, **config, live_sound_text=words, dnc_sound_id=some_ids, max_active_transfers=counts
    )
)
broadcasts = st.builds(
    models.Broadcast,
    id=ids,
    name=words,
    status=open_enums(models.BroadcastStatus),
    last_modified=moments,
    type=open_enums(models.BroadcastType),
    labels=tuples(some_words),
    config=configs,
)
known_events = (
    st.builds(
        TextNotification,
        text=texts,
        subscription_id=some_ids,
        name=st.sampled_from(["TextNotification", "TextSent", "TextReceived", "TextFinished"]),
    )
    | st.builds(CallFinished, call=calls, subscription_id=some_ids)
    | st.builds(
        CampaignNotification,
        broadcast=broadcasts,
        subscription_id=some_ids,
        name=st.sampled_from([name for name in samples.EVENTS if name.startswith(("Broadcast", "Campaign"))]),
    )
)
trees = st.recursive(
    words | st.booleans() | ids | st.floats(allow_nan=False, allow_infinity=False),
    lambda inside: st.dictionaries(
        names.filter(lambda name: name != "value"),
        inside | st.lists(inside.filter(lambda item: not isinstance(item, list)), max_size=3),
        max_size=4,
    ),
)
unknown_events = st.builds(
    UnknownNotification,
    name=names.map(lambda name: f"Fax{name}"),
    subscription_id=some_ids,
    payload=st.dictionaries(
        names.filter(lambda name: name.lower() not in ("subscriptionid", "value")), trees, max_size=4
    ),
)
FORMATS = [("XML", "1.1"), ("JSON", "1.1"), ("SOAP", "1.1"), ("SOAP", "1.2")]


@no_deadline
@given(known_events)
def test_an_event_is_equal_in_every_format(event):
    """Encoding and parsing keep subject, root and subscription, with one key and no problems."""
    read = [parse(encode(event, form, soap_version=version)[1]) for form, version in FORMATS]

    assert read == [read[0]] * len(FORMATS)
    assert {(found.problems, found.key) for found in read} == {((), read[0].key)}
    assert (subject_of(read[0]), read[0].subscription_id, read[0].name) == (
        subject_of(event),
        event.subscription_id,
        event.name,
    )


def subject_of(event: Notification) -> object:
    """Return the subject of an event."""
    return event.subject


@no_deadline
@given(unknown_events)
def test_an_unknown_event_is_equal_in_every_format(event):
    """The events are equal in canonical form and have one key."""
    read = [parse(encode(event, form, soap_version=version)[1]) for form, version in FORMATS]

    assert read == [event] * len(FORMATS)
    assert {found.key for found in read} == {event.key}


@pytest.mark.parametrize("event", samples.EVENTS.values(), ids=samples.EVENTS)
@no_deadline
@given(subscription_id=some_ids)
def test_the_subscription_id_is_kept_in_every_format(event, subscription_id):
    """It may be missing."""
    event = evolve(event, subscription_id=subscription_id)

    assert [parse(encode(event, form, soap_version=version)[1]) for form, version in FORMATS] == [event] * len(FORMATS)


# --- one event in both generations ------------------------------------------------------------------------

seconds = st.none() | st.datetimes(timezones=st.just(UTC)).map(lambda moment: moment.replace(microsecond=0))
shared = {
    "record": record | {"finish_time": seconds},
    "action": action | {"created": seconds, "modified": seconds},
}
texts_of_v2 = st.builds(
    models.Text,
    **shared["action"],
    message=words,
    records=tuples(st.builds(models.TextRecord, **shared["record"], message=words)),
)


@no_deadline
@given(texts_of_v2, st.sampled_from([TextSent, TextReceived, TextFinished]))
def test_a_text_is_equal_in_both_generations(text, kind):
    """Its key and its text are the same in the XML, JSON and SOAP of API 1.1 and in API v2."""
    event = kind(text=text)

    read = [parse(encode(event, form)[1]) for form in ("XML", "JSON", "SOAP")] + [parse(encode(event, api="v2")[1])]

    assert [(found.key, found.text, found.problems) for found in read] == [(event.key, text, ())] * 4


hours = st.none() | st.times().map(lambda moment: moment.replace(second=0, microsecond=0))
configs_of_v2 = {
    "from_number": words,
    "local_time_zone_restriction": st.none()
    | st.builds(
        models.LocalTimeZoneRestriction, begin_time=st.times().map(lambda moment: time(moment.hour)), end_time=hours
    ),
    "retry_config": config["retry_config"],
}
campaigns_of_v2 = st.one_of(
    st.tuples(
        st.just(models.BroadcastType.TEXT),
        st.builds(models.TextBroadcastConfig, **configs_of_v2, message=some_words, big_message_strategy=words),
    ),
    st.tuples(
        st.just(models.BroadcastType.IVR),
        st.builds(models.IvrBroadcastConfig, **configs_of_v2, dialplan_xml=some_words),
    ),
    st.tuples(
        st.just(models.BroadcastType.VOICE),
        st.builds(models.VoiceBroadcastConfig, **configs_of_v2, live_sound_text=some_words, dnc_sound_id=some_ids),
    ),
)


@no_deadline
@given(campaigns_of_v2, ids, seconds, tuples(some_words), st.sampled_from([CampaignStarted, CampaignFinished]))
def test_a_campaign_is_equal_in_both_generations(kind_and_config, id_, modified, labels, event_class):
    """Its configuration too."""
    kind, chosen = kind_and_config
    broadcast = models.Broadcast(id_, type=kind, config=chosen, last_modified=modified, labels=labels)
    event = event_class(broadcast=broadcast)

    read = [parse(encode(event, form)[1]) for form in ("XML", "JSON", "SOAP")] + [parse(encode(event, api="v2")[1])]

    assert [(found.key, found.broadcast, found.problems) for found in read] == [(event.key, broadcast, ())] * 4


# --- any message ------------------------------------------------------------------------------------------

messages = st.text(st.characters(exclude_characters="\0"))


@st.composite
def java_messages(draw: st.DrawFn) -> tuple[str, bytes]:
    """Draw a message without NUL, and the content of its element as a Java writer that knows only UTF-16 sends it."""
    text = draw(messages)
    units = text.encode("utf-16-be", "surrogatepass")
    numbers = [int.from_bytes(units[start : start + 2]) for start in range(0, len(units), 2)]
    return text, "".join(draw(forms_of(number)) for number in numbers).encode()


def forms_of(number: int) -> st.SearchStrategy[str]:
    """Draw a form of a UTF-16 unit: a reference, or the character itself if it can be written as it is."""
    references = [f"&#{number};", f"&#x{number:X};", f"&#x{number:04x};", f"&#{number:07};"]
    is_raw = chr(number) not in "<&>\r" and not 0xD800 <= number <= 0xDFFF
    return st.sampled_from([*references, *([chr(number)] if is_raw else [])])


def replace_forbidden(text: str) -> str:
    """Return a text as it is documented to be read: U+FFFD for each character that XML 1.0 forbids."""
    joined = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return "".join(character if is_allowed(ord(character)) else "\ufffd" for character in joined)


def is_allowed(number: int) -> bool:
    """Return whether XML 1.0 has the character, by the definition in its section 2.2."""
    return number in (0x9, 0xA, 0xD) or 0x20 <= number <= 0xD7FF or 0xE000 <= number <= 0xFFFD or number >= 0x10000


@no_deadline
@given(java_messages())
@example(("\U0001f600", b"&#55357;&#xde00;"))
@example(("\x0b\x08\ufffe\ud83d", b"\x0b&#8;&#xFFFE;&#55357;"))
def test_any_message_of_a_java_writer_is_read(message):
    """The message is as it was typed, but for U+FFFD; the event has a problem only if it was repaired."""
    text, content = message
    body = b"<TextReceived><Text id='1'><Message>%s</Message></Text></TextReceived>" % content

    event = parse(body)

    assert event.text.message == normalize(replace_forbidden(text))
    assert {problem.partition(" @ ")[2] for problem in event.problems} <= {"Text.Message"}
    if replace_forbidden(text) != text:
        assert "replaced forbidden characters @ Text.Message" in event.problems
    assert_value(event)


@no_deadline
@given(st.text(), st.sampled_from(["XML", "SOAP"]))
@example("a\x08\ud83d\0", "XML")
def test_an_event_with_any_message_is_encoded_as_valid_xml(text, form):
    """No repair is needed to read it back."""
    event = evolve(samples.EVENTS["TextReceived"], text=models.Text(id=1, message=text))

    read = parse(encode(event, form)[1])

    assert read.problems == ()
    assert read.text.message == normalize(replace_forbidden(text))


@no_deadline
@given(st.text())
@example("a\x08\ud83d\0")
def test_an_event_with_any_message_is_encoded_as_json(text):
    """The message is not changed."""
    event = evolve(samples.EVENTS["TextReceived"], text=models.Text(id=1, message=text))

    read = parse(encode(event, "JSON")[1])

    assert (read.text.message, read.problems) == (normalize(text), ())
