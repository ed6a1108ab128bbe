"""Callers who give up, wherever they are, leave the pool healthy, no socket open and nothing to retrieve."""

import asyncio
import gc
import random
import ssl
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
from attrs import evolve
from client.cutting import Cut, CuttingServer
from loopback import answer_bytes, running, serving

from callfire_async.client import CallFire, _http
from callfire_async.client._operations.api_1_1 import create_subscription, get_subscription
from callfire_async.client.connection import Connection
from callfire_async.models import Subscription, TriggerEvent
from callfire_async.testing import FakeCallFire

GET = get_subscription(42)
FORM = create_subscription({"endpoint": "https://h.example/1", "trigger_event": TriggerEvent.CAMPAIGN_STARTED}).form
CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
TASKS = 20
CONNECTIONS = 10
DEADLINE = 10


def sockets():
    """Count the sockets that this process has open."""
    return sum(file.is_socket() for file in Path("/dev/fd").iterdir())


@pytest.fixture
async def quiet():
    """Nothing is said of exceptions that nobody retrieved, and no task is left."""
    said = []
    before = asyncio.all_tasks()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
    yield
    gc.collect()
    await asyncio.sleep(0)
    assert not said
    assert not asyncio.all_tasks() - before - {asyncio.current_task()}


@pytest.fixture
def draw(seed):
    """Chance, from the seed of the run."""
    return random.Random(seed)


# --- at random --------------------------------------------------------------------------------------------


async def by_cancel(call, seconds):
    """Cancel the call's own task."""
    task = asyncio.create_task(call)
    asyncio.get_running_loop().call_later(seconds, task.cancel)
    await asyncio.wait([task])
    return task.cancelled()


async def by_timeout(call, seconds):
    """Put a limit on it."""
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


@pytest.mark.parametrize("release_all", [by_cancel, by_timeout, by_group])
@pytest.mark.usefixtures("quiet")
async def test_the_pool_is_healthy_after_many_cancellations(release_all, torture, draw):
    """Twenty tasks over ten connections give up at random; then fifty of fifty succeed, and no socket is left."""
    at_first, to_come = sockets(), 20_000 if torture else 1_000

    async def answer(_, writer):
        await asyncio.sleep(draw.random() * 0.002)
        writer.write(answer_bytes())

    async def give_up_often(connection):
        nonlocal to_come
        while to_come > 0:
            # Before its turn, while it is sent and answered, or after that.
            if await release_all(connection.execute(GET), draw.random() * draw.choice((0.002, 0.02, 0.1))):
                to_come -= 1

    async with serving(answer) as server:
        async with Connection(
            "login", "password", base_url=server.url, ssl_context=CONTEXT, max_connections=CONNECTIONS
        ) as connection:
            await asyncio.gather(*(give_up_often(connection) for _ in range(TASKS)))
            results = await asyncio.gather(*(connection.execute(GET) for _ in range(50)))
        await server.until(lambda server: not server.open)

    assert results == [Subscription(42)] * 50
    assert sockets() == at_first


# --- at every await ---------------------------------------------------------------------------------------


class Moment:
    """
    The n-th time that something waits, at which its task is cancelled.

    Args:
        number: Which time, from 1.
        late: Not as the wait begins, but when what it is for has come and the task is about to go on.
    """

    def __init__(self, number, *, late):
        self.left = number
        self.late = late

    def pass_by(self, future):
        """Note that the current task is about to wait for *future*."""
        self.left -= 1
        if self.left:
            return
        task = asyncio.current_task()
        if self.late and future is not None:
            future.add_done_callback(lambda _: task.cancel())
        else:
            task.cancel()


class Watched:
    """Awaits something, and tells a moment each time that it waits."""

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
            self.moment.pass_by(future)
            try:
                step, value = steps.send, (yield future)
            except BaseException as error:  # noqa: BLE001  # whatever is thrown in is handed on
                step, value = steps.throw, error


async def watched(awaitable, moment):
    """Await it in a task of its own."""
    return await Watched(awaitable, moment)


@pytest.fixture(params=["caller", "exchange"])
def watch(request, monkeypatch):
    """Watch the caller's own waits, or those of the exchanges that it is behind: those end with the event loop."""
    if request.param == "caller":
        return watched
    run = _http._InFlightRequest.run

    async def watch_exchanges(call, moment):
        monkeypatch.setattr(_http._InFlightRequest, "run", lambda exchange: watched(run(exchange), moment))
        try:
            return await call
        finally:
            monkeypatch.setattr(_http._InFlightRequest, "run", run)

    return watch_exchanges


async def list_all(client):
    """List to the end."""
    async with aclosing(client.subscriptions.all(page_size=1)) as subscriptions:
        return [subscription async for subscription in subscriptions]


async def enter(client):
    """Enter a client, use it and leave it."""
    async with client:
        await client.subscriptions.query()


METHODS = {
    "create": lambda client, _: client.subscriptions.create("https://h.example/2", TriggerEvent.CAMPAIGN_STARTED),
    "query": lambda client, _: client.subscriptions.query(),
    "all": lambda client, _: list_all(client),
    "get": lambda client, there: client.subscriptions.get(there),
    "update": lambda client, there: client.subscriptions.update(there, enabled=False),
    "delete": lambda client, there: client.subscriptions.delete(there),
    "execute": lambda client, there: client._connection.execute(get_subscription(there)),
    "aclose": lambda client, _: client.aclose(),
    "async with": lambda client, _: enter(client),
}
CUTS = {"well": [], "cut": [Cut("answer", 0)], "cut twice": [Cut("answer", 0), Cut("answer", 40)]}


async def doze(_):
    """Wait between attempts, for as little as there is."""
    await asyncio.sleep(0)


@asynccontextmanager
async def busy_client(server):
    """Make a client with one connection, which is taken at the moment."""
    async with CallFire("login", "password", base_url=server.url, ssl_context=CONTEXT, max_connections=1) as client:
        client._connection._retry_hooks = evolve(client._connection._retry_hooks, sleep=doze)
        slots = client._connection._transport._slots
        await slots.acquire()
        asyncio.get_running_loop().call_soon(slots.release)
        yield client


@pytest.fixture
def step(torture, draw):
    """Choose the next wait: each one, or of the many of an exchange each eighth or so."""
    return lambda watch: 1 if torture or watch is watched else draw.randint(1, 15)


@pytest.fixture
async def server():
    """A CallFire on loopback."""
    async with running(CuttingServer(FakeCallFire())) as server:
        yield server


async def cancelled_call(server, call, watch, moment):
    """Call something that is cancelled at *moment*; return its task once the client has worked and was closed."""
    server.fake = FakeCallFire()
    there = server.fake._account.create(FORM)
    async with busy_client(server) as client:
        task = asyncio.create_task(watch(call(client, there), moment))
        await asyncio.wait([task], timeout=DEADLINE)
        server.cuts.clear()
        if client._connection._transport._closing is None:
            await client.subscriptions.query()
    await server.until(lambda server: not server.open)
    return task


@pytest.mark.parametrize("late", [False, True], ids=["early", "late"])
@pytest.mark.parametrize("cuts", CUTS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.usefixtures("quiet")
async def test_cancellation_at_any_await_leaves_nothing_behind(server, watch, step, *, method, cuts, late):
    """Wherever it comes, the call ends, the next one on the only connection succeeds, and no socket is left."""
    wait, left = 0, 0
    while left <= 0:
        wait += step(watch)
        moment = Moment(wait, late=late)
        server.cuts.extend(CUTS[cuts])
        task = await cancelled_call(server, METHODS[method], watch, moment)
        left = moment.left

        assert task.cancelled() or (task.done() and (left > 0 or watch is not watched))
