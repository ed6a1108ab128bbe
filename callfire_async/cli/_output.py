"""Print text, tables and JSON, with escapes for everything that the terminal could interpret."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence

__all__ = ["echo", "echo_json", "echo_pairs", "echo_table", "escape_control_characters"]

# Tables are not folded in a pipe: programs read one row per line.
_PIPE_WIDTH = 10_000


def echo(text: str) -> None:
    """Write a line to standard output and flush; escape characters that the encoding lacks."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    sys.stdout.flush()


def echo_json(value: object, *, indent: int | None = None) -> None:
    """Write a JSON document, on one line without *indent*."""
    text = json.dumps(value, indent=indent, ensure_ascii=indent is None)
    echo("".join(char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1] for char in text))


def echo_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table; cells are folded in a narrow terminal, but not in a pipe."""
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


def echo_pairs(pairs: Mapping[str, object]) -> None:
    """Write a line for each name and value."""
    width = max(map(len, pairs))
    for name, value in pairs.items():
        echo(f"{name:{width}}  {'' if value is None else escape_control_characters(str(value))}".rstrip())


def escape_control_characters(text: str) -> str:
    """Return *text* with escapes for all characters that are not printable."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
