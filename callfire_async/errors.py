"""
All exceptions that public calls raise.

::

    CallFireError
    ├── APIError                     CallFire returned an error status
    │   ├── BadRequestError          400
    │   ├── AuthenticationError      401
    │   ├── PermissionDeniedError    403
    │   ├── NotFoundError            404
    │   ├── RateLimitError           429
    │   └── ServerError              5xx
    ├── TransportError               no response was received
    │   └── RequestTimeoutError      no complete response was received in time
    ├── ResponseError                a response that does not match the API specification
    ├── ClientClosedError            the client is closed, or belongs to another event loop or process
    ├── EventLoopError               a running receiver is used in another event loop (also a RuntimeError)
    ├── NotificationError            the body of a postback is not a notification
    │   ├── MalformedNotificationError   neither XML nor JSON, or beyond a limit
    │   └── InvalidNotificationError     well-formed, but not a notification
    ├── HandlerErrors                the exceptions of one event's handlers (also an ExceptionGroup)
    └── InboxError                   an inbox operation failed
        ├── InboxLockedError         another process owns the inbox
        ├── InboxUnavailableError    the inbox cannot be reached, or its disk fails
        └── LeaseLostError           a handler has lost the lease of its delivery

Each can be pickled, copied and printed. A printed error has no password, token, phone number, message text or body.
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
    "EventLoopError",
    "HandlerErrors",
    "InboxError",
    "InboxLockedError",
    "InboxUnavailableError",
    "InvalidNotificationError",
    "LeaseLostError",
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
    """Base class of all errors. Its only argument is a message without private data."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how to rebuild the error without the constructor, whose parameters differ between subclasses."""
        return _rebuild, (type(self), self._arguments(), self.__dict__.copy())

    def _arguments(self) -> tuple[Any, ...]:
        return self.args


def _rebuild(kind: type[CallFireError], arguments: tuple[Any, ...], attributes: dict[str, Any]) -> CallFireError:
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(attributes)
    return error


class APIError(CallFireError):
    """
    Raised if CallFire returns an error status.

    Attributes:
        status_code: The HTTP status.
        message: CallFire's error message, or None if it sent none. It may quote the request.
        code: API v2's code of the error (``internalCode``) as text, or None. API 1.1 has no codes.
        body: The body of the response.
        method: The HTTP method of the request.
        path: The request's path below the base URL, without the query.
        request_id: The ``RequestId`` of the request, or None. API v2 has none.
        attempts: The number of times that the request was sent.
        retry_after: The server's ``Retry-After`` in seconds, or None.
    """

    def __init__(
        self,
        summary: str,
        *,
        status_code: int,
        method: str,
        path: str,
        message: str | None = None,
        code: str | None = None,
        body: bytes = b"",
        request_id: str | None = None,
        attempts: int = 1,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(summary)
        self.status_code = status_code
        self.message = message
        self.code = code
        self.body = body
        self.method = method
        self.path = path
        self.request_id = request_id
        self.attempts = attempts
        self.retry_after = retry_after


class BadRequestError(APIError):
    """Raised for status 400: a parameter is missing or invalid."""


class AuthenticationError(APIError):
    """Raised for status 401: the API login or password is wrong."""


class PermissionDeniedError(APIError):
    """Raised for status 403: the account has no permission for the operation."""


class NotFoundError(APIError):
    """Raised for status 404: the resource does not exist."""


class RateLimitError(APIError):
    """Raised for status 429: too many requests. Wait ``retry_after`` seconds, if that is not None."""


class ServerError(APIError):
    """Raised for status 5xx: CallFire or a proxy in front of it failed."""


class TransportError(CallFireError):
    """
    Raised if no response was received; ``__cause__`` has the HTTP library's exception.

    Attributes:
        method: The HTTP method of the request.
        path: The request's path below the base URL, without the query.
        attempts: The number of attempts.
    """

    def __init__(self, summary: str, *, method: str, path: str, attempts: int = 1) -> None:
        super().__init__(summary)
        self.method = method
        self.path = path
        self.attempts = attempts


class RequestTimeoutError(TransportError):
    """Raised if no complete response was received within the timeout of an attempt."""


class ResponseError(CallFireError):
    """
    Raised if a response does not match the API specification, for example a redirect.

    Attributes:
        status_code: The HTTP status.
        body: The body of the response.
        method: The HTTP method of the request.
        path: The request's path below the base URL, without the query.
    """

    def __init__(self, summary: str, *, status_code: int, method: str, path: str, body: bytes = b"") -> None:
        super().__init__(summary)
        self.status_code = status_code
        self.body = body
        self.method = method
        self.path = path


class ClientClosedError(CallFireError):
    """Raised if a client is used after it was closed, in a second event loop, or after a fork."""


class EventLoopError(CallFireError, RuntimeError):
    """Raised if a running receiver is used in an event loop other than the one that started it."""


class NotificationError(CallFireError):
    """
    Raised if the body of a postback is not a notification.

    Attributes:
        status_hint: The HTTP status for a response to the postback.
    """

    status_hint: ClassVar[int] = 400


class MalformedNotificationError(NotificationError):
    """Raised if a body is neither XML nor JSON, or exceeds a limit for hostile input."""


class InvalidNotificationError(NotificationError):
    """
    Raised if a well-formed body is not a notification.

    Attributes:
        problems: The fields that could not be read, as ``kind @ path`` with CallFire's names, never a value.
    """

    status_hint: ClassVar[int] = 422

    def __init__(self, summary: str, *, problems: Sequence[str] = ()) -> None:
        super().__init__(summary)
        self.problems: tuple[str, ...] = tuple(problems)


class HandlerErrors(ExceptionGroup[Exception], CallFireError):
    """
    Raised if at least one handler of an event failed.

    Attributes:
        completed: The names of the handlers that succeeded.
        failed: The names of the handlers that failed, in the order of ``exceptions``.
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
        """Create the group; *failed* has the handlers' names in the order of *exceptions*."""
        self = super().__new__(cls, message, exceptions)
        # ExceptionGroup also stores the exceptions in args, and repr would print their messages.
        self.args = (message,)
        self.completed = completed
        self.failed = tuple(failed)
        return self

    def __init__(self, *_: object, **__: object) -> None:
        """Accept the arguments of ``__new__``."""

    def derive(self, excs: Sequence[Exception], /) -> HandlerErrors:  # type: ignore[override]  # narrower on purpose: handlers raise Exception only
        """Return a group of some of the exceptions, with their handlers' names."""
        names = {id(error): name for error, name in zip(self.exceptions, self.failed, strict=False)}
        failed = [names[id(error)] for error in excs if id(error) in names]
        return HandlerErrors(self.message, excs, completed=self.completed, failed=failed)

    def _arguments(self) -> tuple[Any, ...]:
        return self.message, [_picklable(error) for error in self.exceptions]


class InboxError(CallFireError):
    """Base class for inbox failures. The operation had no effect, except as noted for `InboxUnavailableError`."""


class InboxLockedError(InboxError):
    """Raised if an inbox is opened while another process owns it."""


class InboxUnavailableError(InboxError):
    """
    Raised if an inbox cannot be reached, or its disk is full or fails. The operation can be retried.

    An inbox on a server, or on a disk whose sync failed, may have executed the operation; a repeated append is then
    recognized as a duplicate.
    """


class LeaseLostError(InboxError):
    """
    Raised by `CurrentAttempt.complete_in` if the lease of the delivery was lost or has ended.

    Another worker may handle the delivery: roll the transaction back.
    """


def _picklable(error: Exception) -> Exception:
    """Return *error*, or an exception with the name of its type if it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  # bytes from this line
    except Exception:  # noqa: BLE001  # a user's exception can raise anything here
        return Exception(type(error).__qualname__)
    return error
