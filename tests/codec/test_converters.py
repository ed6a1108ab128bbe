"""Mappings to models and back: every name, every kind of value, every oddity of the wire."""

from datetime import UTC, datetime, time, timedelta, timezone
from decimal import Decimal

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callfire_async import models
from callfire_async._codec.converters import (
    ConversionError,
    form_fields,
    form_value,
    read_id,
    structure,
    unstructure,
    wire_name,
)
from callfire_async.models import (
    ActionState,
    Broadcast,
    BroadcastStatus,
    BroadcastType,
    Call,
    CallRecord,
    IvrBroadcastConfig,
    LocalTimeZoneRestriction,
    NotificationFormat,
    QuestionResponse,
    RecordingMeta,
    ResourceReference,
    Result,
    RetryConfig,
    Subscription,
    SubscriptionFilter,
    Text,
    TextBroadcastConfig,
    TextRecord,
    TriggerEvent,
    VoiceBroadcastConfig,
)

MOMENT = datetime(2012, 10, 26, 21, 32, 52, tzinfo=UTC)
NUMBER = "12135551212"

SUBSCRIPTION = (
    {
        "@id": 567040003,
        "Enabled": False,
        "Endpoint": "https://h.example/Tok3n",
        "NonStrictSsl": True,
        "NotificationFormat": "SOAP",
        "TriggerEvent": "INBOUND_CALL_FINISHED",
        "SubscriptionFilter": {
            "BroadcastId": 896807881003,
            "BatchId": 7,
            "FromNumber": NUMBER,
            "ToNumber": "67076:KEYWORD",
            "Inbound": True,
        },
    },
    Subscription(
        567040003,
        enabled=False,
        endpoint="https://h.example/Tok3n",
        non_strict_ssl=True,
        notification_format=NotificationFormat.SOAP,
        trigger_event=TriggerEvent.INBOUND_CALL_FINISHED,
        filter=SubscriptionFilter(896807881003, 7, NUMBER, "67076:KEYWORD", inbound=True),
    ),
)
REFERENCE = ({"Id": 1, "Location": "https://www.callfire.com/1"}, ResourceReference(1, "https://www.callfire.com/1"))
ACTION = {
    "@id": 1,
    "FromNumber": "67076",
    "ToNumber": {"@ClientData": "c", "@Else": "e", "#text": NUMBER},
    "State": "FINISHED",
    "BatchId": 2,
    "BroadcastId": 3,
    "ContactId": 4,
    "Inbound": False,
    "Created": "2012-10-26T21:32:52Z",
    "Modified": "2012-10-26T21:32:51Z",
    "FinalResult": "LA",
    "Label": [{"Name": "one"}, {"Name": "two"}],
}
ACTION_FIELDS = {
    "id": 1,
    "from_number": "67076",
    "to_number": NUMBER,
    "to_number_attributes": (("ClientData", "c"), ("Else", "e")),
    "state": ActionState.FINISHED,
    "batch_id": 2,
    "broadcast_id": 3,
    "contact_id": 4,
    "inbound": False,
    "created": MOMENT,
    "modified": MOMENT - timedelta(seconds=1),
    "final_result": Result.LA,
    "labels": ("one", "two"),
}
RECORD = {
    "@id": 5,
    "Result": "LA",
    "FinishTime": "2012-10-26T21:32:52Z",
    "BilledAmount": "1.50",
    "QuestionResponse": [{"Question": "q", "Response": "r"}],
    "SwitchId": "s",
    "CallerName": "n",
}
RECORD_FIELDS = {
    "id": 5,
    "result": Result.LA,
    "finish_time": MOMENT,
    "billed_amount": Decimal("1.50"),
    "question_responses": (QuestionResponse("q", "r"),),
    "switch_id": "s",
    "caller_name": "n",
}
TEXT = (
    {**ACTION, "Message": "m", "TextRecord": [{**RECORD, "Message": "m"}]},
    Text(**ACTION_FIELDS, message="m", records=(TextRecord(**RECORD_FIELDS, message="m"),)),
)
CALL = (
    {
        **ACTION,
        "AgentCall": True,
        "CallRecord": [
            {
                **RECORD,
                "OriginateTime": "2012-10-26T21:32:52Z",
                "AnswerTime": "2012-10-26T21:32:52Z",
                "Duration": 61,
                "RecordingMeta": [
                    {
                        "@id": 6,
                        "Name": "n",
                        "Created": "2012-10-26T21:32:52Z",
                        "LengthInSeconds": 60,
                        "Link": "https://h.example/l",
                    }
                ],
            }
        ],
    },
    Call(
        **ACTION_FIELDS,
        agent_call=True,
        records=(
            CallRecord(
                **RECORD_FIELDS,
                originate_time=MOMENT,
                answer_time=MOMENT,
                duration=timedelta(seconds=61),
                recordings=(RecordingMeta(6, "n", MOMENT, timedelta(seconds=60), "https://h.example/l"),),
            ),
        ),
    ),
)
CONFIG = {
    "@id": 8,
    "Created": "2012-10-26T21:32:52Z",
    "FromNumber": NUMBER,
    "LocalTimeZoneRestriction": {"BeginTime": "09:00:00", "EndTime": "17:30:00"},
    "RetryConfig": {
        "MaxAttempts": 2,
        "MinutesBetweenAttempts": 5,
        "RetryResults": "BUSY NO_ANS",
        "RetryPhoneTypes": "MOBILE_PHONE WORK_PHONE",
    },
}
CONFIG_FIELDS = {
    "id": 8,
    "created": MOMENT,
    "from_number": NUMBER,
    "local_time_zone_restriction": LocalTimeZoneRestriction(time(9), time(17, 30)),
    "retry_config": RetryConfig(2, 5, (Result.BUSY, Result.NO_ANS), ("MOBILE_PHONE", "WORK_PHONE")),
}
BROADCAST = {"@id": 1, "Name": "n", "Status": "RUNNING", "LastModified": "2012-10-26T21:32:52Z", "Type": "TEXT"}
BROADCAST_FIELDS = {
    "id": 1,
    "name": "n",
    "status": BroadcastStatus.RUNNING,
    "last_modified": MOMENT,
    "type": BroadcastType.TEXT,
    "labels": ("one",),
}
TEXT_BROADCAST = (
    {
        **BROADCAST,
        "Label": [{"Name": "one"}],
        "TextBroadcastConfig": {**CONFIG, "Message": "m", "BigMessageStrategy": "TRIM"},
    },
    Broadcast(
        **BROADCAST_FIELDS, config=TextBroadcastConfig(**CONFIG_FIELDS, message="m", big_message_strategy="TRIM")
    ),
)
IVR_BROADCAST = (
    {**BROADCAST, "Label": [{"Name": "one"}], "IvrBroadcastConfig": {**CONFIG, "DialplanXml": "<dialplan/>"}},
    Broadcast(**BROADCAST_FIELDS, config=IvrBroadcastConfig(**CONFIG_FIELDS, dialplan_xml="<dialplan/>")),
)
VOICE_BROADCAST = (
    {
        **BROADCAST,
        "Label": [{"Name": "one"}],
        "VoiceBroadcastConfig": {
            **CONFIG,
            "AnsweringMachineConfig": "AM_ONLY",
            "LiveSoundText": "a",
            "LiveSoundId": 1,
            "MachineSoundText": "b",
            "MachineSoundId": 2,
            "TransferSoundText": "c",
            "TransferSoundId": 3,
            "TransferDigit": "4",
            "TransferNumber": NUMBER,
            "DncSoundText": "d",
            "DncSoundId": 5,
            "DncDigit": "6",
            "MaxActiveTransfers": 7,
        },
    },
    Broadcast(
        **BROADCAST_FIELDS,
        config=VoiceBroadcastConfig(
            **CONFIG_FIELDS,
            answering_machine_config="AM_ONLY",
            live_sound_text="a",
            live_sound_id=1,
            machine_sound_text="b",
            machine_sound_id=2,
            transfer_sound_text="c",
            transfer_sound_id=3,
            transfer_digit="4",
            transfer_number=NUMBER,
            dnc_sound_text="d",
            dnc_sound_id=5,
            dnc_digit="6",
            max_active_transfers=7,
        ),
    ),
)
WHOLE = [SUBSCRIPTION, REFERENCE, TEXT, CALL, TEXT_BROADCAST, IVR_BROADCAST, VOICE_BROADCAST]
each_whole = pytest.mark.parametrize(("content", "model"), WHOLE, ids=lambda part: type(part).__name__)


def read(kind, content):
    """Structure what is to hold no problem."""
    model, problems = structure(kind, content, kind.__name__)
    assert problems == ()
    return model


def spelled(node, leaf):
    """Word each scalar of a tree in another way."""
    if isinstance(node, dict):
        return {key: spelled(value, leaf) for key, value in node.items()}
    return [spelled(item, leaf) for item in node] if isinstance(node, list) else leaf(node)


def unlisted(node):
    """Word each list of one as the bare item."""
    if isinstance(node, dict):
        return {key: unlisted(value) for key, value in node.items()}
    if isinstance(node, list):
        return unlisted(node[0]) if len(node) == 1 else [unlisted(item) for item in node]
    return node


# --- whole models -----------------------------------------------------------------------------------------


@each_whole
def test_every_field_is_read(content, model):
    """Under the name that the wire has for it."""
    assert read(type(model), content) == model


@each_whole
def test_every_field_is_written(content, model):
    """As it was read; nothing that is not there."""
    assert unstructure(model) == content


@each_whole
def test_scalars_as_text_are_the_same(content, model):
    """XML has nothing else; white space stands around them."""
    as_text = spelled(content, lambda value: f" {str(value).lower() if isinstance(value, bool) else value}\r\n")

    assert read(type(model), as_text) == model


@each_whole
def test_a_bare_item_is_a_list_of_one(content, model):
    """Records, labels, questions and recordings."""
    assert read(type(model), unlisted(content)) == model


@each_whole
def test_order_and_strangers_do_not_matter(content, model):
    """Elements come in any order, with unknown ones in between."""
    content = {"Stranger": {"Name": [1]}, **dict(reversed(content.items())), "@stranger": None}

    assert read(type(model), content) == model


@each_whole
def test_every_field_may_be_missing_but_the_id(content, model):
    """What is not there is None or nothing."""
    kind = type(model)
    name = wire_name(kind, "id")

    assert read(kind, {name: content[name]}) == kind(model.id)


@each_whole
def test_empty_fields_are_as_if_they_were_missing(content, model):
    """None, an empty element, an empty object and an empty list."""
    kind = type(model)
    name = wire_name(kind, "id")

    for empty in (None, "", {}, []):
        lists = {"Label", "TextRecord", "CallRecord"}
        hollow = {key: empty for key in content if key != name and (empty != [] or key in lists)}
        assert read(kind, hollow | {name: content[name]}) == kind(model.id)


# --- names ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "attribute", "name"),
    [
        (Subscription, "filter", "SubscriptionFilter"),
        (Subscription, "id", "@id"),
        (Subscription, "non_strict_ssl", "NonStrictSsl"),
        (ResourceReference, "id", "Id"),
        (Text, "records", "TextRecord"),
        (Call, "records", "CallRecord"),
        (RecordingMeta, "length", "LengthInSeconds"),
        (Text, "labels", "Label"),
        (object, "request_id", "RequestId"),
    ],
)
def test_names_are_the_wires(kind, attribute, name):
    """PascalCase, but for a few."""
    assert wire_name(kind, attribute) == name


# --- scalars ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (42, 42),
        ("42", 42),
        (" +42 ", 42),
        ("-7", -7),
        ("0042", 42),
        (896807881003, 896807881003),
        (str(2**63 - 1), 2**63 - 1),
        (str(-(2**63)), -(2**63)),
        (None, None),
        ("", None),
        ({"#text": "5", "@a": "b"}, 5),
        ({"@a": "b"}, None),
    ],
)
def test_integers(value, number):
    """As numbers or text, of 64 bits."""
    assert read(Text, {"@id": 1, "BatchId": value}).batch_id == number
    assert read_id(value, "BatchId") == number


@pytest.mark.parametrize(
    "value",
    ["x", 1.5, "1.0", True, "1_000", "٣", "1e3", str(2**63), "9" * 30, [1], [], {"Stranger": "1"}, "0x10", NUMBER * 3],
)
def test_what_is_no_integer(value):
    """Python would take some of these."""
    text, problems = structure(Text, {"@id": 1, "BatchId": value}, "Text")

    assert (text, problems) == (Text(1), ("not an integer @ Text.BatchId",))
    with pytest.raises(ConversionError, match="not an integer @ here") as caught:
        read_id(value, "here")
    assert caught.value.problems == ("not an integer @ here",)


@pytest.mark.parametrize(
    ("field", "value", "read_value"),
    [
        ("Inbound", "true", True),
        ("Inbound", "TRUE", True),
        ("Inbound", 1, True),
        ("Inbound", "0", False),
        ("Inbound", False, False),
        ("Created", "2012-10-26T21:32:52Z", MOMENT),
        ("Created", "2012-10-26T14:32:52-07:00", MOMENT),
        ("Created", "2012-10-26T21:32:52.000+00:00", MOMENT),
        ("Created", "2012-10-26T21:32:52", MOMENT.replace(tzinfo=None)),
        ("FromNumber", 12135551212, NUMBER),
        ("FromNumber", {"value": NUMBER, "@ClientData": "c"}, NUMBER),
        ("FromNumber", {"#text": f" +{NUMBER} "}, f"+{NUMBER}"),
        ("FromNumber", "", None),
        ("FromNumber", "Anonymous", "Anonymous"),
        ("FromNumber", 18, "18"),
        ("State", "NEW_ONE", "NEW_ONE"),
        ("State", " READY ", ActionState.READY),
        ("Message", "a\r\nb\rc ", "a\nb\nc"),
        ("Message", {"@lang": "en"}, None),
        ("Message", {"#text": "m", "Stranger": None}, "m"),
    ],
)
def test_other_scalars(field, value, read_value):
    """Booleans, times, numbers that people dial, words and messages."""
    text = read(Text, {"@id": 1, field: value})

    attribute = next(item.name for item in attrs.fields(Text) if wire_name(Text, item.name) == field)
    assert getattr(text, attribute) == read_value


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("Inbound", "perhaps", "not a boolean"),
        ("Inbound", 2, "not a boolean"),
        ("Created", "yesterday", "not a time"),
        ("Created", "2012-10-26", "not a time"),
        ("Created", "2012-13-26T21:32:52Z", "not a time"),
        ("Created", 1351287172, "not a time"),
        ("FromNumber", [NUMBER, NUMBER], "not a string"),
        ("FromNumber", {"value": {"x": NUMBER}}, "not a string"),
        ("FromNumber", {"Stranger": NUMBER}, "not a string"),
        ("State", ["READY"], "not a string"),
        ("State", {"x": "READY"}, "not a string"),
        ("Label", [{"Name": [NUMBER]}], "not a string"),
        ("TextRecord", "text", "not an object"),
        ("TextRecord", [{"@id": 1}, NUMBER], "not an object"),
    ],
)
def test_what_cannot_be_read_is_left_out_and_named(field, value, problem):
    """By its kind and its place in the wire's words, never by its value."""
    text, problems = structure(Text, {"@id": 1, "Message": "m", field: value}, "Text")

    assert (text.id, text.message) == (1, "m")
    assert [item.split(" @ ")[0] for item in problems] == [problem]
    assert problems[0].split(" @ ")[1].startswith(f"Text.{field}")
    assert NUMBER not in str(problems)


@pytest.mark.parametrize(
    ("field", "value", "attribute", "read_value"),
    [
        ("BilledAmount", "1.50", "billed_amount", Decimal("1.50")),
        ("BilledAmount", 1.5, "billed_amount", Decimal("1.5")),
        ("BilledAmount", ".5", "billed_amount", Decimal("0.5")),
        ("BilledAmount", "1E-2", "billed_amount", Decimal("0.01")),
        ("BilledAmount", "5.", "billed_amount", Decimal(5)),
        ("BilledAmount", " 0.05 ", "billed_amount", Decimal("0.05")),
        ("Duration", 61, "duration", timedelta(seconds=61)),
        ("Duration", "61.5", "duration", timedelta(seconds=61.5)),
        ("Duration", "", "duration", None),
        ("FinishTime", None, "finish_time", None),
    ],
)
def test_credits_and_durations(field, value, attribute, read_value):
    """Decimals to the last digit, and seconds."""
    (record,) = read(Call, {"@id": 1, "CallRecord": {field: value}}).records

    assert getattr(record, attribute) == read_value


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("BilledAmount", "much", "not a decimal"),
        ("BilledAmount", "NaN", "not a decimal"),
        ("BilledAmount", "1" * 31, "not a decimal"),
        ("BilledAmount", ".", "not a decimal"),
        ("BilledAmount", "1.2.3", "not a decimal"),
        ("BilledAmount", "1_0", "not a decimal"),
        ("BilledAmount", "\u0661.\u0665", "not a decimal"),
        ("BilledAmount", True, "not a decimal"),
        ("Duration", "long", "not a duration"),
        ("Duration", "1e99", "not a duration"),
        ("Duration", "9" * 20, "not a duration"),
    ],
)
def test_what_is_no_credit_or_duration(field, value, problem):
    """Nothing overflows."""
    call, problems = structure(Call, {"@id": 1, "CallRecord": [{field: value}]}, "Call")

    assert call == Call(1, records=(CallRecord(),))
    assert problems == (f"{problem} @ Call.CallRecord[0].{field}",)


@pytest.mark.parametrize(
    ("value", "problem"), [("noon", True), ("25:00", True), ("09:00", False), ("09:00:00Z", False)]
)
def test_times_of_day(value, problem):
    """ISO 8601, with or without an offset."""
    content = {"@id": 1, "TextBroadcastConfig": {"LocalTimeZoneRestriction": {"BeginTime": value, "EndTime": "10:00"}}}
    broadcast, problems = structure(Broadcast, content, "Broadcast")

    restriction = broadcast.config.local_time_zone_restriction
    assert (restriction.begin_time is None) is problem
    assert restriction.end_time == time(10)
    path = "Broadcast.TextBroadcastConfig.LocalTimeZoneRestriction.BeginTime"
    assert problems == ((f"not a time of day @ {path}",) if problem else ())


# --- parts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "labels"),
    [
        (None, ()),
        ([], ()),
        ({}, ()),
        ("one", ("one",)),
        (["one", "two"], ("one", "two")),
        ({"Name": "one"}, ("one",)),
        ([{"Name": "one"}, "two", {"Name": None}, {"#text": "three"}], ("one", "two", "three")),
    ],
)
def test_labels_are_names(label, labels):
    """Objects with a name or bare words, none, one or many."""
    assert read(Text, {"@id": 1, "Label": label}).labels == labels


@pytest.mark.parametrize(
    ("to_number", "number", "attached"),
    [
        (NUMBER, NUMBER, ()),
        (12135551212, NUMBER, ()),
        ({"value": NUMBER, "@ClientData": "c", "@b": 1}, NUMBER, (("ClientData", "c"), ("b", "1"))),
        ({"@ClientData": ""}, None, (("ClientData", ""),)),
    ],
)
def test_what_was_attached_to_a_number(to_number, number, attached):
    """Names and values, sorted."""
    text = read(Text, {"@id": 1, "ToNumber": to_number})

    assert (text.to_number, text.to_number_attributes) == (number, attached)


def test_a_number_with_attributes_alone_is_written_too():
    """Its text is empty."""
    text = Text(1, to_number_attributes=(("ClientData", "c"),))

    assert unstructure(text)["ToNumber"] == {"@ClientData": "c", "#text": ""}
    assert read(Text, unstructure(text)) == text


@pytest.mark.parametrize("words", ["BUSY NO_ANS", ["BUSY", "NO_ANS"], " BUSY\nNO_ANS "])
def test_lists_of_words(words):
    """One value with spaces in it, or several."""
    content = {"@id": 1, "TextBroadcastConfig": {"RetryConfig": {"RetryResults": words}}}

    assert read(Broadcast, content).config.retry_config.retry_results == (Result.BUSY, Result.NO_ANS)


def test_many_problems_are_all_named():
    """In a list, each item keeps its number; what can be read stays."""
    content = {
        "@id": "1",
        "Inbound": "x",
        "CallRecord": [
            {"@id": 1, "Duration": "x", "RecordingMeta": {"@id": "x", "Name": "n"}},
            NUMBER,
            {"@id": 3, "QuestionResponse": [{"Question": []}, {"Response": "r"}]},
        ],
    }

    call, problems = structure(Call, content, "Call")

    assert call == Call(
        1,
        records=(
            CallRecord(1, recordings=(RecordingMeta(name="n"),)),
            CallRecord(3, question_responses=(QuestionResponse(), QuestionResponse(response="r"))),
        ),
    )
    assert sorted(problems) == [
        "not a boolean @ Call.Inbound",
        "not a duration @ Call.CallRecord[0].Duration",
        "not a string @ Call.CallRecord[2].QuestionResponse[0].Question",
        "not an integer @ Call.CallRecord[0].RecordingMeta[0].@id",
        "not an object @ Call.CallRecord[1]",
    ]


def test_a_bare_item_that_is_no_object_is_left_out():
    """It is the first item of its list."""
    assert structure(Text, {"@id": 1, "TextRecord": "x"}, "Text") == (
        Text(1),
        ("not an object @ Text.TextRecord[0]",),
    )


def test_a_configuration_that_cannot_be_read_makes_room_for_the_next():
    """Both are named, if neither can be read."""
    content = {"@id": 1, "TextBroadcastConfig": "x", "VoiceBroadcastConfig": ["x"], "IvrBroadcastConfig": {"@id": 2}}

    broadcast, problems = structure(Broadcast, content, "Broadcast")

    assert broadcast == Broadcast(1, config=IvrBroadcastConfig(2))
    assert problems == (
        "not an object @ Broadcast.TextBroadcastConfig",
        "not an object @ Broadcast.VoiceBroadcastConfig",
    )


@pytest.mark.parametrize("value", [5, None, [], ["TextBroadcastConfig"], [["x"], {}], ["TextBroadcastConfig", {}]])
def test_what_a_document_itself_calls_config_is_not_read(value):
    """Each kind has a name of its own; the attribute's is none of them."""
    assert structure(Broadcast, {"@id": 1, "Config": value}, "Broadcast") == (Broadcast(1), ())


@pytest.mark.parametrize("content", [{}, {"@id": None}, {"@id": ""}, {"@id": {}}, {"Inbound": "x"}])
def test_without_an_id_it_is_nothing(content):
    """Missing, whatever else is wrong."""
    with pytest.raises(ConversionError, match=r"missing @ Text\.@id"):
        structure(Text, content, "Text")


@pytest.mark.parametrize("content", [None, "text", 5, [], [{}], True])
def test_what_is_no_object_is_nothing(content):
    """It is named as a whole."""
    with pytest.raises(ConversionError, match=r"^not an object @ Text$"):
        structure(Text, content, "Text")


trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inside: (
        st.lists(inside, max_size=3)
        | st.dictionaries(
            st.sampled_from([*TEXT[0], *CALL[0], *CONFIG, *BROADCAST, "TextBroadcastConfig", "Config", "#text"]), inside
        )
    ),
    max_leaves=12,
)


@given(kind=st.sampled_from([Text, Call, Broadcast, Subscription, ResourceReference]), content=trees)
def test_any_tree_is_a_model_or_unreadable(kind, content):
    """And what was read can be written and read again."""
    try:
        model, problems = structure(kind, content, kind.__name__)
    except ConversionError:
        return

    assert all(" @ " in problem for problem in problems)
    assert read(kind, unstructure(model)) == model


# --- forms ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (True, "true"),
        (False, "false"),
        (42, "42"),
        ("x y", "x y"),
        (TriggerEvent.CAMPAIGN_STARTED, "CAMPAIGN_STARTED"),
        ((Result.LA, Result("NEW")), "LA NEW"),
        ((), ""),
        (MOMENT, "2012-10-26T21:32:52Z"),
        (MOMENT.astimezone(timezone(timedelta(hours=-7))), "2012-10-26T21:32:52Z"),
        (MOMENT.replace(tzinfo=None), "2012-10-26T21:32:52"),
    ],
)
def test_values_in_forms(value, word):
    """Small booleans, lists with spaces, times in UTC."""
    assert form_value(value) == word


def test_a_form_is_flat():
    """The filter's fields stand beside the others; what is None is not sent."""
    values = {
        "endpoint": "e",
        "enabled": False,
        "non_strict_ssl": None,
        "filter": SubscriptionFilter(broadcast_id=1, to_number=NUMBER),
        "max_results": 10,
    }

    assert form_fields(values) == {
        "Endpoint": "e",
        "Enabled": "false",
        "BroadcastId": "1",
        "ToNumber": NUMBER,
        "MaxResults": "10",
    }
    assert form_fields({"filter": None}) == form_fields({"filter": SubscriptionFilter()}) == {}


@pytest.mark.parametrize("name", [name for name in models.__all__ if attrs.has(vars(models)[name]) and name != "Page"])
def test_every_model_can_be_converted(name):
    """An empty one is written and read; none is left without names for its fields."""
    kind = vars(models)[name]
    required = {field.name: 1 for field in attrs.fields(kind) if field.default is attrs.NOTHING}

    assert read(kind, unstructure(kind(**required))) == kind(**required)


def test_what_is_unreadable_all_over_is_not_read_in_part():
    """Naming a thousand fields is work enough; nothing real has as many."""
    records = [{"@id": "x"}] * 1001

    with pytest.raises(ConversionError, match="more than 1000 unreadable fields"):
        structure(Call, {"@id": 1, "CallRecord": records}, "Call")


@pytest.mark.parametrize("name", ["RetryResults", "RetryPhoneTypes"])
def test_a_list_of_too_many_words_is_left_out(name):
    """Each would be a value of its own."""
    content = {"@id": 1, "TextBroadcastConfig": {"@id": 2, "RetryConfig": {"MaxAttempts": 2, name: "LA " * 201}}}

    broadcast, problems = structure(Broadcast, content, "Broadcast")

    assert problems == (f"too many items @ Broadcast.TextBroadcastConfig.RetryConfig.{name}",)
    assert broadcast.config.retry_config == RetryConfig(2)


def test_a_thousand_unreadable_fields_are_named():
    """And the rest is there."""
    call, problems = structure(Call, {"@id": 1, "CallRecord": [{"@id": "x"}] * 1000}, "Call")

    assert (len(call.records), len(problems)) == (1000, 1000)
