"""
Plan the migration from API 1.1 to v2, without I/O: the webhooks that replace an account's subscriptions.

`plan_migration` reads nothing from the account; `match_existing` adapts the plan's specs to the account's webhooks.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

from attrs import asdict, evolve, field, frozen

from callfire_async._arguments import check_methods
from callfire_async.client._plans.comparison import TokenMatcher
from callfire_async.client.webhook_plan import WebhookSpec
from callfire_async.models import (
    WEBHOOK_EVENTS,
    NotificationFormat,
    Subscription,
    TriggerEvent,
    Webhook,
    WebhookEvent,
    WebhookResource,
    masked_endpoint,
    masked_number,
    wrong_type,
)

__all__ = ["MigrationPlan", "MigrationStep", "match_existing", "plan_migration"]

_Watched = tuple[tuple[WebhookResource, ...], WebhookEvent]

_CAMPAIGNS = (WebhookResource.CALL_BROADCAST, WebhookResource.TEXT_BROADCAST, WebhookResource.CCC_CAMPAIGN)
_WATCHED: Mapping[TriggerEvent, _Watched] = MappingProxyType(
    {
        TriggerEvent.INBOUND_TEXT_FINISHED: ((WebhookResource.INBOUND_TEXT,), WebhookEvent.FINISHED),
        TriggerEvent.OUTBOUND_TEXT_FINISHED: ((WebhookResource.OUTBOUND_TEXT,), WebhookEvent.FINISHED),
        TriggerEvent.INBOUND_CALL_FINISHED: ((WebhookResource.INBOUND_CALL,), WebhookEvent.FINISHED),
        TriggerEvent.OUTBOUND_CALL_FINISHED: ((WebhookResource.OUTBOUND_CALL,), WebhookEvent.FINISHED),
        TriggerEvent.CAMPAIGN_STARTED: (_CAMPAIGNS, WebhookEvent.STARTED),
        TriggerEvent.CAMPAIGN_STOPPED: (_CAMPAIGNS, WebhookEvent.STOPPED),
        TriggerEvent.CAMPAIGN_FINISHED: (_CAMPAIGNS, WebhookEvent.FINISHED),
    }
)


@frozen
class MigrationStep:
    """
    A subscription, and the webhooks that replace it.

    Attributes:
        subscription: The subscription of API 1.1.
        specs: The webhooks that send the same events: three for a ``CAMPAIGN_*`` trigger, none for an e-mail address
            or an unknown trigger. They are disabled if the subscription is.
        limitations: What API v2 cannot express, in readable sentences; phone numbers are masked.
    """

    subscription: Subscription
    specs: tuple[WebhookSpec, ...] = ()
    limitations: tuple[str, ...] = ()

    @property
    def loses_filter(self) -> bool:
        """Whether the webhooks send events that the subscription's filter excludes."""
        return bool(self.specs and _filter_of(self.subscription))


@frozen
class MigrationPlan:
    """
    The webhooks that replace the subscriptions of an account; its text reads like a diff and contains no secret.

    Attributes:
        steps: A step for each subscription, in their order.
        tokens: The tokens to mask.
    """

    steps: tuple[MigrationStep, ...] = ()
    tokens: TokenMatcher | None = field(default=None, repr=False, eq=False)

    @property
    def specs(self) -> tuple[WebhookSpec, ...]:
        """
        The webhooks of all steps, merged by callback and resource.

        A merged webhook is enabled if one of its subscriptions is, and then it has only the events of the enabled ones.
        So create the webhooks before you disable a subscription, and plan no updates afterwards.
        """
        groups: dict[tuple[str, str], list[WebhookSpec]] = {}
        for step in self.steps:
            for spec in step.specs:
                groups.setdefault((spec.callback, spec.resource), []).append(spec)
        return tuple(map(_merged, groups.values()))

    def __str__(self) -> str:
        """Return a line for each subscription (- replaced, = not), limitation (!) and webhook (+), and the counts."""
        specs, limitations = self.specs, sum(len(step.limitations) for step in self.steps)
        counts = f"{len(self.steps)} subscriptions, {len(specs)} webhooks, {limitations} limitations"
        return "\n".join([*self._step_lines(), *(f"+ {self._describe_spec(spec)}" for spec in specs), counts])

    def _step_lines(self) -> Iterator[str]:
        for step in self.steps:
            yield f"{'-' if step.specs else '='} {self._describe_subscription(step.subscription)}"
            yield from (f"!   {limitation}" for limitation in step.limitations)

    def _describe_subscription(self, subscription: Subscription) -> str:
        state = ", disabled" if subscription.enabled is False else ""
        endpoint = self._masked(subscription.endpoint)
        return f"{subscription.id} {subscription.trigger_event} to {endpoint}{state}"

    def _describe_spec(self, spec: WebhookSpec) -> str:
        options = ("" if spec.enabled else ", disabled") + (", no certificate check" if spec.non_strict_ssl else "")
        return f"{spec.resource} {', '.join(spec.events or ())} to {self._masked(spec.callback)}{options}"

    def _masked(self, endpoint: str | None) -> str:
        """Return an endpoint without its last segment, and without a token in any other place."""
        verify = self.tokens.verify if self.tokens else lambda _: False
        shown = masked_endpoint(endpoint).strip("'\"")
        return re.sub(r"[\w-]+", lambda word: "***" if verify(word[0]) else word[0], shown, flags=re.ASCII)


def plan_migration(subscriptions: Iterable[Subscription], *, tokens: TokenMatcher | None = None) -> MigrationPlan:
    """
    Return the webhooks that replace subscriptions, and what webhooks cannot express.

    Nothing is sent or compared with the account's webhooks: pass the plan's specs to `Webhooks.ensure`, and disable the
    subscriptions afterwards.

    Args:
        subscriptions: Subscriptions of the account.
        tokens: The `EndpointTokens`, which the plan's text masks in every part of an endpoint. The last segment of an
            endpoint's path is always masked.

    Raises:
        TypeError: A parameter has the wrong type.
    """
    if tokens is not None:
        check_methods("tokens", tokens, ["verify"], "EndpointTokens")
    return MigrationPlan(tuple(map(_step, _checked_subscriptions(subscriptions))), tokens)


def _checked_subscriptions(subscriptions: Iterable[Subscription]) -> tuple[Subscription, ...]:
    if isinstance(subscriptions, Subscription) or not isinstance(subscriptions, Iterable):
        raise wrong_type("subscriptions", "an iterable of Subscription objects", subscriptions)
    items = tuple(subscriptions)
    for index, item in enumerate(items):
        if not isinstance(item, Subscription):
            raise wrong_type(f"subscriptions[{index}]", "a Subscription", item)
    return items


def match_existing(
    specs: Iterable[WebhookSpec], webhooks: Iterable[Webhook]
) -> Iterator[tuple[WebhookSpec, Webhook | None]]:
    """
    Yield each spec with the webhook of the account that has the same callback and resource.

    The spec keeps the events, the name and the certificate setting of the webhook. One that is not enabled keeps all of
    the webhook: its subscription may have been disabled because the webhook has replaced it. A webhook that posts once,
    expires, or posts only some keys cannot replace a subscription.
    """
    # The enabled one of several is the last one.
    suitable = sorted(filter(_can_replace, webhooks), key=lambda webhook: webhook.enabled is not False)
    existing = {(webhook.callback, webhook.resource): webhook for webhook in suitable}
    for spec in specs:
        webhook = existing.get((spec.callback, spec.resource))
        yield (spec if webhook is None else _keep(spec, webhook)), webhook


def _can_replace(webhook: Webhook) -> bool:
    return not (webhook.single_use or webhook.expires_at or webhook.fields)


def _keep(spec: WebhookSpec, webhook: Webhook) -> WebhookSpec:
    wanted = spec.events or () if spec.enabled else ()
    return evolve(
        spec,
        events=_ordered(spec.resource, {*webhook.events, *wanted}),
        name=webhook.name,
        enabled=spec.enabled or webhook.enabled is not False,
        non_strict_ssl=(spec.enabled and spec.non_strict_ssl) or bool(webhook.non_strict_ssl),
    )


# --- steps ------------------------------------------------------------------------------------------------


def _step(subscription: Subscription) -> MigrationStep:
    try:
        specs = tuple(_specs(subscription))
    except ValueError as error:
        return MigrationStep(subscription, limitations=(f"the endpoint cannot be a webhook's callback: {error}",))
    limitations = _limitations(subscription) if specs else _reasons_for_none(subscription)
    return MigrationStep(subscription, specs, tuple(limitations))


def _specs(subscription: Subscription) -> Iterator[WebhookSpec]:
    if not _is_url(subscription.endpoint):
        return
    resources, event = _WATCHED.get(subscription.trigger_event or TriggerEvent.UNDEFINED_EVENT, ((), None))
    for resource in resources:
        yield WebhookSpec(
            callback=(subscription.endpoint or "").strip(),
            resource=resource,
            events=(event,) if event else None,
            enabled=subscription.enabled is not False,
            non_strict_ssl=bool(subscription.non_strict_ssl),
        )


def _is_url(endpoint: str | None) -> bool:
    return (endpoint or "").strip().lower().startswith(("http://", "https://"))


def _merged(specs: list[WebhookSpec]) -> WebhookSpec:
    used = [spec for spec in specs if spec.enabled] or specs
    events = {event for spec in used for event in spec.events or ()}
    non_strict_ssl = any(spec.non_strict_ssl for spec in used)
    return evolve(used[0], events=_ordered(used[0].resource, events), non_strict_ssl=non_strict_ssl)


def _ordered(resource: WebhookResource, events: set[WebhookEvent]) -> tuple[WebhookEvent, ...]:
    """Return events in CallFire's order, unknown ones last."""
    known = WEBHOOK_EVENTS.get(resource, ())
    return (*(event for event in known if event in events), *sorted(events.difference(known)))


# --- limitations ------------------------------------------------------------------------------------------


def _reasons_for_none(subscription: Subscription) -> Iterator[str]:
    """Yield why a subscription has no webhook."""
    if not subscription.endpoint:
        yield "the endpoint is missing"
    elif not _is_url(subscription.endpoint):
        yield "the endpoint is an e-mail address: a webhook posts to a URL only"
    if subscription.trigger_event not in _WATCHED:
        yield f"no webhook event corresponds to the trigger {subscription.trigger_event}"


def _limitations(subscription: Subscription) -> Iterator[str]:
    if filter_fields := _filter_of(subscription):
        yield _filter_limitation(subscription, filter_fields)
    if subscription.notification_format not in (None, NotificationFormat.JSON):
        yield f"format {subscription.notification_format}: a webhook posts JSON only; a Receiver reads both"
    if subscription.expires_at:
        yield f"ends at {subscription.expires_at.isoformat()}: the webhook is created without an end, so delete it then"
    if subscription.enabled is False:
        yield "disabled: the webhook is created disabled, or without this event if an enabled subscription needs it"
    yield f"handlers registered with subscription_id={subscription.id} need webhook_id= with the id of the webhook"


def _filter_limitation(subscription: Subscription, filter_fields: Mapping[str, object]) -> str:
    trigger = _trigger(subscription)
    conditions = [text for name, value in filter_fields.items() for text in _conditions(trigger, name, value)]
    remedy = f": register the handler with where=lambda event: {' and '.join(conditions)}" if conditions else ""
    return f"filter on {', '.join(filter_fields)}, which a webhook does not have{remedy}"


def _filter_of(subscription: Subscription) -> dict[str, object]:
    """Return the fields of a filter, without one that agrees with the direction of the trigger, by name."""
    fields = asdict(subscription.filter) if subscription.filter else {}
    # A campaign is outbound.
    if fields.get("inbound") is _trigger(subscription).startswith("INBOUND_"):
        del fields["inbound"]
    return {name: value for name, value in fields.items() if value not in (None, "")}


def _trigger(subscription: Subscription) -> str:
    return subscription.trigger_event or ""


def _conditions(trigger: str, name: str, value: object) -> list[str]:
    """Return Python conditions for a field of a filter; none for a field that the events do not have."""
    subject = "event.text" if "TEXT" in trigger else "event.call"
    if trigger.startswith("CAMPAIGN_"):
        return _campaign_conditions(name, value)
    if name in ("from_number", "to_number"):
        return _number_conditions(subject, name, str(value))
    return [f"{subject}.{name} {'is' if name == 'inbound' else '=='} {value}"]


def _campaign_conditions(name: str, value: object) -> list[str]:
    config = "event.broadcast.config"
    return {
        "broadcast_id": [f"event.broadcast.id == {value}"],
        "from_number": [config, f"{config}.from_number == {masked_number(str(value))}"],
    }.get(name, [])


def _number_conditions(subject: str, name: str, value: str) -> list[str]:
    number, _, keyword = value.partition(":")
    condition = f"{subject}.{name} == {masked_number(number)}"
    # A keyword is the first word of a text's message, in any case.
    first_word = f"({subject}.message or '').casefold().split()[:1] == ['***']"
    return [condition, first_word] if keyword and subject == "event.text" else [condition]
