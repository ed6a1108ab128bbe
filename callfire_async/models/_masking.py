"""Masks that keep phone numbers, messages and secrets out of a ``repr``."""

import re
from typing import Any
from urllib.parse import urlsplit

from attrs import field

# Seven digits or more, grouped by hyphens or not. A port has at most five; the dots of an IP address split its digits.
_PHONE_NUMBER = re.compile(r"\d(?:-?\d){6,}")


class RedactedStr(str):
    """A string whose ``repr`` is masked, for a secret inside a mapping or an object that may be printed."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


def masked_number(number: str | None) -> str:
    """Return the ``repr`` of a phone number with all but its last two digits masked."""
    if number is None:
        return "None"
    return repr("***" + "".join(re.findall(r"\d", number))[2:][-2:])


def masked_text(text: object) -> str:
    """Return the ``repr`` of a message or of other private content, masked unless it is empty."""
    return "None" if text is None else repr("***") if text else repr(text)


def masked_endpoint(endpoint: str | None) -> str:
    """
    Return the ``repr`` of an endpoint without its last path segment, query, fragment and userinfo.

    An e-mail address keeps its domain only. Phone numbers in the rest of the URL are masked.
    """
    if endpoint is None:
        return "None"
    try:
        parts = urlsplit(endpoint)
    except ValueError:
        return repr("***")
    userinfo, at, host = parts.netloc.rpartition("@")
    if not host:
        return repr("***" + "".join(endpoint.rpartition("@")[1:]) if "@" in endpoint else "***")
    parent, slash, _ = parts.path.rstrip("/").rpartition("/")
    location = _PHONE_NUMBER.sub(lambda number: masked_number(number[0]).strip("'"), host + parent)
    masked = f"{parts.scheme}://{'***' if userinfo else ''}{at}{location}{slash}{'***' if slash else ''}"
    return repr(masked + ("?***" if parts.query else "") + ("#***" if parts.fragment else ""))


def phone_number_field() -> Any:
    """Return an optional attrs field for a phone number, masked in the ``repr``."""
    return field(default=None, repr=masked_number)


def private_text_field() -> Any:
    """Return an optional attrs field for text that people wrote, masked in the ``repr``."""
    return field(default=None, repr=masked_text)
