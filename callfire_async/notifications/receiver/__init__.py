"""`Receiver`: validates requests, passes their deliveries to an intake, and returns the responses."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Container
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Literal, Self, TypeAlias

from callfire_async._arguments import check_bool, check_instance, check_methods
from callfire_async.errors import EventLoopError
from callfire_async.notifications.health import Health, intake_health
from callfire_async.notifications.inbox._cancellation import StopProgress
from callfire_async.notifications.inbox.base import Delivery, Inbox
from callfire_async.notifications.intake import InlineIntake, OwnEventLoop, QueuedIntake
from callfire_async.notifications.observers import Observer, RequestRecord, _CompositeObserver
from callfire_async.notifications.receiver._log_messages import NOT_RUNNING, STOPPED, log_unfinished
from callfire_async.notifications.receiver._receiver_arguments import (
    check_limits,
    check_router,
    check_worker_arguments,
    to_endpoint_tokens,
    to_signature_policy,
)
from callfire_async.notifications.receiver._receiver_stats import ReceiverStats
from callfire_async.notifications.retry import RetryPolicy
from callfire_async.notifications.routing._failures import FailureLog
from callfire_async.notifications.routing.router import Router
from callfire_async.notifications.security.log_redaction import RedactTokenFilter
from callfire_async.notifications.security.request_validation import (
    RETRY_AFTER_HEADER,
    Postback,
    Rejection,
    Reply,
    RequestValidator,
    relevant_headers,
)
from callfire_async.notifications.security.signatures import SigningSecrets
from callfire_async.notifications.security.tokens import EndpointTokens
from callfire_async.notifications.worker import Worker
from callfire_async.notifications.worker._dead_letter_callback import OnDeadLetter
from callfire_async.notifications.worker._known_sources import KnownSources

__all__ = ["Postback", "Receiver", "ReceiverStats", "Reply"]

_log = logging.getLogger("callfire_async.receiver")

_IDLE_POLL_SECONDS = 0.1

#: Called with the body of a valid request and a function that stores or handles the request; returns the reply.
Around: TypeAlias = Callable[[bytes, Callable[[], Awaitable[Reply]]], Awaitable[Reply]]


class Receiver:
    """
    Receives postbacks and dispatches their events to a router's handlers.

    With an inbox the raw bytes are stored before the response, and 204 means that they are stored: on disk, with a
    `SqliteInbox`. Parsing and handlers run afterwards; failed handlers are retried, and a delivery that cannot be
    handled becomes a dead letter.

    Without an inbox the handlers run before the response: 204 if all succeeded or the event matched none, 500 if one
    failed or timed out, 400 or 422 for a body that is not a notification. CallFire does not document retries, so an
    event with any response other than 204 is lost.

    An envelope of API v2 with several events is one delivery, which the worker replaces with one for each event.
    Without an inbox all events are handled before the response: 500 if one failed or cannot be read, 422 if none can.

    ``async with receiver`` starts it at the first entry and stops it at the last exit. Otherwise it responds 503.

    Args:
        router: The handlers.
        tokens: The valid tokens; a string is one token, None accepts requests without a token.
        signing_secrets: The secrets of the webhooks of API v2; a string is one secret, None ignores signatures. A
            postback whose ``X-CallFire-Signature`` is wrong, repeated or missing is rejected with 401.
        require_signature: Whether a postback must have a signature. If not, one without it is accepted on its token
            alone, like those of API 1.1 on the same endpoint. False requires *signing_secrets*.
        inbox: Stores the deliveries; the receiver opens and closes it.
        max_body_bytes: A larger body is rejected with 413.
        body_timeout: Seconds to read the whole body; a slower sender gets 408.
        known_subscriptions: Ids, or a coroutine function that returns them and is called at most once a minute, unless
            it fails. Events of other subscriptions are not handled; events without a subscription id are.
        known_webhooks: The same for webhooks, for events that have a webhook id.
        handler_timeout: Seconds for each handler, and for each call of *known_subscriptions*, *known_webhooks* and
            *on_dead_letter*; None for no limit.
        log_exceptions: Whether the exceptions of handlers are logged with their messages, causes and notes. If not,
            only their types and the lines of code are logged.
        concurrency: Deliveries handled concurrently. Default: 16; with 0 they are only stored. Requires an inbox.
        retry: When deliveries are retried. Requires an inbox.
        shutdown_timeout: Seconds for running handlers when the receiver stops. Default: 10. Requires an inbox. The stop
            ends within 10 more seconds, and the ``drain_timeout`` of a `SpoolingInbox`, even if a server or a function
            hangs. A delivery that cannot be settled or released by then is handled again when its lease expires.
        on_dead_letter: A coroutine function that is called with each dead letter. Requires an inbox.
        unhandled: What happens to events that match no handler: ``"dead_letter"`` makes them dead letters, ``"ignore"``
            acknowledges them. Events of unknown subscriptions and webhooks are dead letters in either case. Default:
            ``"dead_letter"``. Requires an inbox; without one, such events are ignored.

    Raises:
        ValueError: The router is empty, a size or a timeout is not positive or not finite, *concurrency* or
            *shutdown_timeout* is negative, or *unhandled* is unknown.
        TypeError: An argument has the wrong type, or requires an inbox.
    """

    def __init__(
        self,
        router: Router,
        *,
        tokens: EndpointTokens | str | None,
        signing_secrets: SigningSecrets | str | None = None,
        require_signature: bool = True,
        inbox: Inbox | None = None,
        max_body_bytes: int = 1024 * 1024,
        body_timeout: float = 10.0,
        known_subscriptions: Container[int] | Callable[[], Awaitable[Container[int]]] | None = None,
        known_webhooks: Container[int] | Callable[[], Awaitable[Container[int]]] | None = None,
        handler_timeout: float | None = 30.0,
        log_exceptions: bool = True,
        concurrency: int | None = None,
        retry: RetryPolicy | None = None,
        shutdown_timeout: float | None = None,
        on_dead_letter: OnDeadLetter | None = None,
        unhandled: Literal["dead_letter", "ignore"] | None = None,
    ) -> None:
        check_router(router)
        check_limits(max_body_bytes=max_body_bytes, body_timeout=body_timeout, handler_timeout=handler_timeout)
        check_bool("log_exceptions", log_exceptions)
        check_worker_arguments(
            inbox,
            concurrency=concurrency,
            retry=retry,
            shutdown_timeout=shutdown_timeout,
            on_dead_letter=on_dead_letter,
            unhandled=unhandled,
        )
        self._validator = RequestValidator(
            to_endpoint_tokens(tokens),
            max_body_bytes=max_body_bytes,
            body_timeout=body_timeout,
            signatures=to_signature_policy(signing_secrets, require_signature=require_signature, tokens=tokens),
        )
        self._observers = _CompositeObserver()
        self._intake: InlineIntake | QueuedIntake
        known_sources = KnownSources.from_arguments(known_subscriptions, known_webhooks, handler_timeout)
        failure_log = FailureLog(log_exceptions)
        if inbox is None:
            self._intake = InlineIntake(router, known_sources, handler_timeout, self._observers, failure_log)
        else:
            worker = Worker(
                inbox=inbox,
                router=router,
                concurrency=16 if concurrency is None else concurrency,
                handler_timeout=handler_timeout,
                retry=retry or RetryPolicy(),
                shutdown_timeout=10.0 if shutdown_timeout is None else shutdown_timeout,
                known_sources=known_sources,
                on_dead_letter=on_dead_letter,
                ignores_unhandled=unhandled == "ignore",
                failure_log=failure_log,
                observers=self._observers,
            )
            self._intake = QueuedIntake(inbox, worker)
        self._filters: dict[str, RedactTokenFilter] = {}
        self._entry_count = 0
        self._exit_stack = AsyncExitStack()
        self._loop = OwnEventLoop()
        self._active_requests = 0
        self._was_started = self._logged_not_running = False
        #: How to start the receiver; logged if a postback arrives before it is started. Adapters set it.
        self.start_advice = NOT_RUNNING

    # --- lifecycle ----------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """
        Start the receiver at the first entry.

        Raises:
            InboxError: The inbox cannot be opened.
            EventLoopError: The receiver is running in another event loop.
        """
        async with self._loop.lock(is_running=self.is_running):
            if not self._entry_count:
                await self._start()
            self._entry_count += 1
            self._was_started = True
            self._add_filters()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """
        Stop at the last exit: reject postbacks, wait for handlers up to the shutdown timeout, close the inbox.

        A warning lists everything that is not finished when the time is over.
        """
        async with self._loop.lock(is_running=self.is_running):
            self._entry_count -= 1
            if not self._entry_count:
                try:
                    await self._exit_stack.aclose()
                finally:
                    self._remove_filters()

    @property
    def _is_in_other_loop(self) -> bool:
        """Whether the inbox is open in another event loop; without an inbox, nothing belongs to an event loop."""
        return isinstance(self._intake, QueuedIntake) and self.is_running and not self._loop.is_current

    def _check_loop(self) -> None:
        if self._is_in_other_loop:
            raise EventLoopError(self._loop.advice)

    async def _start(self) -> None:
        lifespans, progress = self._observers.lifespans(), StopProgress()
        # Each step of a stop is bounded; the sum of the limits is the constant in the docstring of the class.
        async with AsyncExitStack() as started:
            started.callback(log_unfinished, progress.unfinished)
            started.push_async_callback(lifespans.cancel, progress)
            await self._intake.start()
            started.push_async_callback(self._intake.stop, progress)
            started.push_async_callback(lifespans.end)
            await lifespans.start()
            started.callback(progress.begin)
            self._exit_stack = started.pop_all()

    # --- log redaction ------------------------------------------------------------------------------------

    def redact(self, *loggers: str) -> None:
        """
        Mask the tokens in the records of these loggers while the receiver runs.

        The adapters call this for their servers' access loggers, which log the path.
        """
        if self._validator.tokens is not None:
            self._filters = {name: RedactTokenFilter(self._validator.tokens) for name in loggers} | self._filters
        if self._entry_count:
            self._add_filters()

    def _add_filters(self) -> None:
        for name, token_filter in self._filters.items():
            logging.getLogger(name).addFilter(token_filter)

    def _remove_filters(self) -> None:
        for name, token_filter in self._filters.items():
            logging.getLogger(name).removeFilter(token_filter)

    # --- administration -----------------------------------------------------------------------------------

    def observe(self, observer: Observer) -> None:
        """
        Add an observer for all following requests, attempts and handler calls.

        Raises:
            TypeError: It is not an `Observer`.
        """
        check_methods("observer", observer, ("lifespan", "request", "attempt", "handler"), "an Observer")
        self._observers.add(observer)

    def stop_observing(self, observer: Observer) -> None:
        """Remove an observer; contexts that it has entered are exited as usual."""
        self._observers.remove(observer)

    @property
    def tokens(self) -> EndpointTokens | None:
        """The valid tokens; None if no token is required."""
        return self._validator.tokens

    @property
    def signing_secrets(self) -> SigningSecrets | None:
        """The secrets that verify signatures; None if signatures are ignored."""
        return self._validator.signing_secrets

    @property
    def is_running(self) -> bool:
        """Whether the receiver is running."""
        return self._entry_count > 0

    @property
    def _accepts(self) -> bool:
        return self.is_running and not self._is_in_other_loop

    @property
    def requires_token(self) -> bool:
        """Whether a token is required; if not, anyone may post, and the adapters route the bare prefix too."""
        return self._validator.tokens is not None

    async def health(self, *, max_age: float = 300.0) -> Health:
        """
        Return the receiver's liveness, readiness and health. Only a wrong *max_age* raises.

        Args:
            max_age: Seconds that a due delivery may wait before the receiver is unhealthy.
        """
        if self._is_in_other_loop:
            return Health(live=True, ready=False, healthy=False, reasons=(self._loop.advice,))
        return await intake_health(self._intake if self.is_running else None, max_age)

    async def stats(self) -> ReceiverStats:
        """
        Return the receiver's and the inbox's counts.

        Raises:
            InboxError: The inbox cannot be read.
            EventLoopError: The receiver has an inbox and is running in another event loop.
        """
        self._check_loop()
        names = ("duplicates", "unknown", "unhandled", "handled", "failed", "dead")
        counts = {name: self._intake.counts[name] for name in names}
        not_stored = self._intake.counts["not stored"]
        refused = dict(self._validator.refused) | ({"storage": not_stored} if not_stored else {})
        return ReceiverStats(refused=refused, inbox=await self._intake.inbox_stats(), **counts)

    async def idle(self, timeout: float) -> None:
        """
        Wait until no delivery is due or being handled, for tests. Delayed deliveries do not count.

        Raises:
            TimeoutError: A delivery was still due or being handled after *timeout* seconds.
            EventLoopError: The receiver has an inbox and is running in another event loop.
        """
        self._check_loop()
        async with asyncio.timeout(timeout):
            while self._active_requests or not await self._intake.is_idle():
                await self._intake.wait_for_change(_IDLE_POLL_SECONDS)

    # --- requests -----------------------------------------------------------------------------------------

    async def receive(self, postback: Postback, *, around: Around | None = None) -> Reply:
        """
        Handle one request.

        Client errors, handler errors and storage errors are reported through the reply's status; only cancellation
        and exceptions of *around* propagate.

        Args:
            postback: The request.
            around: For an adapter whose framework runs other code before the handlers, such as dependencies: a
                coroutine function that is called with the complete body of a valid request, and a function that
                stores or handles the request. It returns the reply. It is not called for a rejected request.
        """
        record = RequestRecord(postback.method)
        return await self._observe(record, self._receive(postback, record, around))

    async def redeliver(self, delivery: Delivery) -> Reply:
        """
        Handle a delivery that did not arrive over HTTP, for example to reprocess it.

        With an inbox, a delivery whose key is in the inbox within the dedupe window is a duplicate: give it a new key.

        Raises:
            TypeError: *delivery* is not a `Delivery`.
        """
        check_instance("delivery", delivery, Delivery, "entry.delivery")
        record = RequestRecord("POST", delivery)
        return await self._observe(record, self._redeliver(delivery, record))

    async def _observe(self, record: RequestRecord, handling: Awaitable[Reply]) -> Reply:
        self._active_requests += 1
        try:
            with self._observers.request(record):
                record.reply = await handling
                return record.reply
        finally:
            self._active_requests -= 1

    async def _redeliver(self, delivery: Delivery, record: RequestRecord) -> Reply:
        if not self._accepts:
            record.refused = "not running"
            return Reply(503, (RETRY_AFTER_HEADER,))
        return await self._intake.accept(delivery, record)

    async def _receive(self, postback: Postback, record: RequestRecord, around: Around | None) -> Reply:
        headers = relevant_headers(postback)
        content = await self._validator.read_request(postback, headers, is_running=self._accepts)
        if isinstance(content, Rejection):
            record.refused = content.reason
            if content.reason == "not running":
                self._log_not_running()
            return content.reply
        delivery = Delivery(content, headers.get("content-type"))
        if around is None:
            return await self._accept(delivery, record)
        reply = await around(content, lambda: self._accept(delivery, record))
        if record.delivery is None:
            record.refused = "framework"
            self._validator.refused["framework"] += 1
        return reply

    async def _accept(self, delivery: Delivery, record: RequestRecord) -> Reply:
        record.delivery = delivery
        return await self._intake.accept(delivery, record)

    def _log_not_running(self) -> None:
        # The server is about to log the path, which contains a valid token.
        self._add_filters()
        if not self._logged_not_running:
            self._logged_not_running = True
            advice = STOPPED if self._was_started else self.start_advice
            _log.error("responded 503 to a postback: %s", self._loop.advice if self.is_running else advice)
