"""Checks a server's address where it is given; no message contains the address, which may hold a password."""

from __future__ import annotations

import re
from collections.abc import Collection
from urllib.parse import SplitResult, urlsplit

__all__ = ["AddressError", "parse_address"]

_BLANK = re.compile(r"[\s\x00-\x1f\x7f]")
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_HOST = re.compile(r"(?:\[[^\[\]]+\]|[^:\[\]]*)(?::([0-9]*))?")
_MAX_PORT = 65535
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}")


class AddressError(ValueError):  # internal: raised to users as a ValueError that names the parameter
    """Raised if an address is invalid; the message names the problem without quoting the address."""


def parse_address(address: str, schemes: Collection[str]) -> SplitResult:
    """
    Split an address of the form ``scheme://user:password@host:port/path?name=value``.

    Several hosts, separated by commas, are accepted.

    Raises:
        AddressError: The scheme is not one of *schemes*, or a character must be percent-encoded.
    """
    _check_characters(address)
    scheme, separator, _ = address.partition("://")
    if not separator:
        raise AddressError("'://' is missing")
    if scheme.lower() not in schemes:
        raise AddressError(_scheme_problem(scheme, schemes))
    _check_percent_encoding(address)
    try:
        parts = urlsplit(address)
    except ValueError:  # its message may quote the address
        raise AddressError("the host cannot be read; '[' and ']' are only for an IPv6 address") from None
    _check_hosts(parts)
    return parts


def _scheme_problem(scheme: str, schemes: Collection[str]) -> str:
    base = scheme.partition("+")[0]
    if base != scheme and base.lower() in schemes:
        return f"the scheme names a driver, as SQLAlchemy's addresses do; write {base}://"
    # Quoted only if it is a scheme, because it may belong to a password.
    return f"{scheme}:// is not a supported scheme" if _SCHEME.fullmatch(scheme) else "the scheme is invalid"


def _check_characters(address: str) -> None:
    if not address:
        raise AddressError("the address is empty")
    if _BLANK.search(address):
        raise AddressError("there is a space, a line break or another control character (a space is %20)")


def _check_percent_encoding(address: str) -> None:
    if "#" in address:
        raise AddressError("'#' must be %23")
    if _BAD_PERCENT.search(address):
        raise AddressError("'%' must be %25 if no two hexadecimal digits follow")


def _check_hosts(parts: SplitResult) -> None:
    credentials, _, hosts = parts.netloc.rpartition("@")
    if "@" in credentials:
        raise AddressError("'@' in a user name or password must be %40")
    # A '/' or '?' in a password ends the host too early.
    if "@" in parts.path or (not credentials and "@" in parts.query.partition("=")[0]):
        raise AddressError("'@' follows the host; in a user name or password, '/' must be %2F, '?' %3F and '@' %40")
    for host in hosts.split(","):
        matched = _HOST.fullmatch(host)
        if matched is None or not 0 < int(matched[1] or 1) <= _MAX_PORT:
            raise AddressError("the host or port cannot be read; in a password, '/' must be %2F, '?' %3F and ':' %3A")
