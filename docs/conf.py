"""How the documentation is built."""

import re
import sys
from collections.abc import Iterator
from enum import EnumType
from importlib.metadata import version as version_of
from typing import Any

import attrs
from docutils.nodes import Element
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from typer.main import get_command

from callfire_async.cli.app import LazyCommand
from callfire_async.cli.app import app as command_line

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
    command = command.load() if isinstance(command, LazyCommand) else command
    if hasattr(command, "commands"):
        for name, below in sorted(command.commands.items()):
            yield from described(f"{path} {name}", below)
        return
    yield from (f"### `{path}`", "", command.help, "")
    for parameter in command.params:
        names = " ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
        if parameter.param_type_name == "argument":
            names = f"`{parameter.metavar or parameter.name.upper()}`"
        elif parameter.metavar:
            names += f" `{parameter.metavar}`"
        default = f" Default: `{parameter.default}`." if parameter.default not in (None, False, 0) else ""
        yield from (names, f": {parameter.help}{choices(parameter)}{default}", "")
    yield from (command.epilog.replace("Example: `", "```sh\n").removesuffix("`") + "\n```", "")


def choices(parameter: Any) -> str:
    """List what may be chosen, where that is a closed list and typer says so."""
    kind = getattr(getattr(parameter, "type_descriptor", None), "annotation", None)
    words = [f"`{choice}`" for choice in kind] if isinstance(kind, EnumType) else []
    return f" One of {', '.join(words)}." if words else ""


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
    app.connect("missing-reference", find_by_name)


def keep_colons(_: Sphinx, what: str, _name: str, _obj: Any, _options: Any, lines: list[str]) -> None:
    """Keep napoleon from taking what stands before a colon, in the first line on an attribute, for its type."""
    if what in ("attribute", "data", "property"):
        lines[:0] = ["..", ""]  # an empty comment, which has no colon


def find_by_name(app: Sphinx, env: BuildEnvironment, node: pending_xref, shown: Element) -> Element | None:
    """Find what a docstring names as its reader knows it, though its module has another name."""
    if node["reftype"] != "obj":
        return None
    node["refspecific"] = True  # look for the name at the end of longer ones
    return env.domains["py"].resolve_xref(env, node["refdoc"], app.builder, "obj", node["reftarget"], node, shown)


def show_defaults(  # what Sphinx calls it with
    _: Sphinx, _what: str, _name: str, obj: Any, _options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Say what a default is, in place of the constant, or of where the class that attrs has made finds it."""
    if not signature:
        return signature, returns
    room = vars(sys.modules[obj.__module__])
    signature = re.sub(r"(?<== )_?[A-Z][A-Z_]+\b", lambda found: said(room, found[0]), signature)
    if not (isinstance(obj, type) and attrs.has(obj)):
        return signature, returns
    fields = attrs.fields_dict(obj)

    def default(found: re.Match[str]) -> str:
        value = fields[found[1]].default
        return "..." if isinstance(value, attrs.Factory) else repr(value)

    return re.sub(r"attr_dict\['(\w+)'\]\.default", default, signature), returns


def said(room: dict[str, Any], name: str) -> str:
    """Word the constant of a room; ``NOTHING`` is attrs' word for what a factory makes anew."""
    # Three dots are an expression of Python's, so that Sphinx still understands the rest of the signature.
    return repr(room[name]) if name in room else "..."
