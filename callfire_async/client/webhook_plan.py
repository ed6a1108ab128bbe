"""
Compare the webhooks that an account should have with those that it has, without I/O.

`Webhooks.plan` reads the account, `Webhooks.apply` changes it.
"""

from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import ClassVar, TypeAlias
from warnings import warn

from attrs import Factory, asdict, evolve, field, frozen

from callfire_async.client._operations.api_2 import (
    checked_events,
    checked_resource,
    create_webhook,
    default_events,
    weak_secret_warning,
)
from callfire_async.client._plans.comparison import (
    BaseApplyResult,
    BasePlan,
    ResourceKey,
    ResourceKind,
    TokenMatcher,
    is_different,
    make_endpoint_key,
)
from callfire_async.models import Webhook, WebhookEvent, WebhookResource, masked_endpoint, masked_text

__all__ = [
    "WEBHOOKS",
    "WEBHOOKS_WITH_SECRETS",
    "OwnedWebhook",
    "TokenMatcher",
    "WebhookApplyResult",
    "WebhookMatch",
    "WebhookPlan",
    "WebhookSpec",
    "events_of",
    "key_of_webhook",
]

OwnedWebhook: TypeAlias = Callable[[Webhook], bool]

# The fields that do not identify a webhook, except for the events, whose order does not matter.
_UPDATABLE_FIELDS = ("callback", "name", "enabled", "secret", "single_use", "non_strict_ssl")


@frozen
class WebhookSpec:
    """
    A webhook that an account should have.

    Args:
        callback: A URL, best created with `EndpointTokens.url`.
        resource: The kind of resource to watch; a string in any case is accepted.
        events: The events to post; default: all events of the resource.
        name: None means no name for a new webhook, and any name for an existing one.
        enabled: Whether CallFire posts to the callback.
        secret: The key with which CallFire signs postbacks. None means no secret for a new webhook, and any secret for
            an existing one.
        single_use: Whether CallFire deletes the webhook after its first event.
        non_strict_ssl: Whether CallFire skips certificate checks when it posts.

    Raises:
        TypeError: A value has the wrong type.
        ValueError: The callback is not a URL, a value is empty, or *events* is None for a resource whose events are not
            known.

    A secret that is empty or has fewer than 16 characters causes a `UserWarning`: it can be guessed.
    """

    callback: str = field(repr=masked_endpoint)
    resource: WebhookResource = field(converter=checked_resource)
    events: tuple[WebhookEvent, ...] | None = field(default=None, converter=checked_events)
    name: str | None = None
    enabled: bool = True
    secret: str | None = field(default=None, repr=masked_text)
    single_use: bool = False
    non_strict_ssl: bool = False

    def __attrs_post_init__(self) -> None:
        """Raise the errors that a create would raise."""
        create_webhook(asdict(self, recurse=False))
        if warning := weak_secret_warning(self.secret):
            warn(warning, stacklevel=3)


def events_of(spec: WebhookSpec) -> tuple[WebhookEvent, ...]:
    """Return the events that a spec asks for."""
    return default_events(spec.resource) if spec.events is None else spec.events


@frozen
class WebhookMatch:
    """A spec and the existing webhook that should match it."""

    spec: WebhookSpec
    webhook: Webhook
    #: The fields that differ. A field that the spec leaves open, or that CallFire did not return, does not differ.
    changed: tuple[str, ...] = field(
        default=Factory(lambda match: _differences(match.spec, match.webhook), takes_self=True)
    )

    @property
    def is_updatable(self) -> bool:
        """Whether an update can make the changes: always, unlike those of a subscription."""
        return True


def _differences(spec: WebhookSpec, webhook: Webhook) -> tuple[str, ...]:
    changed = [name for name in _UPDATABLE_FIELDS if is_different(getattr(spec, name), getattr(webhook, name))]
    if set(events_of(spec)) != set(webhook.events):
        changed.append("events")
    return tuple(changed)


@frozen
class WebhookPlan(BasePlan[WebhookSpec, WebhookMatch, Webhook]):
    """
    The difference between an account and its specs; its text reads like a diff and contains no secret.

    Attributes:
        create: Specs without a webhook.
        update: Webhooks that differ from their spec. An update sends everything that the spec has, because it is not
            known whether CallFire keeps what an update leaves out.
        replace: Always empty: an update can express every difference.
        delete: Owned webhooks without a spec; empty without ``prune``.
        unchanged: Webhooks that match their spec.
        duplicates: Further webhooks for the same spec: each may post every event again. With ``prune``, those that are
            owned are in *delete* too.
        unmanaged: Webhooks without a spec that stay as they are.
        tokens: The tokens with which callbacks were compared.
    """

    _noun: ClassVar[str] = "webhook"

    @staticmethod
    def _existing(match: WebhookMatch) -> Webhook:
        return match.webhook

    def _describe(self, item: WebhookSpec | Webhook) -> str:
        events = events_of(item) if isinstance(item, WebhookSpec) else item.events
        return f"{item.resource} {_format_events(events)} to {masked_endpoint(item.callback).strip(_QUOTES)}"

    def _describe_change(self, name: str, match: WebhookMatch) -> str:
        if name == "callback":
            # The keys are equal, so only the tokens differ.
            return "new token"
        if name == "secret":
            return "secret is sent"
        if name == "events":
            return f"events {_format_events(match.webhook.events)} -> {_format_events(events_of(match.spec))}"
        return f"{name} {getattr(match.webhook, name)} -> {getattr(match.spec, name)}"


@frozen
class WebhookApplyResult(BaseApplyResult[WebhookSpec, Webhook]):
    """
    The result of applying a plan of webhooks.

    Attributes:
        ids: The webhook ID of each spec that exists now.
        errors: The errors, by the spec, or by the webhook that should be deleted. A spec can be in both if its update
            failed.
    """


_QUOTES = "'\""


def _format_events(events: Iterable[WebhookEvent]) -> str:
    return ", ".join(events) or "(no events)"


# --- comparison -------------------------------------------------------------------------------------------


def key_of_webhook(item: WebhookSpec | Webhook, tokens: TokenMatcher | None) -> ResourceKey:
    """Return the identity of a spec or webhook; *tokens* are not part of it."""
    return ResourceKey(make_endpoint_key(item.callback, item.resource, tokens))


def _has_conflict(first: WebhookSpec, second: WebhookSpec) -> bool:
    return set(events_of(first)) != set(events_of(second)) or any(
        getattr(first, name) != getattr(second, name) for name in _UPDATABLE_FIELDS
    )


def _match_with_secret(spec: WebhookSpec, webhook: Webhook) -> WebhookMatch:
    match = WebhookMatch(spec, webhook)
    is_sent = spec.secret is None or "secret" in match.changed
    return match if is_sent else evolve(match, changed=(*match.changed, "secret"))


#: How webhooks are compared.
WEBHOOKS = ResourceKind(
    noun="webhook",
    spec_class=WebhookSpec,
    key_of=key_of_webhook,
    match=WebhookMatch,
    existing_of=attrgetter("webhook"),
    plan_class=WebhookPlan,
    has_conflict=_has_conflict,
)
#: The same rules, with an update of each webhook whose spec has a secret.
WEBHOOKS_WITH_SECRETS = evolve(WEBHOOKS, match=_match_with_secret)
