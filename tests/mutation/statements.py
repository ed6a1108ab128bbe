"""Changes of the SQL statements in a module's constants, which mutmut leaves as they are."""

import ast
import re
from collections.abc import Iterator

VERB = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE) ")
# A pattern and its replacement.
CHANGES = [
    (r"(?<![<>!])<(?!=)", "<="),
    (r"<=", "<"),
    (r"(?<!<)>(?!=)", ">="),
    (r"(?<![<>!:])=", "!="),
    (r"\bAND\b", "OR"),
    (r"\bOR\b", "AND"),
    (r"\+", "-"),
    (r"(?<![\w?:])0(?!\w)", "1"),
    (r"(?<![\w?:])[1-9](?!\w)", "0"),
    (r"(?<![\w?:])[1-3](?!\w)", "9"),
    (r"\bmin\(", "max("),
    (r"\bmax\(", "min("),
    (r" DESC\b", ""),
    (r"(?P<order>ORDER BY \w+)(?! DESC)", r"\g<order> DESC"),
    (r" AND [^A]*?(?= AND| OR| ORDER|$|\n)", ""),
    (r", \w+ = [\w?:]+(?: \+ \w+)?(?=,|\s|$)", ""),
    (r"''", "'x'"),
]


def changed_statements(module: ast.Module) -> Iterator[tuple[str, str, str]]:
    """Yield the name of a constant of the module, its statement, and a change of it that keeps the parameters."""
    for node in module.body:
        match node:
            case ast.Assign([ast.Name(name)], ast.Constant(str(old))) if VERB.match(old):
                yield from ((name, old, new) for new in _changes(old) if _parameters(new) == _parameters(old))


def functions_with(module: ast.Module, constant: str) -> Iterator[str]:
    """Yield the names of the functions that use a constant."""
    for node in module.body:
        if isinstance(node, ast.FunctionDef) and constant in {
            inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)
        }:
            yield node.name


def _changes(old: str) -> dict[str, None]:
    return {
        old[: match.start()] + match.expand(new) + old[match.end() :]: None
        for pattern, new in CHANGES
        for match in re.finditer(pattern, old)
    }


def _parameters(statement: str) -> list[str]:
    return re.findall(r"\?|:\w+|\{\}", statement)
