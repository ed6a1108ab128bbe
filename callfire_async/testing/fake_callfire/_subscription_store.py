"""The fake account's subscriptions, and CallFire's rules for changing them."""

from collections.abc import Mapping
from itertools import count

from attrs import fields

from callfire_async._codec import converters
from callfire_async.models import NotificationFormat, Subscription, SubscriptionFilter, TriggerEvent
from callfire_async.testing.fake_callfire._api_error import ApiErrorResponse
from callfire_async.testing.fake_callfire._request_ids import RequestIds

__all__ = ["SubscriptionStore"]

_FILTER_NAMES = [converters.wire_name(SubscriptionFilter, field.name) for field in fields(SubscriptionFilter)]
_DEFAULTS = {"Enabled": "true", "NonStrictSsl": "false", "NotificationFormat": "XML"}
_REQUIRED = ("TriggerEvent", "Endpoint", "NotificationFormat")
_ENUMS = {"TriggerEvent": TriggerEvent, "NotificationFormat": NotificationFormat}


class SubscriptionStore:
    """The subscriptions of one account."""

    def __init__(self, *, max_subscriptions: int, request_ids: RequestIds) -> None:
        self.subscriptions: dict[int, Subscription] = {}
        self._max_subscriptions = max_subscriptions
        self._request_ids = request_ids
        # CallFire's real IDs have this form.
        self._ids = count(609_951_003, 1000)

    def create(self, form: Mapping[str, str]) -> int:
        """Create a subscription; return its ID, or the ID created by an earlier request with the same ``RequestId``."""
        if (earlier_id := self._request_ids.find("create", form)) is not None:
            return earlier_id
        if len(self.subscriptions) >= self._max_subscriptions:
            raise ApiErrorResponse(400, f"An account has at most {self._max_subscriptions} subscriptions")
        subscription_id = next(self._ids)
        self.subscriptions[subscription_id] = _subscription(subscription_id, _DEFAULTS | dict(form))
        return self._request_ids.remember("create", form, subscription_id)

    def update(self, subscription_id: int, form: Mapping[str, str]) -> None:
        """Update the form's fields of a subscription, unless an earlier request had the same ``RequestId``."""
        before = self.get(subscription_id)
        operation = f"update {subscription_id}"
        if self._request_ids.find(operation, form) is None:
            self.subscriptions[subscription_id] = _subscription(subscription_id, _form(before) | dict(form))
            self._request_ids.remember(operation, form, subscription_id)

    def get(self, subscription_id: int) -> Subscription:
        """Return a subscription."""
        if subscription_id not in self.subscriptions:
            raise ApiErrorResponse(404, "Not Found")
        return self.subscriptions[subscription_id]

    def delete(self, subscription_id: int) -> None:
        """Delete a subscription."""
        del self.subscriptions[self.get(subscription_id).id]


def _subscription(subscription_id: int, form: Mapping[str, str]) -> Subscription:
    """Create a subscription from a form, which has the filter's fields at the top level."""
    for name in _REQUIRED:
        if not form.get(name):
            raise ApiErrorResponse(400, f"{name} is required")
    for name, enum in _ENUMS.items():
        if not enum(form[name]).is_known:
            raise ApiErrorResponse(400, f"{name} is unknown: {form[name]}")
    filter_fields = {name: form[name] for name in _FILTER_NAMES if form.get(name)}
    content = {"@id": subscription_id, **form, "SubscriptionFilter": filter_fields}
    subscription, problems = converters.structure(Subscription, content, "Subscription")
    if problems:
        raise ApiErrorResponse(400, ", ".join(problems))
    return subscription


def _form(subscription: Subscription) -> dict[str, str]:
    names = ("enabled", "endpoint", "non_strict_ssl", "notification_format", "trigger_event", "filter", "expires_at")
    return converters.form_fields({name: getattr(subscription, name) for name in names})
