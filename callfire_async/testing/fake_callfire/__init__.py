"""
`FakeCallFire`: a CallFire in memory, for tests and for trying things without an account.

It imports the client, `notifications.events` and the rest of this folder.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import aclosing, asynccontextmanager
from functools import partial
from random import Random
from types import TracebackType
from typing import Any, Self

import httpx
from starlette.types import Receive, Scope, Send

from callfire_async.client import CallFire
from callfire_async.models import Call, Subscription, Text
from callfire_async.notifications.events import Key, Notification
from callfire_async.notifications.routing.subscription_filters import matches
from callfire_async.testing.fake_callfire._message_store import MessageStore
from callfire_async.testing.fake_callfire._rest_api import ListOfOne, RestService, UpdateStatus, error_application
from callfire_async.testing.fake_callfire._sender import (
    POSTED_FORMATS,
    OutgoingPostback,
    PostbackResult,
    PostbackSender,
    build_postback,
)
from callfire_async.testing.fake_callfire._subscription_store import RepeatedRequestId, SubscriptionStore
from callfire_async.testing.faults import ConnectionAborted, Fault, PostbackFault, with_fault

__all__ = ["FakeCallFire"]


class FakeCallFire:
    """
    A CallFire in memory, as an ASGI application.

    It serves the operations on subscriptions, texts and calls in XML and JSON below any base path, ``/api/1.1/rest``
    among them, and posts events to the endpoints that were subscribed, once each, as the real one does. ``async with``
    keeps the connections to endpoints open between events; a server that runs it (``uvicorn.run(fake)``) does the same.

    Args:
        login: The API login that opens it.
        password: The API password.
        repeated_request_id: What it does with a create or update whose ``RequestId`` was used before: answer it like
            the ``first``, carry it out as if the id were ``ignored``, or answer 400 (``refused``).
        list_of_one: How JSON words a list of one: as a bare ``object``, or as an ``array``.
        update_status: What an update answers: 204, or 200 with an empty body.
        max_subscriptions: The ceiling of the account.
        finishes_texts: Whether texts that are sent reach their recipients once the sending was answered; otherwise
            when `finish_texts` is called.
        drop_rate: How many of its postbacks never come, from 0 to 1.
        duplicate_rate: How many come twice.
        seed: What the choice of those begins from.
        transport: What postbacks go through: real HTTP, unless given (``httpx.ASGITransport(app)``).
        concurrency: Postbacks under way at once.
        postback_timeout: Seconds that an endpoint may be silent.
        clock: Tells seconds, for the latency of postbacks.
    """

    def __init__(
        self,
        *,
        login: str = "login",
        password: str = "password",  # noqa: S107  # it opens nothing but this
        repeated_request_id: RepeatedRequestId = "first",
        list_of_one: ListOfOne = "object",
        update_status: UpdateStatus = 204,
        max_subscriptions: int = 10_000,
        finishes_texts: bool = True,
        drop_rate: float = 0.0,
        duplicate_rate: float = 0.0,
        seed: int | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        concurrency: int = 16,
        postback_timeout: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.login = login
        self.password = password
        #: What goes wrong with the postbacks to come, one after the other; None is a postback that goes well.
        self.postback_faults: deque[PostbackFault | None] = deque()
        self._account = SubscriptionStore(max_subscriptions=max_subscriptions, repeated_request_id=repeated_request_id)
        self._traffic = MessageStore()
        self._finishes_texts = finishes_texts
        #: How many of its postbacks never come, from 0 to 1; those for which `postback_faults` has a word not counted.
        self.drop_rate = drop_rate
        #: How many come twice, likewise.
        self.duplicate_rate = duplicate_rate
        #: Postbacks that never came: the subscription's id, and the event's key.
        self.dropped: list[tuple[int, Key]] = []
        self._random = Random(seed)  # noqa: S311  # a choice that can be repeated
        service = RestService(
            self._account,
            self._traffic,
            self._after_send,
            login=login,
            password=password,
            list_of_one=list_of_one,
            update_status=update_status,
        )
        self._rest = service.application(self._lifespan)
        self._faults: deque[Fault] = deque()
        self._late: list[OutgoingPostback] = []
        self._make_poster: Callable[[], PostbackSender] = partial(
            PostbackSender, transport, concurrency=concurrency, timeout=postback_timeout, clock=clock
        )
        self._poster: PostbackSender | None = None
        self._entered = 0

    # --- the REST service ---------------------------------------------------------------------------------

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        """All subscriptions of the account, in the order in which they were made."""
        return tuple(self._account.subscriptions.values())

    def client(self, **options: Any) -> CallFire:
        """
        Return a client of this fake, wired to it in process.

        Args:
            options: As of `CallFire`; login and password fit unless given.
        """
        settings: dict[str, Any] = {"login": self.login, "password": self.password} | options
        return CallFire(http_client=httpx.AsyncClient(transport=_ASGITransport(self)), **settings)

    def fail_next(self, *faults: Fault) -> None:
        """Let the next requests fail, each in the way of one of *faults*, in order."""
        self._faults.extend(faults)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the lifespan."""
        if scope["type"] != "http" or not self._faults:
            await self._rest(scope, receive, send)
            return
        fault = self._faults.popleft()
        await with_fault(fault, self._rest, error_application(fault))(scope, receive, send)

    # --- texts and calls ----------------------------------------------------------------------------------

    def add(self, *actions: Text | Call) -> None:
        """Let texts and calls be found; one with the id of another replaces it. Nothing is posted: see `emit`."""
        for action in actions:
            self._traffic.add(action)

    async def finish_texts(self) -> list[PostbackResult]:
        """Let every text that was sent through the service reach its recipient, and post that."""
        return [posted for event in self._traffic.finish() for posted in await self.emit(event)]

    async def _after_send(self) -> None:
        if self._finishes_texts:
            await self.finish_texts()

    # --- postbacks ----------------------------------------------------------------------------------------

    async def emit(self, event: Notification) -> list[PostbackResult]:
        """
        Post an event to each enabled subscription that it matches, in the format that this asked for, once.

        The root is the event's ``name``. Nothing is posted of what is not finished, nor to mailboxes.

        Returns:
            What was posted of this event, in the order of the subscriptions, then what came late of earlier ones.
            What a fault dropped or keeps for later is not among them.
        """
        late, self._late = self._late, []
        due = [
            sent for subscription in self._waiting_for(event) for sent in self._due(build_postback(event, subscription))
        ]
        async with self._posting() as poster:
            posted = await _post(poster, due)
            return posted + await _post(poster, [(what, False) for what in late])

    def _waiting_for(self, event: Notification) -> Iterable[Subscription]:
        return [
            subscription
            for subscription in self.subscriptions
            if subscription.enabled
            and subscription.notification_format in POSTED_FORMATS
            and (subscription.endpoint or "").startswith(("http://", "https://"))
            and matches(event, subscription)
        ]

    def _due(self, what: OutgoingPostback) -> list[tuple[OutgoingPostback, bool]]:
        """Return what is to be posted now, and whether it is cut."""
        fault = self.postback_faults.popleft() if self.postback_faults else self._random_fault()
        if fault is PostbackFault.LATE:
            self._late.append(what)
        if fault is PostbackFault.DROPPED:
            self.dropped.append((what.subscription_id, what.key))
        if fault in (PostbackFault.LATE, PostbackFault.DROPPED):
            return []
        return [(what, fault is PostbackFault.CUT)] * (2 if fault is PostbackFault.DUPLICATED else 1)

    def _random_fault(self) -> PostbackFault | None:
        chance = self._random.random()
        if chance < self.drop_rate:
            return PostbackFault.DROPPED
        return PostbackFault.DUPLICATED if chance < self.drop_rate + self.duplicate_rate else None

    @asynccontextmanager
    async def _posting(self) -> AsyncIterator[PostbackSender]:
        """Use the open pool, or one for this event alone, so that nothing stays open where nobody closes it."""
        if self._poster is not None:
            yield self._poster
            return
        async with aclosing(self._make_poster()) as poster:
            yield poster

    # --- lifecycle ----------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Keep connections to endpoints open from now on; may be entered more than once."""
        self._entered += 1
        self._poster = self._poster or self._make_poster()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close them at the last exit."""
        self._entered -= 1
        if not self._entered:
            await self.aclose()

    async def aclose(self) -> None:
        """Close the connections to endpoints; subscriptions stay."""
        poster, self._poster = self._poster, None
        if poster is not None:
            await poster.aclose()

    @asynccontextmanager
    async def _lifespan(self, _: object) -> AsyncIterator[None]:
        async with self:
            yield


async def _post(poster: PostbackSender, due: list[tuple[OutgoingPostback, bool]]) -> list[PostbackResult]:
    async with asyncio.TaskGroup() as tasks:
        build_postback = [tasks.create_task(poster.post(what, cut=cut)) for what, cut in due]
    return [task.result() for task in build_postback]


class _ASGITransport(httpx.ASGITransport):
    """httpx's own way into an application, with cut connections as they look from outside."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            return await super().handle_async_request(request)
        except ConnectionAborted:
            raise httpx.RemoteProtocolError("the fake cut the connection", request=request) from None


FakeCallFire.__module__ = "callfire_async.testing"
