"""The rooms of the package stand in one order, and every import points up it."""

import ast
import importlib.util
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import callfire_async

# From the top down. A folder stands for all that is in it where its files are not named.
ORDER = """
errors models _wire _convert
_protocol _answers _pool connection paging declare subscriptions actions texts calls client
notifications.encoding notifications.events notifications.matching notifications.parsing
notifications.expecting notifications.stepping notifications.routing notifications.tokens notifications.door
notifications.dead_letters notifications.inbox
notifications.inbox.memory
notifications.inbox._sqlite_file notifications.inbox._sqlite_writer notifications.inbox._sqlite_folder
notifications.inbox._sqlite_rows notifications.inbox.sqlite
notifications.inbox._postgres_pool notifications.inbox._postgres_schema notifications.inbox._postgres_statements
notifications.inbox._postgres_gathering notifications.inbox._postgres_hints notifications.inbox.postgres
notifications.inbox._jetstream_link notifications.inbox._jetstream_records
notifications.inbox._jetstream_streams notifications.inbox._jetstream_queue notifications.inbox._jetstream_settings
notifications.inbox._jetstream_ledger notifications.inbox._jetstream_claims notifications.inbox._jetstream_caretaking
notifications.inbox.jetstream
notifications.inbox._spool_primary notifications.inbox._spool_forwarding notifications.inbox.spool
notifications.observing
notifications.known_subscriptions notifications.retrying
notifications.worker notifications.ways notifications.receiver notifications.health
notifications.asgi notifications.aiohttp notifications.fastapi
reconcile telemetry
__init__ notifications.__init__
testing cli __main__
""".split()
CLIENT_HALF = {"__init__", "_protocol", "_answers", "_pool", "connection", "paging"}
CLIENT_HALF |= {"declare", "subscriptions", "actions", "texts", "calls", "client"}
GATHER_PUBLIC_NAMES = {"__init__", "notifications.__init__"}
ONLY_IMPORTERS = {
    "json": {"_wire", "cli"},
    "xmltodict": {"_wire"},
    "cattrs": {"_convert"},
    "httpx": {"_pool", "testing", "cli"},
    "opentelemetry": {"telemetry"},
    "asyncpg": {"notifications.inbox._postgres_pool"},
    "nats": {f"notifications.inbox._jetstream_{room}" for room in ("link", "streams", "queue", "settings")},
}
NAMES_THAT_SAY_NOTHING = {"utils", "helpers", "common", "base", "core", "misc", "contrib"}

PACKAGE = callfire_async.__name__
ROOT = Path(callfire_async.__file__).parent
MODULES = {
    path.relative_to(ROOT).with_suffix("").as_posix().replace("/", "."): path for path in sorted(ROOT.rglob("*.py"))
}


def imported_names(module: str) -> Iterator[str]:
    """Yield, as absolute names, what *module* imports: in functions and for type checkers too."""
    parent = f"{PACKAGE}.{module}".rpartition(".")[0]
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = importlib.util.resolve_name("." * node.level + (node.module or ""), parent)
            yield from (f"{source}.{alias.name}" for alias in node.names)


def own_imports(module: str) -> set[str]:
    """Name the modules of the package that *module* imports."""
    own = (name.split(".")[1:] for name in imported_names(module) if name.split(".")[0] == PACKAGE)
    return {module_of(parts) for parts in own}


def module_of(parts: list[str]) -> str:
    """Find the module that *parts* name, or in which their last one is defined."""
    candidates = (parts, [*parts, "__init__"], parts[:-1], [*parts[:-1], "__init__"])
    return next(name for name in map(".".join, candidates) if name in MODULES)


def room_of(module: str) -> str:
    """Find the entry of ORDER that *module* belongs to."""
    names = [module]
    while "." in names[-1]:
        names.append(names[-1].rpartition(".")[0])
    return next((name for name in names if name in ORDER), f"{module}, which has no place")


def half_of(module: str) -> str:
    """Name the half that *module* is part of."""
    if module in CLIENT_HALF:
        return "client"
    return "notifications" if module.startswith("notifications.") else "neither"


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_a_place(module):
    """A module that the order does not name fails here until somebody decides where it stands."""
    assert room_of(module) in ORDER


@pytest.mark.parametrize("module", sorted(MODULES.keys() - GATHER_PUBLIC_NAMES))
def test_imports_point_up(module):
    """A module imports only what stands above it, or beside it in its own folder."""
    here = ORDER.index(room_of(module))

    below = {name for name in own_imports(module) if ORDER.index(room_of(name)) > here}

    assert not below


def test_no_module_imports_itself_through_others():
    """There is no circle of imports, inside a folder either."""
    graph = {module: own_imports(module) for module in MODULES}

    order = list(TopologicalSorter(graph).static_order())

    assert set(order) == set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_the_halves_do_not_know_each_other(module):
    """Neither the client nor the notifications import the other: each can be read and changed without it."""
    other_half = {"client": "notifications", "notifications": "client"}.get(half_of(module))

    assert other_half not in map(half_of, own_imports(module))


@pytest.mark.parametrize("library", ONLY_IMPORTERS)
def test_a_library_has_one_importer(library):
    """What JSON, XML, cattrs and httpx are is known in one room each."""
    importers = {
        room_of(module) for module in MODULES if library in {name.split(".")[0] for name in imported_names(module)}
    }

    assert importers <= ONLY_IMPORTERS[library]


@pytest.mark.parametrize("module", MODULES)
def test_names_say_what_a_module_is_for(module):
    """No module is called after its being useful."""
    words = {part.strip("_") for part in module.split(".")}

    assert not words & NAMES_THAT_SAY_NOTHING
