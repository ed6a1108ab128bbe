"""
Convert plain mappings to models and back, with the names of the wire.

A field that cannot be read is left out and reported as a problem. An object without a readable id is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, time, timedelta
from decimal import Decimal
from functools import cache
from typing import Any, TypeVar

from attrs import NOTHING, fields, has
from cattrs import Converter
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from callfire_async._codec.scalars import Hook, as_list, field_hook, format_scalar, format_time, item_type, read_integer
from callfire_async.models import (
    Broadcast,
    Call,
    IvrBroadcastConfig,
    RecordingMeta,
    ResourceReference,
    RetryConfig,
    Subscription,
    SubscriptionFilter,
    Text,
    TextBroadcastConfig,
    VoiceBroadcastConfig,
)

T = TypeVar("T")

# More than a call of a hundred records has fields; reporting them takes a few milliseconds.
_MAX_PROBLEMS = 1_000
# A message ends up in logs and in the reason of a dead letter.
_MAX_LISTED_PROBLEMS = 10

# A broadcast has one of these three, each under its own name.
_CONFIGS = {kind.__name__: kind for kind in (TextBroadcastConfig, VoiceBroadcastConfig, IvrBroadcastConfig)}

# Names that are not the attribute's name in PascalCase.
_NAMES: dict[tuple[type, str], str] = {
    (Subscription, "filter"): "SubscriptionFilter",
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
    """Return the name that a model's attribute has on the wire."""
    pascal_case = "".join(word.capitalize() for word in attribute.split("_"))
    return _NAMES.get((kind, attribute)) or _SHARED_NAMES.get(attribute) or pascal_case


# --- mapping to model -------------------------------------------------------------------------------------


class ConversionError(ValueError):
    """Raised inside the package if an object, or its id, is missing or invalid."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__(format_problems(problems))
        self.problems = problems


def format_problems(problems: Sequence[str]) -> str:
    """Return problems as one message, with the first ten and the number of the others."""
    more = len(problems) - _MAX_LISTED_PROBLEMS
    return ", ".join(problems[:_MAX_LISTED_PROBLEMS]) + (f" and {more} more" if more > 0 else "")


def structure(kind: type[T], content: object, path: str) -> tuple[T, tuple[str, ...]]:
    """
    Convert a part of a document to a model.

    Args:
        kind: The model's class.
        content: Usually a dict.
        path: The path of *content* in the document, for the problems.

    Returns:
        The model, and a problem as ``kind @ path`` for each field that was left out because it could not be read.

    Raises:
        ConversionError: *content* is not an object, its id is missing or invalid, or it has more than 1,000 problems.
    """
    try:
        if isinstance(content, dict):
            return _structure_hook(kind)(content, kind), ()  # type: ignore[arg-type]  # mypy: classes are not hashable
    except (ValueError, KeyError):
        pass  # only an invalid document pays for finding its problems
    found: list[str] = []
    model = _convert_leniently(kind, content, path, found)
    problems = tuple(dict.fromkeys(found))
    if model is None:
        raise ConversionError(problems)
    return model, problems


def read_id(value: object, path: str) -> int | None:
    """Return an id that is not a model's field, or None if it is missing; an invalid one is a `ConversionError`."""
    try:
        return read_integer(value)
    except ValueError as error:
        raise ConversionError((f"{error} @ {path}",)) from None


@cache
def _structuring_converter() -> Converter:
    """Return the converter of mappings to models, which stops at the first value that it cannot read."""
    converter = Converter(detailed_validation=False)

    def make_hook(kind: type[Any]) -> Hook:
        overrides: dict[str, Any] = {
            field.name: override(rename=wire_name(kind, field.name), struct_hook=_hook_for(field))
            for field in fields(kind)
        }
        hook = make_dict_structure_fn(kind, converter, _cattrs_detailed_validation=False, **overrides)
        return _with_config(hook) if kind is Broadcast else hook

    converter.register_structure_hook_factory(has, make_hook)
    return converter


@cache
def _structure_hook(kind: Any) -> Hook:
    """Return a model's hook; the cache saves the converter's own lookup."""
    return _structuring_converter().get_structure_hook(kind)


def _hook_for(field: Any) -> Hook:
    if field.name == "config":
        return _config_hook
    return field_hook(field) or _model_hook(field)


def _model_hook(field: Any) -> Hook:
    """Return the hook of a field that holds one model or a tuple of them."""
    kind, is_repeated = item_type(field.type)
    hook = _structure_hook(kind)  # type: ignore[arg-type]  # mypy: classes are not hashable
    if is_repeated:
        return lambda value, _: tuple([hook(_object(item), None) for item in as_list(value)])
    return lambda value, _: hook(_object(value), None) if value else None


def _object(value: object) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    raise ValueError("not an object")


def _config_hook(named: tuple[str, Any] | None, _: object) -> Any:
    return named and _structure_hook(_CONFIGS[named[0]])(_object(named[1]), None)


def _with_config(hook: Hook) -> Hook:
    """Wrap the hook of a broadcast: move its configuration and the name of that to the key ``Config``."""

    def hook_with_config(content: Mapping[str, Any], kind: object) -> object:
        named = next(((name, content[name]) for name in _CONFIGS if content.get(name)), None)
        # Replaces a "Config" of the document's own, which CallFire does not send.
        return hook({**content, "Config": named}, kind)

    return hook_with_config


# --- mapping with problems to model -----------------------------------------------------------------------

Reader = Callable[[Any, str, list[str]], Any]


def _convert_leniently(kind: type[Any], content: object, path: str, problems: list[str]) -> Any:
    """Convert the readable fields and add a problem for each of the others; return None if the id is not readable."""
    if not isinstance(content, dict):
        _add_problem(problems, "not an object", path)
        return None
    values: dict[str, object] = {}
    for name, wire, read in _lenient_readers(kind):  # type: ignore[arg-type]  # mypy: classes are not hashable
        if wire in content and name not in values:
            value = read(content[wire], f"{path}.{wire}", problems)
            values |= {} if value is None else {name: value}
    missing = [wire for name, wire in _required_fields(kind) if name not in values]  # type: ignore[arg-type]  # mypy: classes are not hashable
    for wire in missing:
        if wire not in content:
            _add_problem(problems, "missing", f"{path}.{wire}")
    return None if missing else kind(**values)


def _add_problem(problems: list[str], problem: object, path: str) -> None:
    problems.append(f"{problem} @ {path}")
    if len(problems) > _MAX_PROBLEMS:
        raise ConversionError((f"more than {_MAX_PROBLEMS} unreadable fields, the first: {problems[0]}",))


@cache
def _required_fields(kind: type) -> tuple[tuple[str, str], ...]:
    return tuple((field.name, wire_name(kind, field.name)) for field in fields(kind) if field.default is NOTHING)


@cache
def _lenient_readers(kind: type) -> tuple[tuple[str, str, Reader], ...]:
    """Return attribute, name on the wire and reader of each field; of several for one attribute the first wins."""
    readers: list[tuple[str, str, Reader]] = []
    for field in fields(kind):
        if field.name == "config":
            readers += [(field.name, wire, _model_reader(config)) for wire, config in _CONFIGS.items()]
        else:
            readers.append((field.name, wire_name(kind, field.name), _lenient_reader(field)))
    return tuple(readers)


def _lenient_reader(field: Any) -> Reader:
    if hook := field_hook(field):
        return lambda value, path, problems: _try_hook(hook, value, path, problems)
    kind, is_repeated = item_type(field.type)
    return _models_reader(kind) if is_repeated else _model_reader(kind)


def _try_hook(hook: Hook, value: object, path: str, problems: list[str]) -> object:
    try:
        return hook(value, None)
    except (ValueError, KeyError) as error:
        _add_problem(problems, "missing" if isinstance(error, KeyError) else error, path)
        return None


def _model_reader(kind: type[Any]) -> Reader:
    """Return the reader of a field that holds one model, None if no field of that is readable."""

    def read(value: Any, path: str, problems: list[str]) -> Any:
        model = _convert_leniently(kind, value, path, problems) if value else None
        return None if model == kind() else model

    return read


def _models_reader(kind: type[Any]) -> Reader:
    def read(value: Any, path: str, problems: list[str]) -> Any:
        items = enumerate(as_list(value))
        models = (_convert_leniently(kind, item, f"{path}[{index}]", problems) for index, item in items)
        return tuple(model for model in models if model is not None)

    return read


# --- model to mapping -------------------------------------------------------------------------------------


def unstructure(value: object) -> dict[str, Any]:
    """Convert a model to a plain mapping with the names of the wire; fields that are None or empty are left out."""
    return _unstructuring_converter().unstructure(value)  # type: ignore[no-any-return]  # each model's hook returns a dict


def form_value(value: object) -> str:
    """Return a value for a form: ``true``, ``42``, ``LA AM``, ``2012-10-26T21:32:52Z``."""
    return " ".join(map(format_scalar, value)) if isinstance(value, tuple) else format_scalar(value)


def form_fields(values: Mapping[str, object]) -> dict[str, str]:
    """Return the fields of a form by name; None is left out, and a filter is flattened."""
    flat = dict(values)
    filter_ = flat.pop("filter", None)
    if isinstance(filter_, SubscriptionFilter):
        flat |= {field.name: getattr(filter_, field.name) for field in fields(SubscriptionFilter)}
    return {wire_name(object, name): form_value(value) for name, value in flat.items() if value is not None}


@cache
def _unstructuring_converter() -> Converter:
    """Return the converter of models to mappings."""
    converter = Converter()
    converter.register_unstructure_hook(datetime, format_time)
    converter.register_unstructure_hook(time, time.isoformat)
    converter.register_unstructure_hook(timedelta, lambda length: int(length.total_seconds()))
    converter.register_unstructure_hook(Decimal, str)

    def make_hook(kind: type[Any]) -> Callable[[Any], dict[str, Any]]:
        overrides: dict[str, Any] = {
            field.name: override(rename=wire_name(kind, field.name), omit=field.name in _CUSTOM_FIELDS or None)
            for field in fields(kind)
        }
        hook = make_dict_unstructure_fn(kind, converter, _cattrs_omit_if_default=True, **overrides)
        return lambda value: hook(value) | _custom_fields(value)

    converter.register_unstructure_hook_factory(has, make_hook)
    return converter


_CUSTOM_FIELDS = frozenset(["to_number_attributes", "labels", "config", "retry_results", "retry_phone_types"])


def _custom_fields(value: Any) -> dict[str, Any]:
    """Return the fields that do not have one name and one value on the wire."""
    parts: dict[str, Any] = {}
    if attributes := getattr(value, "to_number_attributes", ()):
        parts["ToNumber"] = {f"@{name}": text for name, text in attributes} | {"#text": value.to_number or ""}
    if names := getattr(value, "labels", ()):
        parts["Label"] = [{"Name": name} for name in names]
    if isinstance(value, Broadcast) and value.config is not None:
        parts[type(value.config).__name__] = unstructure(value.config)
    if isinstance(value, RetryConfig):
        lists = {"RetryResults": value.retry_results, "RetryPhoneTypes": value.retry_phone_types}
        parts |= {name: form_value(items) for name, items in lists.items() if items}
    return parts
