"""Run a receiver on a local port that prints postbacks and forwards them."""

import asyncio
import errno
import os
import shlex
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Annotated, Any

import typer
from attrs import frozen
from starlette.applications import Starlette
from starlette.routing import Mount

from callfire_async.cli._client_options import AsJson
from callfire_async.cli._exit import WRONG_USE, CliError, port_errors
from callfire_async.cli._help import CommandApp
from callfire_async.cli._http_forwarder import ForwardResult, HttpForwarder, open_forwarder
from callfire_async.cli._inbox_target import LOCK_TIMEOUT_SECONDS
from callfire_async.cli._inspector_options import (
    INSPECTOR_PANEL,
    INSPECTOR_PORT,
    InspectorHost,
    InspectorPort,
    bind_address,
)
from callfire_async.cli._log_output import silenced
from callfire_async.cli._output import echo, echo_json, escape_control_characters
from callfire_async.cli._tokens import (
    listen_tokens,
    signing_secrets_from_environment,
    token_file,
    tokens_from_environment,
)
from callfire_async.cli.commands.listen._event_line import delivery_fields, event_fields, format_event
from callfire_async.inspector import BindAddress, ReceiverSource, serve_inspector
from callfire_async.inspector._server import LOOPBACK, serve
from callfire_async.models import masked_endpoint
from callfire_async.notifications import (
    Notification,
    Receiver,
    RetryPolicy,
    Router,
    SigningSecrets,
    SqliteInbox,
)
from callfire_async.notifications import events as event_types
from callfire_async.notifications.asgi import NotificationApp
from callfire_async.notifications.inbox.base import Delivery
from callfire_async.notifications.observers import AttemptRecord, Observer, RequestRecord

app: typer.Typer = CommandApp()

LISTEN_PORT = 8484
PREFIX = "/callfire"
_FILTERS = "Filters"
# Shorter than a service's: a developer waits for the retry.
_RETRY = RetryPolicy(initial_delay=1.0, max_delay=60.0)
_MAX_REMEMBERED_KEYS = 10_000
# Their records are printed as lines of the command.
_SILENCED_LOGGERS = ("callfire_async.worker", "callfire_async.receiver", "callfire_async.dead_letters")

_current_attempt: ContextVar[AttemptRecord] = ContextVar("current_attempt")


@app.command(
    epilog="Example: `callfire-async listen --forward-to http://127.0.0.1:8000/callfire/secret`",
    help="""
    Print the postbacks that arrive on a local port, and forward them to a URL.

    The endpoint's token is CALLFIRE_TOKEN, or a generated token that `trigger` uses too. Each event is printed with
    `-->`, each response to a forwarded event with `<--`. Other lines: `dup` is a repeated postback, `split` one with
    several events, `dead` a dead letter, `refused` a rejected request. An `unknown` event is not part of API 1.1 or v2.

    With CALLFIRE_SIGNING_SECRET only postbacks with a valid signature are accepted, and forwarded postbacks are signed.
    """,
)
def listen(
    *,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any free port.")] = LISTEN_PORT,
    forward_to: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Forward each postback unchanged to this URL; any non-2xx response counts as a failure.",
        ),
    ] = None,
    events: Annotated[
        list[str] | None,
        typer.Option(
            rich_help_panel=_FILTERS, metavar="EVENT", help="Only events of this type, e.g. TextSent. Repeatable."
        ),
    ] = None,
    subscription: Annotated[
        int | None,
        typer.Option(rich_help_panel=_FILTERS, min=1, metavar="ID", help="Only events of this subscription."),
    ] = None,
    webhook: Annotated[
        int | None, typer.Option(rich_help_panel=_FILTERS, min=1, metavar="ID", help="Only events of this webhook.")
    ] = None,
    allow_unsigned: Annotated[
        bool,
        typer.Option(
            "--allow-unsigned",
            help="With CALLFIRE_SIGNING_SECRET: also accept postbacks without a signature, such as those of API 1.1.",
        ),
    ] = False,
    inbox: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Store postbacks in this SQLite inbox first, and retry failed forwards."),
    ] = None,
    inspect: Annotated[
        bool,
        typer.Option(
            "--inspect",
            rich_help_panel=INSPECTOR_PANEL,
            help="Serve a web page that shows deliveries and can replay them.",
        ),
    ] = False,
    inspect_host: InspectorHost = LOOPBACK,
    inspect_port: InspectorPort = INSPECTOR_PORT,
    as_json: AsJson = False,
) -> None:
    if not inspect and (inspect_host, inspect_port) != (LOOPBACK, INSPECTOR_PORT):
        raise typer.BadParameter("--inspect-host and --inspect-port require --inspect")
    address = bind_address(inspect_host, inspect_port) if inspect else None
    options = ListenOptions(
        port=port,
        forward_to=forward_to,
        events=tuple(events or ()),
        subscription_id=subscription,
        webhook_id=webhook,
        allows_unsigned=allow_unsigned,
        inbox=inbox,
        as_json=as_json,
        inspect=address,
    )
    asyncio.run(run(options))


@frozen
class ListenOptions:
    """The options of the command."""

    port: int
    forward_to: str | None
    #: The names of event types; empty for all.
    events: tuple[str, ...]
    subscription_id: int | None
    inbox: str | None
    as_json: bool
    #: The address of the inspector; None for no inspector.
    inspect: BindAddress | None = None
    webhook_id: int | None = None
    #: Whether postbacks without a signature are accepted although there is a signing secret.
    allows_unsigned: bool = False


class ForwardError(Exception):
    """Raised by the handler if a delivery could not be forwarded."""

    @classmethod
    def from_result(cls, result: ForwardResult) -> "ForwardError":
        """Return an instance of a class named after the response: an attempt's reason contains class names only."""
        name = f"no response ({result.message})" if result.status is None else f"responded {result.status}"
        error: ForwardError = type(name, (cls,), {})()
        return error


async def run(options: ListenOptions) -> None:
    """Listen until interrupted, or until standard output is closed."""
    types = _event_types(options.events)
    printer = _EventPrinter(as_json=options.as_json, has_inbox=options.inbox is not None)
    secrets = signing_secrets_from_environment()
    async with open_forwarder(options.forward_to, secrets) as forwarder:
        router = _create_router(types, options, printer, forwarder)
        inbox = None if options.inbox is None else SqliteInbox(options.inbox, lock_timeout=LOCK_TIMEOUT_SECONDS)
        receiver = _create_receiver(router, inbox, secrets, allows_unsigned=options.allows_unsigned)
        receiver.observe(printer)
        # The receiver is entered here too, so that an inbox that cannot be opened is reported by the command.
        async with (
            receiver,
            _inspector(receiver, inbox, options.inspect) as inspector_url,
            port_errors(serve(_create_app(receiver), options.port)) as port,
        ):
            with silenced(*_SILENCED_LOGGERS):
                printer.ready(f"http://{LOOPBACK}:{port}{PREFIX}", options.forward_to, inspector_url)
                await printer.output_closed.wait()
    # With its number, by which Typer recognizes a closed pipe.
    raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def _event_types(names: tuple[str, ...]) -> tuple[type[Notification], ...]:
    known = {name: getattr(event_types, name) for name in event_types.__all__}
    for name in names:
        if name not in known:
            raise CliError(f"unknown event type {name}; expected one of {', '.join(known)}", WRONG_USE)
    return tuple(known[name] for name in names) or (Notification,)


def _create_receiver(
    router: Router, inbox: SqliteInbox | None, secrets: SigningSecrets | None, *, allows_unsigned: bool
) -> Receiver:
    if allows_unsigned and secrets is None:
        raise CliError("--allow-unsigned requires a signing secret: set CALLFIRE_SIGNING_SECRET", WRONG_USE)
    return Receiver(
        router,
        tokens=listen_tokens(),
        signing_secrets=secrets,
        require_signature=not allows_unsigned,
        inbox=inbox,
        retry=None if inbox is None else _RETRY,
    )


def _create_app(receiver: Receiver) -> Starlette:
    app = NotificationApp(receiver)
    return Starlette(routes=[Mount(PREFIX, app)], lifespan=app.lifespan)


@asynccontextmanager
async def _inspector(
    receiver: Receiver, inbox: SqliteInbox | None, address: BindAddress | None
) -> AsyncIterator[str | None]:
    """Serve the inspector if it has an address; return its URL."""
    if address is None:
        yield None
        return
    source = ReceiverSource(inbox, receiver, "listen")
    receiver.observe(source)
    async with port_errors(serve_inspector(source, address), "--inspect-port or --inspect-host") as url:
        yield url


def _create_router(
    types: tuple[type[Notification], ...],
    options: ListenOptions,
    printer: "_EventPrinter",
    forwarder: HttpForwarder | None,
) -> Router:
    router = Router()

    @router.on(
        Notification,
        subscription_id=options.subscription_id,
        webhook_id=options.webhook_id,
        where=lambda event: isinstance(event, types),
        name="forward",
    )
    async def forward(event: Notification) -> None:
        record = _current_attempt.get()
        printer.event(event, record)
        if forwarder is not None:
            result = await forwarder.forward(record.delivery)
            printer.response(result, record)
            if not result.is_success:
                raise ForwardError.from_result(result)

    @router.fallback
    async def discard(event: Notification) -> None:
        """Accept other events, so that they do not become dead letters."""

    return router


class _EventPrinter(Observer):
    """Prints a line for each event, response and refused request."""

    def __init__(self, *, as_json: bool, has_inbox: bool) -> None:
        #: Set once standard output is closed.
        self.output_closed = asyncio.Event()
        self._as_json = as_json
        self._has_inbox = has_inbox
        #: The keys of recent deliveries, if no inbox detects repeats.
        self._keys: OrderedDict[str, None] = OrderedDict()

    # --- observer hooks -----------------------------------------------------------------------------------

    @contextmanager
    def request(self, record: RequestRecord) -> Iterator[None]:
        """Print a refused request, or a repeat that the inbox detected."""
        yield
        if record.refused is not None:
            status = None if record.reply is None else record.reply.status
            self._print_line("refused", f"{record.refused} ({status})", reason=record.refused, status=status)
        elif record.delivery and record.appended and record.appended.duplicate:
            self._print_repeat(record.delivery)

    @contextmanager
    def attempt(self, record: AttemptRecord) -> Iterator[None]:
        """Print a repeat if there is no inbox, and a dead letter."""
        if not self._has_inbox and self._is_repeat(record.delivery):
            self._print_repeat(record.delivery)
        yield
        if record.outcome == "split":
            fields = delivery_fields(record.delivery)
            self._print_line("split", format_event(fields), id=record.id, **fields)
        if record.outcome == "dead":
            self._print_line("dead", record.reason, id=record.id, reason=record.reason)

    @contextmanager
    def handler(self, record: AttemptRecord, handler: str) -> Iterator[None]:  # noqa: ARG002  # there is only one
        """Make the delivery available to the handler, which forwards it."""
        token = _current_attempt.set(record)
        try:
            yield
        finally:
            _current_attempt.reset(token)

    def _is_repeat(self, delivery: Delivery) -> bool:
        is_repeat = delivery.key in self._keys
        self._keys[delivery.key] = None
        if len(self._keys) > _MAX_REMEMBERED_KEYS:
            self._keys.popitem(last=False)
        return is_repeat

    def _print_repeat(self, delivery: Delivery) -> None:
        fields = delivery_fields(delivery)
        self._print_line("dup", format_event(fields), **fields)

    # --- output -------------------------------------------------------------------------------------------

    def ready(self, base: str, forward_to: str | None, inspector_url: str | None = None) -> None:
        """Print the endpoint, the commands that make CallFire post to it, and the URL of the inspector."""
        endpoint, target = f"{base}/***", masked_endpoint(forward_to).strip("'\"")
        if self._as_json:
            fields = {"type": "ready", "endpoint": endpoint, "forward_to": None if forward_to is None else target}
            self._echo_json(fields | ({} if inspector_url is None else {"inspector": inspector_url}))
            return
        token = "" if tokens_from_environment() else f"CALLFIRE_TOKEN=$(cat {shlex.quote(str(token_file()))}) "
        forwarding = f" and forwards them to {target}" if forward_to else ""
        self._echo(
            f"Ready! {endpoint} prints postbacks{forwarding}. To make CallFire post to it, run one of these"
            f" commands, with a public https address instead of http://127.0.0.1 (not needed for a sandbox):\n\n"
            f"  {token}callfire-async subscriptions create '{base}/{{token}}' OUTBOUND_TEXT_FINISHED\n"
            f"  {token}callfire-async webhooks create '{base}/{{token}}' OutboundText\n"
        )
        if inspector_url is not None:
            self._echo(f"Inspector: {inspector_url}\nKeep the URL secret: it contains the key.\n")

    def event(self, event: Notification, record: AttemptRecord) -> None:
        """Print an event."""
        fields = event_fields(event) | ({"attempt": record.attempt} if record.attempt > 1 else {})
        self._print_line("event", format_event(fields), sign="-->", **fields)

    def response(self, result: ForwardResult, record: AttemptRecord) -> None:
        """Print the response to a forwarded event."""
        milliseconds = round(1000 * result.seconds, 1)
        message = f": {result.message}" if result.message else ""
        self._print_line(
            "answer",
            f"{result.status or 'no response'} in {milliseconds:.0f} ms{message}",
            sign="<--",
            status=result.status,
            milliseconds=milliseconds,
            attempt=record.attempt,
            body=result.message,
        )

    def _print_line(self, type: str, text: str, *, sign: str | None = None, **fields: Any) -> None:
        now = datetime.now().astimezone()
        if self._as_json:
            self._echo_json({"type": type, "at": now.isoformat(timespec="milliseconds"), **fields})
        else:
            self._echo(escape_control_characters(f"{now:%H:%M:%S} {sign or type} {text}"))

    def _echo(self, text: str) -> None:
        with self._stop_on_broken_pipe():
            echo(text)

    def _echo_json(self, fields: dict[str, Any]) -> None:
        with self._stop_on_broken_pipe():
            echo_json(fields)

    @contextmanager
    def _stop_on_broken_pipe(self) -> Iterator[None]:
        """Stop the command if standard output is closed; the current event is still handled."""
        try:
            yield
        except BrokenPipeError:
            self.output_closed.set()
