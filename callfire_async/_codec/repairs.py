"""
Repair documents with characters that their format forbids.

A text message may contain any character. Java writers send an emoji as references to its two surrogates
(``&#55357;&#56832;``), and control characters as they are. In XML, surrogates are combined, and any other character
that XML 1.0 forbids becomes U+FFFD, except for NUL. A repair never adds or removes markup.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterator
from itertools import islice
from typing import Any, NamedTuple, TypeAlias

from callfire_async._codec.charsets import EncodingError, decode_utf_8, join_surrogates

# A node of a document: a scalar, or a mapping or list of nodes.
Tree: TypeAlias = Any

REPLACEMENT = "\ufffd"
# A text has three fields that strangers fill in; a hostile document may have ten thousand.
_MAX_PROBLEMS = 100


class Repair(NamedTuple):
    """A kind of repair, and the pattern that a repaired value has."""

    kind: str
    pattern: re.Pattern[str]


REPLACED = Repair("replaced forbidden characters", re.compile(REPLACEMENT))
COMBINED = Repair("combined surrogates", re.compile("[\U00010000-\U0010ffff]"))
UNESCAPED = Repair("unescaped control characters", re.compile("[\0-\x1f]"))

# --- XML --------------------------------------------------------------------------------------------------

# XML 1.0, section 2.2, allows all characters but these, NUL and surrogates.
_CONTROLS = bytes([*range(1, 9), 0x0B, 0x0C, *range(0x0E, 0x20)])
_NONCHARACTERS = (0xFFFE, 0xFFFF)
_FORBIDDEN = frozenset([*_CONTROLS, *_NONCHARACTERS])
_TO_ONE_CONTROL = bytes.maketrans(_CONTROLS, _CONTROLS[:1] * len(_CONTROLS))
# A reference is text in a CDATA section, a comment and a processing instruction. If one does not end, it is skipped to
# the end of the document, so that the search is linear.
_REFERENCE = re.compile(
    r"<!\[CDATA\[.*?(?:\]\]>|\Z)|<!--.*?(?:-->|\Z)|<\?.*?(?:\?>|\Z)|&#(?:x(?P<hex>[0-9a-fA-F]+)|(?P<decimal>[0-9]+));",
    re.DOTALL,
)


def repair_xml(document: bytes) -> tuple[bytes, tuple[Repair, ...]] | None:
    """Return an XML document in UTF-8 with the repairs that were needed, or None if it cannot be repaired."""
    allowed = replace_forbidden(document)
    try:
        text = decode_utf_8(allowed)
    except EncodingError:
        return None
    resolved = _REFERENCE.sub(_resolve, text)
    repaired = join_surrogates(resolved, "replace")
    is_replaced = allowed != document or repaired.count(REPLACEMENT) > text.count(REPLACEMENT)
    is_combined = len(repaired) < len(resolved) or text.encode() != allowed
    found = tuple(repair for repair, is_found in ((REPLACED, is_replaced), (COMBINED, is_combined)) if is_found)
    return (repaired.encode(), found) if found else None


def replace_forbidden(document: bytes) -> bytes:
    """Replace the characters that XML 1.0 forbids in a document in UTF-8, but not NUL, surrogates and references."""
    replacement = REPLACEMENT.encode()
    document = document.translate(_TO_ONE_CONTROL).replace(_CONTROLS[:1], replacement)
    for number in _NONCHARACTERS:
        document = document.replace(chr(number).encode(), replacement)
    return document


def _resolve(found: re.Match[str]) -> str:
    """Return a surrogate for a reference to one, U+FFFD for any other forbidden character, or else what was found."""
    digits, base = (found["hex"], 16) if found["hex"] else (found["decimal"], 10)
    if digits is None:
        return found[0]
    # Eight digits are always out of range. Python converts long numbers slowly.
    number = int(digits.lstrip("0")[:8] or "0", base)
    if 0xD800 <= number <= 0xDFFF:
        return chr(number)
    return REPLACEMENT if number in _FORBIDDEN or number > sys.maxunicode else found[0]


# --- problems ---------------------------------------------------------------------------------------------


def list_problems(repairs: Collection[Repair], content: Tree, known_names: Collection[str]) -> tuple[str, ...]:
    """
    Return the repaired values as ``kind @ path``, at most a hundred.

    A path ends before a name that is not known, since an unknown name may contain anything. If one value was repaired,
    other values that were sent with such characters are listed too.
    """
    problems = (
        f"{repair.kind} @ {path or 'payload'}"
        for path, value in _texts(content, "", known_names)
        for repair in repairs
        if repair.pattern.search(value)
    )
    return tuple(islice(dict.fromkeys(problems), _MAX_PROBLEMS))


def _texts(node: Tree, path: str, known_names: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield each text of a document with its path."""
    if isinstance(node, str):
        yield path, node
    elif isinstance(node, dict):
        for name, child in node.items():
            is_known = name.removeprefix("@") in known_names
            child_path = f"{path}.{name}".lstrip(".") if is_known else path
            yield from _texts(child, child_path, known_names if is_known else ())
    elif isinstance(node, list):
        for index, child in enumerate(node):
            yield from _texts(child, f"{path}[{index}]" if known_names else path, known_names)
