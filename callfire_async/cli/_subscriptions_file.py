"""
A file that says which subscriptions an account is to have, in YAML or TOML.

Every value is read as the text that stands there, so that YAML makes no number of a phone number and no time of a
short code. Where the parser knows the line, an error names it.
"""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml
from attrs import define, field, fields, frozen

from callfire_async.cli._exit import WRONG_USE, CliError
from callfire_async.cli._own_tokens import fill_in_token
from callfire_async.client.plan import SubscriptionSpec
from callfire_async.models import NotificationFormat, SubscriptionFilter, TriggerEvent
from callfire_async.notifications.security.tokens import EndpointTokens

__all__ = ["read_specs"]

E = TypeVar("E", TriggerEvent, NotificationFormat)
Place = tuple[str | int, ...]
Read = Callable[["_Node"], Any]


# subscriptions[0].filter.to_number has four steps; whatever else is in the way is named, and an alias that holds itself
# ends here.
_MAX_DEPTH = 6


@frozen
class _Node:
    """What stands somewhere in a file."""

    content: Any
    path: Place
    document: "_Document"

    def refuse(self, problem: str) -> NoReturn:
        """End the command, with what is wrong and where."""
        self.document.refuse(problem, self.path)

    def mapping(self, *names: str) -> dict[str, "_Node"]:
        """Return the values of a mapping that has none but these names."""
        if not isinstance(self.content, dict):
            self.refuse("must be a mapping")
        found = {name: _Node(content, (*self.path, name), self.document) for name, content in self.content.items()}
        for name, value in found.items():
            if name not in names:
                value.refuse(f"is unknown; there are {', '.join(names)}")
        # What is there and empty is as good as not there.
        return {name: value for name, value in found.items() if value.content is not None}

    def items(self) -> list["_Node"]:
        """Return the values of a list."""
        if not isinstance(self.content, list):
            self.refuse("must be a list")
        return [_Node(content, (*self.path, number), self.document) for number, content in enumerate(self.content)]


@define
class _Document:
    """A file that was read: its content, and the line of each value where that is known."""

    path: Path
    content: Any = None
    lines: dict[Place, int] = field(factory=dict)

    def refuse(self, problem: str, at: Place = ()) -> NoReturn:
        """End the command, with what is wrong and where."""
        line = f", line {self.lines[at]}" if at in self.lines else ""
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in at).removeprefix(".")
        raise CliError(f"{self.path}{line}: {f'{place} ' if place else ''}{problem}", WRONG_USE)


def read_specs(path: Path, tokens: EndpointTokens | None) -> list[SubscriptionSpec]:
    """
    Read a file.

    Args:
        path: TOML where its name ends so, else YAML.
        tokens: What stands for ``{token}`` at the end of an endpoint.

    Raises:
        Ended: It cannot be read, or something in it is no subscription.
    """
    document = _Document(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        document.refuse(f"cannot be read: {error.strerror if isinstance(error, OSError) else 'not UTF-8'}")
    (_read_toml if path.suffix == ".toml" else _read_yaml)(text, document)
    top = _Node(document.content, (), document).mapping("endpoint", "subscriptions")
    if "subscriptions" not in top:
        document.refuse("names no subscriptions; they are a list called subscriptions")
    return [_spec(item, top.get("endpoint"), tokens) for item in top["subscriptions"].items()]


# --- the two formats --------------------------------------------------------------------------------------


def _read_toml(text: str, document: _Document) -> None:
    try:
        document.content = tomllib.loads(text)
    except ValueError as error:
        # Its own, or that of a number with thousands of digits.
        document.refuse(f"not TOML: {error}")


def _read_yaml(text: str, document: _Document) -> None:
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        document.content = {} if node is None else _content(node, (), document)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        document.refuse(f"not YAML: {error.problem}{where}")
    except (yaml.YAMLError, RecursionError):
        document.refuse("not YAML: characters or a nesting that no such file has")


def _content(node: Any, path: Place, document: _Document) -> Any:
    """Return what stands in a node: mappings, lists and texts."""
    document.lines[path] = node.start_mark.line + 1
    if len(path) > _MAX_DEPTH:
        document.refuse("is nested too deeply", path)
    if isinstance(node, yaml.SequenceNode):
        return [_content(item, (*path, number), document) for number, item in enumerate(node.value)]
    if isinstance(node, yaml.ScalarNode):
        return None if node.tag == "tag:yaml.org,2002:null" else node.value
    found: dict[str, Any] = {}
    for key, value in node.value:
        name = str(key.value)
        content = _content(value, (*path, name), document)
        document.lines[*path, name] = key.start_mark.line + 1
        if name in found:
            document.refuse("is there twice", (*path, name))
        found[name] = content
    return found


# --- what stands in it ------------------------------------------------------------------------------------


def _text(value: _Node) -> str:
    if isinstance(value.content, bool) or not isinstance(value.content, str | int):
        value.refuse("must be a text")
    return str(value.content)


def _integer(value: _Node) -> int:
    text = _text(value)
    # No id has more digits than this, and Python reads some thousands only.
    if not text.isdecimal() or len(text) > 18:
        value.refuse("must be a whole number")
    return int(text)


def _boolean(value: _Node) -> bool:
    if isinstance(value.content, bool):
        return value.content
    if _text(value).lower() not in ("true", "false"):
        value.refuse("must be true or false")
    return _text(value).lower() == "true"


def _one_of(kind: type[E]) -> Callable[[_Node], E]:
    def read(value: _Node) -> E:
        # What CallFire may have added since has to wait: a word that is not known is as a rule a slip.
        one = kind(_text(value) or "(nothing)")
        if not one.is_known:
            value.refuse(f"must be one of {', '.join(kind)}")
        return one

    return read


def _filter(value: _Node) -> SubscriptionFilter:
    return SubscriptionFilter(**_read_fields(value, _FILTER))


_FILTER: dict[str, Read] = {
    "broadcast_id": _integer,
    "batch_id": _integer,
    "from_number": _text,
    "to_number": _text,
    "inbound": _boolean,
}
_SPEC: dict[str, Read] = {
    "endpoint": _text,
    "trigger_event": _one_of(TriggerEvent),
    "filter": _filter,
    "notification_format": _one_of(NotificationFormat),
    "enabled": _boolean,
    "non_strict_ssl": _boolean,
}


def _read_fields(value: _Node, readers: dict[str, Read]) -> dict[str, Any]:
    return {name: readers[name](content) for name, content in value.mapping(*readers).items()}


def _spec(value: _Node, endpoint: _Node | None, tokens: EndpointTokens | None) -> SubscriptionSpec:
    said = _read_fields(value, _SPEC)
    if endpoint:
        said.setdefault("endpoint", _text(endpoint))
    for attribute in fields(SubscriptionSpec)[:2]:
        if attribute.name not in said:
            value.refuse(f"needs {attribute.name}")
    try:
        said["endpoint"] = fill_in_token(said["endpoint"], tokens)
        return SubscriptionSpec(**said)
    except (ValueError, CliError) as error:
        value.refuse(f"cannot be: {error}")
