"""Backfill of finished texts and calls whose postbacks were missed."""

from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeAlias

from attrs import define, evolve, frozen

from callfire_async._arguments import check_instance, check_methods, check_plain_function, type_name
from callfire_async.client import CallFire
from callfire_async.client._operations.api_1_1 import A, checked_page_size
from callfire_async.client._pagination import iter_pages
from callfire_async.client.subscriptions import Subscriptions
from callfire_async.client.texts_and_calls import MAX_LISTED, TextsOrCalls
from callfire_async.client.webhooks import Webhooks
from callfire_async.models import NotificationFormat, Subscription, Webhook
from callfire_async.notifications.encoding import encode
from callfire_async.notifications.events import CallFinished, Notification, TextNotification, event_key, is_final
from callfire_async.notifications.inbox._inbox_arguments import checked_list
from callfire_async.notifications.inbox.base import Delivery, Inbox
from callfire_async.notifications.parsing import parse
from callfire_async.notifications.routing.subscription_filters import matches, matches_webhook

__all__ = ["Progress", "ReconcileResult", "reconcile"]

Source: TypeAlias = Subscription | Webhook
Sources: TypeAlias = Iterable[Source] | AsyncIterable[Source] | Subscriptions | Webhooks


@frozen(kw_only=True)
class ReconcileResult:
    """Counts of a `reconcile` run."""

    #: Finished texts and calls in the window.
    listed: int = 0
    #: Listed events that the inbox's handlers had handled already.
    handled: int = 0
    #: Deliveries that were added to the inbox.
    appended: int = 0
    #: Deliveries that an earlier run had added.
    duplicates: int = 0
    #: Unhandled deliveries in the inbox at the start; up to this many events may be handled twice.
    waiting: int = 0


@frozen(kw_only=True)
class Progress:
    """Progress of a `reconcile` run, from which the run can be resumed."""

    since: datetime
    until: datetime
    #: What is being listed: ``text``, then ``call``.
    kind: str
    #: Number of texts, or calls, that have been listed so far, finished or not.
    next_result: int
    #: Total number of them; None if CallFire did not return it.
    total_results: int | None
    counts: ReconcileResult


async def reconcile(
    callfire: CallFire,
    inbox: Inbox,
    subscriptions: Sources,
    *,
    since: datetime,
    until: datetime | None = None,
    progress: Callable[[Progress], None] | None = None,
    resume: Progress | None = None,
    retention: timedelta | None = None,
    page_size: int = 1000,
) -> ReconcileResult:
    """
    Find the finished texts and calls of a time window that were not handled, and append them to the inbox.

    Each unhandled event becomes one delivery for each subscription whose trigger and filter match, and for each webhook
    whose resource and events match, as if CallFire had posted it. Runs may be repeated, overlap, and take place while
    postbacks arrive. An event that is in the inbox but not handled yet may be handled twice. An event that was received
    for one subscription or webhook and lost for another counts as handled. Only texts and calls can be found, because
    CallFire does not list other events.

    Args:
        callfire: The client.
        inbox: The receiver's inbox, which must be open.
        subscriptions: The subscriptions and webhooks that post to this inbox: a list, ``callfire.subscriptions`` or
            ``callfire.webhooks``. Disabled ones and e-mail subscriptions are ignored.
        since: Start of the window, timezone-aware. CallFire does not document which timestamp it compares, so start
            earlier than the outage, by the longest duration of a text or a call.
        until: End of the window, timezone-aware. Default: now.
        progress: Called after each page.
        resume: The last `Progress` of an interrupted run. *since* must be that run's own; *until* may be omitted.
        retention: How long the inbox remembers handled events. Default: the inbox's attribute ``retention`` (seconds),
            which all inboxes of this library have.
        page_size: Number of texts or calls in a page, 1 to 1000; one page is held in memory.

    Raises:
        ValueError: *since* is older than the inbox's retention, so that events would be handled again; or the window
            or *page_size* is invalid.
        TypeError: An argument has the wrong type; or the inbox has no ``retention``, and none was passed.
        CallFireError: A page could not be listed, or not be appended; the run can be resumed.
    """
    check_instance("callfire", callfire, CallFire, "CallFire()")
    check_methods("inbox", inbox, ("handled", "append_many", "stats"), "an inbox, such as that of the receiver")
    if progress is not None:
        check_plain_function("progress", progress, resume)
    if resume is not None:
        check_instance("resume", resume, Progress, "the last progress of the run")
    checked_page_size(page_size)
    now = datetime.now(UTC)
    start = _start_of(since, until or (resume.until if resume else now), resume)
    _check_retention(start.since, now, _retention_of(inbox, retention))
    run = _BackfillRun(inbox, await _postback_sources(subscriptions), progress or (lambda _: None), page_size, start)
    if resume is None:
        stats = await inbox.stats()
        run.add(waiting=stats.ready + stats.delayed + stats.leased)
    if start.kind == "text":
        # The root element that CallFire uses in production; `parse` derives the class of the event.
        await run.backfill(callfire.texts, lambda text: TextNotification(text=text))
        run.start_calls()
    await run.backfill(callfire.calls, lambda call: CallFinished(call=call))
    return run.progress.counts


def _start_of(since: datetime, until: datetime, resume: Progress | None) -> Progress:
    for name, moment in (("since", since), ("until", until)):
        if not isinstance(moment, datetime):
            raise TypeError(f"{name} must be a timezone-aware datetime, not {type_name(moment)}")
    if since.tzinfo is None or until.tzinfo is None:
        raise ValueError("since and until must be timezone-aware")
    if since > until:
        raise ValueError("since must not be after until")
    if resume is None:
        return Progress(
            since=since, until=until, kind="text", next_result=0, total_results=None, counts=ReconcileResult()
        )
    if (since, until) != (resume.since, resume.until):
        raise ValueError("since and until must be those of the resumed run")
    return resume


def _retention_of(inbox: Inbox, given: timedelta | None) -> float:
    """Return for how many seconds handled events are kept; may be infinite."""
    if not isinstance(given, timedelta | None):
        raise TypeError(f"retention must be a timedelta, not {type_name(given)}")
    seconds: float | None = getattr(inbox, "retention", None)
    if given is not None:
        return given.total_seconds()
    if seconds is None:
        raise TypeError("retention is required: the inbox has no attribute retention")
    return seconds


def _check_retention(since: datetime, now: datetime, retention: float) -> None:
    if (now - since).total_seconds() > retention:
        oldest = now - timedelta(seconds=retention)
        raise ValueError(
            "since is older than the inbox's retention"
            f" (handled events are only kept since {oldest:%Y-%m-%d %H:%M} UTC); pass a later since"
        )


async def _postback_sources(sources: Sources) -> list[Source]:
    listed = sources.all() if isinstance(sources, Subscriptions | Webhooks) else sources
    if isinstance(listed, AsyncIterable):
        items = [item async for item in listed]
    else:
        items = checked_list("subscriptions", listed)
    return [item for item in items if item.enabled is not False and not is_email(item)]


def is_email(source: Source) -> bool:
    """Return whether a subscription posts to a mailbox; the format of one can be XML."""
    if isinstance(source, Webhook):
        return False
    return source.notification_format == NotificationFormat.EMAIL or (
        source.endpoint is not None and "://" not in source.endpoint
    )


@define(eq=False)
class _BackfillRun:
    """One run, which appends unhandled events page by page."""

    _inbox: Inbox
    _sources: Sequence[Source]
    _on_progress: Callable[[Progress], None]
    _page_size: int
    progress: Progress

    async def backfill(self, service: TextsOrCalls[A], to_event: Callable[[A], Notification]) -> None:
        """List the texts or the calls of the window from the current position."""
        start = self.progress
        query = partial(service.query, interval_begin=start.since, interval_end=start.until)
        pages = iter_pages(query, page_size=self._page_size, max_items=MAX_LISTED, first_result=start.next_result)
        async for page in pages:
            await self._append_unhandled([to_event(action) for action in page.items if is_final(action)])
            self.progress = evolve(self.progress, next_result=page.next_result, total_results=page.total_results)
            self._on_progress(self.progress)

    async def _append_unhandled(self, events: Sequence[Notification]) -> None:
        handled = await self._inbox.handled([event_key(event) for event in events])
        missed = [event for event in events if event_key(event) not in handled]
        deliveries = [delivery for event in missed for delivery in _deliveries(event, self._sources)]
        results = await self._inbox.append_many(deliveries) if deliveries else []
        duplicates = sum(result.duplicate for result in results)
        self.add(
            listed=len(events),
            handled=len(events) - len(missed),
            appended=len(results) - duplicates,
            duplicates=duplicates,
        )

    def add(self, **increments: int) -> None:
        """Increase counts."""
        counts = self.progress.counts
        totals = {name: getattr(counts, name) + increment for name, increment in increments.items()}
        self.progress = evolve(self.progress, counts=evolve(counts, **totals))

    def start_calls(self) -> None:
        """Set the position to the first call."""
        self.progress = evolve(self.progress, kind="call", next_result=0, total_results=None)


def _deliveries(event: Notification, sources: Iterable[Source]) -> Iterator[Delivery]:
    """Encode an event for each matching subscription and webhook, as CallFire would have."""
    content_type, body = encode(event, NotificationFormat.JSON)
    parsed = parse(body, content_type)
    for source in sources:
        if isinstance(source, Webhook):
            if matches_webhook(parsed, source):
                yield _webhook_delivery(parsed, source)
        elif matches(parsed, source):
            content_type, body = encode(evolve(event, subscription_id=source.id), NotificationFormat.JSON)
            yield Delivery(body, content_type, key=f"reconcile:{event_key(event)}:{source.id}")


def _webhook_delivery(event: Notification, webhook: Webhook) -> Delivery:
    content_type, body = encode(evolve(event, webhook_id=webhook.id, webhook_name=webhook.name), api="v2")
    return Delivery(body, content_type, key=f"reconcile:{event_key(event)}:webhook:{webhook.id}")
