"""
Every exception that a public call of this library raises, and nothing else.

::

    CallFireError
    ├── APIError                     CallFire answered with an error
    │   ├── BadRequestError          400
    │   ├── AuthenticationError      401
    │   ├── PermissionDeniedError    403
    │   ├── NotFoundError            404
    │   ├── RateLimitError           429
    │   └── ServerError              5xx
    ├── TransportError               no answer came
    │   └── RequestTimeoutError      none came in time
    ├── ResponseError                an answer that is not what API 1.1 promises
    ├── ClientClosedError            the client cannot be used (any more, or here)
    ├── NotificationError            an incoming body that is not a notification
    │   ├── MalformedNotificationError   neither XML nor JSON, or hostile
    │   └── InvalidNotificationError     well-formed, but no notification
    ├── HandlerErrors                what the handlers of one event raised (an ExceptionGroup too)
    └── InboxError                   the inbox could not keep its promise
        ├── InboxLockedError         another process owns it
        └── InboxUnavailableError    it cannot be reached, or its disk fails

Each can be pickled, copied and printed; none shows a password, a token, a phone number, a message or a body
when it is printed. This module imports nothing of the package.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any, ClassVar, Self

__all__ = [
    "APIError",
    "AuthenticationError",
    "BadRequestError",
    "CallFireError",
    "ClientClosedError",
    "HandlerErrors",
    "InboxError",
    "InboxLockedError",
    "InboxUnavailableError",
    "InvalidNotificationError",
    "MalformedNotificationError",
    "NotFoundError",
    "NotificationError",
    "PermissionDeniedError",
    "RateLimitError",
    "RequestTimeoutError",
    "ResponseError",
    "ServerError",
    "TransportError",
]


class CallFireError(Exception):
    """The root of all errors that this library raises on purpose; its only argument is a message safe to print."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Rebuild from the safe arguments and the attributes, whatever the subclass's constructor asks for."""
        return _rebuild, (type(self), self._arguments(), self.__dict__.copy())

    def _arguments(self) -> tuple[Any, ...]:
        return self.args


def _rebuild(kind: type[CallFireError], arguments: tuple[Any, ...], attributes: dict[str, Any]) -> CallFireError:
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(attributes)
    return error


class APIError(CallFireError):
    """
    CallFire answered with an error status.

    Attributes:
        status_code: The HTTP status.
        message: CallFire's own words, or None where it gave none. They may quote what was sent.
        body: The answer as it came.
        method: The HTTP method of the request.
        path: Its path below the base URL, without the query.
        request_id: The ``RequestId`` that was sent, or None.
        attempts: How often the request was sent.
        retry_after: Seconds that the server asked to wait, or None.
    """

    def __init__(
        self,
        summary: str,
        *,
        status_code: int,
        method: str,
        path: str,
        message: str | None = None,
        body: bytes = b"",
        request_id: str | None = None,
        attempts: int = 1,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(summary)
        self.status_code = status_code
        self.message = message
        self.body = body
        self.method = method
        self.path = path
        self.request_id = request_id
        self.attempts = attempts
        self.retry_after = retry_after


class BadRequestError(APIError):
    """Raised for status 400: CallFire did not accept a parameter."""


class AuthenticationError(APIError):
    """Raised for status 401: the API login or password is wrong."""


class PermissionDeniedError(APIError):
    """Raised for status 403: the account may not do this."""


class NotFoundError(APIError):
    """Raised for status 404: there is no such resource."""


class RateLimitError(APIError):
    """Raised for status 429: too many requests; ``retry_after`` says how long to wait, where CallFire said so."""


class ServerError(APIError):
    """Raised for status 5xx: CallFire, or something in front of it, failed."""


class TransportError(CallFireError):
    """
    No answer came; the cause is in ``__cause__``.

    Attributes:
        method: The HTTP method of the request.
        path: Its path below the base URL, without the query.
        attempts: How often the request was tried.
    """

    def __init__(self, summary: str, *, method: str, path: str, attempts: int = 1) -> None:
        super().__init__(summary)
        self.method = method
        self.path = path
        self.attempts = attempts


class RequestTimeoutError(TransportError):
    """Raised when no whole answer came within the timeout of an attempt."""


class ResponseError(CallFireError):
    """
    An answer that is not what API 1.1 promises, a redirect among them.

    Attributes:
        status_code: The HTTP status.
        body: The answer as it came.
        method: The HTTP method of the request.
        path: Its path below the base URL, without the query.
    """

    def __init__(self, summary: str, *, status_code: int, method: str, path: str, body: bytes = b"") -> None:
        super().__init__(summary)
        self.status_code = status_code
        self.body = body
        self.method = method
        self.path = path


class ClientClosedError(CallFireError):
    """Raised when a client is used after it was closed, in a second event loop, or after a fork."""


class NotificationError(CallFireError):
    """
    An incoming body that is not a notification.

    Attributes:
        status_hint: The HTTP status that suits an answer to whoever sent it.
    """

    status_hint: ClassVar[int] = 400


class MalformedNotificationError(NotificationError):
    """Raised for a body that is neither XML nor JSON, or that is made to do harm."""


class InvalidNotificationError(NotificationError):
    """
    Raised for a well-formed body that is not a notification.

    Attributes:
        problems: What could not be read, as ``kind @ path`` in the wire's words, never with a value.
    """

    status_hint: ClassVar[int] = 422

    def __init__(self, summary: str, *, problems: Sequence[str] = ()) -> None:
        super().__init__(summary)
        self.problems = tuple(problems)


class HandlerErrors(ExceptionGroup[Exception], CallFireError):
    """
    What the handlers of one event raised.

    Attributes:
        completed: The names of the handlers that returned.
        failed: The names of those that raised, in the order of ``exceptions``.
    """

    completed: frozenset[str]
    failed: tuple[str, ...]

    def __new__(
        cls,
        message: str,
        exceptions: Sequence[Exception],
        *,
        completed: frozenset[str] = frozenset(),
        failed: Sequence[str] = (),
    ) -> Self:
        """Make the group; *failed* names the handlers in the order of *exceptions*."""
        self = super().__new__(cls, message, exceptions)
        # The constructor of a group keeps the exceptions in args too, where repr would print their messages.
        self.args = (message,)
        self.completed = completed
        self.failed = tuple(failed)
        return self

    def __init__(self, *_: object, **__: object) -> None:
        """Take what ``__new__`` has already kept."""

    def derive(self, excs: Sequence[Exception], /) -> HandlerErrors:  # type: ignore[override]  # narrower on purpose: handlers raise Exception only
        """Make the group of some of these exceptions, each still beside its handler's name."""
        names = {id(error): name for error, name in zip(self.exceptions, self.failed, strict=False)}
        failed = [names[id(error)] for error in excs if id(error) in names]
        return HandlerErrors(self.message, excs, completed=self.completed, failed=failed)

    def _arguments(self) -> tuple[Any, ...]:
        return self.message, [_picklable(error) for error in self.exceptions]


class InboxError(CallFireError):
    """Raised where an inbox could not keep its promise; nothing has changed, but see `InboxUnavailableError`."""


class InboxLockedError(InboxError):
    """Raised when an inbox is opened that another process owns."""


class InboxUnavailableError(InboxError):
    """
    Raised when an inbox cannot be reached, or its disk is full or fails; it may be tried again.

    Where that inbox is on a server, what was asked of it may have happened all the same: a repeated append is a
    duplicate then.
    """


def _picklable(error: Exception) -> Exception:
    """Return *error*, or where it cannot go through a pickle, a stand-in that bears its type's name."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  # our own bytes, made in this line
    except Exception:  # noqa: BLE001  # whatever a stranger's exception does when it is pickled
        return Exception(type(error).__qualname__)
    return error
