"""Connections that end at any byte of a request or response: the operation is executed once, or is an error."""

import asyncio
import json
import random
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import httpx2
import pytest
from attrs import evolve, frozen
from client.cutting import Cut, CuttingServer
from client.http_libraries import make_over
from loopback import run_server

from callfire_async.client import CallFire
from callfire_async.client._operations.api_1_1 import create_subscription
from callfire_async.client._operations.api_2 import create_webhook
from callfire_async.errors import CallFireError
from callfire_async.models import (
    WEBHOOK_EVENTS,
    Page,
    ResourceReference,
    Subscription,
    SubscriptionFilter,
    TriggerEvent,
    Webhook,
    WebhookResource,
    WebhookResourceInfo,
)
from callfire_async.testing import FakeCallFire

DEADLINE = 60
CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
SPEC = {
    "endpoint": "https://hooks.example.com/callfire/Tok3n",
    "trigger_event": TriggerEvent.OUTBOUND_TEXT_FINISHED,
    "filter": SubscriptionFilter(broadcast_id=896807881003, to_number="67076:WORD"),
}
WEBHOOK = {
    "callback": "https://hooks.example.com/callfire/Tok3n",
    "resource": WebhookResource.OUTBOUND_TEXT,
    "name": "finished texts",
    "secret": "a-secret-of-enough-letters",
}


def existing(fake: FakeCallFire) -> tuple[Subscription | Webhook, ...]:
    """Return the contents of the account."""
    return (*fake.subscriptions, *fake.webhooks)


@frozen
class Case:
    """
    One operation.

    Attributes:
        call: Calls it, given the ID of the only subscription or webhook.
        done: Returns whether it was executed, given the fake and the subscription or webhook before.
        value: The value that it returns then.
        exists: Whether there is a subscription or webhook before.
        changes: Whether it changes the account.
    """

    call: Callable[[CallFire, int], Awaitable[Any]]
    done: Callable[[FakeCallFire, Any], bool] = lambda fake, before: existing(fake) == (before,)
    value: Callable[[FakeCallFire, Any], Any] = lambda _, __: None
    exists: bool = True
    changes: bool = True


def updated(webhook: Webhook, **changes: object) -> Webhook:
    """Return a webhook with changes, without the time of the last one."""
    return evolve(webhook, updated_at=None, **changes)


CASES = {
    "create": Case(
        lambda client, _: client.subscriptions.create(**SPEC),
        lambda fake, _: len(fake.subscriptions) == 1,
        lambda fake, _: fake.subscriptions[0].id,
        exists=False,
    ),
    "query": Case(
        lambda client, _: client.subscriptions.query(), value=lambda _, before: Page((before,), 1, 0), changes=False
    ),
    "get": Case(lambda client, number: client.subscriptions.get(number), value=lambda _, before: before, changes=False),
    "update": Case(
        lambda client, number: client.subscriptions.update(number, enabled=False, endpoint="me@example.com"),
        lambda fake, before: fake.subscriptions == (evolve(before, enabled=False, endpoint="me@example.com"),),
    ),
    "delete": Case(lambda client, number: client.subscriptions.delete(number), lambda fake, _: not fake.subscriptions),
}
WEBHOOK_CASES = {
    "create_webhook": Case(
        lambda client, _: client.webhooks.create(**WEBHOOK),
        lambda fake, _: len(fake.webhooks) == 1,
        lambda fake, _: fake.webhooks[0].id,
        exists=False,
    ),
    "query_webhooks": Case(
        lambda client, _: client.webhooks.query(), value=lambda _, before: Page((before,), 1, 0), changes=False
    ),
    "get_webhook": Case(
        lambda client, number: client.webhooks.get(number), value=lambda _, before: before, changes=False
    ),
    "update_webhook": Case(
        lambda client, number: client.webhooks.update(number, enabled=False, callback="https://h.example/2"),
        lambda fake, before: (
            [*map(updated, fake.webhooks)] == [updated(before, enabled=False, callback="https://h.example/2")]
        ),
    ),
    "delete_webhook": Case(lambda client, number: client.webhooks.delete(number), lambda fake, _: not fake.webhooks),
    "resources": Case(
        lambda client, _: client.webhooks.resources(),
        value=lambda _, __: tuple(WebhookResourceInfo(*pair) for pair in WEBHOOK_EVENTS.items()),
        changes=False,
        exists=False,
        done=lambda fake, _: not existing(fake),
    ),
}


async def no_sleep(_):
    """Retry without a delay."""


@pytest.fixture
async def server():
    """A fake CallFire on loopback; at the end all connections are closed."""
    async with run_server(CuttingServer(FakeCallFire())) as server:
        yield server


@pytest.fixture
async def client(variant, server):
    """A client of the server that retries without delays."""
    _, library, response_format, _ = variant
    async with make_over(
        library,
        CallFire,
        "login",
        "password",
        base_url=server.url,
        webhooks_base_url=server.url,
        response_format=response_format,
        ssl_context=CONTEXT,
    ) as client:
        connection = client._connection
        connection._retry_hooks = evolve(connection._retry_hooks, sleep=no_sleep)
        yield client


@pytest.fixture
def spread(torture, seed):
    """Choose the bytes at which to cut: all, or the first, the last and some between; every second one with a reset."""
    draw = random.Random(seed)

    def cuts(side, whole):
        bytes_through = range(whole + (side == "answer"))
        drawn = bytes_through if torture else {0, *bytes_through[-2:], *draw.sample(bytes_through, 4)}
        return [Cut(side, byte, reset=bool(byte % 2)) for byte in sorted(drawn)]

    return cuts


# The treatment of a known RequestId only matters for operations that send one, the format only for API 1.1.
VARIANTS = [
    *(
        (name, library, response_format, mode)
        for name in CASES
        for library, response_format in ((httpx, "json"), (httpx, "xml"), (httpx2, "json"))
        for mode in ("first", "ignored", "refused")[: 3 if name in ("create", "update") else 1]
    ),
    *((name, library, "json", "first") for name in WEBHOOK_CASES for library in (httpx, httpx2)),
]


@pytest.fixture(params=VARIANTS, ids=lambda variant: f"{variant[0]}-{variant[1].__name__}-{'-'.join(variant[2:])}")
def variant(request):
    """An operation, the HTTP library, the format of responses, and the treatment of a known RequestId."""
    return request.param


@pytest.fixture
def case(variant, server):
    """The operation, and a function that opens an account of its own."""
    name, _, _, mode = variant
    case = (CASES | WEBHOOK_CASES)[name]

    def new_account():
        server.fake = FakeCallFire(repeated_request_id=mode, returns_secrets=True)
        if case.exists and name in CASES:
            server.fake._subscription_store.create(create_subscription({**SPEC, "request_id": "older"}).form)
        elif case.exists:
            server.fake._webhook_store.create(json.loads(create_webhook(WEBHOOK).content()))
        return next(iter(existing(server.fake)), None)

    return case, new_account


async def attempt(client, case, before):
    """Call the operation with a deadline; return the ID of a reference, whose location can be missing."""
    async with asyncio.timeout(DEADLINE):
        value = await case.call(client, before.id if before else 0)
    return value.id if isinstance(value, ResourceReference) else value


@pytest.mark.parametrize(
    ("side", "framing", "times"),
    [
        ("request", "length", 1),
        ("request", "length", 2),
        ("answer", "length", 1),
        ("answer", "length", 2),
        ("answer", "chunked", 1),
        ("answer", "close", 1),
    ],
)
async def test_a_cut_request_is_executed_once(server, client, case, spread, *, side, framing, times):
    """At any byte, once or twice in a row: the account is as without the cut."""
    case, new_account = case
    server.framing = framing
    await attempt(client, case, new_account())

    for cut in spread(side, server.lengths[side]):
        before = new_account()
        server.cuts.extend([cut] * times)
        value = await attempt(client, case, before)

        assert case.done(server.fake, before), cut
        assert value == case.value(server.fake, before), cut


@pytest.mark.parametrize(("side", "framing"), [("request", "length"), ("answer", "length"), ("answer", "close")])
async def test_without_retries_the_error_says_that_it_may_have_been_executed(
    server, client, case, spread, *, side, framing
):
    """A request that was cut is not executed; the error's note is the same in either case."""
    case, new_account = case
    server.framing = framing
    client = client.with_options(max_retries=0)
    await attempt(client, case, new_account())

    for cut in spread(side, server.lengths[side]):
        before = new_account()
        server.cuts.append(cut)
        try:
            await attempt(client, case, before)
        except CallFireError as error:
            noted = "may have been executed" in "".join(getattr(error, "__notes__", ()))
            assert noted == case.changes, cut
            assert case.done(server.fake, before) == (side == "answer" or not case.changes), cut
        else:
            assert case.done(server.fake, before), cut
