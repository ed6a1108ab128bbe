"""
Compare the subscriptions that an account should have with those that it has, without I/O.

`Subscriptions.plan` reads the account, `Subscriptions.apply` changes it.
"""

import re
from collections.abc import Callable, Container, Hashable, Iterable, Mapping
from inspect import isawaitable, iscoroutinefunction
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

from attrs import Factory, asdict, field, fields, frozen

from callfire_async.client._operations.api_1_1 import comparable_number, create_subscription
from callfire_async.errors import CallFireError
from callfire_async.models import (
    NotificationFormat,
    Subscription,
    SubscriptionFilter,
    TriggerEvent,
    checked_boolean,
    masked_endpoint,
    masked_number,
    wrong_type,
)

__all__ = [
    "ApplyResult",
    "Owned",
    "Plan",
    "SpecMatch",
    "SubscriptionKey",
    "SubscriptionSpec",
    "TokenMatcher",
    "check_plan_options",
    "checked_specs",
    "compare",
    "index_specs",
    "key_of",
]

K = TypeVar("K", bound=Hashable)

Owned: TypeAlias = Callable[[Subscription], bool]

# The fields that do not identify a subscription; an update can change all of them.
_UPDATABLE_FIELDS = ("endpoint", "notification_format", "enabled", "non_strict_ssl")
_FILTER_FIELDS = tuple(attribute.name for attribute in fields(SubscriptionFilter))

# A URL whose last segment can be a token.
_ENDPOINT = re.compile(
    r"(?P<base>https?://[^?#]+)/(?P<segment>[\w-]+)/*(?P<query>(?:[?#].*)?)", re.ASCII | re.IGNORECASE
)


class _EndpointKey(NamedTuple):
    """The endpoint without its token, whether it had one, and the trigger event."""

    endpoint: str
    has_token: bool
    trigger_event: str


class SubscriptionKey(NamedTuple):
    """The identity of a subscription: two with equal keys are the same."""

    endpoint_key: _EndpointKey
    filter: frozenset[tuple[str, object]]


class TokenMatcher(Protocol):
    """Recognizes the token at the end of an endpoint, as `EndpointTokens` does."""

    def verify(self, token: str | None) -> bool:
        """Return whether *token* is one of the tokens."""
        ...


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
    changed = [name for name in _UPDATABLE_FIELDS if _differ(getattr(spec, name), getattr(subscription, name))]
    if _normalized_filter(spec.filter) != _normalized_filter(subscription.filter):
        changed.append("filter")
    return tuple(changed)


def _differ(desired: object, existing: object) -> bool:
    if isinstance(desired, str) and isinstance(existing, str):
        return desired.strip() != existing.strip()
    return desired is not None and existing is not None and desired != existing


@frozen
class Plan:
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

    create: tuple[SubscriptionSpec, ...] = ()
    update: tuple[SpecMatch, ...] = ()
    replace: tuple[SpecMatch, ...] = ()
    delete: tuple[Subscription, ...] = ()
    unchanged: tuple[SpecMatch, ...] = ()
    duplicates: tuple[Subscription, ...] = ()
    unmanaged: tuple[Subscription, ...] = ()
    tokens: TokenMatcher | None = field(default=None, repr=False, eq=False)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to change."""
        return not (self.create or self.update or self.replace or self.delete)

    def __str__(self) -> str:
        """Return a line for each subscription to create +, update ~, replace ±, delete - or keep =, and the counts."""
        deleted, duplicates = ({item.id for item in group} for group in (self.delete, self.duplicates))
        kept = [item for item in self.duplicates if item.id not in deleted]
        lines = [
            *(f"+ {_describe(spec)}" for spec in self.create),
            *(f"~ {_describe_change(match)}" for match in self.update),
            *(f"± {_describe_change(match)}" for match in self.replace),
            *(f"- {item.id} {_describe(item)}{': duplicate' if item.id in duplicates else ''}" for item in self.delete),
            *(f"= {match.subscription.id} {_describe(match.subscription)}" for match in self.unchanged),
            *(f"= {item.id} {_describe(item)}: duplicate" for item in kept),
        ]
        return "\n".join([*lines, self._counts()])

    def _counts(self) -> str:
        counts = {
            "to create": self.create,
            "to update": self.update,
            "to replace": self.replace,
            "to delete": self.delete,
            "unchanged": self.unchanged,
            "duplicate": self.duplicates,
            "unmanaged": self.unmanaged,
        }
        return ", ".join(f"{len(items)} {name}" for name, items in counts.items() if items) or "no subscriptions"


@frozen
class ApplyResult:
    """
    The result of applying a plan.

    Attributes:
        ids: The subscription ID of each spec that exists now.
        errors: The errors, by the spec, or by the subscription that should be deleted. A spec can be in both: an
            update failed, or the deletion of the subscription that was replaced.
    """

    ids: Mapping[SubscriptionSpec, int]
    errors: Mapping[SubscriptionSpec | Subscription, CallFireError]


# --- arguments --------------------------------------------------------------------------------------------


def checked_specs(specs: Iterable[SubscriptionSpec]) -> tuple[SubscriptionSpec, ...]:
    """Return the specs, or raise TypeError if *specs* are not specs."""
    if isinstance(specs, SubscriptionSpec):
        raise TypeError("specs must be SubscriptionSpec objects, not a single SubscriptionSpec: pass a list")
    if not isinstance(specs, Iterable):
        raise wrong_type("specs", "SubscriptionSpec objects", specs)
    items = tuple(specs)
    for index, item in enumerate(items):
        if not isinstance(item, SubscriptionSpec):
            raise wrong_type(f"specs[{index}]", "a SubscriptionSpec", item)
    return items


def check_plan_options(*, tokens: TokenMatcher | None, prune: bool, owned: Owned | None) -> None:
    """Raise TypeError for a wrong option of a plan."""
    if tokens is not None and (isinstance(tokens, type) or not callable(getattr(tokens, "verify", None))):
        raise wrong_type("tokens", "EndpointTokens", tokens)
    checked_boolean("prune", prune)
    if owned is not None and not callable(owned):
        raise wrong_type("owned", "a function of a subscription", owned)
    if iscoroutinefunction(owned):
        raise TypeError("owned must be a function of a subscription that is not async")


def _is_owned(owned: Callable[[Subscription], object], subscription: Subscription) -> bool:
    result = owned(subscription)
    if isawaitable(result):
        # An awaitable is true, so pruning would delete every subscription.
        raise wrong_type("owned", "a function that returns True or False", result)
    return bool(result)


# --- comparison -------------------------------------------------------------------------------------------


def index_specs(
    specs: Iterable[SubscriptionSpec], tokens: TokenMatcher | None
) -> dict[SubscriptionKey, SubscriptionSpec]:
    """Return the specs by key, each once, or raise ValueError if two conflict."""
    indexed: dict[SubscriptionKey, SubscriptionSpec] = {}
    for spec in specs:
        first = indexed.setdefault(key_of(spec, tokens), spec)
        if any(getattr(first, name) != getattr(spec, name) for name in _UPDATABLE_FIELDS):
            raise ValueError(f"conflicting specs for the same subscription: {first} and {spec}")
    return indexed


def compare(
    specs: Mapping[SubscriptionKey, SubscriptionSpec],
    subscriptions: Iterable[Subscription],
    *,
    tokens: TokenMatcher | None = None,
    prune: bool = False,
    owned: Owned | None = None,
) -> Plan:
    """
    Compare specs with an account, in linear time.

    Args:
        specs: The specs, from `index_specs`.
        subscriptions: All subscriptions of the account.
        tokens: See `Subscriptions.plan`, as for all further parameters.
        prune: See there.
        owned: See there.
    """
    keyed = [(key_of(item, tokens), item) for item in subscriptions]
    owned_ids = frozenset(
        item.id for key, item in keyed if (_is_owned(owned, item) if owned else key.endpoint_key.has_token)
    )
    prunable = owned_ids if prune else frozenset[int]()
    groups = _grouped(keyed)
    matches, missing, duplicates = _match_existing(specs, groups, owned_ids)
    unmatched = [(key.endpoint_key, item) for key, group in groups.items() for item in group]
    moved, create, unwanted = _pair_replacements(
        missing, _grouped(pair for pair in unmatched if pair[1].id in prunable)
    )
    different = [*(match for match in matches if match.changed), *moved]
    return Plan(
        create=tuple(create),
        update=tuple(match for match in different if match.is_updatable),
        replace=tuple(match for match in different if not match.is_updatable),
        delete=(*unwanted, *(item for item in duplicates if item.id in prunable)),
        unchanged=tuple(match for match in matches if not match.changed),
        duplicates=tuple(duplicates),
        unmanaged=tuple(item for _, item in unmatched if item.id not in prunable),
        tokens=tokens,
    )


def key_of(item: SubscriptionSpec | Subscription, tokens: TokenMatcher | None) -> SubscriptionKey:
    """Return the identity of a spec or subscription; *tokens* are not part of it."""
    endpoint = (item.endpoint or "").strip()
    base = _without_token(endpoint, tokens) if tokens else None
    endpoint_key = _EndpointKey(endpoint if base is None else base, base is not None, item.trigger_event or "")
    return SubscriptionKey(endpoint_key, frozenset(_normalized_filter(item.filter).items()))


def _without_token(endpoint: str, tokens: TokenMatcher) -> str | None:
    """Return *endpoint* without its last segment, or None if that is not a token."""
    parts = _ENDPOINT.fullmatch(endpoint)
    return parts["base"] + parts["query"] if parts and tokens.verify(parts["segment"]) else None


def _normalized_filter(filter: SubscriptionFilter | None) -> dict[str, Any]:
    """Return the fields that a filter sets, with comparable numbers."""
    values = {name: getattr(filter, name) for name in _FILTER_FIELDS} if filter else {}
    for name in ("from_number", "to_number"):
        if values.get(name):
            values[name] = comparable_number(values[name])
    return {name: value for name, value in values.items() if value not in (None, "")}


def _grouped(items: Iterable[tuple[K, Subscription]]) -> dict[K, list[Subscription]]:
    groups: dict[K, list[Subscription]] = {}
    for key, item in items:
        groups.setdefault(key, []).append(item)
    return groups


def _match_existing(
    specs: Mapping[SubscriptionKey, SubscriptionSpec],
    groups: dict[SubscriptionKey, list[Subscription]],
    owned_ids: Container[int],
) -> tuple[list[SpecMatch], list[tuple[_EndpointKey, SubscriptionSpec]], list[Subscription]]:
    """Move subscriptions with a spec out of *groups*; return the matches, the specs without one, and duplicates."""
    matches: list[SpecMatch] = []
    missing: list[tuple[_EndpointKey, SubscriptionSpec]] = []
    duplicates: list[Subscription] = []
    for key, spec in specs.items():
        group = [SpecMatch(spec, item) for item in groups.pop(key, ())]
        if not group:
            missing.append((key.endpoint_key, spec))
            continue
        # The one with the fewest changes, so that the next plan chooses the same one; of those, one that pruning
        # would delete otherwise.
        best = min(group, key=lambda match: (len(match.changed), match.subscription.id not in owned_ids))
        matches.append(best)
        duplicates += [match.subscription for match in group if match is not best]
    return matches, missing, duplicates


def _pair_replacements(
    missing: Iterable[tuple[_EndpointKey, SubscriptionSpec]], prunable: dict[_EndpointKey, list[Subscription]]
) -> tuple[list[SpecMatch], list[SubscriptionSpec], list[Subscription]]:
    """Match missing specs with prunable subscriptions that only differ in the filter; return the rest of both too."""
    matches: list[SpecMatch] = []
    create: list[SubscriptionSpec] = []
    for endpoint_key, spec in missing:
        if group := prunable.get(endpoint_key):
            matches.append(SpecMatch(spec, group.pop()))
        else:
            create.append(spec)
    return matches, create, [item for group in prunable.values() for item in group]


# --- text -------------------------------------------------------------------------------------------------


def _describe(item: SubscriptionSpec | Subscription) -> str:
    """Format trigger, endpoint and filter, masked."""
    endpoint = masked_endpoint(item.endpoint).strip("'\"")
    condition = f" where {_format_filter(item.filter)}" if _normalized_filter(item.filter) else ""
    return f"{item.trigger_event} to {endpoint}{condition}"


def _format_filter(filter: SubscriptionFilter | None) -> str:
    masks = {"from_number": masked_number, "to_number": masked_number}
    conditions = (f"{name}={masks.get(name, str)(value)}" for name, value in _normalized_filter(filter).items())
    return ", ".join(conditions) or "all"


def _describe_change(match: SpecMatch) -> str:
    changes = "; ".join(_format_change(name, match) for name in match.changed)
    return f"{match.subscription.id} {_describe(match.subscription)}: {changes}"


def _format_change(name: str, match: SpecMatch) -> str:
    if name == "endpoint":
        # The keys are equal, so only the tokens differ.
        return "new token"
    format_value = _format_filter if name == "filter" else str
    return f"{name} {format_value(getattr(match.subscription, name))} -> {format_value(getattr(match.spec, name))}"
