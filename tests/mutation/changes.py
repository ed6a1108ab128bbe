"""The changes of a module: those of its functions, made by mutmut, and those of its SQL statements."""

import ast
import difflib
import importlib
from collections.abc import Iterator
from pathlib import Path

from attrs import field, frozen
from mutation.statements import changed_statements, functions_with
from mutmut.mutation.file_mutation import mutate_file_contents
from mutmut.mutation.trampoline import set_mutant_under_test
from mutmut.utils.format_utils import get_mutant_name, mangled_name_from_mutant_name


@frozen
class Change:
    """A change of the code."""

    module: str
    #: The name of a changed function, as mutmut calls it, or of the constant of a statement.
    name: str
    #: The functions that the change concerns, as mutmut calls them.
    functions: frozenset[str]
    old: str = field(repr=False)
    new: str = field(repr=False)
    is_statement: bool = False

    def make(self) -> None:
        """Change the code of this process."""
        if self.is_statement:
            setattr(importlib.import_module(self.module), self.name, self.new)
        else:
            set_mutant_under_test(f"{self.module}.{self.name}")

    def __str__(self) -> str:
        lines = difflib.unified_diff(self.old.splitlines(), self.new.splitlines(), lineterm="", n=0)
        return "\n".join(
            [f"{self.module}.{self.name}", *(line for line in lines if line[:2] not in ("++", "--", "@@"))]
        )


def write_changes(path: Path) -> list[Change]:
    """Return the changes of a module, and add those of its functions to its source."""
    source = path.read_text()
    mutated = mutate_file_contents(str(path), source)
    module = get_mutant_name(path.with_suffix(".py"), "").removesuffix(".").removesuffix(".__init__")
    changes = [
        *_changed_functions(module, mutated.code, mutated.mutant_names),
        *_changed_statements(module, ast.parse(source)),
    ]
    path.write_text(mutated.code)
    return changes


def _changed_functions(module: str, code: str, names: list[str]) -> Iterator[Change]:
    nodes = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    bodies = {node.name: "\n".join(map(ast.unparse, node.body)) for node in nodes}
    for name in names:
        function = mangled_name_from_mutant_name(name)
        yield Change(
            module, name, frozenset([f"{module}.{function}"]), bodies[f"{function}__mutmut_orig"], bodies[name]
        )


def _changed_statements(module: str, tree: ast.Module) -> Iterator[Change]:
    for constant, old, new in changed_statements(tree):
        functions = frozenset(f"{module}.x_{name}" for name in functions_with(tree, constant))
        yield Change(module, constant, functions, old, new, is_statement=True)
