"""Compare the subscriptions or webhooks that an account should have with those that it has, without I/O."""

import re
from abc import abstractmethod
from collections.abc import Callable, Container, Hashable, Iterable, Mapping
from inspect import isawaitable, iscoroutinefunction
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

from attrs import field, frozen

from callfire_async.errors import CallFireError
from callfire_async.models import checked_boolean, type_name, wrong_type

# A URL whose last segment can be a token.
_ENDPOINT = re.compile(
    r"(?P<base>https?://[^?#]+)/(?P<segment>[\w-]+)/*(?P<query>(?:[?#].*)?)", re.ASCII | re.IGNORECASE
)


class TokenMatcher(Protocol):
    """Recognizes the token at the end of an endpoint, as `EndpointTokens` does."""

    def verify(self, token: str | None) -> bool:
        """Return whether *token* is one of the tokens."""
        ...


class EndpointKey(NamedTuple):
    """The endpoint without its token, whether it had one, and the trigger event or resource."""

    endpoint: str
    has_token: bool
    source: str


class ResourceKey(NamedTuple):
    """The identity of a subscription or webhook: two with equal keys are the same."""

    endpoint_key: EndpointKey
    filter: frozenset[tuple[str, object]] = frozenset()


def make_endpoint_key(endpoint: str | None, source: str | None, tokens: TokenMatcher | None) -> EndpointKey:
    """Return the part of a key without the filter; *tokens* are not part of it."""
    url = (endpoint or "").strip()
    base = _without_token(url, tokens) if tokens else None
    return EndpointKey(url if base is None else base, base is not None, source or "")


def _without_token(endpoint: str, tokens: TokenMatcher) -> str | None:
    """Return *endpoint* without its last segment, or None if that is not a token."""
    parts = _ENDPOINT.fullmatch(endpoint)
    return parts["base"] + parts["query"] if parts and tokens.verify(parts["segment"]) else None


def is_different(desired: object, existing: object) -> bool:
    """Return whether a field differs; one that the spec leaves open, or that CallFire did not return, does not."""
    if isinstance(desired, str) and isinstance(existing, str):
        return desired.strip() != existing.strip()
    return desired is not None and existing is not None and desired != existing


class _Compared(Protocol):
    """A spec and the existing resource that should match it."""

    @property
    def spec(self) -> Any: ...
    @property
    def changed(self) -> tuple[str, ...]: ...
    @property
    def is_updatable(self) -> bool: ...


class _Existing(Protocol):
    @property
    def id(self) -> int: ...


K = TypeVar("K", bound=Hashable)
S = TypeVar("S", bound=Hashable)  # a spec
M = TypeVar("M", bound=_Compared)  # a spec and the existing resource
R = TypeVar("R", bound=_Existing)  # an existing resource
P = TypeVar("P")  # a plan


@frozen
class BasePlan(Generic[S, M, R]):
    """The difference between an account and its specs; its text reads like a diff and contains no secret."""

    create: tuple[S, ...] = ()
    update: tuple[M, ...] = ()
    replace: tuple[M, ...] = ()
    delete: tuple[R, ...] = ()
    unchanged: tuple[M, ...] = ()
    duplicates: tuple[R, ...] = ()
    unmanaged: tuple[R, ...] = ()
    tokens: TokenMatcher | None = field(default=None, repr=False, eq=False)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to change."""
        return not (self.create or self.update or self.replace or self.delete)

    def __str__(self) -> str:
        """Return a line for each item to create +, update ~, replace ±, delete - or keep =, and the counts."""
        deleted = {item.id for item in self.delete}
        remarks = {item.id: ": duplicate" for item in self.duplicates}
        kept = [item for item in self.duplicates if item.id not in deleted]
        unchanged = map(self._existing, self.unchanged)
        lines = [
            *(f"+ {self._describe(spec)}" for spec in self.create),
            *(f"~ {self._describe_match(match)}" for match in self.update),
            *(f"± {self._describe_match(match)}" for match in self.replace),
            *(f"- {self._describe_existing(item)}{remarks.get(item.id, '')}" for item in self.delete),
            *(f"= {self._describe_existing(item)}" for item in unchanged),
            *(f"= {self._describe_existing(item)}: duplicate" for item in kept),
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
        listed = ", ".join(f"{len(items)} {name}" for name, items in counts.items() if items)
        return listed or f"no {self._noun}s"

    def _describe_existing(self, item: R) -> str:
        return f"{item.id} {self._describe(item)}"

    def _describe_match(self, match: M) -> str:
        changes = "; ".join(self._describe_change(name, match) for name in match.changed)
        return f"{self._describe_existing(self._existing(match))}: {changes}"

    # --- what differs between subscriptions and webhooks --------------------------------------------------

    _noun: ClassVar[str]

    @staticmethod
    @abstractmethod
    def _existing(match: M) -> R:
        """Return the existing resource of a match."""

    @abstractmethod
    def _describe(self, item: S | R) -> str:
        """Format a spec or an existing resource, masked."""

    @abstractmethod
    def _describe_change(self, name: str, match: M) -> str:
        """Format a field that differs, masked."""


@frozen
class BaseApplyResult(Generic[S, R]):
    """The result of applying a plan."""

    ids: Mapping[S, int]
    errors: Mapping[S | R, CallFireError]


@frozen
class ResourceKind(Generic[S, M, R, P]):
    """
    The differences between the rules for subscriptions and those for webhooks.

    Attributes:
        noun: The name of one of the resources in messages.
        spec_class: The class of specs.
        key_of: Returns the identity of a spec or an existing resource; tokens are not part of it.
        match: Creates a match.
        existing_of: Returns the existing resource of a match.
        plan_class: The class of plans.
        has_conflict: Whether two specs with equal keys differ.
    """

    noun: str
    spec_class: type[S]
    key_of: Callable[[S | R, TokenMatcher | None], ResourceKey]
    match: Callable[[S, R], M]
    existing_of: Callable[[M], R]
    plan_class: Callable[..., P]
    has_conflict: Callable[[S, S], bool]

    # --- arguments ----------------------------------------------------------------------------------------

    def checked_specs(self, specs: Iterable[S]) -> tuple[S, ...]:
        """Return the specs, or raise TypeError if *specs* are not specs."""
        name = self.spec_class.__name__
        if isinstance(specs, self.spec_class):
            raise TypeError(f"specs must be {name} objects, not a single {name}: pass a list")
        if not isinstance(specs, Iterable):
            raise wrong_type("specs", f"{name} objects", specs)
        items = tuple(specs)
        for index, item in enumerate(items):
            if not isinstance(item, self.spec_class):
                raise wrong_type(f"specs[{index}]", f"a {name}", item)
        return items

    def check_options(self, *, tokens: TokenMatcher | None, prune: bool, owned: Callable[[R], bool] | None) -> None:
        """Raise TypeError for a wrong option of a plan."""
        if tokens is not None and (isinstance(tokens, type) or not callable(getattr(tokens, "verify", None))):
            raise wrong_type("tokens", "EndpointTokens", tokens)
        checked_boolean("prune", prune)
        if owned is not None and not callable(owned):
            raise wrong_type("owned", f"a function of a {self.noun}", owned)
        if iscoroutinefunction(owned):
            raise TypeError(f"owned must be a function of a {self.noun} that is not async")

    def check_unpacked(self, specs: tuple[object, ...]) -> None:
        """Raise TypeError if the only positional argument is a list."""
        if specs and isinstance(specs[0], list | tuple):
            name = self.spec_class.__name__
            raise TypeError(f"specs[0] must be a {name}, not {type_name(specs[0])}: pass ensure(*specs)")

    def index_specs(self, specs: Iterable[S], tokens: TokenMatcher | None) -> dict[ResourceKey, S]:
        """Return the specs by key, each once, or raise ValueError if two conflict."""
        indexed: dict[ResourceKey, S] = {}
        for spec in specs:
            first = indexed.setdefault(self.key_of(spec, tokens), spec)
            if self.has_conflict(first, spec):
                raise ValueError(f"conflicting specs for the same {self.noun}: {first} and {spec}")
        return indexed

    # --- comparison ---------------------------------------------------------------------------------------

    def compare(
        self,
        specs: Mapping[ResourceKey, S],
        existing: Iterable[R],
        *,
        tokens: TokenMatcher | None = None,
        prune: bool = False,
        owned: Callable[[R], bool] | None = None,
    ) -> P:
        """
        Compare specs with an account, in linear time.

        Args:
            specs: The specs, from `index_specs`.
            existing: All resources of the account.
            tokens: See `Subscriptions.plan`.
            prune: See `Subscriptions.plan`.
            owned: See `Subscriptions.plan`.
        """
        keyed = [(self.key_of(item, tokens), item) for item in existing]
        owned_ids = frozenset(
            item.id for key, item in keyed if (_is_owned(owned, item) if owned else key.endpoint_key.has_token)
        )
        prunable = owned_ids if prune else frozenset[int]()
        groups = _grouped(keyed)
        matches, missing, duplicates = self._match_existing(specs, groups, owned_ids)
        unmatched = [(key.endpoint_key, item) for key, group in groups.items() for item in group]
        moved, create, unwanted = self._pair_replacements(
            missing, _grouped(pair for pair in unmatched if pair[1].id in prunable)
        )
        different = [*(match for match in matches if match.changed), *moved]
        return self.plan_class(
            create=tuple(create),
            update=tuple(match for match in different if match.is_updatable),
            replace=tuple(match for match in different if not match.is_updatable),
            delete=(*unwanted, *(item for item in duplicates if item.id in prunable)),
            unchanged=tuple(match for match in matches if not match.changed),
            duplicates=tuple(duplicates),
            unmanaged=tuple(item for _, item in unmatched if item.id not in prunable),
            tokens=tokens,
        )

    def _match_existing(
        self, specs: Mapping[ResourceKey, S], groups: dict[ResourceKey, list[R]], owned_ids: Container[int]
    ) -> tuple[list[M], list[tuple[EndpointKey, S]], list[R]]:
        """Move resources with a spec out of *groups*; return the matches, the specs without one, and duplicates."""
        matches: list[M] = []
        missing: list[tuple[EndpointKey, S]] = []
        duplicates: list[R] = []
        for key, spec in specs.items():
            group = [(self.match(spec, item), item) for item in groups.pop(key, ())]
            if not group:
                missing.append((key.endpoint_key, spec))
                continue
            # The one with the fewest changes, so that the next plan chooses the same one; of those, one that pruning
            # would delete otherwise.
            best = min(group, key=lambda pair: (len(pair[0].changed), pair[1].id not in owned_ids))
            matches.append(best[0])
            duplicates += [item for match, item in group if match is not best[0]]
        return matches, missing, duplicates

    def _pair_replacements(
        self, missing: Iterable[tuple[EndpointKey, S]], prunable: dict[EndpointKey, list[R]]
    ) -> tuple[list[M], list[S], list[R]]:
        """Match missing specs with prunable resources that only differ in the filter; return the rest of both too."""
        matches: list[M] = []
        create: list[S] = []
        for endpoint_key, spec in missing:
            if group := prunable.get(endpoint_key):
                matches.append(self.match(spec, group.pop()))
            else:
                create.append(spec)
        return matches, create, [item for group in prunable.values() for item in group]


def _is_owned(owned: Callable[[R], object], item: R) -> bool:
    result = owned(item)
    if isawaitable(result):
        # An awaitable is true, so pruning would delete everything.
        raise wrong_type("owned", "a function that returns True or False", result)
    return bool(result)


def _grouped(items: Iterable[tuple[K, R]]) -> dict[K, list[R]]:
    groups: dict[K, list[R]] = {}
    for key, item in items:
        groups.setdefault(key, []).append(item)
    return groups
