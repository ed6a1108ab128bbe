"""Connections that end at any byte of a request or an answer: what was asked is done once, or an error says so."""

import asyncio
import random
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from attrs import evolve, frozen
from client.cutting import Cut, CuttingServer
from loopback import running

from callfire_async.client import CallFire
from callfire_async.client._operations.api_1_1 import create_subscription
from callfire_async.client.subscriptions import Subscriptions
from callfire_async.errors import CallFireError
from callfire_async.models import Page, ResourceReference, SubscriptionFilter, TriggerEvent
from callfire_async.testing import FakeCallFire

DEADLINE = 10
CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
WANTED = {
    "endpoint": "https://hooks.example.com/callfire/Tok3n",
    "trigger_event": TriggerEvent.OUTBOUND_TEXT_FINISHED,
    "filter": SubscriptionFilter(broadcast_id=896807881003, to_number="67076:WORD"),
}


@frozen
class Case:
    """
    One operation.

    Attributes:
        call: Calls it, given the id of the one subscription that is there.
        done: Tells from the fake, and from the subscription that was there, whether it was carried out.
        value: What it returns then.
        there: Whether one is there before.
        changes: Whether it changes anything.
    """

    call: Callable[[Subscriptions, int], Awaitable[Any]]
    done: Callable[[FakeCallFire, Any], bool] = lambda fake, before: fake.subscriptions == (before,)
    value: Callable[[FakeCallFire, Any], Any] = lambda _, __: None
    there: bool = True
    changes: bool = True


CASES = {
    "create": Case(
        lambda subscriptions, _: subscriptions.create(**WANTED),
        lambda fake, _: len(fake.subscriptions) == 1,
        lambda fake, _: fake.subscriptions[0].id,
        there=False,
    ),
    "query": Case(
        lambda subscriptions, _: subscriptions.query(), value=lambda _, before: Page((before,), 1, 0), changes=False
    ),
    "get": Case(lambda subscriptions, there: subscriptions.get(there), value=lambda _, before: before, changes=False),
    "update": Case(
        lambda subscriptions, there: subscriptions.update(there, enabled=False, endpoint="me@example.com"),
        lambda fake, before: fake.subscriptions == (evolve(before, enabled=False, endpoint="me@example.com"),),
    ),
    "delete": Case(lambda subscriptions, there: subscriptions.delete(there), lambda fake, _: not fake.subscriptions),
}


async def at_once(_):
    """Let no time pass between attempts."""


@pytest.fixture
async def server():
    """A CallFire on loopback; in the end no connection to it is open."""
    async with running(CuttingServer(FakeCallFire())) as server:
        yield server


@pytest.fixture(params=["json", "xml"])
async def client(request, server):
    """A client of the server that tries again at once."""
    async with CallFire(
        "login", "password", base_url=server.url, response_format=request.param, ssl_context=CONTEXT
    ) as client:
        connection = client._connection
        connection._retry_hooks = evolve(connection._retry_hooks, sleep=at_once)
        yield client


@pytest.fixture
def spread(torture, seed):
    """Choose where to cut: at every byte, or at the ends and at some between; each second time with a reset."""
    draw = random.Random(seed)

    def cuts(side, whole):
        bytes_through = range(whole + (side == "answer"))
        drawn = bytes_through if torture else {0, *bytes_through[-2:], *draw.sample(bytes_through, 4)}
        return [Cut(side, byte, reset=bool(byte % 2)) for byte in sorted(drawn)]

    return cuts


# What is done with a RequestId that was seen before matters where one is sent.
MODES = [
    (name, mode)
    for name in CASES
    for mode in ("first", "ignored", "refused")[: 3 if name in ("create", "update") else 1]
]


@pytest.fixture(params=MODES, ids="-".join)
def case(request, server):
    """Each of the five operations, in each way of treating a repeated RequestId, with an account of its own."""
    name, mode = request.param

    def new_account():
        server.fake = FakeCallFire(repeated_request_id=mode)
        if CASES[name].there:
            server.fake._account.create(create_subscription({**WANTED, "request_id": "older"}).form)
        return next(iter(server.fake.subscriptions), None)

    return CASES[name], new_account


async def attempt(client, case, before):
    """Call the operation in bounded time; a reference is its id, since that of an adopted one has no location."""
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
async def test_what_was_cut_is_carried_out_once(server, client, case, spread, *, side, framing, times):
    """Whatever byte was the last, and if it happens twice in a row: the fake is as if nothing had happened."""
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
async def test_what_is_not_tried_again_says_that_it_may_be_done(server, client, case, spread, *, side, framing):
    """With one attempt, nothing is done where the request did not come whole; the error is ours and leaves it open."""
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
