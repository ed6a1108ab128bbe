"""
A sample event for each root of API 1.1 and for each event of API v2, with every known field, and its body.

``EVENTS`` maps the twelve roots of API 1.1 to their events; ``EVENTS_V2`` maps names such as ``OutboundText.Finished``.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from types import MappingProxyType
from typing import Any

from attrs import evolve

from callfire_async.models import (
    BroadcastType,
    CallRecord,
    CccBroadcastConfig,
    IvrBroadcastConfig,
    LocalTimeZoneRestriction,
    Media,
    Note,
    NotificationFormat,
    QuestionResponse,
    RecordingMeta,
    Result,
    RetryConfig,
    TextBroadcastConfig,
    TextRecord,
    VoiceBroadcastConfig,
    WebhookEvent,
    WebhookResource,
)
from callfire_async.notifications.encoding import ApiGeneration, SoapVersion, encode
from callfire_async.notifications.events import (
    CallFinished,
    Notification,
    TextNotification,
)
from callfire_async.notifications.parsing import parse
from callfire_async.testing.factories import (
    WebhookFields,
    make_account_notification,
    make_call_finished,
    make_campaign_finished,
    make_campaign_started,
    make_campaign_stopped,
    make_contact_list_validation_failed,
    make_contact_list_validation_finished,
    make_delivery_report_received,
    make_text_finished,
    make_text_received,
    make_text_sent,
)

__all__ = ["EVENTS", "EVENTS_V2", "body"]

_CREATED = datetime(2012, 10, 26, 21, 32, 52, tzinfo=UTC)
# CallFire sends texts that were modified a second before their creation.
_MODIFIED = _CREATED - timedelta(seconds=1)
_FINISHED = _CREATED + timedelta(seconds=40)


def _text(event: TextNotification, *records: TextRecord) -> TextNotification:
    return evolve(event, text=evolve(event.text, records=records))


def _call(event: CallFinished, *records: CallRecord) -> CallFinished:
    return evolve(event, call=evolve(event.call, records=records, agent_call=False))


_SENT = _text(
    make_text_sent(
        subscription_id=609951003,
        id=896807881003,
        from_number="67076",
        to_number="12135551212",
        to_number_attributes=(("ClientData", "order 1138"), ("Region", "west")),
        batch_id=4512001,
        broadcast_id=1838228001,
        contact_id=175791871003,
        created=_CREATED,
        modified=_MODIFIED,
        labels=("spring", "customers"),
    ),
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
)
_UNDELIVERED = _text(
    make_text_finished(
        result=Result.CARRIER_ERROR,
        subscription_id=609951003,
        id=896807882003,
        from_number="67076",
        to_number="12135551213",
        broadcast_id=1838228001,
        contact_id=175791872003,
        created=_CREATED,
        modified=_FINISHED,
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
            (537621188003, Result.CARRIER_TEMP_ERROR, _CREATED),
            (537621189003, Result.CARRIER_ERROR, _FINISHED),
        )
    ),
)
_RECEIVED = _text(
    make_text_received(
        subscription_id=609952003,
        id=896807883003,
        from_number="12135551214",
        to_number="67076",
        contact_id=175791873003,
        created=_CREATED,
        modified=_CREATED,
        message="KEYWORD yes, please\nand thank you",
    ),
    TextRecord(
        id=537621190003,
        result=Result.RECEIVED,
        finish_time=_CREATED,
        billed_amount=Decimal(0),
        message="KEYWORD yes, please\nand thank you",
    ),
)
_CALLED = _call(
    make_call_finished(
        subscription_id=609953003,
        id=896807884003,
        from_number="12135551215",
        to_number="12135551216",
        to_number_attributes=(("ClientData", "order 1139"),),
        batch_id=4512002,
        broadcast_id=1838229001,
        contact_id=175791874003,
        created=_CREATED,
        modified=_FINISHED,
        labels=("survey",),
    ),
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
)
#: Fields that the samples' configurations share.
_CONFIG: dict[str, Any] = {
    "created": _CREATED,
    "local_time_zone_restriction": LocalTimeZoneRestriction(begin_time=time(9), end_time=time(20, 30)),
    "retry_config": RetryConfig(
        max_attempts=3,
        minutes_between_attempts=5,
        retry_results=(Result.BUSY, Result.NO_ANS),
        retry_phone_types=("FIRST_NUMBER", "MOBILE_PHONE"),
    ),
}
_SOUNDS: dict[str, Any] = {
    "transfer_digit": "1",
    "transfer_number": "12135551217",
    "dnc_digit": "9",
    "max_active_transfers": 10,
}
_STARTED = make_campaign_started(
    subscription_id=609954003,
    id=1838228001,
    last_modified=_CREATED,
    labels=("spring", "customers"),
    config=TextBroadcastConfig(
        **_CONFIG,
        id=901003,
        from_number="67076",
        message="Your order is on its way.",
        big_message_strategy="SEND_MULTIPLE",
    ),
)
_STOPPED = make_campaign_stopped(
    subscription_id=609955003,
    id=1838229001,
    name="Reminders",
    last_modified=_FINISHED,
    type=BroadcastType.VOICE,
    config=VoiceBroadcastConfig(
        **_CONFIG,
        id=901004,
        from_number="12135551215",
        answering_machine_config="AM_AND_LIVE",
        **_SOUNDS,
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
_STOPPED_SOUNDS = evolve(
    _STOPPED,
    broadcast=evolve(
        _STOPPED.broadcast,
        config=VoiceBroadcastConfig(
            **_CONFIG,
            id=901006,
            from_number="12135551215",
            answering_machine_config="LIVE_IMMEDIATE",
            **_SOUNDS,
            live_sound_id=8800003,
            machine_sound_id=8801003,
            transfer_sound_id=8803003,
            dnc_sound_id=8802003,
        ),
    ),
)
_ENDED = make_campaign_finished(
    subscription_id=609956003,
    id=1838230001,
    name="Survey",
    last_modified=_FINISHED,
    type=BroadcastType.IVR,
    labels=("survey",),
    config=IvrBroadcastConfig(
        **_CONFIG,
        id=901005,
        from_number="12135551215",
        dialplan_xml='<dialplan name="Root"><play type="tts">Hello &amp; welcome</play></dialplan>',
    ),
)

_BY_ROOT: dict[str, Notification] = {
    "TextNotification": _SENT,
    "TextSent": _SENT,
    "TextReceived": _RECEIVED,
    "TextFinished": _UNDELIVERED,
    "CallFinished": _CALLED,
    "BroadcastNotification": _STARTED,
    "BroadcastStarted": _STARTED,
    "BroadcastStopped": _STOPPED,
    "BroadcastFinished": _ENDED,
    "CampaignStarted": _STARTED,
    "CampaignStopped": _STOPPED_SOUNDS,
    "CampaignFinished": _ENDED,
}

#: The event of each of the twelve roots, equal to what `parse` returns. The factories' ``payload`` is not kept.
EVENTS: Mapping[str, Notification] = MappingProxyType(
    {root: evolve(event, name=root, payload={}) for root, event in _BY_ROOT.items()}
)


# --- API v2 -----------------------------------------------------------------------------------------------

_WEBHOOK: WebhookFields = {"webhook_id": 7420003, "webhook_name": "all events", "occurred_at": _FINISHED}
_PICTURE = Media(
    id=11301003,
    account_id=36003,
    name="coupon",
    created=_CREATED,
    length_in_bytes=20481,
    media_type="JPEG",
    public_url="https://www.callfire.com/media/public/a1b2c3.jpg",
)


def _as_v2(event: Notification) -> Notification:
    """Return the event that a receiver makes of the same postback of API v2."""
    return parse(encode(evolve(event, subscription_id=None, **_WEBHOOK), api="v2")[1])


def _with_inbound_call(event: CallFinished) -> CallFinished:
    notes = (Note(text="Asked to be called in the evening.", created=_FINISHED),)
    records = tuple(evolve(record, notes=notes) for record in event.call.records)
    return evolve(event, call=evolve(event.call, id=896807885003, inbound=True, records=records, notes=notes))


def _campaigns() -> Iterator[Notification]:
    """Yield each event of each kind of campaign."""
    for event in (_STARTED, _STOPPED, _ENDED):
        for kind, config in _CONFIGS[type(event)].items():
            yield evolve(event, broadcast=evolve(event.broadcast, type=kind, config=config))


_CALL_CENTER = CccBroadcastConfig(
    **_CONFIG,
    from_number="12135551215",
    agent_group_id=149740003,
    smart_drop_sound_id=8804003,
    script_id=7705003,
    transfer_number_id_list=(6601003, 6602003),
    allow_any_transfer=True,
    transfer_caller_id="12135551218",
    recorded=True,
)
_CONFIGS: dict[type[Notification], dict[BroadcastType, Any]] = {
    type(event): {BroadcastType.TEXT: _STARTED.broadcast.config, kind: config, BroadcastType.CCC: _CALL_CENTER}
    for event, kind, config in (
        (_STARTED, BroadcastType.VOICE, _STOPPED.broadcast.config),
        (_STOPPED, BroadcastType.VOICE, _STOPPED.broadcast.config),
        (_ENDED, BroadcastType.IVR, _ENDED.broadcast.config),
    )
}
_V2_ONLY: list[Notification] = [
    make_contact_list_validation_finished(id=5801003, created=_CREATED, **_WEBHOOK),
    make_contact_list_validation_failed(id=5802003, created=_CREATED, **_WEBHOOK),
    make_delivery_report_received(
        # Larger than 2^53, as the IDs of real reports are.
        id=7420017300281076003,
        text_id=896807881003,
        broadcast_id=1838228001,
        account_id=36003,
        to_number="12135551212",
        reported_at=_FINISHED,
        **_WEBHOOK,
    ),
    *(
        make_account_notification(resource_type=resource, event_type=event, **_WEBHOOK)
        for resource in (WebhookResource.MONTHLY_RENEWAL, WebhookResource.LOW_BALANCE)
        for event in (WebhookEvent.FINISHED, WebhookEvent.FAILED)
    ),
]

#: The event of each resource and event of API v2, equal to what `parse` returns.
EVENTS_V2: Mapping[str, Notification] = MappingProxyType(
    {
        event.name: event
        for event in (
            _as_v2(_SENT),
            _as_v2(evolve(_RECEIVED, text=evolve(_RECEIVED.text, media=(_PICTURE,)))),
            _as_v2(_CALLED),
            _as_v2(_with_inbound_call(_CALLED)),
            *map(_as_v2, _campaigns()),
            *_V2_ONLY,
        )
    }
)
_BY_CLASS = {type(event).__name__: event for event in EVENTS_V2.values()}


def body(
    event: str | Notification,
    format: NotificationFormat | str | None = None,
    *,
    api: ApiGeneration = "1.1",
    soap_version: SoapVersion = "1.1",
) -> bytes:
    """
    Return the body that CallFire would post.

    Args:
        event: A name in `EVENTS`; for API v2 also one in `EVENTS_V2`, or that of a class; or an event.
        format: ``XML`` (the default), ``JSON`` or ``SOAP`` for API 1.1; ``JSON`` for API v2.
        api: ``1.1`` or ``v2``.
        soap_version: For ``SOAP`` only.

    Raises:
        KeyError: There is no sample with that name.
        ValueError: CallFire posts nothing in that format, or the API generation does not have the event.
    """
    chosen = _find(event, api) if isinstance(event, str) else event
    return encode(chosen, format, api=api, soap_version=soap_version)[1]


def _find(name: str, api: ApiGeneration) -> Notification:
    if api != "v2":
        return EVENTS[name]
    # A root of API 1.1 names a class too, but has the content of its own sample.
    return _as_v2(EVENTS[name]) if name in EVENTS else (EVENTS_V2.get(name) or _BY_CLASS[name])
