"""
Decode the bytes of a document.

A byte order mark decides, or else the zero bytes of UTF-16; then the encoding in the XML declaration, and last the
charset of the content type. Declared names are looked up in a small table, never in Python's codec registry.
"""

from __future__ import annotations

import codecs
import json
import re
from functools import lru_cache

_WHITE_SPACE = " \t\r\n"
_UTF_8 = "utf-8"
# The first bytes of XML in UTF-16 without a byte order mark.
_UTF_16 = {b"<\0": "utf-16-le", b"\0<": "utf-16-be"}
_SINGLE_BYTE = ("iso-8859-1", "windows-1252")
# Names in lower case, without hyphens and underscores: Java and others write "UTF8", "ISO8859_1" and "Cp1252".
_ENCODINGS = {
    **dict.fromkeys([b"iso88591", b"latin1"], "iso-8859-1"),
    **dict.fromkeys([b"windows1252", b"cp1252"], "windows-1252"),
    **dict.fromkeys([b"usascii", b"ascii"], "us-ascii"),
    # UTF-16 is recognized by its zero bytes. .NET declares it for text that is sent as UTF-8.
    **dict.fromkeys([b"utf8", b"utf16", b"utf16le", b"utf16be"], _UTF_8),
}
# CallFire's declaration has 38 bytes.
_MAX_DECLARATION_LENGTH = 256
_DECLARED = re.compile(rb"\sencoding\s*=\s*[\"']([^\"']*)")
_CHARSET = re.compile(rb"charset=[\"']?([\w-]+)", re.IGNORECASE)
# The first byte of an encoded surrogate, and of some characters. Python decodes surrogates slowly, and no real text
# has this many.
_SURROGATE_LEAD = 0xED
_MAX_SURROGATES = 20_000


class EncodingError(ValueError):
    """Raised inside the package for bytes that cannot be decoded, and for a declared encoding that is not supported."""


def decode(body: bytes | str, content_type: str | None) -> bytes | str:
    """
    Return a document as text or as UTF-8, without a byte order mark and leading white space.

    Args:
        body: The document. If it is text, an encoding in its XML declaration is ignored.
        content_type: Its charset is used only for a single-byte body that declares no encoding.

    Raises:
        EncodingError: The body does not match its encoding, or the XML declaration has an encoding that is not
            supported.
    """
    if isinstance(body, str):
        return body.lstrip("\ufeff" + _WHITE_SPACE)
    if body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return _decode(body, "utf-16").lstrip()
    document = body.removeprefix(codecs.BOM_UTF8).lstrip(_WHITE_SPACE.encode())
    utf_16 = _UTF_16.get(document[:2])
    # The declaration is ASCII in UTF-16 too, except for the zero bytes.
    head = document[:_MAX_DECLARATION_LENGTH].replace(b"\0", b"") if utf_16 else document[:_MAX_DECLARATION_LENGTH]
    declared = _declared_encoding(head.partition(b"?>")[0]) if head.startswith(b"<?xml") else None
    if body.startswith(codecs.BOM_UTF8):
        return document
    encoding = utf_16 or declared or _encoding_of_content_type(document, content_type)
    return document if encoding == _UTF_8 else _decode(document, encoding)


def decode_json(body: bytes) -> str:
    """Return the text of a JSON document in UTF-8, UTF-16 or UTF-32."""
    # JSON starts with an ASCII character, so that every encoding but UTF-8 has a NUL among the first four bytes.
    if 0 in body[:4]:
        return _decode(body, json.detect_encoding(body))
    return decode_utf_8(body)


def decode_utf_8(body: bytes) -> str:
    """
    Return the text of UTF-8 in which a character above U+FFFF may be a pair of encoded surrogates.

    Some Java writers send that form, CESU-8. A lone surrogate is an error as in UTF-8.
    """
    try:
        return body.decode()
    except UnicodeDecodeError:
        pass
    try:
        if body.count(_SURROGATE_LEAD) <= _MAX_SURROGATES:
            return join_surrogates(body.decode(_UTF_8, "surrogatepass"))
    except UnicodeDecodeError:
        pass
    raise EncodingError("not valid UTF-8")


def join_surrogates(text: str, errors: str = "strict") -> str:
    """Return text with one character for each pair of surrogates; a lone one is handled by *errors*, as in `decode`."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", errors)


def _decode(body: bytes, encoding: str) -> str:
    try:
        return body.decode(encoding)
    except UnicodeDecodeError:
        raise EncodingError(f"not valid {encoding.upper()}") from None


@lru_cache(maxsize=32)
def _declared_encoding(declaration: bytes) -> str | None:
    name = _DECLARED.search(declaration)
    if name is None:
        return None
    encoding = _find_encoding(name[1])
    if encoding is None:
        raise EncodingError("the encoding in the XML declaration is not supported")
    return encoding


def _encoding_of_content_type(document: bytes, content_type: str | None) -> str:
    if content_type is None or _is_utf_8(document):
        return _UTF_8
    charset = _CHARSET.search(content_type.encode(errors="replace"))
    encoding = _find_encoding(charset[1]) if charset else None
    return encoding if encoding in _SINGLE_BYTE else _UTF_8


def _find_encoding(name: bytes) -> str | None:
    return _ENCODINGS.get(name.translate(None, b"-_").lower())


def _is_utf_8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True
