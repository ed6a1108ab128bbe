"""How the documentation is built."""

from collections.abc import Iterator
from importlib.metadata import version as version_of
from typing import Any

project = "callfire_async"
author = "the callfire_async authors"
copyright = author
release = version = version_of("callfire-async")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

# Docstrings name things of ours in single backquotes.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 90

# Every reference to a public name of ours must resolve. Those of other libraries would need their inventories, and so
# the network; private rooms and type variables have no entry.
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(?!callfire_async\b).*"),
    (r"py:.*", r"callfire_async\.(.*\.)?(_.*|[A-Z])"),
]

html_theme = "furo"
html_title = "callfire_async"

# --- the commands, as the program itself describes them ---------------------------------------------------

COMMANDS = "<!-- commands -->"


def described(path: str, command: Any) -> Iterator[str]:
    """Yield the lines that describe a command and those below it: its words, arguments, options and example."""
    if hasattr(command, "commands"):
        for name, below in sorted(command.commands.items()):
            yield from described(f"{path} {name}", below)
        return
    yield from (f"### `{path}`", "", command.help, "")
    for parameter in command.params:
        names = " ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
        if parameter.param_type_name == "argument":
            names = f"`{parameter.metavar or parameter.name.upper()}`"
        yield from (names, f": {parameter.help}", "")
    yield from (command.epilog.replace("Example: `", "```sh\n").removesuffix("`") + "\n```", "")


def add_commands(_: Any, page: str, source: list[str]) -> None:
    """Put the description of every command where a page wants it."""
    if COMMANDS in source[0]:
        from typer.main import get_command

        from callfire_async.cli.commands import app

        lines = described("callfire-async", get_command(app))
        source[0] = source[0].replace(COMMANDS, "\n".join(lines))


def setup(app: Any) -> None:
    """Have the commands described when the pages are read."""
    app.connect("source-read", add_commands)
