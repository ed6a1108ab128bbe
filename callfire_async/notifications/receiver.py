"""
The receiver: takes what the door lets in, and keeps it or handles it before it is answered.

An adapter hands over a `Postback` and turns the `Reply` into a response; it decides nothing. This room imports what
stands above it in this folder.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Container, Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from attrs import frozen

from callfire_async.notifications.health import Health, intake_health
from callfire_async.notifications.inbox.base import Delivery, Inbox, InboxStats
from callfire_async.notifications.intake import InlineIntake, QueuedIntake
from callfire_async.notifications.observers import Observer, RequestRecord, _CompositeObserver
from callfire_async.notifications.retry import RetryPolicy
from callfire_async.notifications.routing.router import Router
from callfire_async.notifications.security._allowlist import SubscriptionAllowList
from callfire_async.notifications.security.request_validation import (
    TRY_AGAIN,
    Postback,
    Rejection,
    Reply,
    RequestValidator,
    relevant_headers,
)
from callfire_async.notifications.security.tokens import EndpointTokens, RedactTokenFilter
from callfire_async.notifications.worker import OnDeadLetter, Worker

__all__ = ["Postback", "Receiver", "ReceiverStats", "Reply"]

_log = logging.getLogger("callfire_async.receiver")

_IDLE_POLL_SECONDS = 0.1

_NOT_RUNNING = """\
a postback was answered 503 because the receiver is not running; start and stop it with the application:
    app.include_router(notification_routes(receiver), prefix="/callfire")                      # FastAPI
    add_notification_routes(app, receiver, "/callfire")                                        # aiohttp
    Starlette(routes=[Mount("/callfire", notification_app)], lifespan=notification_app.lifespan)   # mounted
    async with receiver: ...                                                                   # anything else"""


@frozen
class ReceiverStats:
    """What a receiver has done since it was made, and what its inbox holds."""

    #: How many requests were refused, by reason: those of `RequestRecord.refused` but for ``no notification``.
    refused: Mapping[str, int]
    #: Deliveries that were there already; 0 without an inbox.
    duplicates: int
    #: Events whose root API 1.1 does not name.
    unknown: int
    #: Events that no handler took.
    unhandled: int
    #: Deliveries whose handlers have all succeeded.
    handled: int
    #: Attempts in which a handler failed.
    failed: int
    #: Deliveries that became dead letters; 0 without an inbox.
    dead: int
    #: None where there is no inbox.
    inbox: InboxStats | None


class Receiver:
    """
    Takes postbacks, and gives their events to a router's handlers.

    With an inbox the raw bytes are stored first, and the answer 204 means that they are kept: on disk, with a
    `SqliteInbox`. Parsing and handlers come after; a handler that fails is tried again, and what cannot be handled
    becomes a dead letter.

    Without one the handlers run before the answer: 204 when all succeeded or none took the event, 500 when one failed
    or took too long, 400 or 422 for a body that is no notification. CallFire documents no second delivery, so what was
    not answered 204 is lost.

    ``async with receiver`` starts it at the first entry and stops it at the last exit, and may be entered more than
    once. A receiver that is not running answers 503.

    Args:
        router: The handlers.
        tokens: What opens the endpoint; a string is one token, None leaves it open to anyone.
        inbox: Where deliveries are kept; the receiver opens and closes it.
        max_body_bytes: A larger body is answered 413.
        body_timeout: Seconds for the whole body; a slower one is answered 408.
        known_subscriptions: Ids, or a coroutine function that returns them and is asked once a minute; an event that
            says it is from another one is not handled.
        handler_timeout: Seconds for each handler; None for no limit.
        concurrency: Deliveries handled at once, 16 unless given; 0 only takes in. With an inbox only.
        retry: When to try again. With an inbox only.
        shutdown_timeout: Seconds for running handlers when the receiver stops, 10 unless given. With an inbox only.
        on_dead_letter: A coroutine function that is told of each dead letter. With an inbox only.

    Raises:
        ValueError: The router is empty, a limit of size or time is not above 0, or *concurrency* or *shutdown_timeout* is below 0.
        TypeError: *tokens* or *known_subscriptions* is none of these, or an argument needs an inbox.
    """

    def __init__(
        self,
        router: Router,
        *,
        tokens: EndpointTokens | str | None,
        inbox: Inbox | None = None,
        max_body_bytes: int = 1024 * 1024,
        body_timeout: float = 10.0,
        known_subscriptions: Container[int] | Callable[[], Awaitable[Container[int]]] | None = None,
        handler_timeout: float | None = 30.0,
        concurrency: int | None = None,
        retry: RetryPolicy | None = None,
        shutdown_timeout: float | None = None,
        on_dead_letter: OnDeadLetter | None = None,
    ) -> None:
        if router.is_empty:
            raise ValueError("the router has no handler; register the handlers before making the receiver")
        _check_positive(max_body_bytes=max_body_bytes, body_timeout=body_timeout, handler_timeout=handler_timeout)
        _check_not_negative(concurrency=concurrency, shutdown_timeout=shutdown_timeout)
        needing = {
            "concurrency": concurrency,
            "retry": retry,
            "shutdown_timeout": shutdown_timeout,
            "on_dead_letter": on_dead_letter,
        }
        if inbox is None and (given := [name for name, value in needing.items() if value is not None]):
            raise TypeError(f"without an inbox there is no use for {', '.join(given)}")
        self._validator = RequestValidator(_tokens(tokens), max_body_bytes=max_body_bytes, body_timeout=body_timeout)
        subscriptions = SubscriptionAllowList(known_subscriptions)
        self._observers = _CompositeObserver()
        if inbox is None:
            self._intake: InlineIntake | QueuedIntake = InlineIntake(
                router, subscriptions, handler_timeout, self._observers
            )
        else:
            worker = Worker(
                inbox=inbox,
                router=router,
                concurrency=16 if concurrency is None else concurrency,
                handler_timeout=handler_timeout,
                retry=retry or RetryPolicy(),
                shutdown_timeout=10.0 if shutdown_timeout is None else shutdown_timeout,
                subscriptions=subscriptions,
                on_dead_letter=on_dead_letter,
                observers=self._observers,
            )
            self._intake = QueuedIntake(inbox, worker)
        self._filters: dict[str, RedactTokenFilter] = {}
        self._entries = 0
        self._stopping = AsyncExitStack()
        self._changing = asyncio.Lock()
        self._active_requests = 0
        self._logged_not_running = False

    # --- lifecycle ----------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """
        Start with the first entry.

        Raises:
            InboxError: The inbox cannot be opened.
        """
        async with self._changing:
            if not self._entries:
                async with AsyncExitStack() as started:
                    await self._intake.start()
                    started.push_async_callback(self._intake.stop)
                    await started.enter_async_context(self._observers.lifespan())
                    self._stopping = started.pop_all()
            self._entries += 1
            self._redact()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop with the last exit: nothing more is taken in, running handlers get their shutdown_timeout, the inbox is closed."""
        async with self._changing:
            self._entries -= 1
            if not self._entries:
                try:
                    await self._stopping.aclose()
                finally:
                    self._stop_redacting()

    # --- silence ------------------------------------------------------------------------------------------

    def redact(self, *loggers: str) -> None:
        """
        Have the tokens masked in what is logged with these loggers, while the receiver runs.

        The adapters name their servers' access loggers, which write down the path.
        """
        if self._validator.tokens is not None:
            self._filters = {name: RedactTokenFilter(self._validator.tokens) for name in loggers} | self._filters
        if self._entries:
            self._redact()

    def _redact(self) -> None:
        for name, redacting in self._filters.items():
            logging.getLogger(name).addFilter(redacting)

    def _stop_redacting(self) -> None:
        for name, redacting in self._filters.items():
            logging.getLogger(name).removeFilter(redacting)

    # --- looking after it ---------------------------------------------------------------------------------

    def observe(self, observer: Observer) -> None:
        """Tell an observer of every request, delivery and handler from now on."""
        self._observers.add(observer)

    def stop_observing(self, observer: Observer) -> None:
        """Tell it no more; what it is in the middle of, it sees to the end."""
        self._observers.remove(observer)

    @property
    def tokens(self) -> EndpointTokens | None:
        """What opens the endpoint; None where anyone may post."""
        return self._validator.tokens

    @property
    def is_running(self) -> bool:
        """Whether it has been started, and not stopped again."""
        return self._entries > 0

    @property
    def requires_token(self) -> bool:
        """Whether a token is required; if not, anyone may post, and the adapters route the bare prefix too."""
        return self._validator.tokens is not None

    async def health(self, *, max_age: float = 300.0) -> Health:
        """
        Return the receiver's liveness, readiness and health. Never raises.

        Args:
            max_age: Seconds that a due delivery may wait before the receiver is unhealthy.
        """
        return await intake_health(self._intake if self.is_running else None, max_age)

    async def stats(self) -> ReceiverStats:
        """
        Count.

        Raises:
            InboxError: The inbox cannot be read.
        """
        names = ("duplicates", "unknown", "unhandled", "handled", "failed", "dead")
        counts = {name: self._intake.counts[name] for name in names}
        stored = self._intake.counts["not stored"]
        refused = dict(self._validator.refused) | ({"storage": stored} if stored else {})
        return ReceiverStats(refused=refused, inbox=await self._intake.inbox_stats(), **counts)

    async def idle(self, timeout: float) -> None:
        """
        Wait until nothing is ready or running: for tests. What waits for another attempt does not count.

        Raises:
            TimeoutError: Something still was after *timeout* seconds.
        """
        async with asyncio.timeout(timeout):
            while self._active_requests or not await self._intake.is_idle():
                await self._intake.wait_for_change(_IDLE_POLL_SECONDS)

    # --- taking postbacks ---------------------------------------------------------------------------------

    async def receive(self, postback: Postback) -> Reply:
        """
        Take one request.

        Never raises but when it is cancelled: what the sender did wrong, what handlers raised, and that nothing could
        be stored, is the status of the reply.
        """
        record = RequestRecord(postback.method)
        self._active_requests += 1
        try:
            with self._observers.request(record):
                record.reply = await self._reply(postback, record)
                return record.reply
        finally:
            self._active_requests -= 1

    async def redeliver(self, delivery: Delivery) -> Reply:
        """
        Take a delivery that no request has brought: a tool's, that is to be handled once more.

        It goes the way of a postback behind the door. With an inbox its key must be a new one: within the inbox's
        window a delivery with a key that is there already is a duplicate.
        """
        record = RequestRecord("POST", delivery)
        self._active_requests += 1
        try:
            with self._observers.request(record):
                record.reply = await self._taken(delivery, record)
                return record.reply
        finally:
            self._active_requests -= 1

    async def _taken(self, delivery: Delivery, record: RequestRecord) -> Reply:
        if not self.is_running:
            record.refused = "not running"
            return Reply(503, (TRY_AGAIN,))
        return await self._intake.accept(delivery, record)

    async def _reply(self, postback: Postback, record: RequestRecord) -> Reply:
        headers = relevant_headers(postback)
        content = await self._validator.read_request(postback, headers, is_running=self.is_running)
        if isinstance(content, Rejection):
            record.refused = content.reason
            if content.reply.status == 503:
                self._log_not_running()
            return content.reply
        record.delivery = Delivery(content, headers.get("content-type"))
        return await self._intake.accept(record.delivery, record)

    def _log_not_running(self) -> None:
        # The server is about to log the path, with a token that is right.
        self._redact()
        if not self._logged_not_running:
            self._logged_not_running = True
            _log.error(_NOT_RUNNING)


def _tokens(tokens: EndpointTokens | str | None) -> EndpointTokens | None:
    if isinstance(tokens, str):
        return EndpointTokens(tokens)
    if tokens is None or isinstance(tokens, EndpointTokens):
        return tokens
    raise TypeError("tokens must be an EndpointTokens, a string, or None for an endpoint that anyone may post to")


def _check_positive(**limits: float | None) -> None:
    for name, limit in limits.items():
        if limit is not None and not limit > 0:
            raise ValueError(f"{name} must be more than 0")


def _check_not_negative(**limits: float | None) -> None:
    for name, limit in limits.items():
        if limit is not None and not limit >= 0:
            raise ValueError(f"{name} must not be negative")
