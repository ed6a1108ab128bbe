"""
What the fake CallFire remembers: the subscriptions of one account, and the rules for changing them.

It imports `models` and `_convert`.
"""

from collections.abc import Mapping
from itertools import count
from typing import Literal

from attrs import fields

from callfire_async._codec import converters
from callfire_async.models import NotificationFormat, Subscription, SubscriptionFilter, TriggerEvent

__all__ = ["ApiErrorResponse", "RepeatedRequestId", "SubscriptionStore"]

#: What is done with a ``RequestId`` that was used before.
RepeatedRequestId = Literal["first", "ignored", "refused"]

_FILTER = [converters.wire_name(SubscriptionFilter, field.name) for field in fields(SubscriptionFilter)]
_DEFAULTS = {"Enabled": "true", "NonStrictSsl": "false", "NotificationFormat": "XML"}
_REQUIRED = ("TriggerEvent", "Endpoint", "NotificationFormat")
_OPEN_SETS = {"TriggerEvent": TriggerEvent, "NotificationFormat": NotificationFormat}


class ApiErrorResponse(Exception):
    """A request that the account does not carry out, with the status and the words of the answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class SubscriptionStore:
    """The subscriptions of one account."""

    def __init__(self, *, max_subscriptions: int, repeated_request_id: RepeatedRequestId) -> None:
        self.subscriptions: dict[int, Subscription] = {}
        self._max_subscriptions = max_subscriptions
        self._repeated_request_id = repeated_request_id
        # CallFire's ids look like this.
        self._ids = count(609_951_003, 1000)
        self._requests: dict[tuple[str, str], int] = {}

    def create(self, form: Mapping[str, str]) -> int:
        """Add a subscription; return its id, or that of the one that the same ``RequestId`` made before."""
        if (first := self._first("create", form)) is not None:
            return first
        if len(self.subscriptions) >= self._max_subscriptions:
            raise ApiErrorResponse(400, f"An account has at most {self._max_subscriptions} subscriptions")
        subscription_id = next(self._ids)
        self.subscriptions[subscription_id] = _subscription(subscription_id, _DEFAULTS | dict(form))
        return self._remember("create", form, subscription_id)

    def update(self, subscription_id: int, form: Mapping[str, str]) -> None:
        """Change the fields of a subscription that the form names, unless the same ``RequestId`` did so before."""
        before = self.get(subscription_id)
        operation = f"update {subscription_id}"
        if self._first(operation, form) is None:
            self.subscriptions[subscription_id] = _subscription(subscription_id, _form_of(before) | dict(form))
            self._remember(operation, form, subscription_id)

    def get(self, subscription_id: int) -> Subscription:
        """Return one subscription."""
        if subscription_id not in self.subscriptions:
            raise ApiErrorResponse(404, f"Subscription {subscription_id} not found")
        return self.subscriptions[subscription_id]

    def delete(self, subscription_id: int) -> None:
        """Remove one subscription."""
        del self.subscriptions[self.get(subscription_id).id]

    def _first(self, operation: str, form: Mapping[str, str]) -> int | None:
        """Return what a request with this ``RequestId`` was about, where it is to be answered like that."""
        first = self._requests.get((operation, form.get("RequestId", "")))
        if first is not None and self._repeated_request_id == "refused":
            raise ApiErrorResponse(400, "RequestId was used before")
        return first if self._repeated_request_id == "first" else None

    def _remember(self, operation: str, form: Mapping[str, str], subscription_id: int) -> int:
        if form.get("RequestId"):
            self._requests[operation, form["RequestId"]] = subscription_id
        return subscription_id


def _subscription(subscription_id: int, form: Mapping[str, str]) -> Subscription:
    """Make a subscription of a form, in which the fields of its filter stand flat."""
    for name in _REQUIRED:
        if not form.get(name):
            raise ApiErrorResponse(400, f"{name} is required")
    for name, open_set in _OPEN_SETS.items():
        if not open_set(form[name]).is_known:
            raise ApiErrorResponse(400, f"{name} is unknown: {form[name]}")
    wanted = {name: form[name] for name in _FILTER if form.get(name)}
    content = {"@id": subscription_id, **form, "SubscriptionFilter": wanted}
    subscription, problems = converters.structure(Subscription, content, "Subscription")
    if problems:
        raise ApiErrorResponse(400, ", ".join(problems))
    return subscription


def _form_of(subscription: Subscription) -> dict[str, str]:
    names = ("enabled", "endpoint", "non_strict_ssl", "notification_format", "trigger_event", "filter")
    return converters.form_fields({name: getattr(subscription, name) for name in names})
