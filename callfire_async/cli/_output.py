"""How commands show things: as JSON for scripts, as text and tables for people, whatever the terminal is."""

import ast
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any

import attrs

__all__ = ["echo", "escape_control_characters", "say_json", "say_pairs", "say_table", "to_jsonable"]

# Where no terminal says how wide it is, nothing is folded: what reads a pipe reads lines.
_PIPE_WIDTH = 10_000


def echo(text: str) -> None:
    """Write a line to standard output at once; what its encoding does not have is written as an escape."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    sys.stdout.flush()


def say_json(value: object, *, indent: int | None = None) -> None:
    """Write one JSON document; on one line unless indented."""
    text = json.dumps(value, indent=indent, ensure_ascii=indent is None)
    echo("".join(one if one.isprintable() or one == "\n" else json.dumps(one)[1:-1] for one in text))


def say_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table; in a narrow terminal cells are folded, in a pipe they are not."""
    from rich.console import Console
    from rich.table import Table

    console = Console(
        highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH, soft_wrap=False
    )
    table = Table(*columns, box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for column in table.columns:
        column.overflow = "fold"
    for row in rows:
        table.add_row(*("" if cell is None else escape_control_characters(str(cell)) for cell in row))
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        echo(line.rstrip())


def say_pairs(pairs: Mapping[str, object]) -> None:
    """Write a line for each pair of name and value."""
    width = max(map(len, pairs))
    for name, value in pairs.items():
        echo(f"{name:{width}}  {'' if value is None else escape_control_characters(str(value))}".rstrip())


def escape_control_characters(text: str) -> str:
    """Return *text* with escapes for what would move a terminal's cursor, or can be no text."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def to_jsonable(value: Any, *, masked: bool = True) -> Any:
    """
    Make a value of ours one that JSON has: objects, lists, texts, numbers.

    Args:
        value: A model, an event, or what stands in them.
        masked: Whether numbers, messages and endpoints are masked as in a ``repr``.
    """
    if attrs.has(type(value)):
        shown = (field for field in attrs.fields(type(value)) if field.repr)
        return {field.name: _plain_field(field, getattr(value, field.name), masked=masked) for field in shown}
    if isinstance(value, tuple | list | set | frozenset):
        return [to_jsonable(item, masked=masked) for item in value]
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, date | time):
        return value.isoformat()
    return str(value) if isinstance(value, str | Decimal) else value


def _plain_field(field: Any, value: Any, *, masked: bool) -> Any:
    mask: Any = field.repr
    if masked and callable(mask):
        return to_jsonable(ast.literal_eval(str(mask(value))))
    return to_jsonable(value, masked=masked)
