"""Convert the values whose form in API v2 differs from API 1.1: attributes, hours and amounts."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import time
from decimal import Decimal
from typing import Any

from callfire_async._codec.scalars import Hook, read_integer, read_text
from callfire_async.models import LocalTimeZoneRestriction

_INVALID_HOURS = "not a time of day"


def _read_attributes(value: object, _: object) -> tuple[tuple[str, str], ...]:
    """Return the attributes attached to a number, sorted as those of API 1.1 are."""
    if not value:
        return ()
    return tuple(sorted((name, read_text(text) or "") for name, text in _members(value).items()))


def _read_restriction(value: object, _: object) -> LocalTimeZoneRestriction | None:
    """Return the restriction, or None if it is missing or not enabled."""
    if not value or (hours := _members(value)).get("enabled") is False:
        return None
    begin, end = (_read_time_of_day(hours, name) for name in ("begin", "end"))
    return None if begin is end is None else LocalTimeZoneRestriction(begin, end)


def _read_time_of_day(hours: Mapping[str, Any], name: str) -> time | None:
    hour, minute = (read_integer(hours.get(f"{name}{unit}")) for unit in ("Hour", "Minute"))
    if hour is None:
        return None
    try:
        return time(hour, minute or 0)
    except (ValueError, OverflowError):
        raise ValueError(_INVALID_HOURS) from None


def _members(value: object) -> Mapping[str, Any]:
    if isinstance(value, dict):
        return value
    raise ValueError("not an object")


#: The hooks of the attributes whose form differs between the API generations.
HOOKS_BY_NAME: Mapping[str, Hook] = {
    "to_number_attributes": _read_attributes,
    "local_time_zone_restriction": _read_restriction,
}


def format_restriction(restriction: LocalTimeZoneRestriction) -> dict[str, Any]:
    """Return a restriction as an object with hours and minutes; seconds are cut off."""
    parts: dict[str, Any] = {"enabled": True}
    for name, moment in (("begin", restriction.begin_time), ("end", restriction.end_time)):
        if moment is not None:
            parts |= {f"{name}Hour": moment.hour, f"{name}Minute": moment.minute}
    return parts


def format_amount(amount: Decimal) -> int | float:
    """Return an amount as a JSON number, an integer if it is one."""
    return int(amount) if amount == amount.to_integral_value() else float(amount)
