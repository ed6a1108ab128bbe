"""Find finished texts and calls whose postbacks were missed, and append them to the inbox."""

from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

from attrs import define, evolve, frozen

from callfire_async.client import CallFire
from callfire_async.client._operations.api_1_1 import A
from callfire_async.client._pagination import iter_pages
from callfire_async.client.subscriptions import Subscriptions
from callfire_async.client.texts_and_calls import MAX_LISTED, TextsOrCalls
from callfire_async.models import Call, NotificationFormat, Subscription, Text
from callfire_async.notifications.encoding import encode
from callfire_async.notifications.events import CallFinished, Notification, TextNotification, is_final
from callfire_async.notifications.inbox.base import Delivery, Inbox
from callfire_async.notifications.parsing import parse
from callfire_async.notifications.routing.subscription_filters import matches
from callfire_async.notifications.worker import event_key

__all__ = ["Progress", "ReconcileResult", "reconcile"]


@frozen(kw_only=True)
class ReconcileResult:
    """What a run of `reconcile` has found."""

    #: Finished texts and calls in the window.
    listed: int = 0
    #: Events among them that a handler of this inbox had taken.
    handled: int = 0
    #: Deliveries that were put into the inbox.
    appended: int = 0
    #: Deliveries that an earlier run had put there.
    duplicates: int = 0
    #: What was in the inbox and not handled yet when the run began: so many of the appended may be second deliveries.
    waiting: int = 0


@frozen(kw_only=True)
class Progress:
    """How far a run has come, and where it can be taken up again."""

    since: datetime
    until: datetime
    #: What is being listed: ``text``, then ``call``.
    kind: str
    #: How many of the kind CallFire has listed, finished or not.
    next_result: int
    #: How many there are, where CallFire says so.
    total_results: int | None
    counts: ReconcileResult


async def reconcile(
    callfire: CallFire,
    inbox: Inbox,
    subscriptions: Iterable[Subscription] | AsyncIterable[Subscription] | Subscriptions,
    *,
    since: datetime,
    until: datetime | None = None,
    progress: Callable[[Progress], None] | None = None,
    resume: Progress | None = None,
    retention: timedelta | None = None,
    page_size: int = 1000,
) -> ReconcileResult:
    """
    Find the finished texts and calls of a window that the inbox has not seen, and put them there.

    For each event that no handler has taken there is one delivery for each subscription whose trigger and filter match,
    as if CallFire had posted it. A run may be repeated, overlap another, and run while postbacks arrive; what was in
    the inbox but not handled yet may be handled twice. An event that was posted for one subscription and lost for
    another counts as seen. Campaigns are not listed, so their events cannot be found.

    Args:
        callfire: The client.
        inbox: The receiver's, open.
        subscriptions: Those that post to this inbox; those that are disabled, or post to a mailbox, are passed over.
        since: The beginning of the window, aware. Which of its times CallFire compares is not documented, so begin
            earlier than the outage by as long as a text or a call may take.
        until: Its end; now, unless given.
        progress: Called after each page.
        resume: What *progress* was last given in a run that broke off; *since* and *until* are to be its own, or left.
        retention: For how long the inbox remembers what it has seen; an inbox with an attribute ``retention``
            (seconds), as all of this library have, is asked.
        page_size: How many texts or calls are fetched, and held in memory, at a time; 1 to 1000.

    Raises:
        ValueError: *since* is older than the inbox remembers, so that what was handled would be handled again; or the
            window is not one.
        TypeError: It is not known for how long the inbox remembers.
        CallFireError: A page cannot be fetched, or not be put into the inbox; take it up again with *resume*.
    """
    now = datetime.now(UTC)
    start = _start(since, until or (resume.until if resume else now), resume)
    _check_retention(start.since, now - _retention(inbox, retention))
    run = _BackfillRun(inbox, await _posted_to(subscriptions), progress or _no_progress, page_size, start)
    if resume is None:
        stats = await inbox.stats()
        run.count(waiting=stats.ready + stats.delayed + stats.leased)
    if start.kind == "text":
        await run.take(callfire.texts, _text_event)
        run.start_calls()
    await run.take(callfire.calls, _call_event)
    return run.at.counts


def _start(since: datetime, until: datetime, resume: Progress | None) -> Progress:
    if since.tzinfo is None or until.tzinfo is None:
        raise ValueError("since and until must have an offset")
    if since > until:
        raise ValueError("since must not be after until")
    if resume is None:
        return Progress(
            since=since, until=until, kind="text", next_result=0, total_results=None, counts=ReconcileResult()
        )
    if (since, until) != (resume.since, resume.until):
        raise ValueError("a run is taken up again with its own since and until")
    return resume


def _retention(inbox: Inbox, given: timedelta | None) -> timedelta:
    seconds = getattr(inbox, "retention", None)
    if given is None and seconds is None:
        raise TypeError("this inbox does not say for how long it remembers: pass retention=")
    return timedelta(seconds=seconds or 0) if given is None else given


def _check_retention(since: datetime, oldest: datetime) -> None:
    if since < oldest:
        raise ValueError(
            f"the inbox remembers what was handled since {oldest:%Y-%m-%d %H:%M} UTC only:"
            " what is older would be handled again; choose a later since"
        )


async def _posted_to(
    subscriptions: Iterable[Subscription] | AsyncIterable[Subscription] | Subscriptions,
) -> list[Subscription]:
    if isinstance(subscriptions, Subscriptions):
        subscriptions = subscriptions.all()
    if isinstance(subscriptions, AsyncIterable):
        found = [subscription async for subscription in subscriptions]
    else:
        found = list(subscriptions)
    return [subscription for subscription in found if _is_posted_to(subscription)]


def _is_posted_to(subscription: Subscription) -> bool:
    to_a_mailbox = subscription.notification_format == NotificationFormat.EMAIL or (
        subscription.endpoint is not None and "://" not in subscription.endpoint
    )
    return subscription.enabled is not False and not to_a_mailbox


def _no_progress(_: Progress) -> None:
    """Tell nobody how far it has come."""


def _text_event(text: Text) -> Notification:
    # The root that production sends: what kind of event it is, `parse` finds out.
    return TextNotification(text=text)


def _call_event(call: Call) -> Notification:
    return CallFinished(call=call)


@define(eq=False)
class _BackfillRun:
    """One run: what has not been seen goes into the inbox, page by page."""

    _inbox: Inbox
    _subscriptions: Sequence[Subscription]
    _progress: Callable[[Progress], None]
    _page_size: int
    #: How far it has come.
    at: Progress

    async def take(self, service: TextsOrCalls[A], event_of: Callable[[A], Notification]) -> None:
        """List the texts or the calls of the window, from where it stands."""
        query = partial(service.query, interval_begin=self.at.since, interval_end=self.at.until)
        listed = iter_pages(query, page_size=self._page_size, max_items=MAX_LISTED, first_result=self.at.next_result)
        async for step in listed:
            await self._append_unseen([event_of(action) for action in step.items if is_final(action)])
            self.at = evolve(self.at, next_result=step.next_result, total_results=step.total_results)
            self._progress(self.at)

    async def _append_unseen(self, events: Sequence[Notification]) -> None:
        """Put what the inbox has not seen there."""
        seen = await self._inbox.handled([event_key(event) for event in events])
        missing = [event for event in events if event_key(event) not in seen]
        deliveries = [delivery for event in missing for delivery in _deliveries(event, self._subscriptions)]
        appended = await self._inbox.append_many(deliveries) if deliveries else []
        duplicates = sum(one.duplicate for one in appended)
        self.count(
            listed=len(events),
            handled=len(events) - len(missing),
            appended=len(appended) - duplicates,
            duplicates=duplicates,
        )

    def count(self, **more: int) -> None:
        """Add to the counts."""
        counts = self.at.counts
        added = {name: getattr(counts, name) + number for name, number in more.items()}
        self.at = evolve(self.at, counts=evolve(counts, **added))

    def start_calls(self) -> None:
        """Begin with the calls."""
        self.at = evolve(self.at, kind="call", next_result=0, total_results=None)


def _deliveries(event: Notification, subscriptions: Iterable[Subscription]) -> Iterator[Delivery]:
    """Word an event for each subscription that it is for, as CallFire would have."""
    content_type, body = encode(event, NotificationFormat.JSON)
    received = parse(body, content_type)
    for subscription in subscriptions:
        if matches(received, subscription):
            content_type, body = encode(evolve(event, subscription_id=subscription.id), NotificationFormat.JSON)
            yield Delivery(body, content_type, key=f"reconcile:{event_key(event)}:{subscription.id}")
