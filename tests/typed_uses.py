"""
Uses of the public names for mypy and pyright, which only check this module.

A use that must be rejected has an ignore comment with the error code; an unused ignore is an error, too.
"""

from collections.abc import Awaitable, Coroutine
from datetime import UTC, datetime
from typing import Any, assert_type

import httpx
import httpx2

from callfire_async import (
    ApplyResult,
    Call,
    CallFire,
    Connection,
    Page,
    Plan,
    ResourceReference,
    Result,
    Subscription,
    SubscriptionFilter,
    Subscriptions,
    SubscriptionSpec,
    Text,
    Texts,
    TriggerEvent,
    Webhook,
    WebhookApplyResult,
    WebhookEvent,
    WebhookMatch,
    WebhookPlan,
    WebhookResource,
    WebhookResourceInfo,
    Webhooks,
    WebhookSpec,
)
from callfire_async.notifications import (
    CallFinished,
    EndpointTokens,
    Inbox,
    Notification,
    Receiver,
    Router,
    TextFinished,
    TextSent,
    parse,
)
from callfire_async.reconcile import AuditReport, audit, broadcast_results, reconcile

router = Router()


@router.on(TextFinished)
async def text_finished(event: TextFinished) -> None:
    assert_type(event.text, Text)
    assert_type(event.text.final_result, Result | None)


@router.on(TextSent, where=lambda event: event.text.inbound is not True)
async def a_handler_of_a_wider_type(event: Notification) -> None:
    assert_type(event.subscription_id, int | None)


@router.on(Notification, subscription_id=range(5), name="all")
async def everything(event: Notification) -> None:
    if isinstance(event, CallFinished):
        assert_type(event.call, Call)


@router.on(CallFinished)  # type: ignore[arg-type]  # a handler of another event
async def wrong_event(event: TextFinished) -> None: ...  # pyright: ignore[reportArgumentType]


@router.on(TextFinished)  # type: ignore[type-var]  # not a coroutine function
def not_a_coroutine(event: TextFinished) -> None: ...  # pyright: ignore[reportArgumentType]


@router.on(TextFinished)
def returns_an_awaitable(event: TextFinished) -> Awaitable[None]:
    return text_finished(event)


@router.fallback
async def fallback(event: Notification) -> None: ...


async def client() -> None:
    async with CallFire("login", "password") as callfire:
        assert_type(callfire.subscriptions, Subscriptions)
        created = await callfire.subscriptions.create(
            "https://hooks.example.com/callfire/token",
            TriggerEvent.CAMPAIGN_FINISHED,
            filter=SubscriptionFilter(broadcast_id=1),
        )
        assert_type(created, ResourceReference)
        page = await callfire.subscriptions.query(max_results=10)
        assert_type(page, Page[Subscription])
        assert_type(page.items, tuple[Subscription, ...])
        async for subscription in callfire.subscriptions.all():
            assert_type(subscription, Subscription)
        assert_type(await callfire.subscriptions.get(created.id), Subscription)
        await callfire.with_options(timeout=5.0).subscriptions.delete(created.id)
        await callfire.subscriptions.create("https://a.example")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def use_connection(connection: Connection) -> None:
    await Subscriptions(connection).update(1, enabled=False)
    await Subscriptions(connection).update("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def declare(subscriptions: Subscriptions, tokens: EndpointTokens) -> None:
    specs = [SubscriptionSpec(tokens.url("https://a.example"), trigger) for trigger in router.trigger_events]
    plan = await subscriptions.plan(
        specs, tokens=tokens, prune=True, owned=lambda subscription: subscription.enabled is True
    )
    assert_type(plan, Plan)
    assert_type(await subscriptions.apply(plan), ApplyResult)
    assert_type(await subscriptions.ensure(*specs, tokens=tokens), tuple[int, ...])
    await subscriptions.ensure(specs)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(audit(router, [subscription async for subscription in subscriptions.all()]), AuditReport)


async def use_webhooks(callfire: CallFire, tokens: EndpointTokens) -> None:
    webhooks = callfire.webhooks
    assert_type(webhooks, Webhooks)
    created = await webhooks.create(
        tokens.url("https://a.example"), WebhookResource.OUTBOUND_TEXT, events=[WebhookEvent.FINISHED], name="texts"
    )
    assert_type(created, ResourceReference)
    assert_type(await webhooks.query(limit=10, offset=0, enabled=True), Page[Webhook])
    async for webhook in webhooks.all(resource="OutboundText"):
        assert_type(webhook, Webhook)
    assert_type(await webhooks.get(created.id, fields="id,name"), Webhook)
    await webhooks.update(created.id, enabled=False)
    await webhooks.delete(created.id)
    assert_type(await webhooks.resources(), tuple[WebhookResourceInfo, ...])
    specs = [WebhookSpec("https://a.example", resource, [event]) for resource, event in router.webhook_events]
    plan = await webhooks.plan(specs, tokens=tokens, prune=True, owned=lambda webhook: webhook.enabled is True)
    assert_type(plan, WebhookPlan)
    assert_type(plan.update, tuple[WebhookMatch, ...])
    result = await webhooks.apply(plan)
    assert_type(result, WebhookApplyResult)
    assert_type(result.ids[specs[0]], int)
    assert_type(await webhooks.ensure(*specs, tokens=tokens, resend_secrets=True), tuple[int, ...])
    await webhooks.ensure(specs)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await webhooks.create("https://a.example")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def pull(callfire: CallFire, texts: Texts, inbox: Inbox) -> None:
    assert_type(await texts.send(["12135550142"], "Hello"), ResourceReference)
    assert_type(await callfire.calls.query(result=[Result.LA]), Page[Call])
    async for text in callfire.texts.all(broadcast_id=1):
        assert_type(text, Text)
    texts.all(brodcast_id=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    async for text in broadcast_results(1, texts=texts, router=router):
        assert_type(text, Text)
    async with router.expect(TextSent, where=lambda event: event.text.id == 1) as expected:
        assert_type(await expected.get(timeout=1), TextSent)
    found = await reconcile(callfire, inbox, callfire.subscriptions, since=datetime.now(UTC))
    assert_type(found.appended, int)


async def receive(receiver: Receiver) -> None:
    async with receiver as running:
        assert_type(running, Receiver)
    coroutine: Coroutine[Any, Any, None] = text_finished(TextFinished(text=Text(1)))
    await coroutine
    event = parse(b"")
    assert_type(event, Notification)
    assert_type(await router.dispatch(event), frozenset[str])


Receiver(router)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # tokens is required

CallFire("login", "password", http_client=httpx.AsyncClient())
CallFire("login", "password", http_client=httpx2.AsyncClient())
CallFire("login", "password", http_client=httpx.Client())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
