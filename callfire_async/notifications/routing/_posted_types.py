"""The types of the events that CallFire posts: by trigger for API 1.1, by resource and event for API v2."""

from callfire_async.models import WEBHOOK_EVENTS, Subscription, TriggerEvent, Webhook, WebhookEvent, WebhookResource
from callfire_async.notifications.events import (
    AccountNotification,
    CallFinished,
    CampaignFinished,
    CampaignStarted,
    CampaignStopped,
    ContactListValidationFailed,
    ContactListValidationFinished,
    DeliveryReportReceived,
    Notification,
    TextReceived,
    TextSent,
    UnknownNotification,
)

__all__ = ["TYPES_BY_TRIGGER", "TYPES_BY_WEBHOOK_EVENT", "types_posted_to"]

#: The most specific type of event for each trigger.
TYPES_BY_TRIGGER: dict[TriggerEvent, type[Notification]] = {
    TriggerEvent.INBOUND_CALL_FINISHED: CallFinished,
    TriggerEvent.INBOUND_TEXT_FINISHED: TextReceived,
    TriggerEvent.OUTBOUND_CALL_FINISHED: CallFinished,
    TriggerEvent.OUTBOUND_TEXT_FINISHED: TextSent,
    TriggerEvent.CAMPAIGN_STARTED: CampaignStarted,
    TriggerEvent.CAMPAIGN_STOPPED: CampaignStopped,
    TriggerEvent.CAMPAIGN_FINISHED: CampaignFinished,
}

_TYPES_BY_RESOURCE: dict[WebhookResource, type[Notification]] = {
    WebhookResource.OUTBOUND_CALL: CallFinished,
    WebhookResource.INBOUND_CALL: CallFinished,
    WebhookResource.OUTBOUND_TEXT: TextSent,
    WebhookResource.INBOUND_TEXT: TextReceived,
    WebhookResource.OUTBOUND_TEXT_DELIVERY_REPORT: DeliveryReportReceived,
    WebhookResource.MONTHLY_RENEWAL: AccountNotification,
    WebhookResource.LOW_BALANCE: AccountNotification,
}
# Of the other resources, which are three kinds of campaigns and contact lists.
_TYPES_BY_EVENT: dict[WebhookEvent, type[Notification]] = {
    WebhookEvent.STARTED: CampaignStarted,
    WebhookEvent.STOPPED: CampaignStopped,
    WebhookEvent.FINISHED: CampaignFinished,
    WebhookEvent.VALIDATION_FINISHED: ContactListValidationFinished,
    WebhookEvent.VALIDATION_FAILED: ContactListValidationFailed,
}

#: The most specific type for each event of each resource, as CallFire publishes them.
TYPES_BY_WEBHOOK_EVENT: dict[tuple[WebhookResource, WebhookEvent], type[Notification]] = {
    (resource, event): _TYPES_BY_RESOURCE.get(resource) or _TYPES_BY_EVENT[event]
    for resource, events in WEBHOOK_EVENTS.items()
    for event in events
}


def types_posted_to(source: Subscription | Webhook) -> tuple[type[Notification], ...]:
    """Return the most specific types of the events of a subscription or webhook, at least one."""
    if not isinstance(source, Webhook):
        return (TYPES_BY_TRIGGER.get(source.trigger_event or TriggerEvent.UNDEFINED_EVENT, UnknownNotification),)
    posted = [(source.resource, event) for event in source.events if source.resource]
    return tuple(TYPES_BY_WEBHOOK_EVENT.get(key, UnknownNotification) for key in posted) or (UnknownNotification,)
