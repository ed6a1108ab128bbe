"""The events of the samples, as API 1.1 sends them."""

from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from attrs import evolve

from callfire_async.models import (
    BroadcastType,
    CallRecord,
    IvrBroadcastConfig,
    LocalTimeZoneRestriction,
    QuestionResponse,
    RecordingMeta,
    Result,
    RetryConfig,
    TextBroadcastConfig,
    TextRecord,
    VoiceBroadcastConfig,
)
from callfire_async.notifications.events import (
    CallFinished,
    TextNotification,
)
from callfire_async.testing.factories import (
    make_call_finished,
    make_campaign_finished,
    make_campaign_started,
    make_campaign_stopped,
    make_text_finished,
    make_text_received,
    make_text_sent,
)

CREATED = datetime(2012, 10, 26, 21, 32, 52, tzinfo=UTC)
# CallFire sends texts that were modified a second before their creation.
MODIFIED = CREATED - timedelta(seconds=1)
FINISHED = CREATED + timedelta(seconds=40)


def _text(event: TextNotification, *records: TextRecord) -> TextNotification:
    return evolve(event, text=evolve(event.text, records=records))


def _call(event: CallFinished, *records: CallRecord) -> CallFinished:
    return evolve(event, call=evolve(event.call, records=records, agent_call=False))


SENT = _text(
    make_text_sent(
        subscription_id=609951003,
        id=896807881003,
        from_number="67076",
        to_number="12135551212",
        to_number_attributes=(("ClientData", "order 1138"), ("Region", "west")),
        batch_id=4512001,
        broadcast_id=1838228001,
        contact_id=175791871003,
        created=CREATED,
        modified=MODIFIED,
        labels=("spring", "customers"),
    ),
    TextRecord(
        id=537621187003,
        result=Result.SENT,
        finish_time=FINISHED,
        billed_amount=Decimal("1.5"),
        question_responses=(QuestionResponse(question="Content?", response="yes"),),
        switch_id="sw-17",
        caller_name="A. Customer",
        message="Your order is on its way.",
    ),
)
UNDELIVERED = _text(
    make_text_finished(
        result=Result.CARRIER_ERROR,
        subscription_id=609951003,
        id=896807882003,
        from_number="67076",
        to_number="12135551213",
        broadcast_id=1838228001,
        contact_id=175791872003,
        created=CREATED,
        modified=FINISHED,
    ),
    *(
        TextRecord(
            id=id_,
            result=result,
            finish_time=moment,
            billed_amount=Decimal(0),
            message="Your order is on its way.",
        )
        for id_, result, moment in (
            (537621188003, Result.CARRIER_TEMP_ERROR, CREATED),
            (537621189003, Result.CARRIER_ERROR, FINISHED),
        )
    ),
)
RECEIVED = _text(
    make_text_received(
        subscription_id=609952003,
        id=896807883003,
        from_number="12135551214",
        to_number="67076",
        contact_id=175791873003,
        created=CREATED,
        modified=CREATED,
        message="KEYWORD yes, please\nand thank you",
    ),
    TextRecord(
        id=537621190003,
        result=Result.RECEIVED,
        finish_time=CREATED,
        billed_amount=Decimal(0),
        message="KEYWORD yes, please\nand thank you",
    ),
)
CALLED = _call(
    make_call_finished(
        subscription_id=609953003,
        id=896807884003,
        from_number="12135551215",
        to_number="12135551216",
        to_number_attributes=(("ClientData", "order 1139"),),
        batch_id=4512002,
        broadcast_id=1838229001,
        contact_id=175791874003,
        created=CREATED,
        modified=FINISHED,
        labels=("survey",),
    ),
    CallRecord(
        id=537621191003,
        result=Result.LA,
        finish_time=FINISHED,
        billed_amount=Decimal("1.25"),
        question_responses=(
            QuestionResponse(question="Were you content?", response="1"),
            QuestionResponse(question="Would you come again?", response="2"),
        ),
        switch_id="sw-18",
        caller_name="A. Caller",
        originate_time=CREATED,
        answer_time=CREATED + timedelta(seconds=7),
        duration=timedelta(seconds=33),
        recordings=(
            RecordingMeta(
                id=7711003,
                name="answer",
                created=FINISHED,
                length=timedelta(seconds=12),
                link="https://www.callfire.com/cloud/1/recording/a1b2c3.mp3",
            ),
        ),
    ),
)
#: Fields that the samples' configurations share.
CONFIG: dict[str, Any] = {
    "created": CREATED,
    "local_time_zone_restriction": LocalTimeZoneRestriction(begin_time=time(9), end_time=time(20, 30)),
    "retry_config": RetryConfig(
        max_attempts=3,
        minutes_between_attempts=5,
        retry_results=(Result.BUSY, Result.NO_ANS),
        retry_phone_types=("FIRST_NUMBER", "MOBILE_PHONE"),
    ),
}
SOUNDS: dict[str, Any] = {
    "transfer_digit": "1",
    "transfer_number": "12135551217",
    "dnc_digit": "9",
    "max_active_transfers": 10,
}
STARTED = make_campaign_started(
    subscription_id=609954003,
    id=1838228001,
    last_modified=CREATED,
    labels=("spring", "customers"),
    config=TextBroadcastConfig(
        **CONFIG,
        id=901003,
        from_number="67076",
        message="Your order is on its way.",
        big_message_strategy="SEND_MULTIPLE",
    ),
)
STOPPED = make_campaign_stopped(
    subscription_id=609955003,
    id=1838229001,
    name="Reminders",
    last_modified=FINISHED,
    type=BroadcastType.VOICE,
    config=VoiceBroadcastConfig(
        **CONFIG,
        id=901004,
        from_number="12135551215",
        answering_machine_config="AM_AND_LIVE",
        **SOUNDS,
        live_sound_text="This is a reminder.",
        live_sound_text_voice="FEMALE1",
        machine_sound_text="Please call back.",
        machine_sound_text_voice="FEMALE1",
        transfer_sound_text="Hold the line.",
        transfer_sound_text_voice="MALE1",
        dnc_sound_text="You will not be called again.",
        dnc_sound_text_voice="FEMALE1",
    ),
    resume_next_day=True,
)
# A sound is either text or the id of a recorded one.
STOPPED_SOUNDS = evolve(
    STOPPED,
    broadcast=evolve(
        STOPPED.broadcast,
        config=VoiceBroadcastConfig(
            **CONFIG,
            id=901006,
            from_number="12135551215",
            answering_machine_config="LIVE_IMMEDIATE",
            **SOUNDS,
            live_sound_id=8800003,
            machine_sound_id=8801003,
            transfer_sound_id=8803003,
            dnc_sound_id=8802003,
        ),
    ),
)
ENDED = make_campaign_finished(
    subscription_id=609956003,
    id=1838230001,
    name="Survey",
    last_modified=FINISHED,
    type=BroadcastType.IVR,
    labels=("survey",),
    config=IvrBroadcastConfig(
        **CONFIG,
        id=901005,
        from_number="12135551215",
        dialplan_xml='<dialplan name="Root"><play type="tts">Hello &amp; welcome</play></dialplan>',
    ),
)
