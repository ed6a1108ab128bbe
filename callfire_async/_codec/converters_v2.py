"""
Convert plain mappings to models and back, with the names and values of API v2.

Names are in camelCase, times are integers: Unix time in milliseconds. `converters` has those of API 1.1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Any, TypeVar

from attrs import fields, has
from cattrs import Converter
from cattrs.gen import make_dict_unstructure_fn, override

from callfire_async._codec.model_reader import ModelReader
from callfire_async._codec.scalars import Hook, field_hook, format_epoch_milliseconds, read_epoch_milliseconds
from callfire_async._codec.scalars_v2 import HOOKS_BY_NAME, format_amount, format_restriction
from callfire_async.models import (
    Call,
    DeliveryReport,
    LocalTimeZoneRestriction,
    RecordingMeta,
    Text,
    TextRecord,
    VoiceBroadcastConfig,
)

T = TypeVar("T")

# Names that are not the attribute's name in camelCase. A name with a dot is that of a member of a nested object.
_NAMES: dict[tuple[type, str], str] = {
    (Text, "final_result"): "finalTextResult",
    (Call, "final_result"): "finalCallResult",
    (TextRecord, "result"): "textResult",
    (RecordingMeta, "length"): "lengthInSeconds",
    (RecordingMeta, "link"): "mp3Url",
    (DeliveryReport, "text_id"): "actionId",
    (DeliveryReport, "reported_at"): "timestamp",
}
_SHARED_NAMES = {
    "broadcast_id": "campaignId",
    "contact_id": "contact.id",
    "local_time_zone_restriction": "localTimeRestriction",
    "to_number_attributes": "attributes",
}
_SOUND_FIELDS = ("live_", "machine_sound_", "transfer_", "dnc_")


def wire_name_v2(kind: type, attribute: str) -> str:
    """Return the name that a model's attribute, or a parameter, has on the wire."""
    return _NAMES.get((kind, attribute)) or _SHARED_NAMES.get(attribute) or _default_name(kind, attribute)


def _default_name(kind: type, attribute: str) -> str:
    first, *others = attribute.split("_")
    camel_case = "".join([first, *map(str.capitalize, others)])
    is_sound = kind is VoiceBroadcastConfig and attribute.startswith(_SOUND_FIELDS)
    return f"sounds.{camel_case}" if is_sound else camel_case


# --- mapping to model -------------------------------------------------------------------------------------


@cache
def _reader() -> ModelReader:
    return ModelReader(wire_name_v2, _field_hook_v2)


def structure_v2(kind: type[T], content: object, path: str) -> tuple[T, tuple[str, ...]]:
    """Convert a part of a document to a model, see `ModelReader.structure`."""
    flat, problems = _flatten(kind, content, path) if isinstance(content, dict) else (content, ())
    model, others = _reader().structure(kind, flat, path)
    return model, problems + others


def _field_hook_v2(attribute: Any) -> Hook | None:
    if attribute.type == datetime | None:
        return read_epoch_milliseconds
    return HOOKS_BY_NAME.get(attribute.name) or field_hook(attribute)


def _flatten(kind: type[Any], content: dict[str, Any], path: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Add the members of a nested object under the names of the model, and return a problem if it is not an object."""
    outer, names = _nested_names(kind)  # type: ignore[arg-type]  # mypy: classes are not hashable
    nested = content.get(outer)
    if not nested:
        return content, ()
    if not isinstance(nested, dict):
        return content, (f"not an object @ {path}.{outer}",)
    return {**content, **{name: nested.get(inner) for name, inner in names}}, ()


@cache
def _nested_names(kind: type[Any]) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Return the name of a model's nested object, and the names of the members with and without it."""
    names = [name for field in fields(kind) if "." in (name := wire_name_v2(kind, field.name))]
    return names[0].partition(".")[0] if names else "", tuple((name, name.partition(".")[2]) for name in names)


# --- model to mapping -------------------------------------------------------------------------------------


def unstructure_v2(value: object) -> dict[str, Any]:
    """Convert a model to a plain mapping with the names of the wire; fields that are None or empty are left out."""
    return _unstructuring_converter().unstructure(value)  # type: ignore[no-any-return]  # each model's hook returns a dict


def json_fields(values: Mapping[str, object]) -> dict[str, Any]:
    """Return the members of a JSON object by name; None is left out."""
    unstructure = _unstructuring_converter().unstructure
    return {wire_name_v2(object, name): unstructure(value) for name, value in values.items() if value is not None}


@cache
def _unstructuring_converter() -> Converter:
    """Return the converter of models to mappings."""
    converter = Converter()
    converter.register_unstructure_hook(datetime, format_epoch_milliseconds)
    converter.register_unstructure_hook(timedelta, lambda length: int(length.total_seconds()))
    converter.register_unstructure_hook(Decimal, format_amount)

    def make_hook(kind: type[Any]) -> Callable[[Any], dict[str, Any]]:
        overrides: dict[str, Any] = {
            field.name: override(rename=wire_name_v2(kind, field.name), unstruct_hook=_unstructure_hook(field))
            for field in fields(kind)
        }
        hook = make_dict_unstructure_fn(kind, converter, _cattrs_omit_if_default=True, **overrides)
        return lambda value: _nest(hook(value))

    converter.register_unstructure_hook_factory(has, make_hook)
    converter.register_unstructure_hook(LocalTimeZoneRestriction, format_restriction)
    return converter


def _unstructure_hook(field: Any) -> Callable[[Any], Any] | None:
    return dict if field.name == "to_number_attributes" else None


def _nest(content: dict[str, Any]) -> dict[str, Any]:
    """Move the members whose names have a dot into their object."""
    nested: dict[str, Any] = {}
    for name, value in content.items():
        outer, dot, inner = name.partition(".")
        if dot:
            nested.setdefault(outer, {})[inner] = value
        else:
            nested[name] = value
    return nested
