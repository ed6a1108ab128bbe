"""Check arguments. An error begins with the argument's name and never quotes its value, which can be private."""

import operator
from typing import Any


def type_name(value: object) -> str:
    """Return the name of a value's type for an error message."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return "None" if value is None else type(value).__name__


def wrong_type(name: str, expected: str, value: object) -> TypeError:
    """Return the error for a value of the wrong type, with the remedy for common mistakes."""
    return TypeError(f"{name} must be {expected}, not {type_name(value)}{_remedy(value)}")


def _remedy(value: object) -> str:
    if isinstance(value, bytes | bytearray):
        return ": decode it, as in value.decode()"
    if hasattr(value, "get_secret_value"):  # pydantic's SecretStr
        return ": pass secret.get_secret_value()"
    return ""


def checked_text(name: str, value: object, *, expected: str = "a string") -> str:
    """Return a string, or raise TypeError if it is of another type and ValueError if it is blank or not Unicode."""
    if not isinstance(value, str):
        raise wrong_type(name, expected, value)
    if not value.strip():
        raise ValueError(f"{name} must not be empty")
    try:
        # str's own method: that of a subclass may return a mask.
        return str.encode(value).decode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} must not contain half of a surrogate pair") from None


def checked_boolean(name: str, value: object) -> bool:
    """Return a boolean, or raise TypeError."""
    if not isinstance(value, bool):
        raise wrong_type(name, "True or False", value)
    return value


def checked_integer(name: str, value: Any) -> int:
    """Return an integer, or raise TypeError; a boolean is not an integer."""
    if not isinstance(value, bool) and hasattr(type(value), "__index__"):
        return operator.index(value)
    remedy = ": pass its id" if isinstance(getattr(value, "id", None), int) else ""
    raise TypeError(f"{wrong_type(name, 'an integer', value)}{remedy}")
