"""Documents for the tests of the parser: content of samples as plain trees, and trees in each format."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

from callfire_async._codec import documents
from callfire_async.notifications import encoding
from callfire_async.testing import samples

Tree = dict[str, Any]


def content_of(root: str) -> Tree:
    """Return the content of a sample's root, with the names of the wire."""
    return copy.deepcopy(encoding._content(samples.EVENTS[root]))


def as_json(root: str, content: Tree) -> bytes:
    """Write a tree as JSON."""
    return documents.write_json({root: content})


def as_xml(root: str, content: Tree) -> bytes:
    """Write a tree as XML, with every element but the root in one namespace."""
    return documents.write_xml(_element(root, content))


def as_soap(root: str, content: Tree) -> bytes:
    """Write a tree as SOAP 1.1, with an empty header."""
    return _in_envelope(documents.SOAP_11, root, content)


def as_soap_12(root: str, content: Tree) -> bytes:
    """Write a tree as SOAP 1.2."""
    return _in_envelope(documents.SOAP_12, root, content)


FORMATS: dict[str, Callable[[str, Tree], bytes]] = {
    "XML": as_xml,
    "JSON": as_json,
    "SOAP": as_soap,
    "SOAP 1.2": as_soap_12,
}


def _element(root: str, content: Tree) -> Tree:
    return {f"n:{root}": {"@xmlns": documents.DATA, "@xmlns:n": documents.NOTIFICATION} | content}


def _in_envelope(namespace: str, root: str, content: Tree) -> bytes:
    envelope = {"@xmlns:soap": namespace, "soap:Header": None, "soap:Body": _element(root, content)}
    return documents.write_xml({"soap:Envelope": envelope})


def objects(node: Any) -> Iterator[Tree]:
    """Yield every object in a tree, so that it can be changed."""
    children = node if isinstance(node, list) else list(node.values())
    if isinstance(node, dict):
        yield node
    for child in children:
        if isinstance(child, dict | list):
            yield from objects(child)


def locate(tree: Any, path: str) -> tuple[Any, Any]:
    """Return the parent of the node at a dotted path, and the last step of the path."""
    *steps, last = (int(step) if step.isdigit() else step for step in path.split("."))
    for step in steps:
        tree = tree[step]
    return tree, last
