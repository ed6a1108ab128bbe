"""
Compare the subscriptions that an account should have with those that it has, without I/O.

`Subscriptions.plan` reads the account, `Subscriptions.apply` changes it.
"""

from collections.abc import Callable
from operator import attrgetter
from typing import Any, ClassVar, TypeAlias

from attrs import Factory, asdict, field, fields, frozen

from callfire_async.client._operations.api_1_1 import create_subscription
from callfire_async.client._operations.validation import comparable_number
from callfire_async.client._plans.comparison import (
    BaseApplyResult,
    BasePlan,
    ResourceKey,
    ResourceKind,
    TokenMatcher,
    is_different,
    make_endpoint_key,
)
from callfire_async.models import (
    NotificationFormat,
    Subscription,
    SubscriptionFilter,
    TriggerEvent,
    masked_endpoint,
    masked_number,
)

__all__ = [
    "SUBSCRIPTIONS",
    "ApplyResult",
    "Owned",
    "Plan",
    "SpecMatch",
    "SubscriptionSpec",
    "TokenMatcher",
    "key_of",
]

Owned: TypeAlias = Callable[[Subscription], bool]

# The fields that do not identify a subscription; an update can change all of them.
_UPDATABLE_FIELDS = ("endpoint", "notification_format", "enabled", "non_strict_ssl")
_FILTER_FIELDS = tuple(attribute.name for attribute in fields(SubscriptionFilter))


@frozen
class SubscriptionSpec:
    """
    A subscription that an account should have.

    Args:
        endpoint: A URL, best created with `EndpointTokens.url`, or an e-mail address.
        trigger_event: The event to post.
        filter: The texts, calls or campaigns to post; default: all.
        notification_format: None means CallFire's default (XML) for a new subscription, and any format for an
            existing one.
        enabled: Whether CallFire posts to the endpoint.
        non_strict_ssl: Whether CallFire skips certificate checks when it posts.

    Raises:
        TypeError: A value has the wrong type.
        ValueError: The endpoint is empty, the trigger event or format is not in CallFire's form, or an ID in the
            filter is below 1.
    """

    endpoint: str = field(repr=masked_endpoint)
    trigger_event: TriggerEvent
    filter: SubscriptionFilter | None = None
    notification_format: NotificationFormat | None = None
    enabled: bool = True
    non_strict_ssl: bool = False

    def __attrs_post_init__(self) -> None:
        """Raise the errors that a create would raise."""
        create_subscription(asdict(self, recurse=False))


@frozen
class SpecMatch:
    """A spec and the existing subscription that should match it."""

    spec: SubscriptionSpec
    subscription: Subscription
    #: The fields that differ. A field that the spec leaves open, or that CallFire did not return, does not differ.
    changed: tuple[str, ...] = field(
        init=False, default=Factory(lambda match: _differences(match.spec, match.subscription), takes_self=True)
    )

    @property
    def is_updatable(self) -> bool:
        """Whether an update can make the changes: it cannot remove a field from a filter."""
        return _normalized_filter(self.subscription.filter).keys() <= _normalized_filter(self.spec.filter).keys()


def _differences(spec: SubscriptionSpec, subscription: Subscription) -> tuple[str, ...]:
    changed = [name for name in _UPDATABLE_FIELDS if is_different(getattr(spec, name), getattr(subscription, name))]
    if _normalized_filter(spec.filter) != _normalized_filter(subscription.filter):
        changed.append("filter")
    return tuple(changed)


@frozen
class Plan(BasePlan[SubscriptionSpec, SpecMatch, Subscription]):
    """
    The difference between an account and its specs; its text reads like a diff and contains no secret.

    Attributes:
        create: Specs without a subscription.
        update: Subscriptions that differ from their spec.
        replace: Subscriptions that differ in a way that an update cannot express (it cannot remove a field from a
            filter): the new one is created, then the old one is deleted.
        delete: Owned subscriptions without a spec; empty without ``prune``.
        unchanged: Subscriptions that match their spec.
        duplicates: Further subscriptions for the same spec: each posts every event again. With ``prune``, those that
            are owned are in *delete* too.
        unmanaged: Subscriptions without a spec that stay as they are.
        tokens: The tokens with which endpoints were compared.
    """

    _noun: ClassVar[str] = "subscription"

    @staticmethod
    def _existing(match: SpecMatch) -> Subscription:
        return match.subscription

    def _describe(self, item: SubscriptionSpec | Subscription) -> str:
        endpoint = masked_endpoint(item.endpoint).strip("'\"")
        condition = f" where {_format_filter(item.filter)}" if _normalized_filter(item.filter) else ""
        return f"{item.trigger_event} to {endpoint}{condition}"

    def _describe_change(self, name: str, match: SpecMatch) -> str:
        if name == "endpoint":
            # The keys are equal, so only the tokens differ.
            return "new token"
        format_value = _format_filter if name == "filter" else str
        return f"{name} {format_value(getattr(match.subscription, name))} -> {format_value(getattr(match.spec, name))}"


@frozen
class ApplyResult(BaseApplyResult[SubscriptionSpec, Subscription]):
    """
    The result of applying a plan.

    Attributes:
        ids: The subscription ID of each spec that exists now.
        errors: The errors, by the spec, or by the subscription that should be deleted. A spec can be in both: an
            update failed, or the deletion of the subscription that was replaced.
    """


def _format_filter(filter: SubscriptionFilter | None) -> str:
    masks = {"from_number": masked_number, "to_number": masked_number}
    conditions = (f"{name}={masks.get(name, str)(value)}" for name, value in _normalized_filter(filter).items())
    return ", ".join(conditions) or "all"


# --- comparison -------------------------------------------------------------------------------------------


def key_of(item: SubscriptionSpec | Subscription, tokens: TokenMatcher | None) -> ResourceKey:
    """Return the identity of a spec or subscription; *tokens* are not part of it."""
    endpoint_key = make_endpoint_key(item.endpoint, item.trigger_event, tokens)
    return ResourceKey(endpoint_key, frozenset(_normalized_filter(item.filter).items()))


def _normalized_filter(filter: SubscriptionFilter | None) -> dict[str, Any]:
    """Return the fields that a filter sets, with comparable numbers."""
    values = {name: getattr(filter, name) for name in _FILTER_FIELDS} if filter else {}
    for name in ("from_number", "to_number"):
        if values.get(name):
            values[name] = comparable_number(values[name])
    return {name: value for name, value in values.items() if value not in (None, "")}


def _has_conflict(first: SubscriptionSpec, second: SubscriptionSpec) -> bool:
    return any(getattr(first, name) != getattr(second, name) for name in _UPDATABLE_FIELDS)


#: How subscriptions are compared.
SUBSCRIPTIONS = ResourceKind(
    noun="subscription",
    spec_class=SubscriptionSpec,
    key_of=key_of,
    match=SpecMatch,
    existing_of=attrgetter("subscription"),
    plan_class=Plan,
    has_conflict=_has_conflict,
)
