"""How the documentation is built."""

import re
from collections.abc import Iterator
from importlib.metadata import version as version_of
from typing import Any

import attrs
from sphinx.application import Sphinx
from typer.main import get_command

from callfire_async.cli.commands import app as command_line

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
        default = f" Default: `{parameter.default}`." if parameter.default not in (None, False, 0) else ""
        yield from (names, f": {parameter.help}{default}", "")
    yield from (command.epilog.replace("Example: `", "```sh\n").removesuffix("`") + "\n```", "")


def add_commands(_: Sphinx, page: str, source: list[str]) -> None:
    """Put the description of every command where a page wants it."""
    if page == "command-line":
        before, _, after = source[0].partition(COMMANDS)
        source[0] = "\n".join([before, *described("callfire-async", get_command(command_line)), after])


# --- what the extensions make of our classes -------------------------------------------------------------


def setup(app: Sphinx) -> None:
    """Have the commands described, and mend what the extensions make of attrs classes and of our docstrings."""
    app.connect("source-read", add_commands)
    # Before napoleon, whose priority is 500.
    app.connect("autodoc-process-docstring", keep_colons, priority=400)
    app.connect("autodoc-process-signature", show_defaults)


def keep_colons(_: Sphinx, what: str, _name: str, _obj: Any, _options: Any, lines: list[str]) -> None:
    """Keep napoleon from taking what stands before a colon, in the first line on an attribute, for its type."""
    if what in ("attribute", "data", "property"):
        lines[:0] = ["..", ""]  # an empty comment, which has no colon


def show_defaults(  # what Sphinx calls it with
    _: Sphinx, _what: str, _name: str, obj: Any, _options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Say what the default of a field is, in place of where the class that attrs has made finds it."""
    if not (isinstance(obj, type) and attrs.has(obj) and signature):
        return signature, returns
    fields = attrs.fields_dict(obj)

    def default(found: re.Match[str]) -> str:
        value = fields[found[1]].default
        return "…" if isinstance(value, attrs.Factory) else repr(value)

    return re.sub(r"attr_dict\['(\w+)'\]\.default", default, signature), returns
