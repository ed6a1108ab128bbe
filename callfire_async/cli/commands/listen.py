"""A receiver on loopback that shows what comes, and hands it on."""

import asyncio
import shlex
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Any

from attrs import frozen
from starlette.applications import Starlette
from starlette.routing import Mount

from callfire_async.cli._exit import WRONG_USE, CliError
from callfire_async.cli._http_forwarder import ForwardResult, HttpForwarder, forwarder
from callfire_async.cli._inbox_target import LOCK_TIMEOUT_SECONDS
from callfire_async.cli._log_output import silenced
from callfire_async.cli._output import echo, escape_control_characters, say_json
from callfire_async.cli._own_tokens import tokens_from_environment
from callfire_async.cli._server import serve
from callfire_async.cli._tokens import listen_tokens, token_file
from callfire_async.errors import NotificationError
from callfire_async.inspector import BindAddress, ReceiverSource, serve_inspector
from callfire_async.models import masked_endpoint
from callfire_async.notifications import (
    Notification,
    Receiver,
    RetryPolicy,
    Router,
    SqliteInbox,
    UnknownNotification,
    events,
    parse,
)
from callfire_async.notifications.asgi import NotificationApp
from callfire_async.notifications.inbox.base import Delivery
from callfire_async.notifications.observers import AttemptRecord, Observer, RequestRecord

__all__ = ["ListenOptions", "run"]

PREFIX = "/callfire"
# Whoever develops does not wait as long as a service does.
_RETRY = RetryPolicy(initial_delay=1.0, max_delay=60.0)
# Of how many bodies it is known that they came before.
_REMEMBERED = 10_000
# What these log is shown in lines of its own.
_SHOWN = ("callfire_async.worker", "callfire_async.receiver", "callfire_async.dead_letters")

_handling: ContextVar[AttemptRecord] = ContextVar("handling")


@frozen
class ListenOptions:
    """What is listened for."""

    port: int
    forward_to: str | None
    #: The names of event types; all where there are none.
    events: tuple[str, ...]
    subscription_id: int | None
    inbox: str | None
    as_json: bool
    #: Where the inspector is served; None for none.
    inspect: BindAddress | None = None


class ForwardError(Exception):
    """The other side did not take it: the handler has failed."""

    @classmethod
    def by(cls, answer: ForwardResult) -> "ForwardError":
        """Make one whose type is called by what was answered: of what a handler raises a reason says that alone."""
        name = f"no answer ({answer.words})" if answer.status is None else f"answered {answer.status}"
        failed: ForwardError = type(name, (cls,), {})()
        return failed


async def run(settings: ListenOptions) -> None:
    """Listen until interrupted, or until nobody reads what is shown."""
    kinds = _kinds_of(settings.events)
    tokens = listen_tokens()
    lines = _EventPrinter(as_json=settings.as_json, knows_repeats=settings.inbox is not None)
    async with forwarder(settings.forward_to) as onward:
        router = _router(kinds, settings.subscription_id, lines, onward)
        inbox = None
        if settings.inbox is None:
            receiver = Receiver(router, tokens=tokens)
        else:
            inbox = SqliteInbox(settings.inbox, lock_timeout=LOCK_TIMEOUT_SECONDS)
            receiver = Receiver(router, tokens=tokens, inbox=inbox, retry=_RETRY)
        receiver.observe(lines)
        app = NotificationApp(receiver)
        application = Starlette(routes=[Mount(PREFIX, app)], lifespan=app.lifespan)
        # Entered here too, so that an inbox that cannot be opened is an error of ours and not of the server's.
        async with (
            receiver,
            _inspected(receiver, inbox, settings.inspect) as inspector,
            serve(application, settings.port) as port,
        ):
            with silenced(*_SHOWN):
                lines.ready(f"http://127.0.0.1:{port}{PREFIX}", settings.forward_to, inspector)
                await lines.unread.wait()
    raise BrokenPipeError


@asynccontextmanager
async def _inspected(
    receiver: Receiver, inbox: SqliteInbox | None, place: BindAddress | None
) -> AsyncIterator[str | None]:
    """Serve the inspector where it is wanted; return its address."""
    if place is None:
        yield None
        return
    source = ReceiverSource(inbox, receiver, "listen")
    receiver.observe(source)
    async with serve_inspector(source, place) as address:
        yield address


def _kinds_of(names: tuple[str, ...]) -> tuple[type[Notification], ...]:
    known = {name: getattr(events, name) for name in events.__all__}
    for name in names:
        if name not in known:
            raise CliError(f"there is no event {name}; there are {', '.join(known)}", WRONG_USE)
    return tuple(known[name] for name in names) or (Notification,)


def _router(
    kinds: tuple[type[Notification], ...],
    subscription_id: int | None,
    lines: "_EventPrinter",
    onward: HttpForwarder | None,
) -> Router:
    router = Router()

    @router.on(
        Notification, subscription_id=subscription_id, where=lambda event: isinstance(event, kinds), name="forward"
    )
    async def forward(event: Notification) -> None:
        record = _handling.get()
        lines.event(event, record)
        if onward is not None:
            answer = await onward.forward(record.delivery)
            lines.answer(answer, record)
            if not answer.is_success:
                raise ForwardError.by(answer)

    @router.fallback
    async def left_out(event: Notification) -> None:
        """Take what nobody wants to see, lest it become a dead letter."""

    return router


class _EventPrinter(Observer):
    """Shows what a receiver does, a line each."""

    def __init__(self, *, as_json: bool, knows_repeats: bool) -> None:
        #: Set when whoever read the lines is gone.
        self.unread = asyncio.Event()
        self._as_json = as_json
        self._knows_repeats = knows_repeats
        self._keys: OrderedDict[str, None] = OrderedDict()

    # --- what the receiver tells --------------------------------------------------------------------------

    @contextmanager
    def request(self, record: RequestRecord) -> Iterator[None]:
        """Show what was refused, and what the inbox had already."""
        yield
        if record.refused is not None:
            status = None if record.reply is None else record.reply.status
            self._line("refused", f"{record.refused} ({status})", reason=record.refused, status=status)
        elif record.delivery and record.appended and record.appended.duplicate:
            self._repeat(record.delivery)

    @contextmanager
    def attempt(self, record: AttemptRecord) -> Iterator[None]:
        """Show what came before, where no inbox knows it, and what became a dead letter."""
        if not self._knows_repeats and self._is_repeat(record.delivery):
            self._repeat(record.delivery)
        yield
        if record.outcome == "dead":
            self._line("dead", record.reason, id=record.id, reason=record.reason)

    @contextmanager
    def handler(self, record: AttemptRecord, handler: str) -> Iterator[None]:  # noqa: ARG002  # there is one
        """Let the handler know the delivery: it is what is forwarded."""
        token = _handling.set(record)
        try:
            yield
        finally:
            _handling.reset(token)

    def _is_repeat(self, delivery: Delivery) -> bool:
        known = delivery.key in self._keys
        self._keys[delivery.key] = None
        if len(self._keys) > _REMEMBERED:
            self._keys.popitem(last=False)
        return known

    def _repeat(self, delivery: Delivery) -> None:
        try:
            words = _words(parse(delivery.body, delivery.content_type))
        except NotificationError:
            words = {"kind": None}
        self._line("dup", _text(words), **words)

    # --- what is shown ------------------------------------------------------------------------------------

    def ready(self, base: str, forward_to: str | None, inspector: str | None = None) -> None:
        """Show where to post, how to subscribe that, and where to look."""
        endpoint, target = f"{base}/***", masked_endpoint(forward_to).strip("'\"")
        if self._as_json:
            self._say_json(
                {"what": "ready", "endpoint": endpoint, "forward_to": None if forward_to is None else target}
                | ({} if inspector is None else {"inspector": inspector})
            )
            return
        given = "" if tokens_from_environment() else f"CALLFIRE_TOKEN=$(cat {shlex.quote(str(token_file()))}) "
        onward = f", and hands it on to {target}" if forward_to else ""
        self._say(
            f"Ready! {endpoint} shows what is posted to it{onward}. To subscribe it, with a public https address in"
            f" place of http://127.0.0.1 unless it is for a sandbox:\n\n"
            f"  {given}callfire-async subscriptions create '{base}/{{token}}' OUTBOUND_TEXT_FINISHED\n"
        )
        if inspector is not None:
            self._say(f"To inspect it: {inspector}\nThe address is a secret: it holds the key.\n")

    def event(self, event: Notification, record: AttemptRecord) -> None:
        """Show an event."""
        words = _words(event) | ({"attempt": record.attempt} if record.attempt > 1 else {})
        self._line("event", _text(words), sign="-->", **words)

    def answer(self, answer: ForwardResult, record: AttemptRecord) -> None:
        """Show what came of handing it on."""
        milliseconds = round(1000 * answer.seconds, 1)
        words = f"{answer.status or 'no answer'} in {milliseconds:.0f} ms{': ' if answer.words else ''}{answer.words}"
        self._line(
            "answer",
            words,
            sign="<--",
            status=answer.status,
            milliseconds=milliseconds,
            attempt=record.attempt,
            body=answer.words,
        )

    def _line(self, what: str, words: str, *, sign: str | None = None, **fields: Any) -> None:
        now = datetime.now().astimezone()
        if self._as_json:
            self._say_json({"what": what, "at": now.isoformat(timespec="milliseconds"), **fields})
        else:
            self._say(escape_control_characters(f"{now:%H:%M:%S} {sign or what} {words}"))

    def _say(self, text: str) -> None:
        with self._stop_on_broken_pipe():
            echo(text)

    def _say_json(self, words: dict[str, Any]) -> None:
        with self._stop_on_broken_pipe():
            say_json(words)

    @contextmanager
    def _stop_on_broken_pipe(self) -> Iterator[None]:
        """Notice that nobody reads any more; the event is handled all the same."""
        try:
            yield
        except BrokenPipeError:
            self.unread.set()


def _words(event: Notification) -> dict[str, Any]:
    return {
        "kind": "unknown" if isinstance(event, UnknownNotification) else type(event).__name__,
        "name": event.name,
        "key": list(event.key),
        "subscription_id": event.subscription_id,
    }


def _text(words: dict[str, Any]) -> str:
    """Word an event on one line."""
    if words["kind"] is None:
        return "no notification"
    name = "" if words["name"] == words["kind"] else f" ({words['name']})"
    # Of a fingerprint the beginning is enough to tell one from another.
    key = ":".join(str(part)[:20] for part in words["key"])
    sender = "" if words["subscription_id"] is None else f" subscription {words['subscription_id']}"
    return f"{words['kind']}{name} {key}{sender}" + (f" attempt {words['attempt']}" if "attempt" in words else "")
