"""Create events from the postbacks of API 1.1: the root, and then the content, determine the class."""

from collections.abc import Callable
from typing import Any

from callfire_async._codec import converters
from callfire_async._codec.model_reader import ConversionError
from callfire_async.models import Broadcast, BroadcastStatus, Call, Result, Text
from callfire_async.notifications.events import (
    CallFinished,
    CampaignFinished,
    CampaignNotification,
    CampaignStarted,
    CampaignStopped,
    Notification,
    TextFinished,
    TextNotification,
    TextReceived,
    TextSent,
    UnknownNotification,
    is_final,
    result_of,
)


def create_event(name: str, payload: dict[str, Any]) -> Notification:
    """
    Return the event for a root and its content.

    Raises:
        ConversionError: The text, call or broadcast is missing, or an id is missing or invalid.
    """
    return _EVENT_FACTORIES.get(name, _unknown)(name, payload)


def _unknown(name: str, payload: dict[str, Any]) -> Notification:
    return UnknownNotification(subscription_id=_subscription_id(payload), name=name, payload=payload)


def _subscription_id(payload: dict[str, Any]) -> int | None:
    # CallFire's reference has both spellings.
    name = "SubscriptionId" if "SubscriptionId" in payload else "subscriptionId"
    return converters.read_id(payload.get(name), name)


def _text(name: str, payload: dict[str, Any]) -> Notification:
    text, problems = converters.structure(Text, _subject(payload, "Text"), "Text")
    event_class = _TEXT_CLASSES.get(name) or _text_class(text)
    return event_class(
        subscription_id=_subscription_id(payload), name=name, problems=problems, payload=payload, text=text
    )


def _text_class(text: Text) -> type[TextNotification]:
    """Return the class of an event whose root does not determine it."""
    if not is_final(text):
        return TextNotification
    if text.inbound:
        return TextReceived
    return TextSent if result_of(text) == Result.SENT else TextFinished


def _call(name: str, payload: dict[str, Any]) -> Notification:
    call, problems = converters.structure(Call, _subject(payload, "Call"), "Call")
    return CallFinished(
        subscription_id=_subscription_id(payload), name=name, problems=problems, payload=payload, call=call
    )


def _campaign(name: str, payload: dict[str, Any]) -> Notification:
    broadcast, problems = converters.structure(Broadcast, _subject(payload, "Broadcast"), "Broadcast")
    event_class = _CAMPAIGN_CLASSES.get(name) or _CLASSES_BY_STATUS.get(broadcast.status or "", CampaignNotification)
    return event_class(
        subscription_id=_subscription_id(payload), name=name, problems=problems, payload=payload, broadcast=broadcast
    )


def _subject(payload: dict[str, Any], name: str) -> object:
    content = payload.get(name)
    if content is None:
        raise ConversionError((f"missing @ {name}",))
    return content[0] if isinstance(content, list) and len(content) == 1 else content


_TEXT_CLASSES: dict[str, type[TextNotification]] = {"TextSent": TextSent, "TextReceived": TextReceived}
_CAMPAIGN_CLASSES: dict[str, type[CampaignNotification]] = {
    "BroadcastStarted": CampaignStarted,
    "BroadcastStopped": CampaignStopped,
    "BroadcastFinished": CampaignFinished,
    "CampaignStarted": CampaignStarted,
    "CampaignStopped": CampaignStopped,
    "CampaignFinished": CampaignFinished,
}
_CLASSES_BY_STATUS: dict[str, type[CampaignNotification]] = {
    BroadcastStatus.RUNNING: CampaignStarted,
    BroadcastStatus.START_PENDING: CampaignStarted,
    BroadcastStatus.STOPPED: CampaignStopped,
    BroadcastStatus.FINISHED: CampaignFinished,
}
_EVENT_FACTORIES: dict[str, Callable[[str, dict[str, Any]], Notification]] = {
    **dict.fromkeys(["TextNotification", "TextFinished", *_TEXT_CLASSES], _text),
    "CallFinished": _call,
    **dict.fromkeys(["BroadcastNotification", *_CAMPAIGN_CLASSES], _campaign),
}
