"""
The secret in an endpoint's URL: all that proves that a postback came from CallFire.

CallFire signs nothing; its own advice is a secret token in the endpoint. This module imports nothing of the package.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import warnings
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from callfire_async.models import RedactedStr

__all__ = ["EndpointTokens", "RedactTokenFilter"]

# 16 of these characters are 95 bits: out of reach for whoever guesses over a network.
_SHORTEST = 16
_ALLOWED = re.compile(r"[A-Za-z0-9_-]+")


class EndpointTokens:
    """
    The tokens that open an endpoint: the current one, and while it is being changed, previous ones.

    Args:
        current: What ``url`` puts into new endpoints.
        previous: What still opens.

    Raises:
        ValueError: A token has other characters than ASCII letters, digits, ``-`` and ``_``, or none.

    A token of fewer than 16 characters is warned of.
    """

    def __init__(self, current: str, *previous: str) -> None:
        tokens = (current, *previous)
        if not all(_ALLOWED.fullmatch(token) for token in tokens):
            raise ValueError("a token is made of ASCII letters, digits, - and _; EndpointTokens.generate() makes one")
        if any(len(token) < _SHORTEST for token in tokens):
            warnings.warn(f"a token of fewer than {_SHORTEST} characters can be guessed", stacklevel=2)
        self._current = RedactedStr(current)
        # The method alone: a printed pattern would show what it looks for.
        self._mask = re.compile("|".join(map(_in_a_url, sorted(tokens, key=len, reverse=True)))).sub
        self._digests = [_digest(token) for token in tokens]

    @staticmethod
    def generate() -> str:
        """Return a new random token of 43 characters (256 bits)."""
        return secrets.token_urlsafe(32)

    def verify(self, token: str | None) -> bool:
        """Tell whether this is one of the tokens, in a time that says nothing of how near it is."""
        digest = _digest(token or "")
        # Every token is compared, whichever fits.
        return sum(hmac.compare_digest(digest, known) for known in self._digests) > 0

    def url(self, base: str) -> str:
        """
        Return the endpoint to subscribe with: *base* and the current token.

        Args:
            base: Where the receiver is reached, as in ``https://hooks.example.com/callfire``.

        Raises:
            ValueError: *base* is no URL of http or https, or has a query or fragment.
        """
        parts = urlsplit(base)
        if parts.scheme not in ("https", "http") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("base must be an https URL without a query or fragment")
        return f"{base.rstrip('/')}/{self._current}"

    def masked(self, text: str) -> str:
        """Return *text* with three asterisks for each of the tokens, as it is or percent-encoded."""
        return self._mask("***", text)

    def __repr__(self) -> str:
        """Say how many there are, and nothing else."""
        return f"<EndpointTokens: {len(self._digests)}>"


def _digest(token: str) -> bytes:
    # compare_digest refuses text that is not ASCII, and what a stranger sends need not be.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _in_a_url(token: str) -> str:
    """Make the pattern of a token any of whose characters may be percent-encoded."""
    return "".join(f"(?:{letter}|(?i:%{ord(letter):02x}))" for letter in token)


class RedactTokenFilter(logging.Filter):
    """
    Masks an endpoint's tokens in all that a log record says: its message, arguments, traceback and extra fields.

    The adapters put one on their servers' access logs while the receiver runs. Put one on whatever else logs paths::

        logging.getLogger("gunicorn.access").addFilter(RedactTokenFilter(tokens))

    A logger's filter sees what is logged with that logger, not with those below it; a handler's filter sees all that
    the handler writes.

    Args:
        tokens: What to mask; a string is one token.
    """

    def __init__(self, tokens: EndpointTokens | str) -> None:
        super().__init__()
        self._tokens = EndpointTokens(tokens) if isinstance(tokens, str) else tokens

    def filter(self, record: logging.LogRecord) -> bool:
        """Mask; every record passes."""
        self._mask_traceback(record)
        for name, value in record.__dict__.items():
            if name != "exc_info":
                record.__dict__[name] = self._masked(value)
        return True

    def _mask_traceback(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            said = logging.Formatter().formatException(record.exc_info)
            masked = self._tokens.masked(said)
            if masked != said:
                record.exc_info, record.exc_text = None, masked

    def _masked(self, value: Any) -> Any:
        """Mask in texts and in what holds them; anything else becomes a text only where it would show a token."""
        if isinstance(value, str):
            return self._tokens.masked(value)
        if type(value) in (tuple, list):
            return type(value)(map(self._masked, value))
        if isinstance(value, Mapping):
            return {key: self._masked(item) for key, item in value.items()}
        if value is None or isinstance(value, int | float):
            return value
        said = f"{value} {value!r}"
        return value if self._tokens.masked(said) == said else self._tokens.masked(str(value))
