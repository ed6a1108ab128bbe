"""
What can be seen of a receiver's work from outside: metrics, traces and an inspector are put on here.

An `Observer` is told of each start of the receiver, of each request, of the handling of each delivery and of the run of
each handler, as contexts that last as long as what they are about. It imports `events`, `door` and the inbox's values.
"""

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

_NOTHING: nullcontext[None] = nullcontext()


@define(eq=False)
class RequestRecord:
    """One request, as far as it is known: complete when its context ends."""

    #: The HTTP method, as it came.
    method: str
    #: What was in it; None where it was refused before it was read to its end.
    delivery: Delivery | None = None
    #: What the inbox made of it; None without an inbox, and where it could not be stored.
    appended: AppendResult | None = None
    #: The answer; None where the server cancelled it.
    reply: Reply | None = None
    #: Why it was refused: ``token``, ``method``, ``encoding``, ``not running``, ``size``, ``time``, ``empty``,
    #: ``broken off``, ``storage`` (the inbox could not keep it), or ``no notification`` without an inbox; None where it
    #: was not.
    refused: str | None = None


@define(eq=False)
class AttemptRecord:
    """One attempt at handling a delivery, as far as it is known: complete when its context ends."""

    #: What is handled.
    delivery: Delivery
    #: As the inbox knows the delivery; None without an inbox.
    id: int | str | None = None
    #: From 1.
    attempt: int = 1
    #: What was parsed; None until it is, and where the body is no notification.
    event: Notification | None = None
    #: ``handled``, ``failed``, ``dead``, ``released`` (the receiver stops) or ``lost`` (another worker has it); without
    #: an inbox also ``unhandled`` and ``refused`` (no notification), which an inbox makes dead letters of. None until
    #: it is known, and where it could not be written.
    outcome: str | None = None
    #: Why, where it was not handled: as `InboxEntry.reason` has it.
    reason: str = ""


class Observer:
    """
    Is told what a receiver does, once `Receiver.observe` has it; each method here tells nobody.

    Each returns a context that is entered when the thing begins and left when it has ended, in the event loop: it must
    not block. What it raises is logged (the type, with the log ``callfire_async.notifications.observers``), and changes
    nothing.
    """

    def lifespan(self) -> AbstractAsyncContextManager[None]:
        """Live while the receiver runs; not entered where it runs already when the observer is put on."""
        return _NOTHING

    def request(self, record: RequestRecord) -> AbstractContextManager[None]:  # noqa: ARG002  # for those below
        """Watch a request until its answer is known; without an inbox its handling is inside."""
        return _NOTHING

    def attempt(self, record: AttemptRecord) -> AbstractContextManager[None]:  # noqa: ARG002  # likewise
        """Watch an attempt at a delivery until it is settled."""
        return _NOTHING

    def handler(self, record: AttemptRecord, handler: str) -> AbstractContextManager[None]:  # noqa: ARG002  # likewise
        """Watch a handler, by name; what it raised comes through the context, and cannot be kept back."""
        return _NOTHING


@define(eq=False)
class _CompositeObserver:
    """Several observers as one; none of them can do harm."""

    _observers: tuple[Observer, ...] = field(default=())

    def add(self, observer: Observer) -> None:
        """Tell one more, after the others."""
        self._observers = (*self._observers, observer)

    def remove(self, observer: Observer) -> None:
        """Tell one no more."""
        self._observers = tuple(one for one in self._observers if one is not observer)

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Enter every observer's context, and leave them in reverse order."""
        entered: list[tuple[Observer, AbstractAsyncContextManager[None]]] = []
        try:
            for observer in self._observers:
                with _harmless(observer):
                    context = observer.lifespan()
                    await context.__aenter__()
                    entered.append((observer, context))
            yield
        finally:
            for observer, context in reversed(entered):
                with _harmless(observer):
                    await context.__aexit__(None, None, None)

    def request(self, record: RequestRecord) -> AbstractContextManager[object]:
        """Enter every observer's context."""
        return self._all(lambda observer: observer.request(record)) if self._observers else _NOTHING

    def attempt(self, record: AttemptRecord) -> AbstractContextManager[object]:
        """Enter every observer's context."""
        return self._all(lambda observer: observer.attempt(record)) if self._observers else _NOTHING

    def handler(self, record: AttemptRecord) -> Callable[[str], AbstractContextManager[object]] | None:
        """Return what enters every observer's context for a handler; None where there is nobody to tell."""
        if not self._observers:
            return None
        return lambda handler: self._all(lambda observer: observer.handler(record, handler))

    def _all(self, watch: Callable[[Observer], AbstractContextManager[None]]) -> AbstractContextManager[object]:
        contexts = ExitStack()
        for observer in self._observers:
            contexts.enter_context(_ExceptionSafeContext(watch, observer))
        return contexts


class _ExceptionSafeContext(AbstractContextManager[None]):
    """An observer's context: what it raises is logged, and what is raised inside goes on."""

    def __init__(self, watch: Callable[[Observer], AbstractContextManager[None]], observer: Observer) -> None:
        self._watch = watch
        self._observer = observer
        self._context: AbstractContextManager[None] = _NOTHING

    def __enter__(self) -> None:
        try:
            context = self._watch(self._observer)
            context.__enter__()
            self._context = context
        except Exception as error:  # noqa: BLE001  # whatever it is, deliveries go on
            _log_failure(self._observer, error)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._context.__exit__(kind, error, trace)
        except Exception as own:  # noqa: BLE001  # likewise
            _log_failure(self._observer, own)


@contextmanager
def _harmless(observer: Observer) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # noqa: BLE001  # likewise
        _log_failure(observer, error)


def _log_failure(observer: Observer, error: Exception) -> None:
    _log.error("observer %s failed: %s", type(observer).__name__, type(error).__name__)
