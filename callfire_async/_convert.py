"""
Plain mappings to models and back; knows every name of the wire, and no events.

Reading is strict about what a value is and kind about the rest: a field that cannot be read is left out and named,
as long as it is not the identity of the thing. The one importer of cattrs; it imports `models` and `_wire`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from functools import cache
from typing import Any, TypeVar

from attrs import NOTHING, fields, fields_dict, has
from cattrs import ClassValidationError, Converter, IterableValidationError
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from callfire_async import models
from callfire_async._wire import Tree, normalised, scalar
from callfire_async.models import (
    Broadcast,
    Call,
    IvrBroadcastConfig,
    OpenEnum,
    RecordingMeta,
    ResourceReference,
    Result,
    RetryConfig,
    SubscriptionFilter,
    Text,
    TextBroadcastConfig,
    VoiceBroadcastConfig,
)

T = TypeVar("T")
Path = tuple[str | int, ...]

_CONFIGS = {kind.__name__: kind for kind in (TextBroadcastConfig, VoiceBroadcastConfig, IvrBroadcastConfig)}

# Every name that is not the attribute's own in PascalCase, or `@id`.
_NAMES: dict[tuple[type, str], str] = {
    (models.Subscription, "filter"): "SubscriptionFilter",
    (ResourceReference, "id"): "Id",
    (Text, "records"): "TextRecord",
    (Call, "records"): "CallRecord",
    (RecordingMeta, "length"): "LengthInSeconds",
}
_SHARED_NAMES = {
    "id": "@id",
    "labels": "Label",
    "question_responses": "QuestionResponse",
    "recordings": "RecordingMeta",
    "to_number_attributes": "ToNumber",
}


def wire_name(kind: type, attribute: str) -> str:
    """Return what the wire calls an attribute of a model."""
    pascal_case = "".join(word.capitalize() for word in attribute.split("_"))
    return _NAMES.get((kind, attribute)) or _SHARED_NAMES.get(attribute) or pascal_case


# --- mapping to model -------------------------------------------------------------------------------------


class Unreadable(ValueError):  # a signal between these rooms; callers see an error of errors.py
    """What makes a thing the thing it is cannot be read."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__(", ".join(problems))
        self.problems = problems


def structure(kind: type[T], content: object, at: str) -> tuple[T, tuple[str, ...]]:
    """
    Make a model of what stands in a document.

    Args:
        kind: The model's class.
        content: Usually a dict.
        at: Where *content* stands, in the wire's words, for the problems.

    Returns:
        The model, and its problems: what could not be read and was left out, as ``kind @ path``.

    Raises:
        Unreadable: It is not an object, or its id is missing or not an id.
    """
    try:
        return _reader().structure(content, kind), ()
    except (ValueError, KeyError):
        return _structure_what_can_be_read(kind, content, at)


def read_id(value: object, at: str) -> int | None:
    """Read an id that stands by itself; None where it is missing, `Unreadable` where it is not one."""
    try:
        return _integer(value, int)
    except ValueError as error:
        raise Unreadable((f"{error} @ {at}",)) from None


def _structure_what_can_be_read(kind: type[T], content: Tree, at: str) -> tuple[T, tuple[str, ...]]:
    """Find all that cannot be read in a second, detailed pass, and structure the rest."""
    failures: list[tuple[Path, str]] = []
    try:
        _detailed_reader().structure(content, kind)
    except (ClassValidationError, ValueError) as error:
        failures += _failures(error, content, ())
    problems = tuple(f"{problem} @ {_worded((at, *path))}" for path, problem in failures)
    if any(_is_required(kind, path) for path, _ in failures):
        raise Unreadable(problems)
    unreadable: dict[Any, Any] = {}
    for path, _ in failures:
        node = unreadable
        for step in path:
            node = node.setdefault(step, {})
    # Once a broadcast's first configuration is left out, its second is read, and may not be readable either.
    found, more = structure(kind, _without(content, unreadable), at)
    return found, problems + more


def _is_required(kind: type, path: Path) -> bool:
    names = [wire_name(kind, name) for name, field in fields_dict(kind).items() if field.default is NOTHING]
    return not path or (len(path) == 1 and path[0] in names)


def _failures(error: BaseException, node: Tree, path: Path) -> Iterator[tuple[Path, str]]:
    """Walk what a detailed pass raised: each place that cannot be read, and why."""
    if isinstance(error, ClassValidationError):
        for cause, note in error.group_exceptions()[0]:
            name = _name_in(node, error.cl, note.name)
            yield from _failures(cause, node.get(name), (*path, name))
    elif isinstance(error, IterableValidationError):
        for cause, at in error.group_exceptions()[0]:
            item = node[int(at.index)] if isinstance(node, list) else node
            yield from _failures(cause, item, (*path, at.index))
    else:
        yield path, "missing" if isinstance(error, KeyError) else str(error)


def _name_in(node: Mapping[str, Any], kind: type, attribute: str) -> str:
    if attribute == "config":
        return next(name for name in _CONFIGS if node.get(name))
    return wire_name(kind, attribute)


def _without(node: Tree, unreadable: Mapping[Any, Any]) -> Tree:
    """Copy a tree without the places in *unreadable*, a tree of steps whose leaves are empty."""
    if isinstance(node, list):
        kept = [(item, unreadable.get(index)) for index, item in enumerate(node)]
        return [item if below is None else _without(item, below) for item, below in kept if below != {}]
    # A bare object where others send a list is its own first item.
    below_first = unreadable.get(0)
    if below_first is not None:
        return _without(node, below_first) if below_first else None
    pairs = ((key, value, unreadable.get(key)) for key, value in node.items())
    return {key: value if below is None else _without(value, below) for key, value, below in pairs if below != {}}


def _worded(path: Path) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")


# --- scalars ----------------------------------------------------------------------------------------------


def _text(value: object, _: object) -> str | None:
    if isinstance(value, dict):
        value = _beside_attributes(value)
    if isinstance(value, list):
        raise ValueError("not a text")  # noqa: TRY004  # one kind of failure, collected by its words
    return normalised(scalar(value))


def _beside_attributes(element: Mapping[str, Any]) -> object:
    """Take the text of an element that has attributes, or stray elements, around it."""
    for name in ("#text", "value"):
        if name in element and not isinstance(element[name], dict):
            return element[name]
    if all(name.startswith("@") for name in element):
        return None
    raise ValueError("not a text")


def _scalar(read: Callable[[str], T], problem: str) -> Callable[[Any, Any], T | None]:
    """Make the hook of a kind of scalar: absent or empty is None, what *read* refuses is *problem*."""

    def hook(value: object, _: object) -> T | None:
        try:
            text = _text(value, str)
            return None if text is None else read(text)
        except (ValueError, OverflowError):
            raise ValueError(problem) from None

    return hook


_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_DECIMAL = re.compile(r"[+-]?(?:[0-9]{1,30}(?:\.[0-9]{0,30})?|\.[0-9]{1,30})(?:[eE][+-]?[0-9]{1,2})?")
_DATE_AND_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}.*")
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


def _read_integer(text: str) -> int:
    # The wire's integers have 64 bits.
    if _INTEGER.fullmatch(text) and -(2**63) <= (number := int(text)) < 2**63:
        return number
    raise ValueError


def _read_boolean(text: str) -> bool:
    if text.lower() in _BOOLEANS:
        return _BOOLEANS[text.lower()]
    raise ValueError


def _read_decimal(text: str) -> Decimal:
    if _DECIMAL.fullmatch(text):
        return Decimal(text)
    raise ValueError


def _read_date_and_time(text: str) -> datetime:
    if _DATE_AND_TIME.fullmatch(text):
        return datetime.fromisoformat(text)
    raise ValueError


_integer = _scalar(_read_integer, "not an integer")


def _id(value: object, _: object) -> int:
    number = _integer(value, int)
    if number is None:
        raise KeyError
    return number


# --- parts that are not one scalar a field ----------------------------------------------------------------


def _listed(value: object) -> list[Any]:
    """None, one bare or in a list, and many are the same thing."""
    return value if isinstance(value, list) else [] if value in (None, "", {}) else [value]


def _words(value: object, _: object) -> tuple[str, ...]:
    """Read a list that CallFire words as one value, items separated by spaces."""
    return tuple(word for item in _listed(value) for word in (_text(item, str) or "").split())


def _results(value: object, _: object) -> tuple[Result, ...]:
    return tuple(map(Result, _words(value, str)))


def _labels(value: object, _: object) -> tuple[str, ...]:
    names = (item.get("Name", item) if isinstance(item, dict) else item for item in _listed(value))
    return tuple(name for name in (_text(name, str) for name in names) if name)


def _attached(value: object, _: object) -> tuple[tuple[str, str], ...]:
    """Read what the sender attached to a number; sorted, since no format promises an order."""
    if not isinstance(value, dict):
        return ()
    pairs = ((name[1:], _text(item, str)) for name, item in value.items() if name.startswith("@"))
    return tuple(sorted((name, text or "") for name, text in pairs))


_HOOKS: dict[str, Callable[[Any, Any], object]] = {
    "labels": _labels,
    "to_number_attributes": _attached,
    "retry_results": _results,
    "retry_phone_types": _words,
}
_SCALARS: dict[object, Callable[[Any, Any], object]] = {
    int: _id,
    int | None: _integer,
    str | None: _text,
    bool | None: _scalar(_read_boolean, "not a boolean"),
    Decimal | None: _scalar(_read_decimal, "not a decimal"),
    timedelta | None: _scalar(lambda text: timedelta(seconds=float(_read_decimal(text))), "not a duration"),
    datetime | None: _scalar(_read_date_and_time, "not a time"),
    time | None: _scalar(time.fromisoformat, "not a time of day"),
}


@cache
def _reader() -> Converter:
    return _make_reader(detailed=False)


@cache
def _detailed_reader() -> Converter:
    return _make_reader(detailed=True)


def _make_reader(*, detailed: bool) -> Converter:
    """Make the converter of mappings to models; a detailed one says of everything that fails where it stands."""
    converter = Converter(detailed_validation=detailed, unstruct_collection_overrides={})

    def hook_for(attribute: Any) -> Callable[[Any, Any], object] | None:
        if attribute.name == "config":
            return lambda named, _: converter.structure(named[1], _CONFIGS[named[0]])
        return _HOOKS.get(attribute.name) or _SCALARS.get(attribute.type) or _part_hook(converter, attribute.type)

    def reader(kind: type[Any]) -> Callable[[Any, Any], object]:
        names: dict[str, Any] = {
            attribute.name: override(rename=wire_name(kind, attribute.name), struct_hook=hook_for(attribute))
            for attribute in fields(kind)
        }
        read = make_dict_structure_fn(kind, converter, _cattrs_detailed_validation=detailed, **names)
        prepare = _with_config if kind is Broadcast else _object
        return lambda value, _: read(prepare(value), kind)

    converter.register_structure_hook_factory(has, reader)
    return converter


def _object(value: object) -> Tree:
    if not isinstance(value, dict):
        raise ValueError("not an object")  # noqa: TRY004  # one kind of failure, collected by its words
    return value


def _with_config(value: object) -> Tree:
    """Give a broadcast's three possible configurations one name."""
    content = _object(value)
    for name in _CONFIGS:
        if content.get(name):
            return {**content, "Config": (name, content[name])}
    return content


def _part_hook(converter: Converter, annotation: Any) -> Callable[[Any, Any], object]:
    """Make the hook of a field that holds models, one or many, or an open enumeration."""
    arguments = [argument for argument in annotation.__args__ if argument not in (type(None), ...)]
    (part,) = arguments
    if issubclass(part, OpenEnum):
        return _scalar(part, "not a word")
    if getattr(annotation, "__origin__", None) is tuple:
        parts = list[part]  # type: ignore[valid-type]  # known only at run time
        return lambda value, _: tuple(converter.structure(_listed(value), parts))
    return lambda value, _: converter.structure(value, part) if value else None


# --- model to mapping -------------------------------------------------------------------------------------


def unstructure(value: object) -> dict[str, Any]:
    """Make a plain mapping of a model, in the wire's names; what is None or empty is left out."""
    return _writer().unstructure(value)  # type: ignore[no-any-return]  # the hook of every model gives a dict


def form_value(value: object) -> str:
    """Word one value for a form: ``true``, ``42``, ``LA AM``, ``2012-10-26T21:32:52Z``."""
    if isinstance(value, tuple):
        return " ".join(map(form_value, value))
    return _iso(value) if isinstance(value, datetime) else scalar(value)


def form_fields(values: Mapping[str, object]) -> dict[str, str]:
    """Name what a form says in the wire's words; what is None is left out, a filter is laid flat (CallFire's way)."""
    flat = dict(values)
    chosen = flat.pop("filter", None)
    if isinstance(chosen, SubscriptionFilter):
        flat |= {field.name: getattr(chosen, field.name) for field in fields(SubscriptionFilter)}
    return {wire_name(object, name): form_value(value) for name, value in flat.items() if value is not None}


@cache
def _writer() -> Converter:
    """Make the converter of models to mappings."""
    converter = Converter()
    converter.register_unstructure_hook(datetime, _iso)
    converter.register_unstructure_hook(time, time.isoformat)
    converter.register_unstructure_hook(timedelta, lambda length: int(length.total_seconds()))
    converter.register_unstructure_hook(Decimal, str)

    def writer(kind: type[Any]) -> Callable[[Any], dict[str, Any]]:
        names: dict[str, Any] = {
            field.name: override(rename=wire_name(kind, field.name), omit=field.name in _WRITTEN_BY_HAND or None)
            for field in fields(kind)
        }
        write = make_dict_unstructure_fn(kind, converter, _cattrs_omit_if_default=True, **names)
        return lambda value: write(value) | _written_by_hand(value)

    converter.register_unstructure_hook_factory(has, writer)
    return converter


_WRITTEN_BY_HAND = frozenset(["to_number_attributes", "labels", "config", "retry_results", "retry_phone_types"])


def _written_by_hand(value: Any) -> dict[str, Any]:
    """Write the fields that are not one name and one value on the wire."""
    parts: dict[str, Any] = {}
    if attached := getattr(value, "to_number_attributes", ()):
        parts["ToNumber"] = {f"@{name}": text for name, text in attached} | {"#text": value.to_number or ""}
    if names := getattr(value, "labels", ()):
        parts["Label"] = [{"Name": name} for name in names]
    if isinstance(value, Broadcast) and value.config is not None:
        parts[type(value.config).__name__] = unstructure(value.config)
    if isinstance(value, RetryConfig):
        lists = {"RetryResults": value.retry_results, "RetryPhoneTypes": value.retry_phone_types}
        parts |= {name: form_value(items) for name, items in lists.items() if items}
    return parts


def _iso(moment: Any) -> str:
    """Word a time as CallFire does: in UTC with a ``Z``, or with no offset where it has none."""
    if moment.tzinfo is None:
        return str(moment.isoformat())
    return str(moment.astimezone(UTC).isoformat().replace("+00:00", "Z"))
