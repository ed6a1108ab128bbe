"""Tests of the conversion between mappings and models: names, kinds of values and oddities of the wire."""

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
MODELS = [SUBSCRIPTION, REFERENCE, TEXT, CALL, TEXT_BROADCAST, IVR_BROADCAST, VOICE_BROADCAST]
each_model = pytest.mark.parametrize(("content", "model"), MODELS, ids=lambda part: type(part).__name__)


def read(kind, content):
    """Return the model of content that has no problems."""
    model, problems = structure(kind, content, kind.__name__)
    assert problems == ()
    return model


def with_leaves(node, leaf):
    """Return a tree with a function applied to each scalar."""
    if isinstance(node, dict):
        return {key: with_leaves(value, leaf) for key, value in node.items()}
    return [with_leaves(item, leaf) for item in node] if isinstance(node, list) else leaf(node)


def with_bare_items(node):
    """Return a tree with each list of one replaced by its item."""
    if isinstance(node, dict):
        return {key: with_bare_items(value) for key, value in node.items()}
    if isinstance(node, list):
        return with_bare_items(node[0]) if len(node) == 1 else [with_bare_items(item) for item in node]
    return node


# --- whole models -----------------------------------------------------------------------------------------


@each_model
def test_every_field_is_read(content, model):
    """Each field is read under its name on the wire."""
    assert read(type(model), content) == model


@each_model
def test_every_field_is_written(content, model):
    """Writing returns the content that was read, and nothing else."""
    assert unstructure(model) == content


@each_model
def test_scalars_can_be_text_with_white_space(content, model):
    """XML has only text, and white space around values is ignored."""
    as_text = with_leaves(content, lambda value: f" {str(value).lower() if isinstance(value, bool) else value}\r\n")

    assert read(type(model), as_text) == model


@each_model
def test_a_bare_item_is_a_list_of_one(content, model):
    """Records, labels, questions and recordings may be a bare object."""
    assert read(type(model), with_bare_items(content)) == model


@each_model
def test_order_and_unknown_fields_are_ignored(content, model):
    """Fields come in any order, with unknown ones in between."""
    content = {"Unknown": {"Name": [1]}, **dict(reversed(content.items())), "@unknown": None}

    assert read(type(model), content) == model


@each_model
def test_every_field_but_the_id_is_optional(content, model):
    """A missing field is None or an empty tuple."""
    kind = type(model)
    name = wire_name(kind, "id")

    assert read(kind, {name: content[name]}) == kind(model.id)


@each_model
def test_empty_fields_equal_missing_fields(content, model):
    """None, an empty element, an empty object and an empty list are the same as no field."""
    kind = type(model)
    name = wire_name(kind, "id")

    for empty in (None, "", {}, []):
        lists = {"Label", "TextRecord", "CallRecord"}
        emptied = {key: empty for key in content if key != name and (empty != [] or key in lists)}
        assert read(kind, emptied | {name: content[name]}) == kind(model.id)


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
def test_wire_names(kind, attribute, name):
    """Names are in PascalCase, with a few exceptions."""
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
def test_integers_are_numbers_or_text(value, number):
    """Integers have up to 64 bits."""
    assert read(Text, {"@id": 1, "BatchId": value}).batch_id == number
    assert read_id(value, "BatchId") == number


@pytest.mark.parametrize(
    "value",
    ["x", 1.5, "1.0", True, "1_000", "٣", "1e3", str(2**63), "9" * 30, [1], [], {"Unknown": "1"}, "0x10", NUMBER * 3],
)
def test_invalid_integers_are_problems(value):
    """Some of these values are integers to Python, but not on the wire."""
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
        ("Message", {"#text": "m", "Unknown": None}, "m"),
    ],
)
def test_other_scalars_are_read(field, value, read_value):
    """Booleans, times, phone numbers, enumerations and messages are read in each of their forms."""
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
        ("FromNumber", {"Unknown": NUMBER}, "not a string"),
        ("State", ["READY"], "not a string"),
        ("State", {"x": "READY"}, "not a string"),
        ("Label", [{"Name": [NUMBER]}], "not a string"),
        ("TextRecord", "text", "not an object"),
        ("TextRecord", [{"@id": 1}, NUMBER], "not an object"),
    ],
)
def test_an_unreadable_field_is_a_problem(field, value, problem):
    """The field is left out; the problem has its kind and path, and never its value."""
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
def test_amounts_and_durations_are_read(field, value, attribute, read_value):
    """Amounts keep every digit; durations are in seconds."""
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
def test_invalid_amounts_and_durations_are_problems(field, value, problem):
    """No value overflows."""
    call, problems = structure(Call, {"@id": 1, "CallRecord": [{field: value}]}, "Call")

    assert call == Call(1, records=(CallRecord(),))
    assert problems == (f"{problem} @ Call.CallRecord[0].{field}",)


@pytest.mark.parametrize(
    ("value", "is_problem"), [("noon", True), ("25:00", True), ("09:00", False), ("09:00:00Z", False)]
)
def test_times_of_day_are_iso_8601(value, is_problem):
    """An offset is optional."""
    content = {"@id": 1, "TextBroadcastConfig": {"LocalTimeZoneRestriction": {"BeginTime": value, "EndTime": "10:00"}}}
    broadcast, problems = structure(Broadcast, content, "Broadcast")

    restriction = broadcast.config.local_time_zone_restriction
    assert (restriction.begin_time is None) is is_problem
    assert restriction.end_time == time(10)
    path = "Broadcast.TextBroadcastConfig.LocalTimeZoneRestriction.BeginTime"
    assert problems == ((f"not a time of day @ {path}",) if is_problem else ())


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
    """A label is an object with a name or a bare string; there may be none, one or many."""
    assert read(Text, {"@id": 1, "Label": label}).labels == labels


@pytest.mark.parametrize(
    ("to_number", "number", "attributes"),
    [
        (NUMBER, NUMBER, ()),
        (12135551212, NUMBER, ()),
        ({"value": NUMBER, "@ClientData": "c", "@b": 1}, NUMBER, (("ClientData", "c"), ("b", "1"))),
        ({"@ClientData": ""}, None, (("ClientData", ""),)),
    ],
)
def test_attributes_of_a_number_are_read(to_number, number, attributes):
    """Names and values are sorted."""
    text = read(Text, {"@id": 1, "ToNumber": to_number})

    assert (text.to_number, text.to_number_attributes) == (number, attributes)


def test_a_number_with_attributes_only_is_written():
    """Its text is empty."""
    text = Text(1, to_number_attributes=(("ClientData", "c"),))

    assert unstructure(text)["ToNumber"] == {"@ClientData": "c", "#text": ""}
    assert read(Text, unstructure(text)) == text


@pytest.mark.parametrize("value", ["BUSY NO_ANS", ["BUSY", "NO_ANS"], " BUSY\nNO_ANS "])
def test_lists_in_one_value_are_split(value):
    """The value has spaces between the items, or is repeated."""
    content = {"@id": 1, "TextBroadcastConfig": {"RetryConfig": {"RetryResults": value}}}

    assert read(Broadcast, content).config.retry_config.retry_results == (Result.BUSY, Result.NO_ANS)


def test_every_problem_is_listed():
    """A problem in a list has the index of its item; readable fields are kept."""
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


def test_a_bare_item_that_is_not_an_object_is_left_out():
    """Its problem has the index 0."""
    assert structure(Text, {"@id": 1, "TextRecord": "x"}, "Text") == (
        Text(1),
        ("not an object @ Text.TextRecord[0]",),
    )


def test_the_first_readable_configuration_is_used():
    """Each unreadable configuration is a problem."""
    content = {"@id": 1, "TextBroadcastConfig": "x", "VoiceBroadcastConfig": ["x"], "IvrBroadcastConfig": {"@id": 2}}

    broadcast, problems = structure(Broadcast, content, "Broadcast")

    assert broadcast == Broadcast(1, config=IvrBroadcastConfig(2))
    assert problems == (
        "not an object @ Broadcast.TextBroadcastConfig",
        "not an object @ Broadcast.VoiceBroadcastConfig",
    )


@pytest.mark.parametrize("value", [5, None, [], ["TextBroadcastConfig"], [["x"], {}], ["TextBroadcastConfig", {}]])
def test_a_field_called_config_is_ignored(value):
    """On the wire each kind of configuration has its own name, which is never Config."""
    assert structure(Broadcast, {"@id": 1, "Config": value}, "Broadcast") == (Broadcast(1), ())


@pytest.mark.parametrize("content", [{}, {"@id": None}, {"@id": ""}, {"@id": {}}, {"Inbound": "x"}])
def test_a_missing_id_is_an_error(content):
    """The problem is listed even if other fields are invalid."""
    with pytest.raises(ConversionError, match=r"missing @ Text\.@id"):
        structure(Text, content, "Text")


@pytest.mark.parametrize("content", [None, "text", 5, [], [{}], True])
def test_content_that_is_not_an_object_is_an_error(content):
    """The problem has the path of the whole content."""
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
def test_any_tree_is_a_model_or_a_conversion_error(kind, content):
    """A model can be written and read again."""
    try:
        model, problems = structure(kind, content, kind.__name__)
    except ConversionError:
        return

    assert all(" @ " in problem for problem in problems)
    assert read(kind, unstructure(model)) == model


# --- forms ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
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
def test_values_in_forms(value, text):
    """Booleans are lower case, lists have spaces, and times are in UTC."""
    assert form_value(value) == text


def test_a_form_is_flat():
    """A filter's fields are at the top level, and None is not sent."""
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
    """Every model with only its required fields can be written and read."""
    kind = vars(models)[name]
    required = {field.name: 1 for field in attrs.fields(kind) if field.default is attrs.NOTHING}

    assert read(kind, unstructure(kind(**required))) == kind(**required)


def test_more_than_a_thousand_problems_are_an_error():
    """No real document has a thousand, and listing them takes time."""
    records = [{"@id": "x"}] * 1001

    with pytest.raises(ConversionError, match="more than 1000 unreadable fields"):
        structure(Call, {"@id": 1, "CallRecord": records}, "Call")


@pytest.mark.parametrize("name", ["RetryResults", "RetryPhoneTypes"])
def test_a_list_with_too_many_items_is_a_problem(name):
    """Each item would become a value."""
    content = {"@id": 1, "TextBroadcastConfig": {"@id": 2, "RetryConfig": {"MaxAttempts": 2, name: "LA " * 201}}}

    broadcast, problems = structure(Broadcast, content, "Broadcast")

    assert problems == (f"too many items @ Broadcast.TextBroadcastConfig.RetryConfig.{name}",)
    assert broadcast.config.retry_config == RetryConfig(2)


def test_a_thousand_problems_are_listed():
    """The readable content is kept."""
    call, problems = structure(Call, {"@id": 1, "CallRecord": [{"@id": "x"}] * 1000}, "Call")

    assert (len(call.records), len(problems)) == (1000, 1000)
