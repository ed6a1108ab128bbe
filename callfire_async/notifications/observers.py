"""Hooks into a receiver's requests, attempts and handlers, for metrics, traces and the inspector."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, ExitStack, nullcontext
from types import TracebackType

from attrs import define, field

from callfire_async.notifications.events import Notification
from callfire_async.notifications.inbox._cancellation import StopProgress, cancel_repeatedly
from callfire_async.notifications.inbox.base import AppendResult, Delivery
from callfire_async.notifications.routing._user_code import CallingTask
from callfire_async.notifications.security.request_validation import Reply

__all__ = ["AttemptRecord", "Observer", "RequestRecord"]

_log = logging.getLogger("callfire_async.observers")

# How long a stop waits for the observers before it continues with the other parts, and in all.
EXIT_SECONDS = 1.5
_MAX_EXIT_SECONDS = 5.0

_NO_CONTEXT: nullcontext[None] = nullcontext()


@define(eq=False)
class RequestRecord:
    """One request. The attributes are set as they become known, and are final when the observer's context exits."""

    #: The HTTP method, unchanged.
    method: str
    #: The delivery; None if the request was rejected before its body was read completely.
    delivery: Delivery | None = None
    #: The result of the append; None without an inbox, or if the delivery could not be stored.
    appended: AppendResult | None = None
    #: The response; None if the server cancelled the request.
    reply: Reply | None = None
    #: Why the request was rejected: ``token``, ``method``, ``encoding``, ``not running``, ``size``, ``time``,
    #: ``empty``, ``broken off``, ``signature`` (wrong, repeated or missing), ``consumed`` (a middleware has read the
    #: body), ``framework`` (for example, a dependency of the route responded), ``storage`` (the inbox could not store
    #: the delivery), or without an inbox ``no notification``; None if it was accepted.
    refused: str | None = None


@define(eq=False)
class AttemptRecord:
    """
    One attempt at a delivery. The attributes are set as they become known, like those of a `RequestRecord`.

    Without an inbox, each event of an envelope has an attempt of its own.
    """

    #: The delivery; without an inbox, for an envelope with several events, the envelope with one of them.
    delivery: Delivery
    #: The delivery's id in the inbox; None without an inbox.
    id: int | str | None = None
    #: Number of the attempt, starting at 1.
    attempt: int = 1
    #: The parsed event; None before it is parsed, or if the body is not a notification.
    event: Notification | None = None
    #: ``handled``, ``failed``, ``dead``, ``released`` (the receiver stopped) or ``lost`` (another worker has the
    #: lease); ``unhandled`` if no handler matched the event and it was ignored; ``split`` for an envelope whose events
    #: are deliveries of their own now; without an inbox also ``refused`` (not a notification), which is ``dead`` with
    #: one. None until the outcome is known, and if it could not be stored.
    outcome: str | None = None
    #: Why the delivery was not handled, as `InboxEntry.reason`.
    reason: str = ""
    #: What handlers raised, by their names; ``known_subscriptions`` and ``known_webhooks`` are the names of those
    #: functions.
    exceptions: Mapping[str, BaseException] = field(factory=dict)


def has_failed(record: AttemptRecord) -> bool:
    """
    Return whether an attempt has failed, or its outcome could not be stored.

    An event that matched no handler was ignored on request if there is an inbox; without one it is lost.
    """
    if record.outcome == "unhandled":
        return record.id is None
    return record.outcome not in ("handled", "released", "split")


class Observer:
    """
    Base class for receiver instrumentation. Override the hooks you need; the defaults do nothing.

    Pass an instance to `Receiver.observe`. Each hook returns a context manager that is entered when the operation
    starts and exited when it ends, in the event loop, so it must not block. Exceptions of an observer are logged by
    type with the logger ``callfire_async.observers``, and have no other effect.
    """

    def lifespan(self) -> AbstractAsyncContextManager[None]:
        """
        Wrap the time during which the receiver runs; not called if the receiver is running already.

        The context manager is entered and exited in a task of its own. When the receiver stops, it has five seconds to
        exit; then it is cancelled.
        """
        return _NO_CONTEXT

    def request(self, record: RequestRecord) -> AbstractContextManager[None]:  # noqa: ARG002  # for subclasses
        """Wrap one request until its response is known; without an inbox this includes the handlers."""
        return _NO_CONTEXT

    def attempt(self, record: AttemptRecord) -> AbstractContextManager[None]:  # noqa: ARG002  # for subclasses
        """Wrap one attempt at a delivery until it is settled."""
        return _NO_CONTEXT

    def handler(self, record: AttemptRecord, handler: str) -> AbstractContextManager[None]:  # noqa: ARG002  # ditto
        """Wrap one handler call. The exception passes through the context manager and cannot be suppressed."""
        return _NO_CONTEXT


@define(eq=False)
class _CompositeObserver:
    """Forwards to several observers and catches their exceptions."""

    _observers: tuple[Observer, ...] = field(default=())

    def add(self, observer: Observer) -> None:
        """Add an observer behind the others."""
        self._observers = (*self._observers, observer)

    def remove(self, observer: Observer) -> None:
        """Remove an observer; contexts that it has entered are exited as usual."""
        self._observers = tuple(other for other in self._observers if other is not observer)

    def lifespans(self) -> "_Lifespans":
        """Return the lifespans of all observers, not started yet."""
        return _Lifespans(tuple(_Lifespan(observer) for observer in self._observers))

    def request(self, record: RequestRecord) -> AbstractContextManager[object]:
        """Return a context manager that wraps a request for all observers."""
        return self._enter_all(lambda observer: observer.request(record))

    def attempt(self, record: AttemptRecord) -> AbstractContextManager[object]:
        """Return a context manager that wraps an attempt for all observers."""
        return self._enter_all(lambda observer: observer.attempt(record))

    def handler(self, record: AttemptRecord) -> Callable[[str], AbstractContextManager[object]]:
        """Return a function that wraps a handler call, by the handler's name, for all observers."""
        return lambda handler: self._enter_all(lambda observer: observer.handler(record, handler))

    def _enter_all(self, hook: Callable[[Observer], AbstractContextManager[None]]) -> AbstractContextManager[object]:
        if not self._observers:
            return _NO_CONTEXT
        contexts = ExitStack()
        for observer in self._observers:
            contexts.enter_context(_ExceptionSafeContext(hook, observer))
        return contexts


@define(eq=False)
class _Lifespan:
    """An observer's lifespan, in a task of its own, which a stop can leave behind if it hangs."""

    observer: Observer
    _entered: asyncio.Event = field(factory=asyncio.Event)
    _ending: asyncio.Event = field(factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Enter the context."""
        self.task = asyncio.create_task(self._run())
        try:
            await self._entered.wait()
        except asyncio.CancelledError:
            self.task.cancel()
            raise

    async def _run(self) -> None:
        try:
            with _LoggedExceptions(self.observer):
                async with self.observer.lifespan():
                    self._entered.set()
                    await self._ending.wait()
        finally:
            self._entered.set()

    def end(self) -> None:
        """Have the context exited."""
        self._ending.set()


@define(eq=False)
class _Lifespans:
    """The lifespans of all observers of a receiver, from its start to its stop."""

    _lifespans: tuple[_Lifespan, ...]
    _deadline: float = 0.0

    @property
    def _running(self) -> dict[asyncio.Task[None], str]:
        """The tasks that are running, with the types of their observers."""
        tasks = {one.task: type(one.observer).__name__ for one in self._lifespans if one.task is not None}
        return {task: name for task, name in tasks.items() if not task.done()}

    async def start(self) -> None:
        """Enter the contexts in order."""
        for lifespan in self._lifespans:
            await lifespan.start()

    async def end(self) -> None:
        """Exit the contexts in reverse order; one that takes long is left to `cancel`."""
        now = asyncio.get_running_loop().time
        begin = now()
        self._deadline = begin + _MAX_EXIT_SECONDS
        try:
            for lifespan in reversed(self._lifespans):
                lifespan.end()
                # Half of the remaining time for each, so that one that hangs leaves some for the others.
                await _wait(lifespan, (begin + EXIT_SECONDS - now()) / 2)
        finally:
            for lifespan in self._lifespans:
                lifespan.end()

    async def cancel(self, progress: StopProgress) -> None:
        """Cancel the contexts that have not exited within their time, and describe them."""
        running = self._running
        remaining = 0.0 if progress.is_cancelled else self._deadline - asyncio.get_running_loop().time()
        try:
            if running:
                await asyncio.wait(running, timeout=max(0.0, remaining))
        finally:
            running = self._running
            await cancel_repeatedly(running)
            if running:
                progress.unfinished.append(f"observers that did not exit: {', '.join(running.values())}")


async def _wait(lifespan: _Lifespan, seconds: float) -> None:
    if lifespan.task is not None:
        await asyncio.wait([lifespan.task], timeout=max(0.0, seconds))


class _ExceptionSafeContext(AbstractContextManager[None]):
    """An observer's context. Its own exceptions are logged; those raised inside it are not suppressed."""

    def __init__(self, hook: Callable[[Observer], AbstractContextManager[None]], observer: Observer) -> None:
        self._hook = hook
        self._observer = observer
        self._context: AbstractContextManager[None] = _NO_CONTEXT

    def __enter__(self) -> None:
        with _LoggedExceptions(self._observer):
            context = self._hook(self._observer)
            context.__enter__()
            self._context = context

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _LoggedExceptions(self._observer):
            self._context.__exit__(kind, error, trace)


class _LoggedExceptions(AbstractContextManager[None]):
    """Logs the exceptions of an observer by type, and suppresses them, except those that end the process or task."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._task = CallingTask()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is not None:
            # An observer may raise anything, and must not affect deliveries.
            self._task.raise_unless_failure(error)
            names = type(self._observer).__name__, type(error).__name__
            _log.error("observer %s failed, ignoring it: %s", *names)
        return True
