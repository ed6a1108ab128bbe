"""
`Connection`: authentication, formats and retries, over a pool that it may share.

It imports `_pool`, `_answers`, `_protocol` and what stands above them.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import logging
import platform
import random
import ssl
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from attrs import define, frozen
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt

from callfire_async._codec.converters import format_problems
from callfire_async.client._operations.api_1_1 import (
    Operation,
    ResponseFormat,
    checked_base_url,
    checked_count,
    checked_timeout,
)
from callfire_async.client._responses import (
    MAX_RETRY_AFTER_SECONDS,
    HttpResponse,
    RequestFailedError,
    RetrySafety,
    parse_response,
    retry_delay,
    retry_safety_of,
)
from callfire_async.errors import APIError, CallFireError, RequestTimeoutError, ResponseError, TransportError
from callfire_async.models import RedactedStr

if TYPE_CHECKING:
    from callfire_async.client._http import HttpClient
else:
    HttpClient = Any  # importing httpx takes long, and a receiver has no use for it

__all__ = ["DEFAULT_BASE_URL", "Connection"]

T = TypeVar("T")
Recover = Callable[[], Awaitable[T | None]]

DEFAULT_BASE_URL = "https://www.callfire.com/api/1.1/rest"

_log = logging.getLogger("callfire_async.client")


@frozen
class _RetryHooks:
    """What a retry needs of the world."""

    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    random: Callable[[], float] = random.random
    now: Callable[[], datetime] = lambda: datetime.now(UTC)


@define
class RequestAttempt:
    """One request as who watches it sees it: what it asks, how often that was sent, and the status of its answer."""

    operation: Operation[Any]
    number: int
    status: int | None = None


Watch = Callable[[RequestAttempt], AbstractContextManager[object]]


class Connection:
    """
    A pool of connections to CallFire that speaks for one account; the services are built on it.

    Build it anywhere, use it in one event loop, and close it with ``async with`` or `aclose`.

    Args:
        login: The API login.
        password: The API password.
        base_url: https, or http on loopback; without credentials, query or fragment.
        response_format: ``"json"`` or ``"xml"``: what CallFire is asked to answer in.
        timeout: Seconds for one attempt as a whole, waiting for a connection included, to the last byte;
            above 0.
        max_retries: How often an attempt that failed is repeated at most; 0 or more.
        max_connections: How many requests are under way at once, 1 or more; the others wait in order.
        trust_env: Whether proxies and certificates that the environment names are used.
        ssl_context: Instead of one that trusts certifi's authorities; it must verify certificates.
        http_client: A client of your own, for proxies, event hooks or other transports. It is never closed here.

    Raises:
        ValueError: A setting is missing or out of its range.
        TypeError: *http_client* is not an `httpx.AsyncClient`, or stands beside a setting that belongs to it.
    """

    def __init__(
        self,
        login: str,
        password: str,
        *,
        base_url: str = DEFAULT_BASE_URL,
        response_format: ResponseFormat = "json",
        timeout: float = 30.0,
        max_retries: int = 3,
        max_connections: int = 20,
        trust_env: bool = False,
        ssl_context: ssl.SSLContext | None = None,
        http_client: HttpClient | None = None,
    ) -> None:
        if not login or not password:
            raise ValueError("login and password must be CallFire's API login and API password")
        if response_format not in ("json", "xml"):
            raise ValueError("response_format must be 'json' or 'xml'")
        self._base_url = checked_base_url(base_url)
        self._response_format: ResponseFormat = response_format
        self._set_options(timeout, max_retries)
        self._headers = _headers(login, password)
        self._clockwork = _RetryHooks()
        # What each attempt takes place in; telemetry puts itself here, on this connection and views made later.
        self._watch: Watch = nullcontext
        from callfire_async.client._http import make_pool  # noqa: PLC0415  # importing httpx takes long

        self._pool = make_pool(
            checked_count("max_connections", max_connections, least=1),
            trust_env=trust_env,
            ssl_context=ssl_context,
            http_client=http_client,
        )

    async def execute(self, operation: Operation[T], *, recover: Recover[T] | None = None) -> T:
        """
        Carry out one operation, trying again where that is safe.

        Args:
            operation: What to ask.
            recover: Looks whether an attempt of unknown outcome was carried out after all: its value, or None.
                With it, an operation that is not safe to repeat is repeated if there is none. It is asked too where
                the repetition is refused, as one with a RequestId that CallFire has seen may be.

        Raises:
            APIError: CallFire answered with an error.
            TransportError: No answer came.
            ResponseError: The answer is not what API 1.1 promises.
            ClientClosedError: The connection was closed, or belongs to another event loop or process.
        """
        call = _RetryingCall(operation, recover, self._exchange, self._clockwork, self._watch)
        try:
            return await call.attempt()
        except CallFireError as error:
            failed = error
        return await self._retry(call, failed)

    async def _retry(self, call: _RetryingCall[T], failed: CallFireError) -> T:
        """Go on after a first attempt that failed; only now is tenacity needed, a tenth of what a request costs."""
        failures = [failed]

        async def attempt() -> T:
            if failures:
                raise failures.pop()
            return await call.attempt()

        retrying = AsyncRetrying(
            sleep=self._clockwork.sleep,
            stop=stop_after_attempt(self._max_retries + 1),
            wait=call.delay,
            retry=retry_if_exception(call.should_retry),
            before_sleep=call.log_retry,
            reraise=True,
        )
        try:
            return await retrying(attempt)
        except CallFireError as error:
            call.add_ambiguity_note(error)
            raise

    def with_options(self, *, timeout: float | None = None, max_retries: int | None = None) -> Self:
        """Return a view with other settings on the same pool; closing either closes both."""
        view = copy.copy(self)
        view._set_options(  # noqa: SLF001  # our own
            self._timeout if timeout is None else timeout, self._max_retries if max_retries is None else max_retries
        )
        return view

    async def aclose(self) -> None:
        """Close the pool once what is under way has ended, which its timeout bounds; twice is as good as once."""
        await self._pool.aclose()

    async def __aenter__(self) -> Self:
        self._pool.check()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"{type(self).__name__}('***', '***', base_url={self._base_url!r})"

    def _set_options(self, timeout: float, max_retries: int) -> None:
        self._timeout = checked_timeout(timeout)
        self._max_retries = checked_count("max_retries", max_retries, least=0)

    async def _exchange(self, operation: Operation[T]) -> HttpResponse:
        return await self._pool.exchange(
            operation.method,
            self._base_url + operation.target(self._response_format),
            headers=self._headers if operation.form is None else self._headers | _FORM,
            content=operation.content(),
            timeout=self._timeout,
        )


_FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def _headers(login: str, password: str) -> dict[str, str]:
    credentials = base64.b64encode(f"{login}:{password}".encode()).decode()
    return {
        "Authorization": RedactedStr(f"Basic {credentials}"),
        "User-Agent": f"callfire-async/{own_version()} python/{platform.python_version()}",
        # What comes compressed cannot be capped before it is in memory.
        "Accept-Encoding": "identity",
    }


def own_version() -> str:
    """Return the version of this library that is installed."""
    try:
        return version("callfire-async")
    except PackageNotFoundError:  # run from a folder that was never installed
        return "unknown"


# --- one call ---------------------------------------------------------------------------------------------


class _RetryingCall(Generic[T]):
    """One operation's attempts, and whether one of them may have been carried out."""

    def __init__(
        self,
        operation: Operation[T],
        recover: Recover[T] | None,
        exchange: Callable[[Operation[T]], Awaitable[HttpResponse]],
        clockwork: _RetryHooks,
        watch: Watch,
    ) -> None:
        self._operation = operation
        self._recover = recover
        self._exchange = exchange
        self._clockwork = clockwork
        self._watch = watch
        self._attempts = 0
        self._outcome = RetrySafety.FINAL
        self._in_doubt: CallFireError | None = None

    async def attempt(self) -> T:
        """Do it, unless it was in doubt whether it was done already, and it was."""
        if self._recover is None or self._in_doubt is None:
            return await self._send()
        if self._operation.repeatable:
            return await self._send_again(self._recover)
        found = await self._look(self._recover, self._in_doubt)
        return await self._send_again(self._recover) if found is None else found

    async def _send_again(self, recover: Recover[T]) -> T:
        try:
            return await self._send()
        except APIError as error:
            # A RequestId that CallFire has seen may be refused: then it was the earlier attempt that did it.
            found = await self._look(recover, error) if self._outcome is RetrySafety.FINAL else None
            if found is None:
                raise
            return found

    async def _look(self, recover: Recover[T], doubt: CallFireError) -> T | None:
        """Ask *recover*; where the look fails, the doubt remains."""
        with suppress(APIError, TransportError, ResponseError):
            return await recover()
        raise doubt

    async def _send(self) -> T:
        self._attempts += 1
        self._outcome = RetrySafety.FINAL
        attempt = RequestAttempt(self._operation, self._attempts)
        with self._watch(attempt):
            return await self._attempt_and_classify(attempt)

    async def _attempt_and_classify(self, attempt: RequestAttempt) -> T:
        """Carry it out; where it fails, note what that means for another attempt."""
        try:
            return self._value(await self._answer(attempt))
        except RequestFailedError as failure:
            error = self._no_answer(failure)
            self._judge(error, failure.outcome)
            raise error from failure.__cause__
        except CallFireError as error:
            self._judge(error, retry_safety_of(error))
            raise

    async def _answer(self, attempt: RequestAttempt) -> HttpResponse:
        """Send the request, and write the one line of log that each gets."""
        started = perf_counter()
        try:
            answer = await self._exchange(self._operation)
            attempt.status = answer.status
        finally:
            milliseconds = (perf_counter() - started) * 1000
            outcome = attempt.status or "no answer"
            _log.debug("%s: %s, attempt %d, %.0f ms", self._operation, outcome, attempt.number, milliseconds)
        return answer

    def _value(self, answer: HttpResponse) -> T:
        in_doubt, now = self._in_doubt is not None, self._clockwork.now()
        value, problems = parse_response(self._operation, answer, attempts=self._attempts, in_doubt=in_doubt, now=now)
        if problems:
            _log.warning("%s: left out what cannot be read: %s", self._operation, format_problems(problems))
        return value

    def _no_answer(self, failure: RequestFailedError) -> TransportError:
        return (RequestTimeoutError if failure.timed_out else TransportError)(
            f"{self._operation} {failure}, at attempt {self._attempts}",
            method=self._operation.method,
            path=self._operation.path,
            attempts=self._attempts,
        )

    def _judge(self, error: CallFireError, outcome: RetrySafety) -> None:
        self._outcome = outcome
        if outcome is RetrySafety.UNKNOWN:
            self._in_doubt = error

    def should_retry(self, error: BaseException) -> bool:
        """Tell whether another attempt is safe, and likely to be worth it."""
        if not isinstance(error, CallFireError) or (_retry_after(error) or 0) > MAX_RETRY_AFTER_SECONDS:
            return False
        if self._operation.at_most_once and isinstance(error, APIError):
            return False
        if self._outcome is RetrySafety.UNKNOWN:
            return self._operation.repeatable or self._recover is not None
        return self._outcome is RetrySafety.NOT_DONE

    def delay(self, state: RetryCallState) -> float:
        """Choose how long to wait before the next attempt, in seconds."""
        return retry_delay(state.attempt_number, _retry_after(_raised(state)), self._clockwork.random)

    def log_retry(self, state: RetryCallState) -> None:
        """Say that, when and why there will be another attempt."""
        cause = type(_raised(state)).__name__
        _log.info("%s: trying again in %.2f s after %s", self._operation, state.upcoming_sleep, cause)

    def add_ambiguity_note(self, error: CallFireError) -> None:
        """Say it with the error that leaves, if CallFire may have done what was asked all the same."""
        if self._in_doubt is not None and self._operation.method != "GET":
            error.add_note(f"{self._operation} {self._operation.doubt}")


def _raised(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None


def _retry_after(error: BaseException | None) -> float | None:
    return error.retry_after if isinstance(error, APIError) else None
