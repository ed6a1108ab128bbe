"""
Which subscriptions an account is to have, compared with those that it has.

No input or output: `Subscriptions.plan` reads the account, `Subscriptions.apply` changes it. It imports `errors`,
`models` and `_protocol`.
"""

import re
from collections.abc import Callable, Container, Hashable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

from attrs import Factory, asdict, field, fields, frozen

from callfire_async.client._operations.api_1_1 import comparable_number, create_subscription
from callfire_async.errors import CallFireError
from callfire_async.models import (
    NotificationFormat,
    Subscription,
    SubscriptionFilter,
    TriggerEvent,
    masked_endpoint,
    masked_number,
)

__all__ = [
    "ApplyResult",
    "Owned",
    "Plan",
    "SpecMatch",
    "SubscriptionKey",
    "SubscriptionSpec",
    "TokenMatcher",
    "compare",
    "index_specs",
    "key_of",
]

K = TypeVar("K", bound=Hashable)

Owned: TypeAlias = Callable[[Subscription], bool]

# What an update can say of a subscription whose trigger and filter are right.
_DETAILS = ("endpoint", "notification_format", "enabled", "non_strict_ssl")


# A last segment that may be a token, and what stands around it.
_ENDPOINT = re.compile(
    r"(?P<folder>https?://[^?#]+)/(?P<segment>[\w-]+)/*(?P<query>(?:[?#].*)?)", re.ASCII | re.IGNORECASE
)
_FILTER = tuple(field.name for field in fields(SubscriptionFilter))


class _EndpointKey(NamedTuple):
    """Where a subscription posts, without its token, whether it had one, and what makes it post."""

    endpoint: str
    has_token: bool
    trigger_event: str


class SubscriptionKey(NamedTuple):
    """What makes a subscription the one that it is."""

    place: _EndpointKey
    filter: frozenset[tuple[str, object]]


class TokenMatcher(Protocol):
    """What recognises the token at the end of an endpoint, as `EndpointTokens` does."""

    def verify(self, token: str | None) -> bool:
        """Tell whether this is one of the tokens."""
        ...


@frozen
class SubscriptionSpec:
    """
    A subscription that an account is to have.

    Args:
        endpoint: A URL, best made by `EndpointTokens.url`, or an e-mail address.
        trigger_event: What is posted.
        filter: Which texts, calls or campaigns it is for; all, unless given.
        notification_format: None is CallFire's default (XML) where it is created, and no matter where it is there.
        enabled: Whether CallFire posts to it.
        non_strict_ssl: Whether CallFire skips certificate checks when it posts.

    Raises:
        ValueError: The endpoint is empty, or an id in the filter is below 1.
    """

    endpoint: str = field(repr=masked_endpoint)
    trigger_event: TriggerEvent
    filter: SubscriptionFilter | None = None
    notification_format: NotificationFormat | None = None
    enabled: bool = True
    non_strict_ssl: bool = False

    def __attrs_post_init__(self) -> None:
        """Refuse what a create would refuse, before anything is sent."""
        create_subscription(asdict(self, recurse=False))


@frozen
class SpecMatch:
    """A spec, and the subscription that is to be as it says."""

    spec: SubscriptionSpec
    subscription: Subscription
    #: The fields in which they differ. What the spec leaves open, or CallFire did not tell, is no difference.
    changed: tuple[str, ...] = field(
        init=False, default=Factory(lambda match: _differences(match.spec, match.subscription), takes_self=True)
    )

    @property
    def is_updatable(self) -> bool:
        """Whether an update can say it: one cannot take a field out of a filter."""
        return _normalized_filter(self.subscription.filter).keys() <= _normalized_filter(self.spec.filter).keys()


def _differences(spec: SubscriptionSpec, subscription: Subscription) -> tuple[str, ...]:
    details = tuple(name for name in _DETAILS if _differ(getattr(spec, name), getattr(subscription, name)))
    return (
        details if _normalized_filter(spec.filter) == _normalized_filter(subscription.filter) else (*details, "filter")
    )


def _differ(wanted: object, found: object) -> bool:
    if isinstance(wanted, str) and isinstance(found, str):
        return wanted.strip() != found.strip()
    return wanted is not None and found is not None and wanted != found


@frozen
class Plan:
    """
    What stands between an account and what it is to be; printed, it reads like a diff and shows no secret.

    Attributes:
        create: What is not there.
        update: What is there and differs.
        replace: What is there and differs in a way that an update cannot say (it cannot take a field out of a
            filter): the new one is created, then this one deleted.
        delete: What is owned and not wanted; nothing, unless it is pruned.
        unchanged: What is there as it is to be.
        duplicates: What is there twice, beside one of the above: each posts every event once more. Those among them
            that are owned are in *delete* too where it is pruned.
        unmanaged: What no spec names and nothing is to happen to.
        tokens: By which endpoints were compared.
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
        """Whether there is nothing to do."""
        return not (self.create or self.update or self.replace or self.delete)

    def __str__(self) -> str:
        """Show a line for each that is to be created +, updated ~, replaced ±, deleted - and left =; then a sum."""
        deleted, extra = ({one.id for one in group} for group in (self.delete, self.duplicates))
        kept = (one for one in self.duplicates if one.id not in deleted)
        lines = [
            *(f"+ {_describe(spec)}" for spec in self.create),
            *(f"~ {_change_worded(match)}" for match in self.update),
            *(f"± {_change_worded(match)}" for match in self.replace),
            *(f"- {one.id} {_describe(one)}{': a duplicate' if one.id in extra else ''}" for one in self.delete),
            *(f"= {match.subscription.id} {_describe(match.subscription)}" for match in self.unchanged),
            *(f"= {one.id} {_describe(one)}: a duplicate" for one in kept),
        ]
        return "\n".join([*lines, self._sum()])

    def _sum(self) -> str:
        counts = {
            "to create": self.create,
            "to update": self.update,
            "to replace": self.replace,
            "to delete": self.delete,
            "as wanted": self.unchanged,
            "there twice": self.duplicates,
            "of others": self.unmanaged,
        }
        return ", ".join(f"{len(found)} {name}" for name, found in counts.items() if found) or "nothing"


@frozen
class ApplyResult:
    """
    What came of a plan.

    Attributes:
        ids: The id of the subscription of each spec, for all that are there now.
        errors: What was raised, by the spec, or by the subscription that was to be deleted. A spec can be in both:
            an update failed, or the deletion of the one that was replaced.
    """

    ids: Mapping[SubscriptionSpec, int]
    errors: Mapping[SubscriptionSpec | Subscription, CallFireError]


# --- comparing --------------------------------------------------------------------------------------------


def index_specs(
    specs: Iterable[SubscriptionSpec], tokens: TokenMatcher | None
) -> dict[SubscriptionKey, SubscriptionSpec]:
    """Take each spec once; ValueError where two say different things of one subscription."""
    wanted: dict[SubscriptionKey, SubscriptionSpec] = {}
    for spec in specs:
        first = wanted.setdefault(key_of(spec, tokens), spec)
        if any(getattr(first, name) != getattr(spec, name) for name in _DETAILS):
            raise ValueError(f"two specs must not say different things of one subscription: {first} and {spec}")
    return wanted


def compare(
    wanted: Mapping[SubscriptionKey, SubscriptionSpec],
    found: Iterable[Subscription],
    *,
    tokens: TokenMatcher | None = None,
    prune: bool = False,
    owned: Owned | None = None,
) -> Plan:
    """
    Compare what is wanted with what is there, in time that grows with the sum of both.

    Args:
        wanted: The specs, from `index_specs`.
        found: All that the account has.
        tokens: See `Subscriptions.plan`, as for what follows.
        prune: See there.
        owned: See there.
    """
    there = [(key_of(item, tokens), item) for item in found]
    ours = frozenset(item.id for (place, _), item in there if (owned(item) if owned else place.has_token))
    rest = _grouped(there)
    matches, missing, duplicates = _match_existing(wanted, rest, ours)
    unclaimed = [(key.place, item) for key, group in rest.items() for item in group]
    prunable = ours if prune else frozenset()
    moved, create, unwanted = _pair_replacements(missing, _grouped(one for one in unclaimed if one[1].id in prunable))
    different = [*(match for match in matches if match.changed), *moved]
    return Plan(
        create=tuple(create),
        update=tuple(match for match in different if match.is_updatable),
        replace=tuple(match for match in different if not match.is_updatable),
        delete=(*unwanted, *(extra for extra in duplicates if extra.id in prunable)),
        unchanged=tuple(match for match in matches if not match.changed),
        duplicates=tuple(duplicates),
        unmanaged=tuple(item for _, item in unclaimed if item.id not in prunable),
        tokens=tokens,
    )


def key_of(one: SubscriptionSpec | Subscription, tokens: TokenMatcher | None) -> SubscriptionKey:
    """Return what makes a subscription the one that it is: two with the same are the same."""
    endpoint = (one.endpoint or "").strip()
    without = _without_token(endpoint, tokens) if tokens else None
    place = _EndpointKey(endpoint if without is None else without, without is not None, one.trigger_event or "")
    return SubscriptionKey(place, frozenset(_normalized_filter(one.filter).items()))


def _without_token(endpoint: str, tokens: TokenMatcher) -> str | None:
    """Take off a last segment that is one of the tokens; None where it is not."""
    parts = _ENDPOINT.fullmatch(endpoint)
    return parts["folder"] + parts["query"] if parts and tokens.verify(parts["segment"]) else None


def _normalized_filter(filter: SubscriptionFilter | None) -> dict[str, Any]:
    """Return what a filter says by the names of its fields, worded so that what means the same is the same."""
    said = {name: getattr(filter, name) for name in _FILTER} if filter else {}
    for name in ("from_number", "to_number"):
        if said.get(name):
            said[name] = comparable_number(said[name])
    return {name: value for name, value in said.items() if value not in (None, "")}


def _grouped(items: Iterable[tuple[K, Subscription]]) -> dict[K, list[Subscription]]:
    groups: dict[K, list[Subscription]] = {}
    for key, item in items:
        groups.setdefault(key, []).append(item)
    return groups


def _match_existing(
    wanted: Mapping[SubscriptionKey, SubscriptionSpec],
    there: dict[SubscriptionKey, list[Subscription]],
    ours: Container[int],
) -> tuple[list[SpecMatch], list[tuple[_EndpointKey, SubscriptionSpec]], list[Subscription]]:
    """Take out of *there* what is wanted; return the matches, the specs without one, and what is there twice."""
    matches: list[SpecMatch] = []
    missing: list[tuple[_EndpointKey, SubscriptionSpec]] = []
    duplicates: list[Subscription] = []
    for key, spec in wanted.items():
        group = [SpecMatch(spec, item) for item in there.pop(key, ())]
        if not group:
            missing.append((key.place, spec))
            continue
        # The least to do first, so that the next plan chooses the same one; then one that would be deleted else.
        best = min(group, key=lambda match: (len(match.changed), match.subscription.id not in ours))
        matches.append(best)
        duplicates += [match.subscription for match in group if match is not best]
    return matches, missing, duplicates


def _pair_replacements(
    missing: Iterable[tuple[_EndpointKey, SubscriptionSpec]], spare: dict[_EndpointKey, list[Subscription]]
) -> tuple[list[SpecMatch], list[SubscriptionSpec], list[Subscription]]:
    """Match what is to be made with what is to go, where only the filter differs; return what remains of both."""
    matches: list[SpecMatch] = []
    create: list[SubscriptionSpec] = []
    for place, spec in missing:
        if group := spare.get(place):
            matches.append(SpecMatch(spec, group.pop()))
        else:
            create.append(spec)
    return matches, create, [item for group in spare.values() for item in group]


# --- printing ---------------------------------------------------------------------------------------------


def _describe(one: SubscriptionSpec | Subscription) -> str:
    """Word what a subscription is: trigger, endpoint and filter, masked."""
    words = f"{one.trigger_event} to {_endpoint_worded(one.endpoint)}"
    return f"{words} where {_filter_worded(one.filter)}" if _normalized_filter(one.filter) else words


def _endpoint_worded(endpoint: str | None) -> str:
    return masked_endpoint(endpoint).strip("'\"")


def _filter_worded(filter: SubscriptionFilter | None) -> str:
    masks = {"from_number": masked_number, "to_number": masked_number}
    words = (f"{name}={masks.get(name, str)(value)}" for name, value in _normalized_filter(filter).items())
    return ", ".join(words) or "all"


def _change_worded(match: SpecMatch) -> str:
    changes = (_field_worded(name, match) for name in match.changed)
    return f"{match.subscription.id} {_describe(match.subscription)}: {'; '.join(changes)}"


def _field_worded(name: str, match: SpecMatch) -> str:
    if name == "endpoint":
        # It is the same without its token, or the two would be no match.
        return "another token"
    word = _filter_worded if name == "filter" else str
    return f"{name} {word(getattr(match.subscription, name))} -> {word(getattr(match.spec, name))}"
