"""The postbacks of a simulated run: each event is a finished text, and the ID of its text is the event's number."""

import json
from typing import Any

from simulation.settings import Settings

from callfire_async.notifications import Delivery, Postback


def events_of(number: int, settings: Settings) -> range:
    """Return the numbers of a postback's events."""
    return range(number * settings.events_per_postback, (number + 1) * settings.events_per_postback)


def make_postback(number: int, settings: Settings) -> Postback:
    """Return a postback of API 1.1, or an envelope of API v2 if a postback has several events."""
    content = _notification(number) if settings.events_per_postback == 1 else _envelope(events_of(number, settings))
    return Postback("POST", "", {"content-type": "application/json"}, json.dumps(content).encode())


def _notification(event: int) -> dict[str, Any]:
    return {"TextFinished": {"SubscriptionId": 7, "Text": {"@id": event, "State": "FINISHED"}}}


def _envelope(events: range) -> dict[str, Any]:
    parts = [{"eventType": "Finished", "resource": {"id": event, "state": "FINISHED"}} for event in events]
    return {"webhookId": 7, "resourceType": "OutboundText", "events": parts}


def delivery_keys(number: int, settings: Settings) -> dict[int, str]:
    """Return the key of the delivery of each event of a postback, by the event's number."""
    key = Delivery(make_postback(number, settings).body).key
    if settings.events_per_postback == 1:
        return {number: key}
    return {event: f"{key}/{index}" for index, event in enumerate(events_of(number, settings))}


def all_delivery_keys(settings: Settings) -> dict[int, str]:
    """Return the keys of the deliveries of all events of a run."""
    keys: dict[int, str] = {}
    for number in range(settings.postbacks):
        keys |= delivery_keys(number, settings)
    return keys
