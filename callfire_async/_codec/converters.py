"""
Plain mappings to models and back; knows every name of the wire, and no events.

Reading is strict about what a value is and kind about the rest: a field that cannot be read is left out and named,
as long as it is not the identity of the thing. The one importer of cattrs; it imports `models` and `_wire`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from functools import cache
from typing import Any, TypeVar

from attrs import NOTHING, fields, fields_dict, has
from cattrs import Converter
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from callfire_async import models
from callfire_async._codec.documents import Tree, normalised, scalar
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
Hook = Callable[[Any, Any], Any]

# How many retries' results, or kinds of phones, one field may hold: ten times what CallFire has.
_MOST_WORDS = 200
# How much of a thing may be unreadable: more than a call of a hundred records has fields that could be, and so little
# that nobody can make it dear.
_MOST_PROBLEMS = 1_000
# How many problems a message names: it ends up in logs, and as the reason of a dead letter.
_LISTED = 10

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


class ConversionError(ValueError):  # a signal between these rooms; callers see an error of errors.py
    """What makes a thing the thing it is cannot be read."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__(format_problems(problems))
        self.problems = problems


def format_problems(problems: Sequence[str]) -> str:
    """Word problems for a message: the first ten, and how many more there are."""
    more = len(problems) - _LISTED
    return ", ".join(problems[:_LISTED]) + (f" and {more} more" if more > 0 else "")


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
        if isinstance(content, dict):
            return _hook_of(kind)(content, kind), ()  # type: ignore[arg-type]  # mypy knows no hash of classes
    except (ValueError, KeyError):
        pass  # the price of naming what is wrong is paid only where something is
    problems: list[str] = []
    found = _convert_leniently(kind, content, at, problems)
    unlike = tuple(dict.fromkeys(problems))
    if found is None:
        raise ConversionError(unlike)
    return found, unlike


def read_id(value: object, at: str) -> int | None:
    """Read an id that stands by itself; None where it is missing, `ConversionError` where it is not one."""
    try:
        return _integer(value, int)
    except ValueError as error:
        raise ConversionError((f"{error} @ {at}",)) from None


# --- what can be read of a thing that cannot be read as a whole -------------------------------------------

Read = Callable[[Tree, str, list[str]], object]


def _convert_leniently(kind: type[Any], content: Tree, at: str, problems: list[str]) -> Any:
    """Make a model of what can be read, and name the rest; None where its id is not among what can."""
    if not isinstance(content, dict):
        _note(problems, f"not an object @ {at}")
        return None
    values: dict[str, object] = {}
    for name, wire, read in _tolerant_fields(kind):  # type: ignore[arg-type]  # mypy knows no hash of classes
        if wire in content and name not in values:
            value = read(content[wire], f"{at}.{wire}", problems)
            values |= {} if value is None else {name: value}
    missing = _required(kind) - values.keys()  # type: ignore[arg-type]  # likewise
    for wire in (wire_name(kind, name) for name in missing):
        if wire not in content:
            _note(problems, f"missing @ {at}.{wire}")
    return None if missing else kind(**values)


def _note(problems: list[str], problem: str) -> None:
    problems.append(problem)
    if len(problems) > _MOST_PROBLEMS:
        raise ConversionError((f"more than {_MOST_PROBLEMS} unreadable fields, among them: {problems[0]}",))


@cache
def _required(kind: type) -> frozenset[str]:
    return frozenset(name for name, field in fields_dict(kind).items() if field.default is NOTHING)


@cache
def _tolerant_fields(kind: type) -> tuple[tuple[str, str, Read], ...]:
    """Return for each field what it is called here and on the wire, and what reads it; the first that can is taken."""
    found: list[tuple[str, str, Read]] = []
    for attribute in fields(kind):
        wires = _CONFIGS if attribute.name == "config" else {wire_name(kind, attribute.name): None}
        found += [(attribute.name, wire, _lenient_reader(attribute, part)) for wire, part in wires.items()]
    return tuple(found)


def _lenient_reader(attribute: Any, part: type | None) -> Read:
    """Make what reads a field, or names it; *part* is the model of one that says no more than that it is one."""
    hook, many = _scalar_hook(attribute), False
    if hook is not None:
        return lambda value, at, problems: _try_hook(hook, value, at, problems)
    if part is None:
        part, many = _part_of(attribute.type)
    if many:
        return lambda value, at, problems: _readable_items(part, value, at, problems)
    return lambda value, at, problems: _readable_part(part, value, at, problems)


def _readable_part(kind: type[Any], value: Tree, at: str, problems: list[str]) -> Any:
    """Make the one model that a field holds; where nothing in it can be read, it is as if it were not there."""
    found = _convert_leniently(kind, value, at, problems) if value else None
    return None if found == kind() else found


def _try_hook(hook: Hook, value: Tree, at: str, problems: list[str]) -> object:
    try:
        return hook(value, None)
    except (ValueError, KeyError) as error:
        _note(problems, f"{'missing' if isinstance(error, KeyError) else error} @ {at}")
        return None


def _readable_items(kind: type[Any], value: Tree, at: str, problems: list[str]) -> tuple[Any, ...]:
    read = (_convert_leniently(kind, item, f"{at}[{index}]", problems) for index, item in enumerate(_as_list(value)))
    return tuple(item for item in read if item is not None)


# --- scalars ----------------------------------------------------------------------------------------------
#
# A notification has some twenty of them, nearly all plain strings. Each hook reads those in a frame of its own, which
# takes a third of the time that it takes by way of the functions that read whatever may come.


def _text(value: object, _: object) -> str | None:
    text = value if type(value) is str else _any_text(value)
    return (text.strip() if "\r" not in text else normalised(text)) or None


def _any_text(value: object) -> str:
    """Word a number, a boolean or an element with attributes."""
    if isinstance(value, dict):
        value = _beside_attributes(value)
    if type(value) is str:
        return value
    if isinstance(value, list):
        raise ValueError("not a text")  # noqa: TRY004  # one kind of failure, collected by its words
    return scalar(value)


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
            text = value.strip() if type(value) is str else _text(value, str)
            return read(text) if text else None
        except (ValueError, OverflowError):
            raise ValueError(problem) from None

    return hook


def _open_enum_hook(part: type[OpenEnum]) -> Callable[[Any, Any], OpenEnum | None]:
    """Make the hook of an open enumeration; to call one takes three times as long as to look its members up."""
    known = {str(member): member for member in part}
    read = _scalar(lambda text: part(normalised(text) or text), "not a word")

    def hook(value: Any, _: object) -> OpenEnum | None:
        try:
            return known[value]
        except (KeyError, TypeError):
            pass  # not known, or not even text
        return read(value, str)

    return hook


_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_DECIMAL = re.compile(r"[+-]?(?:[0-9]{1,30}(?:\.[0-9]{0,30})?|\.[0-9]{1,30})(?:[eE][+-]?[0-9]{1,2})?")
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


# Of all the forms that datetime reads, ``YYYY-MM-DDTHH:MM`` and what may follow has ``-T:`` in these places.
_PUNCTUATION = slice(7, 14, 3)
_from_iso = datetime.fromisoformat


def _read_date_and_time(text: str) -> datetime:
    if text[_PUNCTUATION] == "-T:":
        return _from_iso(text)
    raise ValueError


_any_integer = _scalar(_read_integer, "not an integer")
_any_boolean = _scalar(_read_boolean, "not a boolean")
_any_decimal = _scalar(_read_decimal, "not a decimal")
_any_date_and_time = _scalar(_read_date_and_time, "not a time")


def _integer(value: object, _: object) -> int | None:
    # What has 18 digits has no more than 64 bits.
    if type(value) is str and value.isdigit() and value.isascii() and len(value) <= 18:
        return int(value)
    if type(value) is int and 0 <= value < 2**63:
        return value
    return _any_integer(value, int)


def _boolean(value: object, _: object) -> bool | None:
    if type(value) is bool:
        return value
    return _any_boolean(value, bool)


def _decimal(value: object, _: object) -> Decimal | None:
    # Digits with no more than one point among them: what an amount looks like.
    if type(value) is str and len(value) <= 30 and value.replace(".", "", 1).isdigit() and value.isascii():
        return Decimal(value)
    return _any_decimal(value, Decimal)


def _date_and_time(value: object, _: object) -> datetime | None:
    if type(value) is str and value[_PUNCTUATION] == "-T:":
        try:
            return _from_iso(value)
        except ValueError:
            pass  # white space may stand around it
    return _any_date_and_time(value, datetime)


def _id(value: object, _: object) -> int:
    number = _integer(value, int)
    if number is None:
        raise KeyError
    return number


# --- parts that are not one scalar a field ----------------------------------------------------------------


def _as_list(value: object) -> list[Any]:
    """None, one bare or in a list, and many are the same thing."""
    return value if isinstance(value, list) else [] if value in (None, "", {}) else [value]


def _words(value: object, _: object) -> tuple[str, ...]:
    """Read a list that CallFire words as one value, items separated by spaces."""
    words = [word for item in _as_list(value) for word in (_text(item, str) or "").split(None, _MOST_WORDS)]
    if len(words) > _MOST_WORDS:
        raise ValueError("too many words")
    return tuple(words)


def _results(value: object, _: object) -> tuple[Result, ...]:
    return tuple(map(Result, _words(value, str)))


def _labels(value: object, _: object) -> tuple[str, ...]:
    names = (item.get("Name", item) if isinstance(item, dict) else item for item in _as_list(value))
    return tuple(name for name in (_text(name, str) for name in names) if name)


def _number_attributes(value: object, _: object) -> tuple[tuple[str, str], ...]:
    """Read what the sender attached to a number; sorted, since no format promises an order."""
    # Most numbers that are objects have nothing but the number in them.
    if not isinstance(value, dict) or "@" not in "".join(value):
        return ()
    return tuple(sorted([(name[1:], _text(item, str) or "") for name, item in value.items() if name.startswith("@")]))


_HOOKS: dict[str, Hook] = {
    "labels": _labels,
    "to_number_attributes": _number_attributes,
    "retry_results": _results,
    "retry_phone_types": _words,
}
_SCALARS: dict[object, Hook] = {
    int: _id,
    int | None: _integer,
    str | None: _text,
    bool | None: _boolean,
    Decimal | None: _decimal,
    timedelta | None: _scalar(lambda text: timedelta(seconds=float(_read_decimal(text))), "not a duration"),
    datetime | None: _date_and_time,
    time | None: _scalar(time.fromisoformat, "not a time of day"),
}


def _scalar_hook(attribute: Any) -> Hook | None:
    """Return what reads a field that holds no models."""
    if attribute.name == "config":
        return None
    return _HOOKS.get(attribute.name) or _SCALARS.get(attribute.type) or _enum_hook(attribute.type)


def _enum_hook(annotation: Any) -> Hook | None:
    part, _ = _part_of(annotation)
    return _open_enum_hook(part) if issubclass(part, OpenEnum) else None


def _part_of(annotation: Any) -> tuple[type[Any], bool]:
    """Return the class in ``X | None`` or ``tuple[X, ...]``, and whether there may be many."""
    (part,) = (argument for argument in annotation.__args__ if argument not in (type(None), ...))
    return part, getattr(annotation, "__origin__", None) is tuple


@cache
def _reader() -> Converter:
    """Make the converter of mappings to models: quick, and it stops at the first thing that cannot be read."""
    converter = Converter(detailed_validation=False)

    def reader(kind: type[Any]) -> Hook:
        names: dict[str, Any] = {
            attribute.name: override(
                rename=wire_name(kind, attribute.name),
                struct_hook=_scalar_hook(attribute) or _part_hook(attribute),
            )
            for attribute in fields(kind)
        }
        read = make_dict_structure_fn(kind, converter, _cattrs_detailed_validation=False, **names)
        return _with_config(read) if kind is Broadcast else read

    converter.register_structure_hook_factory(has, reader)
    return converter


@cache
def _hook_of(kind: Any) -> Hook:
    """Return what makes a model of a mapping, without the converter's search for it."""
    return _reader().get_structure_hook(kind)


def _part_hook(attribute: Any) -> Hook:
    """Make the hook of a field that holds models, one or many."""
    if attribute.name == "config":
        return lambda named, _: named and _hook_of(_CONFIGS[named[0]])(_object(named[1]), None)
    part, many = _part_of(attribute.type)
    read = _hook_of(part)  # type: ignore[arg-type]  # likewise
    if many:
        return lambda value, _: tuple([read(_object(item), None) for item in _as_list(value)])
    return lambda value, _: read(_object(value), None) if value else None


def _object(value: object) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    raise ValueError("not an object")


def _with_config(read: Hook) -> Hook:
    """Give a broadcast's three possible configurations one name before it is read."""

    def hook(content: Mapping[str, Any], kind: object) -> object:
        named = next(((name, content[name]) for name in _CONFIGS if content.get(name)), None)
        # What a document itself calls Config is nothing that CallFire sends.
        return read({**content, "Config": named}, kind)

    return hook


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
        return lambda value: write(value) | _custom_fields(value)

    converter.register_unstructure_hook_factory(has, writer)
    return converter


_WRITTEN_BY_HAND = frozenset(["to_number_attributes", "labels", "config", "retry_results", "retry_phone_types"])


def _custom_fields(value: Any) -> dict[str, Any]:
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
