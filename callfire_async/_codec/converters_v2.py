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

T = TypeVar("T")

# Names that are not the attribute's name in camelCase.
_NAMES: dict[tuple[type, str], str] = {}


def wire_name_v2(kind: type, attribute: str) -> str:
    """Return the name that a model's attribute, or a parameter, has on the wire."""
    first, *others = attribute.split("_")
    return _NAMES.get((kind, attribute)) or "".join([first, *map(str.capitalize, others)])


# --- mapping to model -------------------------------------------------------------------------------------


@cache
def _reader() -> ModelReader:
    return ModelReader(wire_name_v2, _field_hook_v2)


def structure_v2(kind: type[T], content: object, path: str) -> tuple[T, tuple[str, ...]]:
    """Convert a part of a document to a model, see `ModelReader.structure`."""
    return _reader().structure(kind, content, path)


def _field_hook_v2(attribute: Any) -> Hook | None:
    return read_epoch_milliseconds if attribute.type == datetime | None else field_hook(attribute)


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
    converter.register_unstructure_hook(Decimal, float)

    def make_hook(kind: type[Any]) -> Callable[[Any], dict[str, Any]]:
        overrides: dict[str, Any] = {
            field.name: override(rename=wire_name_v2(kind, field.name)) for field in fields(kind)
        }
        return make_dict_unstructure_fn(kind, converter, _cattrs_omit_if_default=True, **overrides)

    converter.register_unstructure_hook_factory(has, make_hook)
    return converter
