"""
Convert plain mappings to models and back, with the names of API 1.1.

`converters_v2` has those of API v2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, time, timedelta
from decimal import Decimal
from functools import cache
from typing import Any, TypeGuard, TypeVar

from attrs import fields, has
from cattrs import Converter
from cattrs.gen import make_dict_unstructure_fn, override

from callfire_async._codec.model_reader import CONFIGS, ConversionError, ModelReader
from callfire_async._codec.scalars import (
    field_hook,
    format_epoch_milliseconds,
    format_scalar,
    format_time,
    read_integer,
)
from callfire_async.models import (
    Broadcast,
    Call,
    CccBroadcastConfig,
    RecordingMeta,
    ResourceReference,
    RetryConfig,
    Subscription,
    SubscriptionFilter,
    Text,
    VoiceBroadcastConfig,
)

T = TypeVar("T")

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
    "notes": "Note",
    "question_responses": "QuestionResponse",
    "recordings": "RecordingMeta",
    "to_number_attributes": "ToNumber",
}


def wire_name(kind: type, attribute: str) -> str:
    """Return the name that a model's attribute has on the wire."""
    pascal_case = "".join(word.capitalize() for word in attribute.split("_"))
    return _NAMES.get((kind, attribute)) or _SHARED_NAMES.get(attribute) or pascal_case


# --- mapping to model -------------------------------------------------------------------------------------


@cache
def _reader() -> ModelReader:
    return ModelReader(wire_name, field_hook, {VoiceBroadcastConfig: _with_voices})


def _with_voices(content: dict[str, Any]) -> dict[str, Any]:
    """Add the voices that an older form of the configuration has as attributes of the texts."""
    texts = ((sound, content.get(f"{sound}SoundText")) for sound in ("Live", "Machine", "Transfer", "Dnc"))
    voices = {f"{sound}SoundTextVoice": text["@Voice"] for sound, text in texts if _has_voice(text)}
    return voices | content


def _has_voice(text: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(text, dict) and "@Voice" in text


def structure(kind: type[T], content: object, path: str) -> tuple[T, tuple[str, ...]]:
    """Convert a part of a document to a model, see `ModelReader.structure`."""
    return _reader().structure(kind, content, path)


def read_id(value: object, path: str) -> int | None:
    """Return an id that is not a model's field, or None if it is missing; an invalid one is a `ConversionError`."""
    try:
        return read_integer(value)
    except ValueError as error:
        raise ConversionError((f"{error} @ {path}",)) from None


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
    if isinstance(expiry := flat.get("expires_at"), datetime):
        flat["expires_at"] = format_epoch_milliseconds(expiry)
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
            field.name: override(
                rename=wire_name(kind, field.name), omit=field.name in _CUSTOM_FIELDS | _FIELDS_OF_V2 or None
            )
            for field in fields(kind)
        }
        hook = make_dict_unstructure_fn(kind, converter, _cattrs_omit_if_default=True, **overrides)
        names = _ordered_names(kind)  # type: ignore[arg-type]  # mypy: classes are not hashable
        return lambda value: _in_order(hook(value) | _custom_fields(value), names)

    converter.register_unstructure_hook_factory(has, make_hook)
    return converter


_CUSTOM_FIELDS = frozenset(
    [
        "to_number_attributes",
        "labels",
        "config",
        "retry_results",
        "retry_phone_types",
        "transfer_number_id_list",
        "expires_at",
    ]
)
_FIELDS_OF_V2 = frozenset(["media"])
# CallFire's XML schema does not have these. A reader that expects its order would skip everything after them.
_NOT_IN_SCHEMA = frozenset(
    ["switch_id", "caller_name", "agent_call", "notes", "resume_next_day", "non_strict_ssl", "expires_at"]
)


@cache
def _ordered_names(kind: type[Any]) -> tuple[str, ...]:
    """Return the names of a model's elements in the order of CallFire's XML schema, and then the others."""
    attributes = [field.name for field in fields(kind)]
    last = [name for name in attributes if name in _NOT_IN_SCHEMA or (kind is Broadcast and name == "labels")]
    # A subscription ends with its filter.
    last += [name for name in attributes if name == "filter"]
    ordered = [*(name for name in attributes if name not in last), *last]
    return tuple(wire for name in ordered for wire in (CONFIGS if name == "config" else (wire_name(kind, name),)))


def _in_order(content: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: content[name] for name in names if name in content}


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
        # The schema requires the results.
        parts["RetryResults"] = form_value(value.retry_results)
        parts |= {"RetryPhoneTypes": form_value(value.retry_phone_types)} if value.retry_phone_types else {}
    if isinstance(value, CccBroadcastConfig) and value.transfer_number_id_list:
        parts["TransferNumberIdList"] = form_value(value.transfer_number_id_list)
    if isinstance(value, Subscription) and value.expires_at is not None:
        parts["ExpiresAt"] = format_epoch_milliseconds(value.expires_at)
    return parts
