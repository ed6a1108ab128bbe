"""
Convert JSON to plain values and back, with limits for hostile input.

API 1.1 wraps each document in an object with one key, which `documents` removes; API v2 does not.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NoReturn

from callfire_async._codec import charsets
from callfire_async._codec.document_limits import (
    MAX_DEPTH,
    InvalidDocumentError,
    UnexpectedDocumentError,
    exceeds_max_depth,
)
from callfire_async._codec.repairs import UNESCAPED, Repair, Tree

# A thousand real texts have 7,000 objects and lists and 45,000 commas. A call with recordings and answers has twice as
# many as a text, but fewer calls fit into a megabyte.
_MAX_ENVELOPE_VALUES = 12_000
_MAX_ENVELOPE_COMMAS = 64_000


def read_object(body: bytes | str, content_type: str | None = None, *, max_values: int) -> dict[str, Any]:
    """
    Read a JSON document that is an object.

    Args:
        body: The document.
        content_type: Its charset is used only for a single-byte body.
        max_values: The maximum number of objects and lists. Twice as many commas are allowed.

    Raises:
        InvalidDocumentError: The body is not JSON, or exceeds a limit.
        UnexpectedDocumentError: The body is JSON, but not an object.
    """
    try:
        tree, _ = parse_json(charsets.decode(body, content_type), max_values)
    except charsets.EncodingError as error:
        raise InvalidDocumentError(str(error)) from None
    if not isinstance(tree, dict):
        raise UnexpectedDocumentError("expected a JSON object")
    return tree


def parse_json(source: bytes | str, max_values: int) -> tuple[Tree, tuple[Repair, ...]]:
    """Parse JSON, given as `charsets.decode` returns it; return the value, and the repairs that were needed."""
    text = source if isinstance(source, str) else charsets.decode_json(source)
    return _parse_text(text, max_values, 2 * max_values, InvalidDocumentError("the JSON document has too many values"))


def parse_postback(source: bytes | str, max_values: int) -> tuple[Tree, tuple[Repair, ...]]:
    """Parse the JSON of a postback as `parse_json` does, with higher limits for an envelope of API v2."""
    text = source if isinstance(source, str) else charsets.decode_json(source)
    if '"events"' not in text:
        return parse_json(text, max_values)
    error = UnexpectedDocumentError("the envelope has too many events or values")
    return _parse_text(text, _MAX_ENVELOPE_VALUES, _MAX_ENVELOPE_COMMAS, error)


def _parse_text(
    text: str, max_values: int, max_commas: int, error: InvalidDocumentError
) -> tuple[Tree, tuple[Repair, ...]]:
    """Parse a text, or raise the error if a limit is exceeded."""
    # Brackets and commas inside strings count too: no message has thousands of them.
    values = text.count("{") + text.count("[")
    if values > max_values or text.count(",") > max_commas:
        raise error
    tree, repairs = _decode(text)
    if values > MAX_DEPTH and exceeds_max_depth(tree):
        raise InvalidDocumentError("the JSON document is nested too deeply")
    return tree, repairs


def _reject_constant(_: str) -> NoReturn:
    raise InvalidDocumentError("invalid JSON: NaN and Infinity are not allowed")


def _parse_float(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise InvalidDocumentError("invalid JSON: number out of range")
    return number


_STRICT_DECODER = json.JSONDecoder(parse_constant=_reject_constant, parse_float=_parse_float)
# Accepts control characters in strings.
_DECODER = json.JSONDecoder(parse_constant=_reject_constant, parse_float=_parse_float, strict=False)


def _decode(text: str) -> tuple[Tree, tuple[Repair, ...]]:
    try:
        try:
            return _STRICT_DECODER.decode(text), ()
        except json.JSONDecodeError:
            return _DECODER.decode(text), (UNESCAPED,)
    except json.JSONDecodeError as error:
        raise InvalidDocumentError(f"neither XML nor JSON: at line {error.lineno}, column {error.colno}") from None
    except InvalidDocumentError:
        raise
    except (ValueError, RecursionError):
        raise InvalidDocumentError("invalid JSON: number or nesting out of range") from None


def write_object(values: Mapping[str, Any]) -> bytes:
    """Write a mapping as JSON."""
    # A lone surrogate is in a string, where its backslash replacement is JSON's own escape.
    return json.dumps(values, separators=(",", ":"), ensure_ascii=False).encode(errors="backslashreplace")
