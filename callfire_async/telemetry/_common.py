"""How this library, and what goes wrong, are called in telemetry. It imports nothing of the package."""

from __future__ import annotations

__all__ = ["SCOPE", "Attributes", "class_name"]

Attributes = dict[str, str | int]

#: The name under which all of it is reported.
SCOPE = __name__.partition(".")[0]


def class_name(error: BaseException) -> str:
    """Name what was raised in a word of which there are few."""
    return f"{type(error).__module__}.{type(error).__qualname__}"
