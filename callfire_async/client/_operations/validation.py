"""Validate the client's settings and the parameters of its operations; an error never quotes a value."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from numbers import Real
from typing import TypeVar
from urllib.parse import urlsplit

from callfire_async.models import OpenEnum, checked_integer, checked_text, wrong_type

_HOST = re.compile(r"[\w.:-]+", re.ASCII)
_EXAMPLE_URLS = {
    "base_url": "https://www.callfire.com/api/1.1/rest",
    "webhooks_base_url": "https://api.callfire.com/v2",
}
_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f]")


E = TypeVar("E", bound=OpenEnum)

# --- settings ---------------------------------------------------------------------------------------------


def checked_base_url(base_url: str, *, name: str = "base_url") -> str:
    """Return *base_url* without a trailing slash, or raise an error that does not quote it."""
    if not isinstance(base_url, str):
        raise wrong_type(name, "a string", base_url)
    try:
        parts = urlsplit(base_url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError(f"{name} is not a URL") from None
    has_space = not base_url.isprintable() or " " in base_url
    if parts.scheme not in ("https", "http") or not _HOST.fullmatch(host) or has_space:
        raise ValueError(f"{name} must be a URL with https and a host, such as {_EXAMPLE_URLS[name]}")
    if "@" in parts.netloc:
        raise ValueError(f"{name} must not contain credentials: pass them as login and password")
    if "?" in base_url or "#" in base_url:
        raise ValueError(f"{name} must not have a query or a fragment")
    if parts.scheme == "http" and not is_loopback(host):
        raise ValueError(f"{name} must use https, except on loopback: http sends the password unencrypted")
    return base_url.rstrip("/")


def is_loopback(host: str) -> bool:
    """Return whether *host* is this machine's loopback address or ``localhost``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def checked_credential(name: str, value: str) -> str:
    """Return a login or a password that HTTP Basic can carry, or raise an error."""
    if value == "":
        raise ValueError(f"{name} is empty, so there are no credentials: pass CallFire's API {name}")
    text = checked_text(name, value)
    if _CONTROL_CHARACTER.search(text):
        raise ValueError(f"{name} must not contain control characters, such as a line break at its end")
    if name == "login" and ":" in text:
        raise ValueError("login must not contain a colon, which ends the login in HTTP Basic authentication")
    return text


def checked_timeout(seconds: object) -> float:
    """Return *seconds*, or raise ValueError if they are out of range and TypeError if they are not a number."""
    if isinstance(seconds, bool) or not isinstance(seconds, Real):
        raise wrong_type("timeout", "a number of seconds", seconds)
    try:
        number = float(seconds)
    except OverflowError:
        number = math.inf
    if not 0 < number < math.inf:
        raise ValueError("timeout must be a finite number of seconds above 0")
    return number


def checked_count(name: str, count: int, *, minimum: int, maximum: float = math.inf) -> int:
    """Return *count*, or raise ValueError if it is out of range and TypeError if it is not an integer."""
    number = checked_integer(name, count)
    if not minimum <= number <= maximum:
        upper = "" if maximum == math.inf else f" to {maximum}"
        raise ValueError(f"{name} must be an integer from {minimum}{upper}")
    return number


# --- parameters of operations -----------------------------------------------------------------------------

# An unknown value in this form may be one that CallFire has added to an open enumeration.
_OPEN_VALUE = re.compile(r"[A-Z][A-Z0-9_]*")
# Names of events whose triggers are called differently.
_EVENT_TRIGGERS = {
    "TEXT_NOTIFICATION": "TEXT_FINISHED",
    "TEXT_RECEIVED": "INBOUND_TEXT_FINISHED",
    "TEXT_SENT": "OUTBOUND_TEXT_FINISHED",
}


def insecure_settings(name: str, url: str, *, non_strict_ssl: bool) -> Iterator[str]:
    """Yield a warning for each setting that exposes the postbacks to third parties; *name* is that of the URL."""
    if _is_plain_http(url.strip()):
        yield f"{name} uses http://: phone numbers, messages and the token are sent unencrypted; use https://"
    if non_strict_ssl:
        yield f"non_strict_ssl=True: CallFire does not verify the {name}'s certificate, so others can impersonate it"


def _is_plain_http(url: str) -> bool:
    if not url.lower().startswith("http://"):
        return False
    try:
        return not is_loopback(urlsplit(url).hostname or "")
    except ValueError:
        return True


def checked_time(name: str, value: object) -> datetime:
    """Return a datetime, or raise TypeError."""
    if not isinstance(value, datetime):
        raise wrong_type(name, "a datetime", value)
    return value


def checked_begin(name: str, value: object) -> datetime:
    """Return a datetime, rounded down to the second, or raise TypeError."""
    return checked_time(name, value).replace(microsecond=0)


def checked_end(name: str, value: object) -> datetime:
    """Return a datetime, rounded up to the second, or raise TypeError."""
    end = checked_time(name, value)
    second = end.replace(microsecond=0)
    try:
        return second + timedelta(seconds=end.microsecond > 0)
    except OverflowError:  # the last second of year 9999
        return second


def checked_aware_time(name: str, value: object) -> datetime:
    """Return a datetime with a time zone, or raise TypeError or ValueError."""
    moment = checked_time(name, value)
    if moment.utcoffset() is None:
        raise ValueError(f"{name} must be an aware datetime, such as datetime.now(UTC) + timedelta(days=1)")
    return moment


def checked_choice(name: str, value: object, kind: type[OpenEnum], *, expected: str = "") -> str:
    """Return a value of an open enumeration, or raise TypeError or ValueError; a new value must be upper-case."""
    expected = expected or f"{_with_article(kind.__name__)} or a string"
    return _checked_value(name, value, kind, expected=expected, listed="one of")


def checked_choices(name: str, value: object, kind: type[OpenEnum]) -> tuple[str, ...]:
    """Return one value of an open enumeration or several, or raise TypeError or ValueError."""
    expected = f"{_with_article(kind.__name__)} or a string, or several of them"
    items = _several(name, value, expected)
    return tuple(_checked_value(name, item, kind, expected=expected, listed="one or more of") for item in items)


def checked_name(name: str, value: object, kind: type[E]) -> E:
    """Return a value of an open enumeration of API v2 in CallFire's spelling, or raise TypeError or ValueError."""
    expected = f"{_with_article(kind.__name__)} or a string"
    if isinstance(value, OpenEnum) and not isinstance(value, kind):
        raise wrong_type(name, expected, value)
    return kind(checked_text(name, value, expected=expected))


def checked_names(name: str, values: object, kind: type[E]) -> tuple[E, ...]:
    """Return values of an open enumeration of API v2, each once, or raise TypeError or ValueError."""
    if isinstance(values, str | bytes | bytearray | Mapping | type) or not isinstance(values, Iterable):
        raise wrong_type(name, f"a list of {kind.__name__}", values)
    checked = dict.fromkeys(checked_name(f"{name}[{index}]", value, kind) for index, value in enumerate(values))
    if not checked:
        raise ValueError(f"{name} must not be empty")
    return tuple(checked)


def checked_strings(name: str, value: object) -> tuple[str, ...]:
    """Return one string or several, or raise TypeError, or ValueError if one contains CallFire's separators."""
    expected = "a string, or several of them"
    strings = tuple(checked_text(name, item, expected=expected) for item in _several(name, value, expected))
    if any(re.search(r"[\s,]", string) for string in strings):
        raise ValueError(f"{name} must not contain white space or commas: pass several as a list")
    return strings


def _several(name: str, value: object, expected: str) -> tuple[object, ...]:
    """Return one value or several, at least one."""
    if isinstance(value, str):
        return (value,)
    if isinstance(value, bytes | bytearray | type) or not isinstance(value, Iterable):
        raise wrong_type(name, expected, value)
    if not (items := tuple(value)):
        raise ValueError(f"{name} must not be empty")
    return items


def _checked_value(name: str, value: object, kind: type[OpenEnum], *, expected: str, listed: str) -> str:
    if isinstance(value, OpenEnum) and not isinstance(value, kind):
        raise wrong_type(name, expected, value)
    if isinstance(value, type):
        raise TypeError(f"{wrong_type(name, expected, value)}{_suggestion(value.__name__, kind)}")
    text = checked_text(name, value, expected=expected)
    if _OPEN_VALUE.fullmatch(text):
        return text
    raise ValueError(f"{name} must be {listed} {', '.join(kind)}{_suggestion(text, kind)}")


def _suggestion(text: str, kind: type[OpenEnum]) -> str:
    """Return the values that *text* can mean, or a remark about several values in one string."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|\W+", "_", text.strip()).upper()
    words = _EVENT_TRIGGERS.get(words, words)
    meant = [value for value in kind if words and f"_{value}".endswith(f"_{words}")]
    if meant:
        return f"; did you mean {' or '.join(meant)}?"
    is_list = {*re.split(r"[\s,]+", text.strip().upper())} <= {*map(str, kind)}
    return ": pass several as a list" if is_list else ""


def _with_article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "AEIOU" else f"a {noun}"


def comparable_number(number: str) -> str:
    """Normalize a number, or ``SHORTCODE:KEYWORD``, for comparison; CallFire may return another format."""
    return re.sub(r"[^\w:]", "", number).upper()
