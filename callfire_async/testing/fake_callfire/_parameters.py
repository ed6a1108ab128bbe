"""The parameters of a request of API 1.1: the query, and the form in the body of any method."""

import re
from urllib.parse import parse_qsl

from starlette.datastructures import ImmutableMultiDict
from starlette.requests import Request

from callfire_async.testing.fake_callfire._api_error import ApiErrorResponse

__all__ = ["Parameters", "listed_values", "query_number", "read_parameters"]

#: The values by name; a single value is the last one.
Parameters = ImmutableMultiDict[str, str]

_FORM = "application/x-www-form-urlencoded"
_CHARSET = re.compile(r"charset=\s*[\"']?([\w-]+)", re.IGNORECASE)


async def read_parameters(request: Request) -> Parameters:
    """Return the parameters of a request; those of the form come last."""
    form = _read_form(await request.body(), request.headers.get("Content-Type", _FORM))
    return Parameters([*request.query_params.multi_items(), *form])


def _read_form(body: bytes, content_type: str) -> list[tuple[str, str]]:
    """Return the fields of a form in its declared charset; CallFire's Java client declares ISO-8859-1."""
    if not content_type.lower().startswith(_FORM):
        return []
    declared = _CHARSET.search(content_type)
    charset = declared[1] if declared else "UTF-8"
    try:
        return parse_qsl(body.decode(charset), keep_blank_values=True, encoding=charset, errors="strict")
    except (UnicodeDecodeError, LookupError):
        raise ApiErrorResponse(400, f"The form is not {charset}") from None


def listed_values(parameters: Parameters, name: str) -> str | None:
    """Return the items of all values with a name, separated by spaces; None if there is no value."""
    return " ".join(parameters.getlist(name)) if name in parameters else None


def query_number(parameters: Parameters, name: str, default: int) -> int:
    """Return a parameter that is a number."""
    text = parameters.get(name, str(default))
    # 18 digits fit into 64 bits; `int` raises ValueError for thousands of digits.
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise ApiErrorResponse(400, f"{name} must be a number")
    return int(text)
