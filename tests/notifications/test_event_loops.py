"""A receiver belongs to the event loop that runs it, until it has stopped."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from callfire_async import CallFireError, EventLoopError
from callfire_async.notifications import MemoryInbox, Notification, Postback, Receiver, Router, SqliteInbox
from callfire_async.notifications.fastapi import notification_routes
from callfire_async.notifications.intake import InlineIntake

DEADLINE = 60
POSTBACK = Postback("POST", None, {}, b'{"TextSent": {"Text": {"@id": 1}}}')
INBOXES = {"none": lambda: None, "memory": MemoryInbox, "SQLite": lambda: SqliteInbox("inbox.db")}


@pytest.fixture(params=INBOXES)
def receiver(request, tmp_path, monkeypatch) -> Receiver:
    monkeypatch.chdir(tmp_path)
    router = Router()

    @router.on(Notification)
    async def handler(event: Notification) -> None: ...

    return Receiver(router, tokens=None, inbox=INBOXES[request.param]())


async def use(receiver: Receiver) -> int:
    async with receiver:
        return (await receiver.receive(POSTBACK)).status


async def use_twice_at_once(receiver: Receiver) -> list[int]:
    return await asyncio.gather(use(receiver), use(receiver))


def test_a_stopped_receiver_may_be_used_in_another_event_loop(receiver):
    """By two tasks at once as well."""
    assert [asyncio.run(use_twice_at_once(receiver)) for _ in range(3)] == [[204, 204]] * 3


@pytest.fixture
def run_elsewhere(receiver) -> Iterator[Callable[[Coroutine], object]]:
    """Start the receiver in the event loop of another thread, and return a function that runs a coroutine there."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def run(coroutine: Coroutine) -> object:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(DEADLINE)

    run(receiver.__aenter__())
    yield run
    run(receiver.__aexit__(None, None, None))
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.mark.parametrize("use", [use, use_twice_at_once])
async def test_a_running_receiver_cannot_be_entered_in_another_event_loop(receiver, run_elsewhere, use):
    """The error says what to do, and the receiver can still be used in the first event loop."""
    with pytest.raises(EventLoopError, match=r"^the receiver is running in another event loop: .* one receiver"):
        await use(receiver)
    with pytest.raises(EventLoopError):
        await receiver.__aexit__(None, None, None)

    assert run_elsewhere(receiver.receive(POSTBACK)).status == 204


async def test_a_request_in_another_event_loop_gets_503_if_there_is_an_inbox(receiver, run_elsewhere, caplog):
    """With one ERROR that says what to do; without an inbox the handlers run in the event loop of the request."""
    statuses = [(await receiver.receive(POSTBACK)).status for _ in range(2)]

    if isinstance(receiver._intake, InlineIntake):
        assert (statuses, caplog.records) == ([204, 204], [])
    else:
        assert statuses == [503, 503]
        (record,) = caplog.records
        assert record.getMessage().startswith(
            "responded 503 to a postback: the receiver is running in another event loop"
        )


async def test_stats_and_idle_belong_to_the_event_loop_of_an_inbox(receiver, run_elsewhere):
    """They raise the same error; health never raises, and is not ready in an event loop in which requests get 503."""
    health = await receiver.health()
    if isinstance(receiver._intake, InlineIntake):
        await receiver.stats()
        await receiver.idle(timeout=DEADLINE)
        assert health.ready
    else:
        for operation in (receiver.stats(), receiver.idle(timeout=DEADLINE)):
            with pytest.raises(EventLoopError, match="another event loop"):
                await operation
        (reason,) = health.reasons
        assert reason.startswith("the receiver is running in another event loop")
        assert not health.ready
    assert health.live


@pytest.mark.parametrize("receiver", ["none", "memory"], indirect=True)
def test_a_receiver_that_was_not_stopped_cannot_be_used_again(receiver):
    """Its event loop is closed, so nothing can stop it."""
    asyncio.run(receiver.__aenter__())

    with pytest.raises(EventLoopError, match="was not stopped"):
        asyncio.run(use_twice_at_once(receiver))


def test_the_error_is_one_of_ours():
    """It is a RuntimeError, too, as for asyncio's own objects."""
    assert issubclass(EventLoopError, CallFireError)
    assert issubclass(EventLoopError, RuntimeError)


def test_two_test_clients_at_once_are_an_error_that_says_what_to_do(receiver):
    """Each runs the application in an event loop of its own; the first one continues to work."""
    app = FastAPI()
    app.include_router(notification_routes(receiver), prefix="/callfire")
    with TestClient(app) as first:
        with pytest.raises(EventLoopError, match="another event loop"), TestClient(app):
            pass

        assert first.post("/callfire/", content=POSTBACK.body).status_code == 204
