"""
One posted body to one event: picks the event, and puts it round the model.

Pure and synchronous. It imports `_wire`, `_convert`, `errors` and `events`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from callfire_async._codec import converters, documents
from callfire_async.errors import InvalidNotificationError, MalformedNotificationError
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

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["parse"]


def parse(body: bytes | str, content_type: str | None = None) -> Notification:
    """
    Read a postback in XML, JSON or SOAP.

    Args:
        body: As it came.
        content_type: Its ``Content-Type``: a hint, the body decides.

    Returns:
        The event. A field that cannot be read is None, and named in its ``problems``.

    Raises:
        MalformedNotificationError: Neither XML nor JSON, or made to do harm.
        InvalidNotificationError: Well-formed, but not one named object; or of a known name without the text, call or
            broadcast that it is about, or with an id that cannot be read.
    """
    try:
        name, payload = documents.read(body, content_type)
        return _READERS.get(name, _unknown)(name, payload)
    except documents.UnexpectedDocumentError as error:
        raise InvalidNotificationError(f"{error} is not a notification") from None
    except documents.InvalidDocumentError as error:
        raise MalformedNotificationError(str(error)) from None
    except converters.ConversionError as error:
        raise InvalidNotificationError(f"not a notification: {error}", problems=error.problems) from None


def _unknown(name: str, payload: dict[str, Any]) -> Notification:
    return UnknownNotification(subscription_id=_subscription(payload), name=name, payload=payload)


def _subscription(payload: dict[str, Any]) -> int | None:
    # The reference spells it both ways.
    spelling = "SubscriptionId" if "SubscriptionId" in payload else "subscriptionId"
    return converters.read_id(payload.get(spelling), spelling)


def _text(name: str, payload: dict[str, Any]) -> Notification:
    text, problems = converters.structure(Text, _subject_of(payload, "Text"), "Text")
    return (_TEXT_KINDS.get(name) or _text_kind(text))(
        subscription_id=_subscription(payload), name=name, problems=problems, payload=payload, text=text
    )


def _text_kind(text: Text) -> type[TextNotification]:
    """Pick the kind of an event whose root says no more than that it is about a text."""
    if not is_final(text):
        return TextNotification
    if text.inbound:
        return TextReceived
    return TextSent if result_of(text) == Result.SENT else TextFinished


def _call(name: str, payload: dict[str, Any]) -> Notification:
    call, problems = converters.structure(Call, _subject_of(payload, "Call"), "Call")
    return CallFinished(
        subscription_id=_subscription(payload), name=name, problems=problems, payload=payload, call=call
    )


def _campaign(name: str, payload: dict[str, Any]) -> Notification:
    broadcast, problems = converters.structure(Broadcast, _subject_of(payload, "Broadcast"), "Broadcast")
    kind = _CAMPAIGN_KINDS.get(name) or _STATUS_KINDS.get(broadcast.status or "", CampaignNotification)
    return kind(
        subscription_id=_subscription(payload), name=name, problems=problems, payload=payload, broadcast=broadcast
    )


def _subject_of(payload: dict[str, Any], what: str) -> object:
    content = payload.get(what)
    if content is None:
        raise converters.ConversionError((f"missing @ {what}",))
    return content[0] if isinstance(content, list) and len(content) == 1 else content


_TEXT_KINDS: dict[str, type[TextNotification]] = {"TextSent": TextSent, "TextReceived": TextReceived}
_CAMPAIGN_KINDS: dict[str, type[CampaignNotification]] = {
    "BroadcastStarted": CampaignStarted,
    "BroadcastStopped": CampaignStopped,
    "BroadcastFinished": CampaignFinished,
    "CampaignStarted": CampaignStarted,
    "CampaignStopped": CampaignStopped,
    "CampaignFinished": CampaignFinished,
}
_STATUS_KINDS: dict[str, type[CampaignNotification]] = {
    BroadcastStatus.RUNNING: CampaignStarted,
    BroadcastStatus.START_PENDING: CampaignStarted,
    BroadcastStatus.STOPPED: CampaignStopped,
    BroadcastStatus.FINISHED: CampaignFinished,
}
_READERS: dict[str, Callable[[str, dict[str, Any]], Notification]] = {
    **dict.fromkeys(["TextNotification", "TextFinished", *_TEXT_KINDS], _text),
    "CallFinished": _call,
    **dict.fromkeys(["BroadcastNotification", *_CAMPAIGN_KINDS], _campaign),
}
