"""Read the TOML file that declares the subscriptions of an account, and the values of such a file."""

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from attrs import frozen

from callfire_async.cli._exit import WRONG_USE, CliError
from callfire_async.cli._tokens import fill_in_token
from callfire_async.client.plan import SubscriptionSpec
from callfire_async.models import NotificationFormat, SubscriptionFilter, TriggerEvent
from callfire_async.notifications.security.tokens import EndpointTokens

__all__ = ["Node", "read_boolean", "read_fields", "read_root", "read_specs", "read_text"]

E = TypeVar("E", TriggerEvent, NotificationFormat)
Reader = Callable[["Node"], Any]


@frozen
class Node:
    """A value in a file, and where it is."""

    content: Any
    file: Path
    #: The path of keys, for example ``subscriptions[2].trigger_event``.
    key: str = ""

    def fail(self, problem: str) -> NoReturn:
        """Raise an error with the file and the key."""
        raise CliError(f"{self.file}: {f'{self.key} ' if self.key else ''}{problem}", WRONG_USE)

    def fields(self, *names: str) -> dict[str, "Node"]:
        """Return the values of a table that may have only these keys."""
        if not isinstance(self.content, dict):
            self.fail("must be a table")
        found = {
            name: Node(content, self.file, f"{self.key}.{name}".removeprefix("."))
            for name, content in self.content.items()
        }
        for name, node in found.items():
            if name not in names:
                node.fail(f"is unknown; expected one of {', '.join(names)}")
        return found

    def items(self) -> list["Node"]:
        """Return the values of an array."""
        if not isinstance(self.content, list):
            self.fail("must be an array")
        return [Node(content, self.file, f"{self.key}[{index}]") for index, content in enumerate(self.content)]


def read_specs(path: Path, tokens: EndpointTokens | None) -> list[SubscriptionSpec]:
    """
    Read a file.

    Args:
        path: A TOML file, whose name ends with ``.toml``.
        tokens: The tokens for ``{token}`` at the end of an endpoint.

    Raises:
        CliError: The file cannot be read, or a value in it is not valid.
    """
    default, items = read_root(path, "endpoint", "subscriptions")
    return [_read_spec(item, default, tokens) for item in items]


def read_root(path: Path, default: str, items: str) -> tuple[Node | None, list[Node]]:
    """Return a file's default for all items, which may be missing, and its array of items, by their keys."""
    root = Node(_read_toml(path), path)
    fields = root.fields(default, items)
    if items not in fields:
        root.fail(f"missing key '{items}' (an array of tables)")
    return fields.get(default), fields[items].items()


def _read_toml(path: Path) -> dict[str, Any]:
    file = Node(None, path)
    if path.suffix != ".toml":
        file.fail("must be a TOML file whose name ends with .toml")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        file.fail(f"cannot be read: {error.strerror}")
    except UnicodeDecodeError:
        file.fail("cannot be read: not UTF-8")
    except RecursionError:
        file.fail("invalid TOML: nested too deeply")
    except ValueError as error:
        # Also that of an integer with thousands of digits.
        file.fail(f"invalid TOML: {error}")


# --- values -----------------------------------------------------------------------------------------------


def read_text(node: Node) -> str:
    """Return a string."""
    # A phone number may be written as an integer.
    if isinstance(node.content, bool) or not isinstance(node.content, str | int):
        node.fail("must be a string")
    return str(node.content)


def _read_integer(node: Node) -> int:
    if isinstance(node.content, bool) or not isinstance(node.content, int):
        node.fail("must be an integer")
    return node.content


def read_boolean(node: Node) -> bool:
    """Return true or false."""
    if not isinstance(node.content, bool):
        node.fail("must be true or false")
    return node.content


def _read_enum(kind: type[E]) -> Callable[[Node], E]:
    def read(node: Node) -> E:
        # An unknown value is probably a typing error.
        value = kind(read_text(node) or "(empty)")
        if not value.is_known:
            node.fail(f"must be one of {', '.join(kind)}")
        return value

    return read


def _read_filter(node: Node) -> SubscriptionFilter:
    try:
        return SubscriptionFilter(**read_fields(node, _FILTER_FIELDS))
    except ValueError as error:
        node.fail(f"is not valid: {error}")


_FILTER_FIELDS: dict[str, Reader] = {
    "broadcast_id": _read_integer,
    "batch_id": _read_integer,
    "from_number": read_text,
    "to_number": read_text,
    "inbound": read_boolean,
}
_SPEC_FIELDS: dict[str, Reader] = {
    "endpoint": read_text,
    "trigger_event": _read_enum(TriggerEvent),
    "filter": _read_filter,
    "notification_format": _read_enum(NotificationFormat),
    "enabled": read_boolean,
    "non_strict_ssl": read_boolean,
}


def read_fields(node: Node, readers: Mapping[str, Reader]) -> dict[str, Any]:
    """Return the values of a table by key, each read by its reader."""
    return {name: readers[name](value) for name, value in node.fields(*readers).items()}


def _read_spec(node: Node, endpoint: Node | None, tokens: EndpointTokens | None) -> SubscriptionSpec:
    values = read_fields(node, _SPEC_FIELDS)
    if endpoint:
        values.setdefault("endpoint", read_text(endpoint))
    for name in ("endpoint", "trigger_event"):
        if name not in values:
            node.fail(f"needs {name}")
    try:
        values["endpoint"] = fill_in_token(values["endpoint"], tokens)
        return SubscriptionSpec(**values)
    except (ValueError, CliError) as error:
        node.fail(f"is not valid: {error}")
