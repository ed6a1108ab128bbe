"""The errors of documents that cannot be read, and the depth of those that can."""

from __future__ import annotations

from typing import Any

from callfire_async._codec.repairs import Tree

# The deepest known document has eight levels. Comparing or printing a value hits the recursion limit far above this.
MAX_DEPTH = 64


class InvalidDocumentError(ValueError):
    """Raised inside the package for bytes that are neither XML nor JSON, or that exceed a limit."""


class UnexpectedDocumentError(InvalidDocumentError):
    """Raised inside the package for well-formed bytes that are not one named object."""


def exceeds_max_depth(tree: object) -> bool:
    """Return whether mappings and lists are nested more than `MAX_DEPTH` deep."""
    level = [tree]
    for _ in range(MAX_DEPTH + 1):
        level = [child for node in level for child in _children(node) if isinstance(child, dict | list)]
        if not level:
            return False
    return True


def _children(node: Tree) -> list[Any]:
    if isinstance(node, list):
        return node
    children: list[Any] = []
    for child in node.values():
        children.extend(child if isinstance(child, list) else [child])
    return children
