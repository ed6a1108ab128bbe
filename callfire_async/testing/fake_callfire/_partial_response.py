"""Partial responses of API v2: the query parameter ``fields``, as in ``limit,items(id,name)``."""

import re
from typing import Any

from callfire_async.testing.fake_callfire._api_error import ApiErrorResponse

__all__ = ["Selection", "parse_fields", "select"]

#: The selected keys, each with the selection below it; an empty selection is everything.
Selection = dict[str, "Selection"]

_PARTS = re.compile(r"\w+|\S")


def parse_fields(text: str) -> Selection:
    """Return the selection of a ``fields`` parameter; raise `ApiErrorResponse` if its parentheses do not match."""
    root: Selection = {}
    open_selections, last = [root], root
    for part in _PARTS.findall(text):
        if part == "(":
            open_selections.append(last)
        elif part == ")" and len(open_selections) > 1:
            open_selections.pop()
        elif part != ",":
            last = open_selections[-1].setdefault(_checked_name(part), {})
    if len(open_selections) > 1:
        raise _invalid_fields()
    return root


def _checked_name(part: str) -> str:
    if not part.isidentifier():
        raise _invalid_fields()
    return part


def _invalid_fields() -> ApiErrorResponse:
    return ApiErrorResponse(400, "fields must be a list of names such as id,name or items(id,name)")


def select(node: Any, selection: Selection) -> Any:
    """Return the selected part of a JSON value; names that it does not have are ignored."""
    if isinstance(node, list):
        return [select(item, selection) for item in node]
    if not selection or not isinstance(node, dict):
        return node
    return {name: select(value, selection[name]) for name, value in node.items() if name in selection}
