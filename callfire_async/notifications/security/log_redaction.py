"""Redacts endpoint tokens in log records."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from callfire_async._arguments import check_instance
from callfire_async.notifications.security.tokens import EndpointTokens

__all__ = ["RedactTokenFilter"]


class RedactTokenFilter(logging.Filter):
    """
    Masks an endpoint's tokens in log records: in the message, the arguments, the traceback and the extra fields.

    The adapters add one to their servers' access loggers while the receiver runs. Add one to any other logger that
    logs paths::

        logging.getLogger("gunicorn.access").addFilter(RedactTokenFilter(tokens))

    A filter on a logger applies only to records of that logger, not to those of its children. A filter on a handler
    applies to all records that the handler writes.

    Args:
        tokens: The tokens to mask; a string is one token.

    Raises:
        TypeError: *tokens* is neither a string nor an `EndpointTokens`.
    """

    def __init__(self, tokens: EndpointTokens | str) -> None:
        super().__init__()
        self._tokens = EndpointTokens(tokens) if isinstance(tokens, str) else tokens
        check_instance("tokens", self._tokens, EndpointTokens, "EndpointTokens(EndpointTokens.generate())")

    def filter(self, record: logging.LogRecord) -> bool:
        """Mask the tokens in a record; always return True."""
        self._mask_traceback(record)
        for name, value in record.__dict__.items():
            if name != "exc_info":
                record.__dict__[name] = self._masked(value)
        return True

    def _mask_traceback(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            text = logging.Formatter().formatException(record.exc_info)
            masked = self._tokens.masked(text)
            if masked != text:
                record.exc_info, record.exc_text = None, masked

    def _masked(self, value: Any) -> Any:
        """Mask strings and containers; replace any other object with its masked string only if it shows a token."""
        if isinstance(value, str):
            return self._tokens.masked(value)
        if type(value) in (tuple, list):
            return type(value)(map(self._masked, value))
        if isinstance(value, Mapping):
            return {self._masked_key(key): self._masked(item) for key, item in value.items()}
        if value is None or isinstance(value, int | float):
            return value
        text, shown = _formatted(str, value), _formatted(repr, value)
        is_masked = any(self._tokens.masked(one) != one for one in (text, shown))
        return self._tokens.masked(text) if is_masked else value

    def _masked_key(self, key: Any) -> Any:
        return self._tokens.masked(key) if isinstance(key, str) else key


def _formatted(function: Callable[[Any], str], value: Any) -> str:
    """Return the text of a value; nothing if that fails, which logging reports when it formats the record."""
    try:
        return function(value)
    except Exception:  # noqa: BLE001  # of any object that is logged, and the code that logs it must not fail
        return ""
