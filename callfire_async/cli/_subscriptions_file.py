"""Read the TOML file that declares the subscriptions of an account."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from attrs import frozen

from callfire_async.cli._exit import WRONG_USE, CliError
from callfire_async.cli._tokens import fill_in_token
from callfire_async.client.plan import SubscriptionSpec
from callfire_async.models import NotificationFormat, SubscriptionFilter, TriggerEvent
from callfire_async.notifications.security.tokens import EndpointTokens

__all__ = ["read_specs"]

E = TypeVar("E", TriggerEvent, NotificationFormat)
Reader = Callable[["_Node"], Any]


@frozen
class _Node:
    """A value in a file, and where it is."""

    content: Any
    file: Path
    #: The path of keys, for example ``subscriptions[2].trigger_event``.
    key: str = ""

    def fail(self, problem: str) -> NoReturn:
        """Raise an error with the file and the key."""
        raise CliError(f"{self.file}: {f'{self.key} ' if self.key else ''}{problem}", WRONG_USE)

    def fields(self, *names: str) -> dict[str, "_Node"]:
        """Return the values of a table that may have only these keys."""
        if not isinstance(self.content, dict):
            self.fail("must be a table")
        found = {
            name: _Node(content, self.file, f"{self.key}.{name}".removeprefix("."))
            for name, content in self.content.items()
        }
        for name, node in found.items():
            if name not in names:
                node.fail(f"is unknown; expected one of {', '.join(names)}")
        return found

    def items(self) -> list["_Node"]:
        """Return the values of an array."""
        if not isinstance(self.content, list):
            self.fail("must be an array")
        return [_Node(content, self.file, f"{self.key}[{index}]") for index, content in enumerate(self.content)]


def read_specs(path: Path, tokens: EndpointTokens | None) -> list[SubscriptionSpec]:
    """
    Read a file.

    Args:
        path: A TOML file, whose name ends with ``.toml``.
        tokens: The tokens for ``{token}`` at the end of an endpoint.

    Raises:
        CliError: The file cannot be read, or a value in it is not valid.
    """
    root = _Node(_read_toml(path), path)
    fields = root.fields("endpoint", "subscriptions")
    if "subscriptions" not in fields:
        root.fail("missing key 'subscriptions' (an array of tables)")
    return [_read_spec(item, fields.get("endpoint"), tokens) for item in fields["subscriptions"].items()]


def _read_toml(path: Path) -> dict[str, Any]:
    file = _Node(None, path)
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


def _read_text(node: _Node) -> str:
    # A phone number may be written as an integer.
    if isinstance(node.content, bool) or not isinstance(node.content, str | int):
        node.fail("must be a string")
    return str(node.content)


def _read_integer(node: _Node) -> int:
    if isinstance(node.content, bool) or not isinstance(node.content, int):
        node.fail("must be an integer")
    return node.content


def _read_boolean(node: _Node) -> bool:
    if not isinstance(node.content, bool):
        node.fail("must be true or false")
    return node.content


def _read_enum(kind: type[E]) -> Callable[[_Node], E]:
    def read(node: _Node) -> E:
        # A value that the library does not know is probably a typing error.
        value = kind(_read_text(node) or "(empty)")
        if not value.is_known:
            node.fail(f"must be one of {', '.join(kind)}")
        return value

    return read


def _read_filter(node: _Node) -> SubscriptionFilter:
    try:
        return SubscriptionFilter(**_read_fields(node, _FILTER_FIELDS))
    except ValueError as error:
        node.fail(f"is not valid: {error}")


_FILTER_FIELDS: dict[str, Reader] = {
    "broadcast_id": _read_integer,
    "batch_id": _read_integer,
    "from_number": _read_text,
    "to_number": _read_text,
    "inbound": _read_boolean,
}
_SPEC_FIELDS: dict[str, Reader] = {
    "endpoint": _read_text,
    "trigger_event": _read_enum(TriggerEvent),
    "filter": _read_filter,
    "notification_format": _read_enum(NotificationFormat),
    "enabled": _read_boolean,
    "non_strict_ssl": _read_boolean,
}


def _read_fields(node: _Node, readers: dict[str, Reader]) -> dict[str, Any]:
    return {name: readers[name](value) for name, value in node.fields(*readers).items()}


def _read_spec(node: _Node, endpoint: _Node | None, tokens: EndpointTokens | None) -> SubscriptionSpec:
    values = _read_fields(node, _SPEC_FIELDS)
    if endpoint:
        values.setdefault("endpoint", _read_text(endpoint))
    for name in ("endpoint", "trigger_event"):
        if name not in values:
            node.fail(f"needs {name}")
    try:
        values["endpoint"] = fill_in_token(values["endpoint"], tokens)
        return SubscriptionSpec(**values)
    except (ValueError, CliError) as error:
        node.fail(f"is not valid: {error}")
