"""
The tables of metrics and log messages, from the code.

Names, types, units, levels and messages come from the package; ``_explanations.toml`` has what code cannot say: when a
message is logged, what to do, and the values of attributes. A missing explanation is an error, and so is one that
explains nothing.
"""

import ast
import asyncio
import re
import tomllib
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from opentelemetry.metrics import Meter, NoOpMeter, NoOpMeterProvider

import callfire_async
from callfire_async import CallFire
from callfire_async.notifications import MemoryInbox, Notification, Receiver, Router
from callfire_async.notifications.security._rejection_log import ERRORS, LINES
from callfire_async.telemetry import instrument_client, instrument_receiver

PACKAGE = Path(callfire_async.__file__).parent
EXPLANATIONS: dict[str, Any] = tomllib.loads(Path(__file__).with_name("_explanations.toml").read_text(encoding="utf-8"))

# --- log messages -----------------------------------------------------------------------------------------

#: The level of each method of a logger, in the order of the tables.
LEVEL_OF = {"error": "ERROR", "exception": "ERROR", "warning": "WARNING", "info": "INFO", "debug": "DEBUG"}
LEVELS = [*LEVEL_OF.values()]
#: Which inbox a module below `notifications/inbox` belongs to, by the beginning of its path.
INBOXES = {
    "sqlite/_directory": "SqliteInbox.in_directory",
    "sqlite": "SqliteInbox",
    "postgres": "PostgresInbox",
    "jetstream": "JetStreamInbox",
    "spool": "SpoolingInbox",
    "": "PostgresInbox and JetStreamInbox",
}


class LogMessage(NamedTuple):
    """One message of the package, as the code formats it."""

    group: str
    level: str
    template: str

    @property
    def text(self) -> str:
        """The message with an ellipsis for each text and N for each number, or the example of the explanations."""
        shown = self.explanation.get("shown", self.template)
        return re.sub(r"%[.\d]*[dfg]", "N", shown).replace("%s", "…")

    @property
    def explanation(self) -> dict[str, str]:
        """When the message is logged, and what to do."""
        return EXPLANATIONS["messages"][self.template]

    @property
    def row(self) -> str:
        """The row of the table."""
        return f"| {self.level} | `{self.text}` | {self.explanation['when']} | {self.explanation.get('action', '')} |"


@cache
def log_messages() -> tuple[LogMessage, ...]:
    """Return the messages of all modules, by logger and level."""
    found = {message for path in PACKAGE.rglob("*.py") for message in messages_of(path)}
    return tuple(sorted(found, key=lambda message: (message.group, LEVELS.index(message.level), message.template)))


def messages_of(path: Path) -> Iterator[LogMessage]:
    """Yield the messages of one module."""
    if path.stem == "_rejection_log":
        yield from (LogMessage("`callfire_async.receiver`", level_of(reason), line) for reason, line in LINES.items())
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    loggers = dict(logger for node in ast.walk(tree) for logger in loggers_of(node))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            for logger, level, message in logged(node, loggers):
                yield LogMessage(group(loggers[logger], path), level, template_of(message, tree))


def loggers_of(node: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield the variable and the name of a logger, if *node* assigns one."""
    match node:
        case ast.Assign(
            targets=[ast.Name(id=variable)],
            value=ast.Call(func=ast.Attribute(attr="getLogger"), args=[ast.Constant(value=str(name))]),
        ):
            yield variable, name


def logged(call: ast.Call, loggers: dict[str, str]) -> Iterator[tuple[str, str, ast.expr]]:
    """Yield logger, level and message of a call; the method may be called, or passed to be called later."""
    parts = [call.func, *call.args]
    for position, part in enumerate(parts):
        match part:
            case ast.Attribute(value=ast.Name(id=logger), attr=method) if logger in loggers:
                yield logger, LEVEL_OF[method], parts[position + 1]


def template_of(message: ast.expr, tree: ast.Module) -> str:
    """Return the text of a message: a constant, or a variable that is assigned a constant."""
    match message:
        case ast.Constant(value=str(text)):
            return text
        case ast.Name(id=name):
            (text,) = constants(name, tree)
            return text
        case ast.JoinedStr(values=[ast.FormattedValue(value=line), *_]):
            return template_of(line, tree)
    raise ValueError(f"cannot find the message of {ast.unparse(message)}")


def constants(name: str, tree: ast.Module) -> list[str]:
    """Return the texts that are assigned to a variable."""
    return [
        node.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        if [target.id for target in node.targets if isinstance(target, ast.Name)] == [name]
    ]


def level_of(reason: str) -> str:
    """Return the level of a line about rejected requests."""
    return "ERROR" if reason in ERRORS else "WARNING"


def group(logger: str, path: Path) -> str:
    """Return the heading of a message: its logger, and the inbox that it is about."""
    if logger != "callfire_async.inbox":
        return f"`{logger}`"
    module = path.relative_to(PACKAGE / "notifications" / "inbox").as_posix()
    return f"`{logger}`: {next(name for start, name in INBOXES.items() if module.startswith(start))}"


def log_message_tables() -> str:
    """Return a heading and a table for each logger."""
    messages = log_messages()
    check_explanations("messages", [message.template for message in messages])
    lines = []
    for heading in dict.fromkeys(message.group for message in messages):
        lines += [f"### {heading}", "", "| level | message | when | what to do |", "| --- | --- | --- | --- |"]
        lines += [*(message.row for message in messages if message.group == heading), ""]
    return "\n".join(lines)


def check_explanations(kind: str, names: Sequence[str]) -> None:
    """Raise an error if an explanation is missing, or explains nothing."""
    if differences := set(names) ^ set(EXPLANATIONS[kind]):
        raise ValueError(f"_explanations.toml: [{kind}] is missing, or has in excess: {sorted(differences)}")


# --- metrics ----------------------------------------------------------------------------------------------


class Metric(NamedTuple):
    """One instrument, as the code creates it."""

    name: str
    kind: str
    unit: str
    description: str

    @property
    def attributes(self) -> list[str]:
        """The names of its attributes."""
        return EXPLANATIONS["metrics"][self.name]

    @property
    def entry(self) -> str:
        """The entry of the list: too much for the columns of a table."""
        attributes = ", ".join(f"`{name}`" for name in self.attributes)
        listed = f"\n: Attributes: {attributes}" if attributes else ""
        return f"`{self.name}`\n: {self.kind}, `{self.unit}`. {self.description}{listed}\n"


class RecordingMeter(NoOpMeter):
    """A meter that records which instruments are created."""

    def __init__(self) -> None:
        super().__init__("callfire_async")
        self.metrics: list[Metric] = []

    def create_histogram(self, name: str, unit: str = "", description: str = "", **options: Any) -> Any:
        """Record a histogram."""
        self.metrics.append(Metric(name, "histogram", unit, description))
        return super().create_histogram(name, unit, description, **options)

    def create_observable_gauge(self, name: str, callbacks: Any = None, unit: str = "", description: str = "") -> Any:
        """Record a gauge."""
        self.metrics.append(Metric(name, "gauge", unit, description))
        return super().create_observable_gauge(name, callbacks, unit, description)


class RecordingMeterProvider(NoOpMeterProvider):
    """A provider with one meter."""

    def __init__(self) -> None:
        self.meter = RecordingMeter()

    def get_meter(self, *_: Any, **__: Any) -> Meter:
        """Return the meter."""
        return self.meter


async def handle(_: Notification) -> None:
    """Handle an event of the receiver that is never started."""


def metrics() -> list[Metric]:
    """Return the instruments of a receiver and a client."""
    provider = RecordingMeterProvider()
    asyncio.run(instrument(provider))
    return provider.meter.metrics


async def instrument(provider: RecordingMeterProvider) -> None:
    """Instrument a receiver and a client."""
    router = Router()
    router.on(Notification)(handle)
    receiver = Receiver(router, tokens="a-token-that-is-long-enough", inbox=MemoryInbox())
    instrument_receiver(receiver, meter_provider=provider)
    async with CallFire("login", "password") as callfire:
        instrument_client(callfire, meter_provider=provider)


def metrics_list() -> str:
    """Return the list of metrics."""
    found = metrics()
    check_explanations("metrics", [metric.name for metric in found])
    return "\n".join(metric.entry for metric in found)


def attributes_table() -> str:
    """Return the table of the metrics' attributes."""
    check_explanations("attributes", [name for metric in metrics() for name in metric.attributes])
    rows = (f"| `{name}` | {values} |" for name, values in EXPLANATIONS["attributes"].items())
    return "\n".join(["| attribute | values |", "| --- | --- |", *rows])


#: What replaces each comment of the page.
TABLES = {
    "<!-- metrics -->": metrics_list,
    "<!-- attributes -->": attributes_table,
    "<!-- log messages -->": log_message_tables,
}


def insert_tables(page: str) -> str:
    """Replace the comments of the page with tables."""
    for comment, table in TABLES.items():
        page = page.replace(comment, table())
    return page
