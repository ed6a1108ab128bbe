"""`record_completions`: handlers that call `complete_in`, tested without PostgreSQL."""

import asyncio

import pytest
from fastapi import FastAPI

from callfire_async.errors import HandlerErrors
from callfire_async.notifications import (
    EndpointTokens,
    MemoryInbox,
    Receiver,
    Router,
    SqliteInbox,
    TextSent,
    current_attempt,
)
from callfire_async.notifications.fastapi import notification_routes
from callfire_async.testing import deliver, make_text_sent, record_completions

EVENT = make_text_sent(id=17)
CONNECTION = object()

router = Router()


@router.on(TextSent, name="debit")
async def debit(event: TextSent) -> None:
    await current_attempt().complete_in(CONNECTION)


@router.on(TextSent, name="other")
async def other(event: TextSent) -> None:
    """Do nothing."""


async def test_a_handler_that_is_called_directly_has_an_attempt():
    """Of the given event, with the given number."""
    with record_completions(EVENT, number=3) as completions:
        await debit(EVENT)
    (completion,) = completions

    assert completion.connection is CONNECTION
    assert (completion.attempt.number, completion.attempt.event_key) == (3, "text:17:SENT")
    assert completion.attempt.lease_expires_at is None


async def test_the_event_may_be_left_out():
    """Most handlers do not read its key from the attempt."""
    with record_completions() as completions:
        await debit(EVENT)

    assert [(completion.attempt.delivery_id, completion.attempt.event_key) for completion in completions] == [(1, "")]


async def test_there_is_no_attempt_after_the_block():
    """Nothing is recorded any more."""
    with record_completions() as completions:
        pass
    with pytest.raises(RuntimeError):
        await debit(EVENT)

    assert completions == []


@pytest.mark.parametrize("kind", [None, "memory", "sqlite"])
async def test_deliver_records(tmp_path, kind):
    """With any inbox; without the block, the handler fails."""
    inboxes = {"memory": MemoryInbox(), "sqlite": SqliteInbox(tmp_path / "inbox.db")}
    receiver = Receiver(router, tokens=None, inbox=inboxes.get(kind))
    with record_completions() as completions:
        reply = await deliver(receiver, EVENT)

    assert reply.status == 204
    assert [(completion.attempt.handler, completion.connection) for completion in completions] == [
        ("debit", CONNECTION)
    ]
    with pytest.raises(HandlerErrors) as errors:
        await deliver(receiver, make_text_sent(id=18))
    assert isinstance(errors.value.exceptions[0], TypeError)


async def test_deliver_records_in_a_running_application():
    """Its tasks were started before the block."""
    receiver = Receiver(router, tokens=EndpointTokens("a-token-for-tests-only"), inbox=MemoryInbox())
    app = FastAPI()
    app.include_router(notification_routes(receiver), prefix="/callfire")
    async with app.router.lifespan_context(app):
        with record_completions() as completions:
            await deliver(app, EVENT)

    assert [completion.attempt.delivery_id for completion in completions] == [1]


async def test_a_receiver_that_is_started_in_the_block_records():
    """Without `deliver`."""
    with record_completions() as completions:
        async with Receiver(router, tokens=None, inbox=(inbox := MemoryInbox())) as receiver:
            await post_to(receiver)
            assert (await inbox.get(1)).state == "done"

    assert len(completions) == 1


async def post_to(receiver: Receiver) -> None:
    from callfire_async.notifications import Postback

    await receiver.receive(Postback("POST", None, {}, EVENT.to_json()))
    await receiver.idle(5)


async def test_a_block_that_is_left_in_another_context_ends():
    """As when a generator with the block is closed by the event loop."""

    async def waiting():
        with record_completions():
            yield

    generator = waiting()
    await asyncio.create_task(anext(generator))
    await generator.aclose()

    with pytest.raises(RuntimeError):
        current_attempt()
