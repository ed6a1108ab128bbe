"""`Connection`: authentication, response format and retries, over an HTTP transport that its views share."""

from __future__ import annotations

import asyncio
import base64
import copy
import logging
import platform
import random
import ssl
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from attrs import define, frozen
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt

from callfire_async._codec.model_reader import format_problems
from callfire_async.client._operations.operation import Operation, ResponseFormat
from callfire_async.client._operations.validation import (
    checked_base_url,
    checked_count,
    checked_credential,
    checked_timeout,
)
from callfire_async.client._responses import (
    HttpResponse,
    RequestFailedError,
    RetrySafety,
    parse_response,
    retry_after_of,
    retry_delay,
    retry_safety_of,
    should_retry,
    transport_error,
)
from callfire_async.errors import APIError, CallFireError, ResponseError, TransportError
from callfire_async.models import RedactedStr, checked_boolean, checked_text

if TYPE_CHECKING:
    from callfire_async.client._http import HttpClient
else:
    HttpClient = Any  # importing httpx takes long and receivers do not need it; type hints must resolve without it

__all__ = ["DEFAULT_BASE_URL", "Connection", "HttpClient", "RequestAttempt", "own_version"]

T = TypeVar("T")
Recover = Callable[[], Awaitable[T | None]]

DEFAULT_BASE_URL = "https://www.callfire.com/api/1.1/rest"
DEFAULT_WEBHOOKS_BASE_URL = "https://api.callfire.com/v2"

_log = logging.getLogger("callfire_async.client")


@frozen
class _RetryHooks:
    """The clock, sleep and randomness of retries."""

    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    random: Callable[[], float] = random.random
    now: Callable[[], datetime] = lambda: datetime.now(UTC)


@define
class RequestAttempt:
    """One attempt for telemetry: the operation, the attempt's number from 1, and the status of the response."""

    operation: Operation[Any]
    number: int
    status: int | None = None


Watch = Callable[[RequestAttempt], AbstractContextManager[object]]


class Connection:
    """
    A pool of connections to CallFire for one account; `CallFire` builds its services on it.

    Create it anywhere, use it in one event loop, and close it with ``async with`` or `aclose`.

    Args:
        login: The API login, without a colon.
        password: The API password.
        base_url: The URL of API 1.1: https, or http on loopback; without credentials, query or fragment.
        webhooks_base_url: The URL of API v2, which has the webhooks. It is not derived from *base_url*.
        response_format: ``"json"`` or ``"xml"``: the format of API 1.1's responses.
        timeout: Seconds for one attempt as a whole, from waiting for a connection to the last byte of the response;
            above 0.
        max_retries: Maximum number of retries after the first attempt; 0 or more.
        max_connections: Maximum number of concurrent requests, 1 or more; others wait in order.
        trust_env: Whether to use proxies and certificates from environment variables.
        ssl_context: Replaces the default context, which trusts certifi's authorities; must verify certificates.
        http_client: Your own ``httpx.AsyncClient`` or ``httpx2.AsyncClient``, for proxies, event hooks or other
            transports. `CallFire` never closes it.

    Raises:
        ValueError: A setting is missing or out of range.
        TypeError: A setting has the wrong type, or *http_client* is given together with a setting that belongs to it.
    """

    def __init__(
        self,
        login: str,
        password: str,
        *,
        base_url: str = DEFAULT_BASE_URL,
        webhooks_base_url: str = DEFAULT_WEBHOOKS_BASE_URL,
        response_format: ResponseFormat = "json",
        timeout: float = 30.0,
        max_retries: int = 3,
        max_connections: int = 20,
        trust_env: bool = False,
        ssl_context: ssl.SSLContext | None = None,
        http_client: HttpClient | None = None,
    ) -> None:
        login, password = checked_credential("login", login), checked_credential("password", password)
        if checked_text("response_format", response_format) not in ("json", "xml"):
            raise ValueError("response_format must be 'json' or 'xml'")
        self._base_url = checked_base_url(base_url)
        self._webhooks_base_url = checked_base_url(webhooks_base_url, name="webhooks_base_url")
        self._response_format: ResponseFormat = response_format
        self._set_options(timeout, max_retries)
        self._headers = _headers(login, password)
        self._retry_hooks = _RetryHooks()
        # The context in which each attempt runs. Telemetry replaces it; views created later inherit it.
        self._watch: Watch = nullcontext
        from callfire_async.client._http import check_url, make_transport  # noqa: PLC0415  # importing httpx takes long

        check_url("base_url", self._base_url)
        check_url("webhooks_base_url", self._webhooks_base_url)

        self._transport = make_transport(
            checked_count("max_connections", max_connections, minimum=1),
            trust_env=checked_boolean("trust_env", trust_env),
            ssl_context=ssl_context,
            http_client=http_client,
        )

    async def execute(self, operation: Operation[T], *, recover: Recover[T] | None = None) -> T:
        """
        Execute one operation, with retries if they are safe.

        Args:
            operation: The operation to send.
            recover: Looks up whether an attempt of unknown outcome was executed, and returns its value, or None. With
                it, an operation that is not idempotent is repeated if nothing is found. It is also called if CallFire
                rejects a repetition, for example because of its RequestId.

        Raises:
            APIError: CallFire returned an error.
            TransportError: No complete response arrived.
            ResponseError: The response does not match the API's specification.
            ClientClosedError: The connection was closed, or belongs to another event loop or process.
        """
        call = _RetryingCall(operation, recover, self._request, self._retry_hooks, self._watch)
        # The first attempt bypasses tenacity, which adds 10 to 17 % to the time of a create on loopback.
        try:
            return await call.attempt()
        except CallFireError as error:
            first_error = error
        return await self._retry(call, first_error)

    async def _retry(self, call: _RetryingCall[T], first_error: CallFireError) -> T:
        first_errors = [first_error]

        async def attempt() -> T:
            if first_errors:
                raise first_errors.pop()
            return await call.attempt()

        try:
            return await self._retrying(call)(attempt)
        except CallFireError as error:
            call.add_ambiguity_note(error)
            raise

    def _retrying(self, call: _RetryingCall[T]) -> AsyncRetrying:
        return AsyncRetrying(
            sleep=self._retry_hooks.sleep,
            stop=stop_after_attempt(self._max_retries + 1),
            wait=call.delay,
            retry=retry_if_exception(call.should_retry),
            before_sleep=call.log_retry,
            reraise=True,
        )

    def with_options(self, *, timeout: float | None = None, max_retries: int | None = None) -> Self:
        """Return a view with other settings on the same pool; closing either closes both."""
        view = copy.copy(self)
        view._set_options(  # noqa: SLF001  # our own
            self._timeout if timeout is None else timeout, self._max_retries if max_retries is None else max_retries
        )
        return view

    async def aclose(self) -> None:
        """Wait for requests in flight, bounded by their timeout, then close the pool. Idempotent."""
        await self._transport.aclose()

    async def __aenter__(self) -> Self:
        self._transport.check_usable()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"{type(self).__name__}('***', '***', base_url={self._base_url!r})"

    def _set_options(self, timeout: float, max_retries: int) -> None:
        self._timeout = checked_timeout(timeout)
        self._max_retries = checked_count("max_retries", max_retries, minimum=0)

    def base_url_of(self, operation: Operation[Any]) -> str:
        """Return the URL of the API generation that has an operation."""
        return self._base_url if operation.api_version == "1.1" else self._webhooks_base_url

    async def _request(self, operation: Operation[T]) -> HttpResponse:
        content_type = operation.content_type
        return await self._transport.request(
            operation.method,
            self.base_url_of(operation) + operation.target(self._response_format),
            headers=self._headers | ({"Content-Type": content_type} if content_type else {}),
            content=operation.content(),
            timeout=self._timeout,
        )


def _headers(login: str, password: str) -> dict[str, str]:
    credentials = base64.b64encode(f"{login}:{password}".encode()).decode()
    return {
        "Authorization": RedactedStr(f"Basic {credentials}"),
        "User-Agent": f"callfire-async/{own_version()} python/{platform.python_version()}",
        # The size of a compressed body is not known before it is decompressed.
        "Accept-Encoding": "identity",
    }


def own_version() -> str:
    """Return the installed version of this library."""
    try:
        return version("callfire-async")
    except PackageNotFoundError:  # used from a source tree that was never installed
        return "unknown"


# --- one call ---------------------------------------------------------------------------------------------


class _RetryingCall(Generic[T]):
    """The attempts of one operation, and whether one of them may have been executed."""

    def __init__(
        self,
        operation: Operation[T],
        recover: Recover[T] | None,
        request: Callable[[Operation[T]], Awaitable[HttpResponse]],
        hooks: _RetryHooks,
        watch: Watch,
    ) -> None:
        self._operation = operation
        self._recover = recover
        self._request = request
        self._hooks = hooks
        self._watch = watch
        self._attempts = 0
        self._retry_safety = RetrySafety.POINTLESS
        self._ambiguous_error: CallFireError | None = None
        # The Retry-After of the last response, which can be that of a lookup.
        self._retry_after: float | None = None

    async def attempt(self) -> T:
        """Send the operation, unless *recover* finds that an earlier attempt was executed."""
        if self._recover is None or self._ambiguous_error is None:
            return await self._send()
        if self._operation.is_idempotent:
            return await self._repeat(self._recover)
        recovered = await self._look_up(self._recover, self._ambiguous_error)
        return await self._repeat(self._recover) if recovered is None else recovered

    async def _repeat(self, recover: Recover[T]) -> T:
        try:
            return await self._send()
        except APIError as error:
            # CallFire may reject a RequestId that it knows: then an earlier attempt was executed.
            is_rejected = self._retry_safety is RetrySafety.POINTLESS
            recovered = await self._look_up(recover, error) if is_rejected else None
            if recovered is None:
                raise
            return recovered

    async def _look_up(self, recover: Recover[T], error: CallFireError) -> T | None:
        """Return what *recover* finds; raise *error* if the lookup itself fails."""
        try:
            return await recover()
        except (APIError, TransportError, ResponseError) as lookup_error:
            self._retry_after = retry_after_of(lookup_error)
        raise error

    async def _send(self) -> T:
        self._attempts += 1
        self._retry_safety = RetrySafety.POINTLESS
        attempt = RequestAttempt(self._operation, self._attempts)
        with self._watch(attempt):
            return await self._send_and_classify(attempt)

    async def _send_and_classify(self, attempt: RequestAttempt) -> T:
        try:
            return self._parse(await self._send_and_log(attempt))
        except RequestFailedError as failure:
            error = transport_error(self._operation, failure, self._attempts)
            self._classify(error, failure.retry_safety)
            raise error from failure.__cause__
        except CallFireError as error:
            self._classify(error, retry_safety_of(error))
            raise

    async def _send_and_log(self, attempt: RequestAttempt) -> HttpResponse:
        started = perf_counter()
        try:
            response = await self._request(self._operation)
            attempt.status = response.status
        finally:
            milliseconds = (perf_counter() - started) * 1000
            result = attempt.status or "no response"
            _log.debug("%s: %s, attempt %d, %.0f ms", self._operation, result, attempt.number, milliseconds)
        return response

    def _parse(self, response: HttpResponse) -> T:
        value, problems = parse_response(
            self._operation,
            response,
            attempts=self._attempts,
            maybe_executed=self._ambiguous_error is not None,
            now=self._hooks.now(),
        )
        if problems:
            _log.warning(
                "%s: ignored unreadable fields of the response: %s", self._operation, format_problems(problems)
            )
        return value

    def _classify(self, error: CallFireError, retry_safety: RetrySafety) -> None:
        self._retry_safety = retry_safety
        self._retry_after = retry_after_of(error)
        if retry_safety is RetrySafety.UNKNOWN:
            self._ambiguous_error = error

    def should_retry(self, error: BaseException) -> bool:
        """Return whether another attempt is safe and can succeed."""
        return should_retry(
            self._operation,
            error,
            self._retry_safety,
            retry_after=self._retry_after,
            is_recoverable=self._recover is not None,
        )

    def delay(self, state: RetryCallState) -> float:
        """Return how long to wait before the next attempt, in seconds."""
        return retry_delay(state.attempt_number, self._retry_after, self._hooks.random)

    def log_retry(self, state: RetryCallState) -> None:
        """Log the next attempt, its delay and its cause."""
        _log.info("%s, retrying in %.2f s", _exception(state), state.upcoming_sleep)

    def add_ambiguity_note(self, error: CallFireError) -> None:
        """Add a note to *error* if the operation may have been executed."""
        if self._ambiguous_error is not None and self._operation.method != "GET":
            error.add_note(f"{self._operation} {self._operation.ambiguity_note}")


def _exception(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None
