"""
A sample event for each root of API 1.1 and for each event of API v2, with every known field, and its body.

``EVENTS`` maps the twelve roots of API 1.1 to their events; ``EVENTS_V2`` maps names such as ``OutboundText.Finished``.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from attrs import evolve

from callfire_async.models import (
    BroadcastType,
    CccBroadcastConfig,
    Media,
    Note,
    NotificationFormat,
    WebhookEvent,
    WebhookResource,
)
from callfire_async.notifications.encoding import ApiGeneration, SoapVersion, encode
from callfire_async.notifications.events import (
    CallFinished,
    Notification,
)
from callfire_async.notifications.parsing import parse
from callfire_async.testing._sample_events import (
    CALLED,
    CONFIG,
    CREATED,
    ENDED,
    FINISHED,
    MODIFIED,
    RECEIVED,
    SENT,
    STARTED,
    STOPPED,
    STOPPED_SOUNDS,
    UNDELIVERED,
)
from callfire_async.testing.factories import (
    WebhookFields,
    make_account_notification,
    make_contact_list_validation_failed,
    make_contact_list_validation_finished,
    make_delivery_report_received,
)

__all__ = ["EVENTS", "EVENTS_V2", "body"]

# The time at which the sampled texts were modified, for tests that change other times.
_MODIFIED = MODIFIED

_BY_ROOT: dict[str, Notification] = {
    "TextNotification": SENT,
    "TextSent": SENT,
    "TextReceived": RECEIVED,
    "TextFinished": UNDELIVERED,
    "CallFinished": CALLED,
    "BroadcastNotification": STARTED,
    "BroadcastStarted": STARTED,
    "BroadcastStopped": STOPPED,
    "BroadcastFinished": ENDED,
    "CampaignStarted": STARTED,
    "CampaignStopped": STOPPED_SOUNDS,
    "CampaignFinished": ENDED,
}

#: The event of each of the twelve roots, equal to what `parse` returns. The factories' ``payload`` is not kept.
EVENTS: Mapping[str, Notification] = MappingProxyType(
    {root: evolve(event, name=root, payload={}) for root, event in _BY_ROOT.items()}
)


# --- API v2 -----------------------------------------------------------------------------------------------

_WEBHOOK: WebhookFields = {"webhook_id": 7420003, "webhook_name": "all events", "occurred_at": FINISHED}
_PICTURE = Media(
    id=11301003,
    account_id=36003,
    name="coupon",
    created=CREATED,
    length_in_bytes=20481,
    media_type="JPEG",
    public_url="https://www.callfire.com/media/public/a1b2c3.jpg",
)


def _as_v2(event: Notification) -> Notification:
    """Return the event that a receiver makes of the same postback of API v2."""
    return parse(encode(evolve(event, subscription_id=None, **_WEBHOOK), api="v2")[1])


def _with_inbound_call(event: CallFinished) -> CallFinished:
    notes = (Note(text="Asked to be called in the evening.", created=FINISHED),)
    records = tuple(evolve(record, notes=notes) for record in event.call.records)
    return evolve(event, call=evolve(event.call, id=896807885003, inbound=True, records=records, notes=notes))


def _campaigns() -> Iterator[Notification]:
    """Yield each event of each kind of campaign."""
    for event in (STARTED, STOPPED, ENDED):
        for kind, config in _CONFIGS[type(event)].items():
            yield evolve(event, broadcast=evolve(event.broadcast, type=kind, config=config))


_CALL_CENTER = CccBroadcastConfig(
    **CONFIG,
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
    type(event): {BroadcastType.TEXT: STARTED.broadcast.config, kind: config, BroadcastType.CCC: _CALL_CENTER}
    for event, kind, config in (
        (STARTED, BroadcastType.VOICE, STOPPED.broadcast.config),
        (STOPPED, BroadcastType.VOICE, STOPPED.broadcast.config),
        (ENDED, BroadcastType.IVR, ENDED.broadcast.config),
    )
}
_V2_ONLY: list[Notification] = [
    make_contact_list_validation_finished(id=5801003, created=CREATED, **_WEBHOOK),
    make_contact_list_validation_failed(id=5802003, created=CREATED, **_WEBHOOK),
    make_delivery_report_received(
        # Larger than 2^53, as the IDs of real reports are.
        id=7420017300281076003,
        text_id=896807881003,
        broadcast_id=1838228001,
        account_id=36003,
        to_number="12135551212",
        reported_at=FINISHED,
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
            _as_v2(SENT),
            _as_v2(evolve(RECEIVED, text=evolve(RECEIVED.text, media=(_PICTURE,)))),
            _as_v2(CALLED),
            _as_v2(_with_inbound_call(CALLED)),
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
