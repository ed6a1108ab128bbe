"""`PostbackRecorder`: the postbacks of a fake CallFire, recorded in memory."""

from fastapi import FastAPI

from callfire_async import TriggerEvent
from callfire_async.notifications import CallFinished, Notification, Receiver, Router, TextSent
from callfire_async.notifications.fastapi import notification_routes
from callfire_async.testing import FakeCallFire, PostbackRecorder, make_call_finished, make_text_sent
from callfire_async.testing.plugin import callfire, fake_callfire, postbacks

# Imported so that the tests also run if the plugin is not installed.
__all__ = ["callfire", "fake_callfire", "postbacks"]

URL = "https://hooks.example.com/callfire/a-token-for-tests-only"


async def test_postbacks_are_recorded(callfire, fake_callfire, postbacks):
    """No endpoint is needed; each postback gets 204."""
    for trigger in (TriggerEvent.OUTBOUND_TEXT_FINISHED, TriggerEvent.OUTBOUND_CALL_FINISHED):
        await callfire.subscriptions.create(URL, trigger)
    text, call = make_text_sent(), make_call_finished()

    results = [*await fake_callfire.emit(text), *await fake_callfire.emit(call)]

    assert [result.status for result in results] == [204, 204]
    assert [event.key for event in postbacks.of(Notification)] == [text.key, call.key]
    assert [len(postbacks.of(kind)) for kind in (TextSent, CallFinished)] == [1, 1]
    assert postbacks.urls == (URL, URL)


async def test_postbacks_are_passed_to_an_application():
    """The application responds to them."""
    router = Router()
    handled = []

    @router.on(TextSent)
    async def record(event: TextSent) -> None:
        handled.append(event.key)

    receiver = Receiver(router, tokens="a-token-for-tests-only")
    app = FastAPI()
    app.include_router(notification_routes(receiver), prefix="/callfire")
    postbacks = PostbackRecorder(app)
    fake = FakeCallFire(transport=postbacks)
    async with receiver, fake.client() as callfire:
        await callfire.subscriptions.create(URL, TriggerEvent.OUTBOUND_TEXT_FINISHED)
        (result,) = await fake.emit(make_text_sent())

    assert (result.status, handled) == (204, [result.key])
    assert [event.key for event in postbacks.of(TextSent)] == handled
