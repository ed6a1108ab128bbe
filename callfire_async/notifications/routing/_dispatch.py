"""Runs the handlers that match one event."""

from collections.abc import Callable, Container
from contextlib import AbstractContextManager

from attrs import define, field

from callfire_async.errors import HandlerErrors
from callfire_async.notifications.events import Notification
from callfire_async.notifications.routing._handler import Handler
from callfire_async.notifications.routing._user_code import CallingTask, as_exception, call_within


@define(eq=False)
class Dispatch:
    """One event's dispatch. The parameters are those of `Router.dispatch`."""

    _event: Notification
    _skip: Container[str]
    _handler_timeout: float | None
    _completed: set[str]
    _around: Callable[[str], AbstractContextManager[object]]
    #: Whether the event matched a handler. A handler that is skipped or whose ``where`` raises counts.
    is_matched: bool = False
    _succeeded: set[str] = field(factory=set)
    _failures: dict[str, Exception] = field(factory=dict)
    _task: CallingTask = field(factory=CallingTask)

    async def offer(self, handler: Handler) -> None:
        """Run a handler if it matches the event and is not to be skipped; store the exception if it fails."""
        is_skipped = handler.name in self._skip
        try:
            if not handler.matches(self._event):
                return
            if not is_skipped:
                await self._run(handler)
        except BaseException as error:  # noqa: BLE001  # the other handlers must run
            self._task.raise_unless_failure(error)
            if not is_skipped:
                self._failures[handler.name] = as_exception(error, "the handler")
        self.is_matched = True

    async def _run(self, handler: Handler) -> None:
        with self._around(handler.name):
            await call_within(self._handler_timeout, "the handler", handler.function, self._event)
        self._succeeded.add(handler.name)
        self._completed.add(handler.name)

    def result(self) -> frozenset[str]:
        """Return the names of the handlers that succeeded; raise `HandlerErrors` if any failed."""
        succeeded = frozenset(self._succeeded)
        if self._failures:
            total = len(self._failures) + len(succeeded)
            message = f"{len(self._failures)} of {total} handlers failed: {', '.join(self._failures)}"
            raise HandlerErrors(message, [*self._failures.values()], completed=succeeded, failed=[*self._failures])
        return succeeded
