"""Callers that are cancelled at any point leave the pool usable, no socket open and no exception unretrieved."""

import asyncio
import gc
import random
import ssl
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import httpx
import httpx2
import pytest
from attrs import evolve
from client.cutting import Cut, CuttingServer
from client.http_libraries import make_over
from loopback import response_bytes, run_server, serve_with

from callfire_async.client import CallFire, _http
from callfire_async.client._operations.api_1_1 import create_subscription, get_subscription
from callfire_async.client.connection import Connection
from callfire_async.models import Subscription, TriggerEvent, WebhookResource
from callfire_async.testing import FakeCallFire

GET = get_subscription(42)
WEBHOOK = {"callback": "https://h.example/1", "resource": "OutboundText", "events": ["Finished"]}
# The ID of the first webhook in a fake account.
FIRST_WEBHOOK = FakeCallFire()._webhook_store.create(WEBHOOK)
FORM = create_subscription({"endpoint": "https://h.example/1", "trigger_event": TriggerEvent.CAMPAIGN_STARTED}).form
CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
TASKS = 20
CONNECTIONS = 10
DEADLINE = 60


def sockets():
    """Return the number of open sockets of this process."""
    return sum(file.is_socket() for file in Path("/dev/fd").iterdir())


@pytest.fixture
async def no_leaks():
    """No exception stays unretrieved, and no task is left."""
    contexts = []
    before = asyncio.all_tasks()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: contexts.append(context))
    yield
    gc.collect()
    await asyncio.sleep(0)
    assert not contexts
    assert not asyncio.all_tasks() - before - {asyncio.current_task()}


@pytest.fixture
def draw(seed):
    """A random generator with the seed of the run."""
    return random.Random(seed)


# --- at random --------------------------------------------------------------------------------------------


async def by_cancel(call, seconds):
    """Cancel the call's task."""
    task = asyncio.create_task(call)
    asyncio.get_running_loop().call_later(seconds, task.cancel)
    await asyncio.wait([task])
    return task.cancelled()


async def by_timeout(call, seconds):
    """Wrap the call in a timeout."""
    try:
        async with asyncio.timeout(seconds):
            await call
    except TimeoutError:
        return True
    return False


async def by_group(call, seconds):
    """Let another task of its group fail."""

    async def fail():
        await asyncio.sleep(seconds)
        raise LookupError

    try:
        async with asyncio.TaskGroup() as group:
            failing = group.create_task(fail())
            await group.create_task(call)
            failing.cancel()
    except ExceptionGroup:
        return True
    return False


@pytest.mark.parametrize("cancel_call", [by_cancel, by_timeout, by_group])
@pytest.mark.usefixtures("no_leaks")
async def test_the_pool_is_healthy_after_many_cancellations(library, cancel_call, torture, draw):
    """After cancellations at random times, fifty of fifty calls succeed, and no socket is open."""
    sockets_before, remaining = sockets(), 20_000 if torture else 1_000

    async def respond(_, writer):
        await asyncio.sleep(draw.random() * 0.002)
        writer.write(response_bytes())

    async def cancel_often(connection):
        nonlocal remaining
        while remaining > 0:
            # While it is queued, while it is in flight, or after that.
            if await cancel_call(connection.execute(GET), draw.random() * draw.choice((0.002, 0.02, 0.1))):
                remaining -= 1

    async with serve_with(respond) as server:
        async with make_over(
            library,
            Connection,
            "login",
            "password",
            base_url=server.url,
            ssl_context=CONTEXT,
            max_connections=CONNECTIONS,
        ) as connection:
            await asyncio.gather(*(cancel_often(connection) for _ in range(TASKS)))
            results = await asyncio.gather(*(connection.execute(GET) for _ in range(50)))
        await server.wait_until(lambda server: not server.open)

    assert results == [Subscription(42)] * 50
    # Others may have been closed meanwhile, by the garbage collector.
    assert sockets() <= sockets_before


# --- at every await ---------------------------------------------------------------------------------------


class Moment:
    """
    The n-th wait, at which the task is cancelled.

    Args:
        number: The number of the wait, from 1.
        late: Whether to cancel when the awaited future is done instead of when the wait begins.
    """

    def __init__(self, number, *, late):
        self.left = number
        self.late = late

    def count_wait(self, future):
        """Count a wait of the current task for *future*, and cancel the task if it is the n-th."""
        self.left -= 1
        if self.left:
            return
        task = asyncio.current_task()
        if self.late and future is not None:
            future.add_done_callback(lambda _: task.cancel())
        else:
            task.cancel()


class Watched:
    """Awaits something and counts its waits."""

    def __init__(self, awaitable, moment):
        self.awaitable = awaitable
        self.moment = moment

    def __await__(self):
        steps = self.awaitable.__await__()
        step, value = steps.send, None
        while True:
            try:
                future = step(value)
            except StopIteration as end:
                return end.value
            self.moment.count_wait(future)
            try:
                step, value = steps.send, (yield future)
            except BaseException as error:  # noqa: BLE001  # anything thrown in is passed on
                step, value = steps.throw, error


async def watched(awaitable, moment):
    """Await in a task of its own, counting the waits."""
    return await Watched(awaitable, moment)


# A caller waits for the request's task only, whichever library that task uses.
WATCHES = {"caller": httpx, "request": httpx, "request of httpx2": httpx2}


@pytest.fixture(params=WATCHES)
def watch(request, monkeypatch):
    """Count the waits of the caller, or those of the request tasks, whose last one is the event loop's."""
    if request.param == "caller":
        return watched
    run = _http._InFlightRequest.run

    async def watch_requests(call, moment):
        monkeypatch.setattr(_http._InFlightRequest, "run", lambda request: watched(run(request), moment))
        try:
            return await call
        finally:
            monkeypatch.setattr(_http._InFlightRequest, "run", run)

    return watch_requests


async def list_all(client):
    """List all subscriptions."""
    async with aclosing(client.subscriptions.all(page_size=1)) as subscriptions:
        return [subscription async for subscription in subscriptions]


async def list_all_webhooks(client):
    """List all webhooks."""
    async with aclosing(client.webhooks.all(page_size=1)) as webhooks:
        return [webhook async for webhook in webhooks]


async def enter(client):
    """Use a client with `async with`."""
    async with client:
        await client.subscriptions.query()


METHODS = {
    "create": lambda client, _: client.subscriptions.create("https://h.example/2", TriggerEvent.CAMPAIGN_STARTED),
    "query": lambda client, _: client.subscriptions.query(),
    "all": lambda client, _: list_all(client),
    "get": lambda client, number: client.subscriptions.get(number),
    "update": lambda client, number: client.subscriptions.update(number, enabled=False),
    "delete": lambda client, number: client.subscriptions.delete(number),
    "create webhook": lambda client, _: client.webhooks.create("https://h.example/2", WebhookResource.OUTBOUND_TEXT),
    "query webhooks": lambda client, _: client.webhooks.query(),
    "all webhooks": lambda client, _: list_all_webhooks(client),
    "get webhook": lambda client, _: client.webhooks.get(FIRST_WEBHOOK),
    "update webhook": lambda client, _: client.webhooks.update(FIRST_WEBHOOK, enabled=False),
    "delete webhook": lambda client, _: client.webhooks.delete(FIRST_WEBHOOK),
    "execute": lambda client, number: client._connection.execute(get_subscription(number)),
    "aclose": lambda client, _: client.aclose(),
    "async with": lambda client, _: enter(client),
}
CUTS = {"none": [], "cut": [Cut("answer", 0)], "cut twice": [Cut("answer", 0), Cut("answer", 40)]}


async def short_sleep(_):
    """Yield to the event loop once."""
    await asyncio.sleep(0)


@asynccontextmanager
async def busy_client(library, server):
    """Yield a client whose only connection is in use at first."""
    urls = {"base_url": server.url, "webhooks_base_url": server.url}
    async with make_over(
        library, CallFire, "login", "password", **urls, ssl_context=CONTEXT, max_connections=1
    ) as client:
        client._connection._retry_hooks = evolve(client._connection._retry_hooks, sleep=short_sleep)
        slots = client._connection._transport._slots
        await slots.acquire()
        asyncio.get_running_loop().call_soon(slots.release)
        yield client


@pytest.fixture
def step(torture, draw):
    """Return the distance to the next wait to cancel: every one, or for request tasks about every eighth."""
    return lambda watch: 1 if torture or watch is watched else draw.randint(1, 15)


@pytest.fixture
async def server():
    """A fake CallFire on loopback."""
    async with run_server(CuttingServer(FakeCallFire())) as server:
        yield server


async def cancelled_call(library, server, call, watch, moment):
    """Make a call that is cancelled at *moment*; return its task after the client was used again and closed."""
    server.fake = FakeCallFire()
    subscription_id = server.fake._subscription_store.create(FORM)
    server.fake._webhook_store.create(WEBHOOK)
    async with busy_client(library, server) as client:
        task = asyncio.create_task(watch(call(client, subscription_id), moment))
        await asyncio.wait([task], timeout=DEADLINE)
        server.cuts.clear()
        if client._connection._transport._closing is None:
            await client.subscriptions.query()
    await server.wait_until(lambda server: not server.open)
    return task


@pytest.mark.parametrize("late", [False, True], ids=["early", "late"])
@pytest.mark.parametrize("cuts", CUTS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.usefixtures("no_leaks")
async def test_cancellation_at_any_await_leaves_nothing_behind(request, server, watch, step, *, method, cuts, late):
    """The call ends, the next call on the only connection succeeds, and no socket is open."""
    library = WATCHES[request.node.callspec.params["watch"]]
    wait, left = 0, 0
    while left <= 0:
        wait += step(watch)
        moment = Moment(wait, late=late)
        server.cuts.extend(CUTS[cuts])
        task = await cancelled_call(library, server, METHODS[method], watch, moment)
        left = moment.left

        assert task.cancelled() or (task.done() and (left > 0 or watch is not watched))
