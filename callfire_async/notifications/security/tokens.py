"""Endpoint tokens: the secret path segment that authenticates CallFire's postbacks, as CallFire recommends."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import warnings
from urllib.parse import urlsplit

from callfire_async._arguments import type_name
from callfire_async.models import RedactedStr

__all__ = ["EndpointTokens"]

# 16 random characters of this alphabet have 95 bits, too many to guess over a network.
_MIN_LENGTH = 16
_ALLOWED = re.compile(r"[A-Za-z0-9_-]+")


class EndpointTokens:
    """
    The valid tokens of an endpoint: the current one and, during a rotation, previous ones.

    Warns about tokens of fewer than 16 characters.

    Args:
        current: The token that ``url`` appends.
        previous: Further valid tokens.

    Raises:
        TypeError: A token is not a string.
        ValueError: A token is empty or has characters other than ASCII letters, digits, ``-`` and ``_``.
    """

    def __init__(self, current: str, *previous: str) -> None:
        tokens = (current, *previous)
        if not all(isinstance(token, str) for token in tokens):
            raise TypeError("tokens must be strings; use EndpointTokens.generate()")
        if not all(_ALLOWED.fullmatch(token) for token in tokens):
            raise ValueError("tokens must consist of ASCII letters, digits, - and _; use EndpointTokens.generate()")
        if any(len(token) < _MIN_LENGTH for token in tokens):
            warnings.warn(f"tokens of fewer than {_MIN_LENGTH} characters can be guessed", stacklevel=2)
        self._current = RedactedStr(current)
        # Only the bound method is stored, because the repr of a pattern shows its tokens.
        self._mask = re.compile("|".join(map(_url_pattern, sorted(tokens, key=len, reverse=True)))).sub
        self._digests = [_digest(token) for token in tokens]

    @staticmethod
    def generate() -> str:
        """Return a new random token of 43 characters (256 bits)."""
        return secrets.token_urlsafe(32)

    def verify(self, token: str | None) -> bool:
        """Return whether *token* is valid (constant-time comparison)."""
        digest = _digest(token or "")
        # The sum compares all tokens, so that the time does not depend on which one is equal.
        return sum(hmac.compare_digest(digest, known) for known in self._digests) > 0

    def url(self, base: str) -> str:
        """
        Return the endpoint URL for a subscription: *base* and the current token.

        Args:
            base: The receiver's public URL, such as ``https://hooks.example.com/callfire``.

        Raises:
            TypeError: *base* is not a string.
            ValueError: *base* is not an http or https URL, or has a query or a fragment.
        """
        if not isinstance(base, str):
            raise TypeError(f"base must be a string, not {type_name(base)}")
        parts = urlsplit(base)
        if parts.scheme not in ("https", "http") or not parts.hostname or {"?", "#"} & {*base}:
            raise ValueError("base must be an https URL without a query or fragment")
        return f"{base.rstrip('/')}/{self._current}"

    def masked(self, text: str) -> str:
        """Return *text* with each token, plain or percent-encoded, replaced by three asterisks."""
        return self._mask("***", text)

    def __repr__(self) -> str:
        """Return the number of tokens only."""
        return f"<EndpointTokens: {len(self._digests)}>"


def _digest(token: str) -> bytes:
    # compare_digest accepts only ASCII strings, and a request may contain any character.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _url_pattern(token: str) -> str:
    """Return a pattern that matches a token of which any character may be percent-encoded."""
    return "".join(f"(?:{character}|(?i:%{ord(character):02x}))" for character in token)
