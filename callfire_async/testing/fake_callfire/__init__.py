"""`FakeCallFire`: an in-memory CallFire for tests and for trying the library without an account."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from random import Random
from types import TracebackType
from typing import Any, Self, get_args

import httpx
from starlette.types import Receive, Scope, Send

from callfire_async._arguments import check_integer, check_number
from callfire_async.client import CallFire
from callfire_async.models import Call, Subscription, Text, Webhook
from callfire_async.notifications.events import Key, Notification
from callfire_async.testing.fake_callfire._api_1_1 import ListOfOne, MessagingService, UpdateStatus
from callfire_async.testing.fake_callfire._api_2 import WebhookService
from callfire_async.testing.fake_callfire._message_store import MessageStore
from callfire_async.testing.fake_callfire._postback_builder import (
    PostbackShape,
    build_subscription_postbacks,
    build_webhook_postback,
)
from callfire_async.testing.fake_callfire._request_ids import RepeatedRequestId, RequestIds
from callfire_async.testing.fake_callfire._rest_api import RestApi
from callfire_async.testing.fake_callfire._sender import OutgoingPostback, PostbackResult, PostbackSender
from callfire_async.testing.fake_callfire._subscription_store import SubscriptionStore
from callfire_async.testing.fake_callfire._webhook_store import WebhookStore, WebhookUpdate
from callfire_async.testing.faults import ConnectionAborted, Fault, PostbackFault, with_fault

__all__ = ["FakeCallFire"]


class FakeCallFire:
    """
    An in-memory CallFire, as an ASGI application.

    The fake serves API 1.1's operations on subscriptions, texts and calls in XML and JSON, and API v2's operations on
    webhooks, below any base path, for example ``/api/1.1/rest`` and ``/v2``. It posts each event once to the endpoints
    of matching subscriptions and webhooks, to the latter signed with their secrets. ``async with`` keeps the
    connections to endpoints open between events, as does a server that runs the fake (``uvicorn.run(fake)``).

    Args:
        login: API login that clients must send.
        password: API password that clients must send.
        repeated_request_id: The response to a create, update or send whose ``RequestId`` was used before: the response
            to the ``first`` request, carried out as if the ID were ``ignored``, or 400 (``refused``).
        list_of_one: JSON form of a list with one item: an ``array``, or a bare ``object``, which some servers sent.
        update_status: Status of an update's response: 204, or 200 with an empty body.
        max_subscriptions: Maximum number of subscriptions.
        webhook_update: What an update of a webhook does to keys that it leaves out: ``merge`` keeps them, ``replace``
            gives them their defaults. CallFire does not document which.
        returns_secrets: Return the secrets of webhooks.
        counts_webhooks: Return the number of webhooks as ``totalCount`` of a list; if false, -1, as CallFire may.
        finishes_texts: Finish sent texts after the response to the send; if false, when `finish_texts` is called.
        finishes_calls: Finish sent calls after the response to the send; if false, when `finish_calls` is called.
        events_per_postback: Maximum number of events in one postback to a webhook, of those that are emitted together.
        postback_shape: Shape of API 1.1's postbacks: as CallFire sends them since ``2016``, or as in captures of
            ``2015``: the message of an outbound text in its record only, and in JSON a single record as a bare object
            and phone numbers as numbers.
        drop_rate: Fraction of the postbacks that are not sent, from 0 to 1.
        duplicate_rate: Fraction of the postbacks that are sent twice, from 0 to 1.
        seed: Seed of the random choice of those postbacks.
        transport: Transport of the postbacks, for example ``httpx.ASGITransport(app)``; defaults to HTTP.
        concurrency: Maximum number of concurrent postbacks.
        postback_timeout: Seconds to wait for an endpoint.
        clock: Monotonic clock in seconds, for the latency of postbacks.

    Raises:
        TypeError: A number has the wrong type.
        ValueError: A number is out of range, or an option has another value than those above.
    """

    def __init__(
        self,
        *,
        login: str = "login",
        password: str = "password",  # noqa: S107  # not a real password
        repeated_request_id: RepeatedRequestId = "first",
        list_of_one: ListOfOne = "array",
        update_status: UpdateStatus = 204,
        max_subscriptions: int = 10_000,
        webhook_update: WebhookUpdate = "merge",
        returns_secrets: bool = False,
        counts_webhooks: bool = True,
        finishes_texts: bool = True,
        finishes_calls: bool = True,
        events_per_postback: int = 1,
        postback_shape: PostbackShape = "2016",
        drop_rate: float = 0.0,
        duplicate_rate: float = 0.0,
        seed: int | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        concurrency: int = 16,
        postback_timeout: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        for name, rate in (("drop_rate", drop_rate), ("duplicate_rate", duplicate_rate)):
            check_number(name, rate)
            if rate > 1:
                raise ValueError(f"{name} must be from 0 to 1")
        check_integer("events_per_postback", events_per_postback, minimum=1)
        _check_choice("repeated_request_id", repeated_request_id, RepeatedRequestId)
        _check_choice("list_of_one", list_of_one, ListOfOne)
        _check_choice("update_status", update_status, UpdateStatus)
        _check_choice("webhook_update", webhook_update, WebhookUpdate)
        _check_choice("postback_shape", postback_shape, PostbackShape)
        check_integer("max_subscriptions", max_subscriptions)
        # Without a slot, a postback would wait forever.
        check_integer("concurrency", concurrency, minimum=1)
        check_number("postback_timeout", postback_timeout, is_exclusive=True)
        self.login = login
        self.password = password
        #: Faults of the next postbacks, in order; None sends a postback without a fault.
        self.postback_faults: deque[PostbackFault | None] = deque()
        request_ids = RequestIds(repeated_request_id)
        self._subscription_store = SubscriptionStore(max_subscriptions=max_subscriptions, request_ids=request_ids)
        self._message_store = MessageStore(request_ids)
        self._events_per_postback = events_per_postback
        self._postback_shape: PostbackShape = postback_shape
        self._finishes: dict[type[Text | Call], bool] = {Text: finishes_texts, Call: finishes_calls}
        #: Fraction of the postbacks that are not sent, from 0 to 1; `postback_faults` takes precedence.
        self.drop_rate = drop_rate
        #: Fraction of the postbacks that are sent twice, from 0 to 1; `postback_faults` takes precedence.
        self.duplicate_rate = duplicate_rate
        #: Events of dropped postbacks: the ID of the subscription or webhook, and the event's key.
        self.dropped: list[tuple[int, Key]] = []
        self._random = Random(seed)  # noqa: S311  # repeatable, not secret
        self._webhook_store = WebhookStore(update=webhook_update)
        api_1_1 = MessagingService(
            self._subscription_store,
            self._message_store,
            self._after_send,
            list_of_one=list_of_one,
            update_status=update_status,
        )
        api_2 = WebhookService(self._webhook_store, returns_secrets=returns_secrets, counts_webhooks=counts_webhooks)
        self._rest = RestApi(api_1_1, api_2, login=login, password=password, lifespan=self._lifespan)
        self._faults: deque[Fault] = deque()
        self._late: list[OutgoingPostback] = []
        self._make_sender: Callable[[], PostbackSender] = partial(
            PostbackSender, transport, concurrency=concurrency, timeout=postback_timeout, clock=clock
        )
        self._sender: PostbackSender | None = None
        self._entered = 0

    # --- REST API -----------------------------------------------------------------------------------------

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        """All subscriptions of the account, in the order of their creation."""
        return tuple(self._subscription_store.subscriptions.values())

    @property
    def webhooks(self) -> tuple[Webhook, ...]:
        """All webhooks of the account, with their secrets, in the order of their creation."""
        return self._webhook_store.webhooks

    def client(self, **options: Any) -> CallFire:
        """
        Return a client that is connected to this fake in process.

        Args:
            options: Arguments of `CallFire`; login and password default to the fake's.
        """
        settings: dict[str, Any] = {"login": self.login, "password": self.password} | options
        return CallFire(http_client=httpx.AsyncClient(transport=_ASGITransport(self)), **settings)

    def fail_next(self, *faults: Fault) -> None:
        """Inject faults into the next requests, in order."""
        self._faults.extend(faults)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request or the lifespan."""
        if scope["type"] != "http" or not self._faults:
            await self._rest(scope, receive, send)
            return
        fault = self._faults.popleft()
        await with_fault(fault, self._rest, self._rest.failing_application(fault))(scope, receive, send)

    # --- texts and calls ----------------------------------------------------------------------------------

    def add(self, *actions: Text | Call) -> None:
        """Add texts and calls to the account, or replace those with the same ID. Nothing is posted: see `emit`."""
        for action in actions:
            self._message_store.add(action)

    async def finish_texts(self) -> list[PostbackResult]:
        """Finish the texts that were sent through the API, and post an event for each."""
        return await self._finish(Text)

    async def finish_calls(self) -> list[PostbackResult]:
        """Finish the calls that were sent through the API with the result ``LA``, and post an event for each."""
        return await self._finish(Call)

    async def _finish(self, kind: type[Text | Call]) -> list[PostbackResult]:
        events, results = self._message_store.finish(kind), list[PostbackResult]()
        while group := [*islice(events, self._events_per_postback)]:
            results += await self.emit(*group)
        return results

    async def _after_send(self, kind: type[Text | Call]) -> None:
        if self._finishes[kind]:
            await self._finish(kind)

    # --- postbacks ----------------------------------------------------------------------------------------

    async def emit(self, *events: Notification) -> list[PostbackResult]:
        """
        Post events once to each enabled subscription and webhook that they match.

        A subscription gets a postback for each event, in its format and with the event's ``name`` as the root. A
        webhook gets one for up to ``events_per_postback`` events of this call. Unfinished texts and calls match
        nothing; mailboxes are skipped. A webhook that fires only once is deleted.

        Returns:
            For each group of ``events_per_postback`` events the results in the order of the subscriptions and then the
            webhooks, then those of earlier events' late postbacks. Dropped and late postbacks are not included.
        """
        size = self._events_per_postback
        groups = [events[start : start + size] for start in range(0, len(events), size)]
        return [result for group in groups for result in await self._emit_group(group)]

    async def _emit_group(self, events: Sequence[Notification]) -> list[PostbackResult]:
        late, self._late = self._late, []
        now = datetime.now(UTC)
        # API v2 has milliseconds.
        now = now.replace(microsecond=now.microsecond // 1000 * 1000)
        postbacks = [*self._subscription_postbacks(events, now), *self._webhook_postbacks(events, now)]
        due = [attempt for postback in postbacks for attempt in self._with_postback_fault(postback)]
        async with self._open_sender() as sender:
            results = await _post_all(sender, due)
            return results + await _post_all(sender, [(postback, False) for postback in late])

    def _subscription_postbacks(self, events: Iterable[Notification], now: datetime) -> Iterable[OutgoingPostback]:
        for event in events:
            yield from build_subscription_postbacks(event, self.subscriptions, self._postback_shape, now)

    def _webhook_postbacks(self, events: Sequence[Notification], now: datetime) -> Iterable[OutgoingPostback]:
        for webhook in self.webhooks:
            if postback := build_webhook_postback(events, webhook, now):
                if webhook.single_use:
                    self._webhook_store.delete(webhook.id)
                yield postback

    def _with_postback_fault(self, postback: OutgoingPostback) -> list[tuple[OutgoingPostback, bool]]:
        """Return the postbacks to send now, each with whether it is cut."""
        fault = self.postback_faults.popleft() if self.postback_faults else self._random_fault()
        if fault is PostbackFault.LATE:
            self._late.append(postback)
        if fault is PostbackFault.DROPPED:
            self.dropped.extend((postback.subscription_id or postback.webhook_id or 0, key) for key in postback.keys)
        if fault in (PostbackFault.LATE, PostbackFault.DROPPED):
            return []
        return [(postback, fault is PostbackFault.CUT)] * (2 if fault is PostbackFault.DUPLICATED else 1)

    def _random_fault(self) -> PostbackFault | None:
        sample = self._random.random()
        if sample < self.drop_rate:
            return PostbackFault.DROPPED
        return PostbackFault.DUPLICATED if sample < self.drop_rate + self.duplicate_rate else None

    @asynccontextmanager
    async def _open_sender(self) -> AsyncIterator[PostbackSender]:
        """Yield the open sender, or outside of ``async with`` a sender that is closed afterwards."""
        if self._sender is not None:
            yield self._sender
            return
        async with aclosing(self._make_sender()) as sender:
            yield sender

    # --- lifecycle ----------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Keep connections to endpoints open until the last exit."""
        self._entered += 1
        self._sender = self._sender or self._make_sender()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the connections to endpoints at the last exit."""
        self._entered -= 1
        if not self._entered:
            await self.aclose()

    async def aclose(self) -> None:
        """Close the connections to endpoints; subscriptions stay."""
        sender, self._sender = self._sender, None
        if sender is not None:
            await sender.aclose()

    @asynccontextmanager
    async def _lifespan(self, _: object) -> AsyncIterator[None]:
        async with self:
            yield


def _check_choice(name: str, value: object, choices: Any) -> None:
    if value not in get_args(choices):
        raise ValueError(f"{name} must be {' or '.join(map(repr, get_args(choices)))}")


async def _post_all(sender: PostbackSender, due: list[tuple[OutgoingPostback, bool]]) -> list[PostbackResult]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(sender.post(postback, cut=cut)) for postback, cut in due]
    return [task.result() for task in tasks]


class _ASGITransport(httpx.ASGITransport):
    """An ASGI transport that reports a cut connection as httpx does over TCP."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            return await super().handle_async_request(request)
        except ConnectionAborted:
            raise httpx.RemoteProtocolError("the fake cut the connection", request=request) from None


FakeCallFire.__module__ = "callfire_async.testing"
