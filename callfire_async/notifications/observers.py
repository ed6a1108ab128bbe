"""Hooks into a receiver's requests, attempts and handlers, for metrics, traces and the inspector."""

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    ExitStack,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from types import TracebackType

from attrs import define, field

from callfire_async.notifications.events import Notification
from callfire_async.notifications.inbox.base import AppendResult, Delivery
from callfire_async.notifications.security.request_validation import Reply

__all__ = ["AttemptRecord", "Observer", "RequestRecord"]

_log = logging.getLogger("callfire_async.observers")

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
    #: ``empty``, ``broken off``, ``consumed`` (a middleware has read the body), ``framework`` (for example, a
    #: dependency of the route responded), ``storage`` (the inbox could not store the delivery), or without an inbox
    #: ``no notification``; None if it was accepted.
    refused: str | None = None


@define(eq=False)
class AttemptRecord:
    """One attempt at a delivery. The attributes are set as they become known, as those of a `RequestRecord`."""

    #: The delivery.
    delivery: Delivery
    #: The delivery's id in the inbox; None without an inbox.
    id: int | str | None = None
    #: Number of the attempt, starting at 1.
    attempt: int = 1
    #: The parsed event; None before it is parsed, or if the body is not a notification.
    event: Notification | None = None
    #: ``handled``, ``failed``, ``dead``, ``released`` (the receiver stopped) or ``lost`` (another worker has the
    #: lease); without an inbox also ``unhandled`` and ``refused`` (not a notification), which are ``dead`` with one.
    #: None until the outcome is known, and if it could not be stored.
    outcome: str | None = None
    #: Why the delivery was not handled, as `InboxEntry.reason`.
    reason: str = ""


class Observer:
    """
    Base class for receiver instrumentation. Override the hooks you need; the defaults do nothing.

    Pass an instance to `Receiver.observe`. Each hook returns a context manager that is entered when the operation
    starts and exited when it ends, in the event loop, so it must not block. Exceptions of an observer are logged by
    type with the logger ``callfire_async.observers``, and have no other effect.
    """

    def lifespan(self) -> AbstractAsyncContextManager[None]:
        """Wrap the time during which the receiver runs; not called if the receiver is running already."""
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

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Enter the contexts of all observers, and exit them in reverse order."""
        entered: list[tuple[Observer, AbstractAsyncContextManager[None]]] = []
        try:
            for observer in self._observers:
                with _logged(observer):
                    context = observer.lifespan()
                    await context.__aenter__()
                    entered.append((observer, context))
            yield
        finally:
            for observer, context in reversed(entered):
                with _logged(observer):
                    await context.__aexit__(None, None, None)

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
        contexts = ExitStack()
        for observer in self._observers:
            contexts.enter_context(_ExceptionSafeContext(hook, observer))
        return contexts


class _ExceptionSafeContext(AbstractContextManager[None]):
    """An observer's context. Its own exceptions are logged; those raised inside it are not suppressed."""

    def __init__(self, hook: Callable[[Observer], AbstractContextManager[None]], observer: Observer) -> None:
        self._hook = hook
        self._observer = observer
        self._context: AbstractContextManager[None] = _NO_CONTEXT

    def __enter__(self) -> None:
        with _logged(self._observer):
            context = self._hook(self._observer)
            context.__enter__()
            self._context = context

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _logged(self._observer):
            self._context.__exit__(kind, error, trace)


@contextmanager
def _logged(observer: Observer) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # noqa: BLE001  # an observer may raise anything, and must not affect deliveries
        _log.error("observer %s failed, ignoring it: %s", type(observer).__name__, type(error).__name__)
