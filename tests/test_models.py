"""Tests of the models: equality, immutability, masking and open enumerations."""

import copy
import pickle
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callfire_async import models
from callfire_async.models import (
    WEBHOOK_EVENTS,
    ActionState,
    Broadcast,
    BroadcastStatus,
    BroadcastType,
    Call,
    CallRecord,
    ContactList,
    DeliveryReport,
    Media,
    NotificationFormat,
    Page,
    QuestionResponse,
    RecordingMeta,
    RedactedStr,
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
    Webhook,
    WebhookEvent,
    WebhookResource,
    WebhookResourceInfo,
    masked_endpoint,
    masked_number,
    masked_text,
)

ENUMS = [
    *(NotificationFormat, TriggerEvent, ActionState, Result, BroadcastStatus, BroadcastType),
    *(WebhookResource, WebhookEvent),
]
NUMBER = "12135551212"
MODELS = [
    Subscription(
        1,
        endpoint="https://h.example/callfire/Tok3n",
        trigger_event=TriggerEvent.CAMPAIGN_STARTED,
        notification_format=NotificationFormat("NEW"),
        filter=SubscriptionFilter(broadcast_id=5, from_number=NUMBER, to_number=f"{NUMBER}:WORD"),
    ),
    ResourceReference(1, "https://www.callfire.com/1"),
    Page((Subscription(1), Subscription(2)), 2, 0),
    Text(
        1,
        from_number=NUMBER,
        to_number=NUMBER,
        to_number_attributes=(("ClientData", "Tok3n"),),
        state=ActionState.FINISHED,
        created=datetime(2012, 10, 26, 21, 32, 52, tzinfo=UTC),
        message="Tok3n",
        labels=("a", "b"),
        records=(TextRecord(2, result=Result.SENT, billed_amount=Decimal("1.50"), message="Tok3n"),),
    ),
    Call(
        1,
        agent_call=True,
        records=(
            CallRecord(
                2,
                result=Result("NEW_ONE"),
                caller_name="Tok3n",
                duration=timedelta(seconds=7),
                question_responses=(QuestionResponse("Who?", "Tok3n"),),
                recordings=(RecordingMeta(3, link="https://h.example/listen/Tok3n?k=Tok3n"),),
            ),
        ),
    ),
    Broadcast(
        1,
        type=BroadcastType.TEXT,
        status=BroadcastStatus.RUNNING,
        config=TextBroadcastConfig(
            from_number=NUMBER, message="Tok3n", retry_config=RetryConfig(retry_results=(Result.BUSY,))
        ),
    ),
    Broadcast(1, config=VoiceBroadcastConfig(live_sound_text="Tok3n", transfer_number=NUMBER)),
    Webhook(
        1,
        resource=WebhookResource.OUTBOUND_TEXT,
        events=(WebhookEvent.FINISHED,),
        callback="https://h.example/callfire/Tok3n",
        secret="Tok3n",
    ),
    WebhookResourceInfo(WebhookResource("NewResource"), (WebhookEvent.STARTED,)),
    Media(1, public_url="https://h.example/media/Tok3n"),
    ContactList(1, name="Customers"),
    DeliveryReport(1, text_id=2, from_number=NUMBER, to_number=NUMBER),
]
each_model = pytest.mark.parametrize("value", MODELS, ids=lambda value: type(value).__name__)
each_enum = pytest.mark.parametrize("kind", ENUMS)


@each_model
@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_a_model_can_be_copied_and_pickled(value, copied):
    """The copy is equal and has the same hash."""
    duplicate = copied(value)

    assert duplicate == value
    assert hash(duplicate) == hash(value)


@each_model
def test_a_model_is_immutable(value):
    """Setting an attribute raises."""
    name = attrs.fields(type(value))[0].name

    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(value, name, None)


@each_model
def test_a_repr_has_no_private_data(value):
    """It has no phone number, message or token."""
    assert NUMBER not in repr(value)
    assert "Tok3n" not in repr(value)


def test_the_repr_of_a_subscription():
    """Private parts are masked; all other values are shown."""
    assert repr(MODELS[0]) == (
        "Subscription(id=1, enabled=None, endpoint='https://h.example/callfire/***', non_strict_ssl=None, "
        "notification_format=<NotificationFormat.NEW: 'NEW'>, "
        "trigger_event=<TriggerEvent.CAMPAIGN_STARTED: 'CAMPAIGN_STARTED'>, "
        "filter=SubscriptionFilter(broadcast_id=5, batch_id=None, from_number='***12', to_number='***12', "
        "inbound=None), expires_at=None)"
    )


def test_a_redacted_string_has_its_value_but_not_in_its_repr():
    """A mapping that is printed shows the `repr`."""
    secret = RedactedStr("Tok3n")

    assert secret == "Tok3n"
    assert f"{ {'token': secret} }" == "{'token': '***'}"


@pytest.mark.parametrize(
    ("number", "masked"),
    [
        (None, "None"),
        ("", "'***'"),
        ("12", "'***'"),
        ("18", "'***'"),
        ("123", "'***3'"),
        ("67076", "'***76'"),
        ("+1 (213) 555-1212", "'***12'"),
        ("12135551212", "'***12'"),
        ("67076:KEYWORD", "'***76'"),
        ("withheld", "'***'"),
    ],
)
def test_a_masked_number_has_its_last_two_digits(number, masked):
    """A number of two digits is masked completely."""
    assert masked_number(number) == masked


@pytest.mark.parametrize(
    ("text", "masked"),
    [(None, "None"), ("", "''"), ("hello", "'***'"), ((), "()"), ((("a", "b"),), "'***'")],
)
def test_a_masked_text_shows_only_whether_it_is_empty(text, masked):
    """None and empty values are not masked."""
    assert masked_text(text) == masked


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        ("NEW_ONE", "<Result.NEW_ONE: 'NEW_ONE'>"),
        ("a\nb", "<Result.a\\nb: 'a\\nb'>"),
        ("\x1b[31m", "<Result.\\x1b[31m: '\\x1b[31m'>"),
        ("\ud800\0", "<Result.\\ud800\\x00: '\\ud800\\x00'>"),
    ],
)
def test_an_unknown_value_can_be_printed(value, printed):
    """A postback can have any text: a line break would begin a log line, and half of a surrogate pair is an error."""
    assert repr(Result(value)) == printed


@pytest.mark.parametrize(
    ("endpoint", "masked"),
    [
        (None, "None"),
        ("", "'***'"),
        ("https://h.example", "'https://h.example'"),
        ("https://h.example/", "'https://h.example'"),
        ("https://h.example/Tok3n", "'https://h.example/***'"),
        ("https://h.example/callfire/Tok3n", "'https://h.example/callfire/***'"),
        ("https://h.example/callfire/Tok3n/", "'https://h.example/callfire/***'"),
        ("https://h.example:8443/a?key=Tok3n#Tok3n", "'https://h.example:8443/***?***#***'"),
        ("https://user:Tok3n@h.example/a", "'https://***@h.example/***'"),
        ("https://@h.example/a", "'https://@h.example/***'"),
        ("me@h.example", "'***@h.example'"),
        ("mailto:me@h.example", "'***@h.example'"),
        ("Tok3n", "'***'"),
        ("https://[::1", "'***'"),
    ],
)
def test_a_masked_endpoint_has_no_secret_parts(endpoint, masked):
    """Its last path segment, query, fragment, userinfo and mailbox name can be secret."""
    assert masked_endpoint(endpoint) == masked


@given(st.text(max_size=80))
def test_any_endpoint_can_be_masked(endpoint):
    """An endpoint may be any text."""
    assert masked_endpoint(endpoint).startswith(("'", '"'))


# --- open enumerations ------------------------------------------------------------------------------------


@each_enum
def test_a_known_value_is_its_member(kind):
    """It is found by its value, and equals its text."""
    for member in kind:
        assert kind(member.value) is member
        assert member == member.value == str(member)
        assert member.is_known


@each_enum
def test_an_unknown_value_is_kept(kind):
    """It equals its text, is marked as unknown, and can be copied, pickled and used as a key."""
    value = kind("NEW_ONE")

    assert value == "NEW_ONE" == str(value)
    assert (value.value, value.name, value.is_known) == ("NEW_ONE", "NEW_ONE", False)
    assert isinstance(value, kind)
    assert value == kind("NEW_ONE") == copy.deepcopy(value) == pickle.loads(pickle.dumps(value))
    assert {value: 1}["NEW_ONE"] == 1
    assert repr(value) == f"<{kind.__name__}.NEW_ONE: 'NEW_ONE'>"


@each_enum
def test_an_unknown_value_does_not_become_a_member(kind):
    """It is still unknown when it is created again."""
    kind("NEW_ONE")

    assert "NEW_ONE" not in list(kind)
    assert not kind("NEW_ONE").is_known


@each_enum
@pytest.mark.parametrize("wrong", ["", None, 1, b"READY"])
def test_empty_and_non_text_values_are_rejected(kind, wrong):
    """Only text can be an unknown value."""
    with pytest.raises(ValueError, match="is not a valid"):
        kind(wrong)


def test_every_published_value_is_a_member():
    """The values are those of CallFire's reference."""
    assert " ".join(TriggerEvent) == (
        "UNDEFINED_EVENT INBOUND_CALL_FINISHED INBOUND_TEXT_FINISHED OUTBOUND_CALL_FINISHED "
        "OUTBOUND_TEXT_FINISHED CAMPAIGN_STARTED CAMPAIGN_STOPPED CAMPAIGN_FINISHED"
    )
    assert " ".join(NotificationFormat) == "XML JSON SOAP EMAIL LEGACY"
    assert [len(kind) for kind in (ActionState, Result, BroadcastStatus, BroadcastType)] == [12, 20, 16, 4]


def test_every_public_model_has_a_docstring():
    """The reference page is generated from the docstrings."""
    assert not [name for name in models.__all__ if not vars(models)[name].__doc__]


@pytest.mark.parametrize(
    ("kind", "value", "member"),
    [
        (WebhookEvent, "finished", WebhookEvent.FINISHED),
        (WebhookEvent, "VALIDATIONFAILED", WebhookEvent.VALIDATION_FAILED),
        (WebhookResource, "outboundText", WebhookResource.OUTBOUND_TEXT),
    ],
)
def test_names_of_webhooks_ignore_case(kind, value, member):
    """CallFire's guide and its API differ in the case of these names."""
    assert kind(value) is member


def test_an_unknown_name_of_a_webhook_keeps_its_case():
    """It is sent to CallFire as it was given."""
    assert WebhookResource("newResource") == "newResource"
    assert not WebhookResource("newResource").is_known


@pytest.mark.parametrize("value", ["", None, 3])
def test_a_name_of_a_webhook_is_text(value):
    """An empty name is not a value."""
    with pytest.raises(ValueError, match="is not a valid WebhookEvent"):
        WebhookEvent(value)


def test_each_resource_has_its_events():
    """The table of events is complete, so that a webhook can be created for all events of a resource."""
    assert set(WEBHOOK_EVENTS) == set(WebhookResource)
    assert all(WEBHOOK_EVENTS.values())
