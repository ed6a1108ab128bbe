"""
A sample of every notification of API 1.1, with every field that is known, and its bytes in every format.

``EVENTS`` has them by their roots, of which there are twelve.

It imports `models`, `notifications.events` and `encoding`.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from types import MappingProxyType

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
    Result,
    RetryConfig,
    Text,
    TextBroadcastConfig,
    TextRecord,
    VoiceBroadcastConfig,
)
from callfire_async.notifications.encoding import SoapVersion, encode
from callfire_async.notifications.events import (
    CallFinished,
    CampaignFinished,
    CampaignStarted,
    CampaignStopped,
    Notification,
    TextFinished,
    TextReceived,
    TextSent,
)

__all__ = ["EVENTS", "body"]

_CREATED = datetime(2012, 10, 26, 21, 32, 52, tzinfo=UTC)
# CallFire was seen to say this.
_MODIFIED = _CREATED - timedelta(seconds=1)
_FINISHED = _CREATED + timedelta(seconds=40)

_SENT = Text(
    id=896807881003,
    from_number="67076",
    to_number="12135551212",
    to_number_attributes=(("ClientData", "order 1138"), ("Region", "west")),
    state=ActionState.FINISHED,
    batch_id=4512001,
    broadcast_id=1838228001,
    contact_id=175791871003,
    inbound=False,
    created=_CREATED,
    modified=_MODIFIED,
    final_result=Result.SENT,
    labels=("spring", "customers"),
    records=(
        TextRecord(
            id=537621187003,
            result=Result.SENT,
            finish_time=_FINISHED,
            billed_amount=Decimal("1.5"),
            question_responses=(QuestionResponse(question="Content?", response="yes"),),
            switch_id="sw-17",
            caller_name="A. Customer",
            message="Your order is on its way.",
        ),
    ),
)
_UNDELIVERED = Text(
    id=896807882003,
    from_number="67076",
    to_number="12135551213",
    state=ActionState.FINISHED,
    broadcast_id=1838228001,
    contact_id=175791872003,
    inbound=False,
    created=_CREATED,
    modified=_FINISHED,
    final_result=Result.CARRIER_ERROR,
    records=(
        TextRecord(id=537621188003, result=Result.CARRIER_TEMP_ERROR, finish_time=_CREATED),
        TextRecord(id=537621189003, result=Result.CARRIER_ERROR, finish_time=_FINISHED),
    ),
)
_RECEIVED = Text(
    id=896807883003,
    from_number="12135551214",
    to_number="67076",
    state=ActionState.FINISHED,
    contact_id=175791873003,
    inbound=True,
    created=_CREATED,
    modified=_CREATED,
    final_result=Result.RECEIVED,
    message="KEYWORD yes, please\nand thank you",
    records=(
        TextRecord(
            id=537621190003,
            result=Result.RECEIVED,
            finish_time=_CREATED,
            billed_amount=Decimal(0),
            message="KEYWORD yes, please\nand thank you",
        ),
    ),
)
_CALL = Call(
    id=896807884003,
    from_number="12135551215",
    to_number="12135551216",
    to_number_attributes=(("ClientData", "order 1139"),),
    state=ActionState.FINISHED,
    batch_id=4512002,
    broadcast_id=1838229001,
    contact_id=175791874003,
    inbound=False,
    created=_CREATED,
    modified=_FINISHED,
    final_result=Result.LA,
    labels=("survey",),
    agent_call=False,
    records=(
        CallRecord(
            id=537621191003,
            result=Result.LA,
            finish_time=_FINISHED,
            billed_amount=Decimal("1.25"),
            question_responses=(
                QuestionResponse(question="Were you content?", response="1"),
                QuestionResponse(question="Would you come again?", response="2"),
            ),
            switch_id="sw-18",
            caller_name="A. Caller",
            originate_time=_CREATED,
            answer_time=_CREATED + timedelta(seconds=7),
            duration=timedelta(seconds=33),
            recordings=(
                RecordingMeta(
                    id=7711003,
                    name="answer",
                    created=_FINISHED,
                    length=timedelta(seconds=12),
                    link="https://www.callfire.com/cloud/1/recording/a1b2c3.mp3",
                ),
            ),
        ),
    ),
)
_RESTRICTION = LocalTimeZoneRestriction(begin_time=time(9), end_time=time(20, 30))
_RETRY = RetryConfig(
    max_attempts=3,
    minutes_between_attempts=5,
    retry_results=(Result.BUSY, Result.NO_ANS),
    retry_phone_types=("FIRST_NUMBER", "MOBILE"),
)
_TEXTS = Broadcast(
    id=1838228001,
    name="Spring",
    status=BroadcastStatus.RUNNING,
    last_modified=_CREATED,
    type=BroadcastType.TEXT,
    labels=("spring", "customers"),
    config=TextBroadcastConfig(
        id=901003,
        created=_CREATED,
        from_number="67076",
        local_time_zone_restriction=_RESTRICTION,
        retry_config=_RETRY,
        message="Your order is on its way.",
        big_message_strategy="SEND_MULTIPLE",
    ),
)
_VOICE = Broadcast(
    id=1838229001,
    name="Reminders",
    status=BroadcastStatus.STOPPED,
    last_modified=_FINISHED,
    type=BroadcastType.VOICE,
    config=VoiceBroadcastConfig(
        id=901004,
        created=_CREATED,
        from_number="12135551215",
        local_time_zone_restriction=_RESTRICTION,
        retry_config=_RETRY,
        answering_machine_config="AM_AND_LIVE",
        live_sound_text="This is a reminder.",
        live_sound_id=8800003,
        machine_sound_text="Please call back.",
        machine_sound_id=8801003,
        transfer_sound_text="Hold the line.",
        transfer_sound_id=8803003,
        transfer_digit="1",
        transfer_number="12135551217",
        dnc_sound_text="You will not be called again.",
        dnc_sound_id=8802003,
        dnc_digit="9",
        max_active_transfers=10,
    ),
)
_IVR = Broadcast(
    id=1838230001,
    name="Survey",
    status=BroadcastStatus.FINISHED,
    last_modified=_FINISHED,
    type=BroadcastType.IVR,
    labels=("survey",),
    config=IvrBroadcastConfig(
        id=901005,
        created=_CREATED,
        from_number="12135551215",
        local_time_zone_restriction=_RESTRICTION,
        retry_config=_RETRY,
        dialplan_xml='<dialplan name="Root"><play type="tts">Hello &amp; welcome</play></dialplan>',
    ),
)

#: An event for each of the twelve roots, by the root's name, as `parse` gives it back.
EVENTS: Mapping[str, Notification] = MappingProxyType(
    {
        "TextNotification": TextSent(name="TextNotification", subscription_id=609951003, text=_SENT),
        "TextSent": TextSent(subscription_id=609951003, text=_SENT),
        "TextReceived": TextReceived(subscription_id=609952003, text=_RECEIVED),
        "TextFinished": TextFinished(subscription_id=609951003, text=_UNDELIVERED),
        "CallFinished": CallFinished(subscription_id=609953003, call=_CALL),
        "BroadcastNotification": CampaignStarted(
            name="BroadcastNotification", subscription_id=609954003, broadcast=_TEXTS
        ),
        "BroadcastStarted": CampaignStarted(name="BroadcastStarted", subscription_id=609954003, broadcast=_TEXTS),
        "BroadcastStopped": CampaignStopped(name="BroadcastStopped", subscription_id=609955003, broadcast=_VOICE),
        "BroadcastFinished": CampaignFinished(name="BroadcastFinished", subscription_id=609956003, broadcast=_IVR),
        "CampaignStarted": CampaignStarted(subscription_id=609954003, broadcast=_TEXTS),
        "CampaignStopped": CampaignStopped(subscription_id=609955003, broadcast=_VOICE),
        "CampaignFinished": CampaignFinished(subscription_id=609956003, broadcast=_IVR),
    }
)


def body(
    event: str | Notification,
    format: NotificationFormat | str = NotificationFormat.XML,
    *,
    soap_version: SoapVersion = "1.1",
) -> bytes:
    """
    Return the body that CallFire would post.

    Args:
        event: The name of a root in `EVENTS`, or an event of your own.
        format: ``XML``, ``JSON`` or ``SOAP``.
        soap_version: For ``SOAP`` only.

    Raises:
        KeyError: There is no sample of that name.
        ValueError: Nothing is posted in that format.
    """
    chosen = EVENTS[event] if isinstance(event, str) else event
    return encode(chosen, format, soap_version=soap_version)[1]
