"""Validate the client's settings and the parameters that all operations have in common."""

from __future__ import annotations

import ipaddress
import math
import operator
import re
from urllib.parse import urlsplit

_HOST = re.compile(r"[\w.:-]+", re.ASCII)


def checked_base_url(base_url: str) -> str:
    """Return *base_url* without a trailing slash, or raise a ValueError that does not quote it."""
    try:
        parts = urlsplit(base_url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError("base_url is not a URL") from None
    has_space = not base_url.isprintable() or " " in base_url
    if parts.scheme not in ("https", "http") or not _HOST.fullmatch(host) or has_space:
        raise ValueError("base_url must be a URL with https and a host, such as https://www.callfire.com/api/1.1/rest")
    if "@" in parts.netloc:
        raise ValueError("base_url must not contain credentials: pass them as login and password")
    if "?" in base_url or "#" in base_url:
        raise ValueError("base_url must not have a query or a fragment")
    if parts.scheme == "http" and not is_loopback(host):
        raise ValueError("base_url must use https, except on loopback: http sends the password unencrypted")
    return base_url.rstrip("/")


def is_loopback(host: str) -> bool:
    """Return whether *host* is this machine's loopback address or ``localhost``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def checked_timeout(seconds: float) -> float:
    """Return *seconds*, or raise ValueError."""
    if not 0 < seconds < math.inf:
        raise ValueError("timeout must be a finite number of seconds above 0")
    return seconds


def checked_count(name: str, count: int, *, minimum: int, maximum: float = math.inf) -> int:
    """Return *count*, or raise ValueError if it is out of range and TypeError if it is not an integer."""
    if not minimum <= operator.index(count) <= maximum:
        upper = "" if maximum == math.inf else f" to {maximum}"
        raise ValueError(f"{name} must be an integer from {minimum}{upper}")
    return count
