"""The fake account's subscriptions, and CallFire's rules for changing them."""

from collections.abc import Mapping
from itertools import count
from typing import Literal

from attrs import fields

from callfire_async._codec import converters
from callfire_async.models import NotificationFormat, Subscription, SubscriptionFilter, TriggerEvent
from callfire_async.testing.fake_callfire._api_error import ApiErrorResponse

__all__ = ["RepeatedRequestId", "SubscriptionStore"]

#: How a repeated ``RequestId`` is treated: see `FakeCallFire`.
RepeatedRequestId = Literal["first", "ignored", "refused"]

_FILTER_NAMES = [converters.wire_name(SubscriptionFilter, field.name) for field in fields(SubscriptionFilter)]
_DEFAULTS = {"Enabled": "true", "NonStrictSsl": "false", "NotificationFormat": "XML"}
_REQUIRED = ("TriggerEvent", "Endpoint", "NotificationFormat")
_ENUMS = {"TriggerEvent": TriggerEvent, "NotificationFormat": NotificationFormat}


class SubscriptionStore:
    """The subscriptions of one account."""

    def __init__(self, *, max_subscriptions: int, repeated_request_id: RepeatedRequestId) -> None:
        self.subscriptions: dict[int, Subscription] = {}
        self._max_subscriptions = max_subscriptions
        self._repeated_request_id = repeated_request_id
        # CallFire's real IDs have this form.
        self._ids = count(609_951_003, 1000)
        self._request_ids: dict[tuple[str, str], int] = {}

    def create(self, form: Mapping[str, str]) -> int:
        """Create a subscription; return its ID, or the ID created by an earlier request with the same ``RequestId``."""
        if (earlier_id := self._find_earlier("create", form)) is not None:
            return earlier_id
        if len(self.subscriptions) >= self._max_subscriptions:
            raise ApiErrorResponse(400, f"An account has at most {self._max_subscriptions} subscriptions")
        subscription_id = next(self._ids)
        self.subscriptions[subscription_id] = _subscription(subscription_id, _DEFAULTS | dict(form))
        return self._remember("create", form, subscription_id)

    def update(self, subscription_id: int, form: Mapping[str, str]) -> None:
        """Update the form's fields of a subscription, unless an earlier request had the same ``RequestId``."""
        before = self.get(subscription_id)
        operation = f"update {subscription_id}"
        if self._find_earlier(operation, form) is None:
            self.subscriptions[subscription_id] = _subscription(subscription_id, _form(before) | dict(form))
            self._remember(operation, form, subscription_id)

    def get(self, subscription_id: int) -> Subscription:
        """Return a subscription."""
        if subscription_id not in self.subscriptions:
            raise ApiErrorResponse(404, "Not Found")
        return self.subscriptions[subscription_id]

    def delete(self, subscription_id: int) -> None:
        """Delete a subscription."""
        del self.subscriptions[self.get(subscription_id).id]

    def _find_earlier(self, operation: str, form: Mapping[str, str]) -> int | None:
        """Return the subscription ID of an earlier request with the same ``RequestId``, if its response is repeated."""
        earlier_id = self._request_ids.get((operation, form.get("RequestId", "")))
        if earlier_id is not None and self._repeated_request_id == "refused":
            raise ApiErrorResponse(400, "RequestId was used before")
        return earlier_id if self._repeated_request_id == "first" else None

    def _remember(self, operation: str, form: Mapping[str, str], subscription_id: int) -> int:
        if form.get("RequestId"):
            self._request_ids[operation, form["RequestId"]] = subscription_id
        return subscription_id


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
