"""`PostbackRecorder`: what a fake CallFire posts, kept in memory."""

from fastapi import FastAPI

from callfire_async import TriggerEvent
from callfire_async.notifications import CallFinished, Notification, Receiver, Router, TextSent
from callfire_async.notifications.fastapi import notification_routes
from callfire_async.testing import FakeCallFire, PostbackRecorder, make_call_finished, make_text_sent
from callfire_async.testing.plugin import callfire, fake_callfire, postbacks

# Wherever the plugin is installed or not, these are its fixtures.
__all__ = ["callfire", "fake_callfire", "postbacks"]

URL = "https://hooks.example.com/callfire/a-token-for-tests-only"


async def test_what_is_posted_is_kept(callfire, fake_callfire, postbacks):
    """No endpoint need be there; each is answered 204."""
    for trigger in (TriggerEvent.OUTBOUND_TEXT_FINISHED, TriggerEvent.OUTBOUND_CALL_FINISHED):
        await callfire.subscriptions.create(URL, trigger)
    text, call = make_text_sent(), make_call_finished()

    posted = [*await fake_callfire.emit(text), *await fake_callfire.emit(call)]

    assert [one.status for one in posted] == [204, 204]
    assert [event.key for event in postbacks.of(Notification)] == [text.key, call.key]
    assert [len(postbacks.of(kind)) for kind in (TextSent, CallFinished)] == [1, 1]
    assert postbacks.urls == (URL, URL)


async def test_they_go_on_to_an_application():
    """Which answers them."""
    router = Router()
    handled = []

    @router.on(TextSent)
    async def note(event: TextSent) -> None:
        handled.append(event.key)

    receiver = Receiver(router, tokens="a-token-for-tests-only")
    app = FastAPI()
    app.include_router(notification_routes(receiver), prefix="/callfire")
    postbacks = PostbackRecorder(app)
    fake = FakeCallFire(transport=postbacks)
    async with receiver, fake.client() as callfire:
        await callfire.subscriptions.create(URL, TriggerEvent.OUTBOUND_TEXT_FINISHED)
        (posted,) = await fake.emit(make_text_sent())

    assert (posted.status, handled) == (204, [posted.key])
    assert [event.key for event in postbacks.of(TextSent)] == handled
