"""How the documentation is built."""

import inspect
import re
import sys
from collections.abc import Iterator
from enum import EnumType
from importlib import import_module
from importlib.metadata import version as version_of
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

import attrs
from docutils.nodes import Element
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.pycode import ModuleAnalyzer
from typer.main import get_command

import callfire_async
from callfire_async.cli.app import LazyCommand
from callfire_async.cli.app import app as command_line

sys.path.insert(0, str(Path(__file__).parent))
from reference_tables import insert_tables

project = "callfire_async"
author = "the callfire_async authors"
copyright = author
release = version = version_of("callfire-async")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_design"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "_snippets"]
# Sphinx would show the -- of options in the help of commands as a dash, which a shell does not accept.
smartquotes = False

# Docstrings put names of this project in single backquotes.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 90

# Every reference to a public name must resolve. References to other libraries would need their inventories, and so the
# network; private modules and type variables have no entry.
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(?!callfire_async\b).*"),
    (r"py:.*", r"callfire_async\.(.*\.)?(_.*|[A-Z])"),
]

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
# The theme's own choice underlines the names of modules like links.
pygments_dark_style = "github-dark"
html_title = "callfire_async"

# --- the commands, from the program itself ----------------------------------------------------------------

COMMANDS = "<!-- commands -->"


def describe(path: str, command: Any) -> Iterator[str]:
    """Yield lines that describe a command and its subcommands: help, arguments, options and example."""
    command = command.load() if isinstance(command, LazyCommand) else command
    if hasattr(command, "commands"):
        for name, below in sorted(command.commands.items()):
            yield from describe(f"{path} {name}", below)
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
    """Return the allowed values, if typer knows a closed list of them."""
    kind = getattr(getattr(parameter, "type_descriptor", None), "annotation", None)
    values = [f"`{choice}`" for choice in kind] if isinstance(kind, EnumType) else []
    return f" One of {', '.join(values)}." if values else ""


def add_commands(_: Sphinx, page: str, source: list[str]) -> None:
    """Insert the description of every command into the page on the command line."""
    if page == "command-line":
        before, _, after = source[0].partition(COMMANDS)
        source[0] = "\n".join([before, *describe("callfire-async", get_command(command_line)), after])


# --- the settings, from the signatures and the docstrings ------------------------------------------------

# The class whose parameters are listed, and others whose docstrings describe them better.
SETTINGS = re.compile(r"<!-- settings: (.+) -->")
# For tests only.
HIDDEN_SETTINGS = {"clock", "sleep"}


def settings_table(found: re.Match[str]) -> str:
    """Return a table of the parameters of a class; fail if one has no description."""
    described = [load(name) for name in found[1].split()]
    descriptions = {
        name: text for cls in described for name, text in (*described_arguments(cls), *commented_fields(cls))
    }
    rows = [
        f"| `{name}` | {default_of(parameter)} | {descriptions[name]} |"
        for name, parameter in inspect.signature(described[0]).parameters.items()
        if name not in HIDDEN_SETTINGS
    ]
    return "\n".join(["| setting | default | meaning |", "| --- | --- | --- |", *rows])


def load(name: str) -> type:
    """Import a class by its full name."""
    module, _, attribute = name.rpartition(".")
    return getattr(import_module(module), attribute)


def described_arguments(cls: type) -> Iterator[tuple[str, str]]:
    """Yield the names and descriptions of the section "Args" of a docstring."""
    section = re.split(r"\n\n(?=\S)", (inspect.getdoc(cls) or "").partition("\nArgs:\n")[2])[0]
    for argument in re.split(r"^    (?=\S)", section, flags=re.MULTILINE)[1:]:
        name, _, text = argument.partition(": ")
        yield name, " ".join(text.split()).replace("|", "\\|")


def commented_fields(cls: type) -> Iterator[tuple[str, str]]:
    """Yield the names and the comments of a class's fields."""
    for (owner, name), lines in ModuleAnalyzer.for_module(cls.__module__).find_attr_docs().items():
        if owner == cls.__name__:
            yield name, " ".join(lines).strip()


def default_of(parameter: inspect.Parameter) -> str:
    """Return the default value of a parameter for a table."""
    return "required" if parameter.default is parameter.empty else f"`{parameter.default!r}`"


def add_settings(app: Sphinx) -> None:
    """Insert the tables of settings, before autodoc replaces the defaults in signatures with their source."""
    page = SETTINGS.sub(settings_table, (Path(app.srcdir) / "settings.md").read_text(encoding="utf-8"))
    app.connect("source-read", lambda _, name, source: source.__setitem__(0, page) if name == "settings" else None)


# --- the metrics and the log messages ---------------------------------------------------------------------


def add_metrics_and_log_messages(_: Sphinx, page: str, source: list[str]) -> None:
    """Insert the tables into the page on metrics and log messages."""
    if page == "metrics-and-log-messages":
        source[0] = insert_tables(source[0])


# --- corrections to what the extensions generate ----------------------------------------------------------


def setup(app: Sphinx) -> None:
    """Register the commands, the settings, the tables and the corrections for attrs classes and docstrings."""
    app.connect("source-read", add_commands)
    app.connect("source-read", add_metrics_and_log_messages)
    app.connect("builder-inited", share_attribute_comments)
    app.connect("builder-inited", add_settings)
    # Before napoleon, whose priority is 500.
    app.connect("autodoc-process-docstring", keep_colons, priority=400)
    app.connect("autodoc-process-signature", show_defaults)
    app.connect("missing-reference", find_by_name)


def share_attribute_comments(_: Sphinx) -> None:
    """Let autodoc find the attribute comments of a class in the package that its ``__module__`` names."""
    for _, name, _ in walk_packages(callfire_async.__path__, f"{project}."):
        comments = ModuleAnalyzer.for_module(name).find_attr_docs()
        for (class_name, attribute), comment in list(comments.items()):
            public = getattr(getattr(import_module(name), class_name, None), "__module__", name)
            ModuleAnalyzer.for_module(public).find_attr_docs()[class_name, attribute] = comment


def keep_colons(_: Sphinx, what: str, _name: str, _obj: Any, _options: Any, lines: list[str]) -> None:
    """Keep napoleon from reading the words before a colon in an attribute's first line as its type."""
    if what in ("attribute", "data", "property"):
        lines[:0] = ["..", ""]  # an empty comment, which has no colon


def find_by_name(app: Sphinx, env: BuildEnvironment, node: pending_xref, shown: Element) -> Element | None:
    """Resolve a name in a docstring by its last part, since the defining module is private."""
    if node["reftype"] not in ("class", "obj"):
        return None
    node["refspecific"] = True  # look for the name at the end of longer ones
    name = node["reftarget"]
    if node["reftype"] == "class":  # an annotation
        name = name.rpartition(".")[2]
    return env.domains["py"].resolve_xref(env, node["refdoc"], app.builder, "obj", name, node, shown)


def show_defaults(  # the signature of Sphinx's event
    _: Sphinx, _what: str, _name: str, obj: Any, _options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Show the value of a default instead of the name of a constant or of attrs' own dictionary."""
    if not signature:
        return signature, returns
    function = obj.__init__ if isinstance(obj, type) else obj
    constants = getattr(inspect.unwrap(function), "__globals__", {})
    signature = re.sub(r"(?<== )_?[A-Z][A-Z_]+\b", lambda found: value_of(constants, found[0]), signature)
    if not (isinstance(obj, type) and attrs.has(obj)):
        return signature, returns
    fields = attrs.fields_dict(obj)

    def default(found: re.Match[str]) -> str:
        value = fields[found[1]].default
        return "..." if isinstance(value, attrs.Factory) else repr(value)

    return re.sub(r"attr_dict\['(\w+)'\]\.default", default, signature), returns


def value_of(constants: dict[str, Any], name: str) -> str:
    """Return a constant's value as source; attrs' ``NOTHING`` and unknown names become three dots."""
    # Three dots are a Python expression, so that Sphinx still parses the rest of the signature.
    return repr(constants[name]) if name in constants else "..."
