"""The package's folders and names: small enough to read, and one name for one thing."""

import ast
from collections import Counter
from pathlib import Path

import callfire_async

ROOT = Path(callfire_async.__file__).parent
MODULES = {path.relative_to(ROOT).as_posix(): path for path in sorted(ROOT.rglob("*.py"))}
MAX_MODULES_PER_FOLDER = 14
MAX_LINES_PER_MODULE = 400
# Files with the same role in sibling packages; a command is named after what it serves.
SAME_ROLE = {"__init__", "api_1_1", "api_2", "_queries"}


def test_a_folder_has_few_modules():
    """A folder that grows further has a folder inside."""
    counts = Counter(path.parent for path in MODULES.values())

    assert {folder for folder, count in counts.items() if count > MAX_MODULES_PER_FOLDER} == set()


def test_a_module_is_short():
    """A longer one has two responsibilities."""
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in MODULES.items()}

    assert {name for name, count in lines.items() if count > MAX_LINES_PER_MODULE} == set()


def test_no_two_modules_share_a_name():
    """A module's name alone says which one is meant."""
    stems = Counter(path.stem for name, path in MODULES.items() if not name.startswith("cli/commands/"))

    assert {stem for stem, count in stems.items() if count > 1} <= SAME_ROLE


def test_no_two_classes_share_a_name():
    """Private classes neither."""
    names = Counter(
        node.name
        for path in MODULES.values()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    )

    assert {name for name, count in names.items() if count > 1} == set()
