"""Connections that end at any byte of a request or response: the operation is executed once, or is an error."""

import asyncio
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
from callfire_async.client.subscriptions import Subscriptions
from callfire_async.errors import CallFireError
from callfire_async.models import Page, ResourceReference, SubscriptionFilter, TriggerEvent
from callfire_async.testing import FakeCallFire

DEADLINE = 10
CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
SPEC = {
    "endpoint": "https://hooks.example.com/callfire/Tok3n",
    "trigger_event": TriggerEvent.OUTBOUND_TEXT_FINISHED,
    "filter": SubscriptionFilter(broadcast_id=896807881003, to_number="67076:WORD"),
}


@frozen
class Case:
    """
    One operation.

    Attributes:
        call: Calls it, given the ID of the only subscription.
        done: Returns whether it was executed, given the fake and the subscription before.
        value: The value that it returns then.
        exists: Whether there is a subscription before.
        changes: Whether it changes the account.
    """

    call: Callable[[Subscriptions, int], Awaitable[Any]]
    done: Callable[[FakeCallFire, Any], bool] = lambda fake, before: fake.subscriptions == (before,)
    value: Callable[[FakeCallFire, Any], Any] = lambda _, __: None
    exists: bool = True
    changes: bool = True


CASES = {
    "create": Case(
        lambda subscriptions, _: subscriptions.create(**SPEC),
        lambda fake, _: len(fake.subscriptions) == 1,
        lambda fake, _: fake.subscriptions[0].id,
        exists=False,
    ),
    "query": Case(
        lambda subscriptions, _: subscriptions.query(), value=lambda _, before: Page((before,), 1, 0), changes=False
    ),
    "get": Case(lambda subscriptions, number: subscriptions.get(number), value=lambda _, before: before, changes=False),
    "update": Case(
        lambda subscriptions, number: subscriptions.update(number, enabled=False, endpoint="me@example.com"),
        lambda fake, before: fake.subscriptions == (evolve(before, enabled=False, endpoint="me@example.com"),),
    ),
    "delete": Case(lambda subscriptions, number: subscriptions.delete(number), lambda fake, _: not fake.subscriptions),
}


async def no_sleep(_):
    """Retry without a delay."""


@pytest.fixture
async def server():
    """A fake CallFire on loopback; at the end all connections are closed."""
    async with run_server(CuttingServer(FakeCallFire())) as server:
        yield server


@pytest.fixture(params=[(httpx, "json"), (httpx, "xml"), (httpx2, "json")], ids=lambda p: f"{p[0].__name__}-{p[1]}")
async def client(request, server):
    """A client of the server that retries without delays."""
    library, response_format = request.param
    async with make_over(
        library,
        CallFire,
        "login",
        "password",
        base_url=server.url,
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


# The treatment of a known RequestId only matters for operations that send one.
MODES = [
    (name, mode)
    for name in CASES
    for mode in ("first", "ignored", "refused")[: 3 if name in ("create", "update") else 1]
]


@pytest.fixture(params=MODES, ids="-".join)
def case(request, server):
    """Each operation, with each way of treating a repeated RequestId, and an account of its own."""
    name, mode = request.param

    def new_account():
        server.fake = FakeCallFire(repeated_request_id=mode)
        if CASES[name].exists:
            server.fake._subscription_store.create(create_subscription({**SPEC, "request_id": "older"}).form)
        return next(iter(server.fake.subscriptions), None)

    return CASES[name], new_account


async def attempt(client, case, before):
    """Call the operation with a deadline; return the ID of a reference, whose location can be missing."""
    async with asyncio.timeout(DEADLINE):
        value = await case.call(client.subscriptions, before.id if before else 0)
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
