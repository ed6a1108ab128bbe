"""
The secret in an endpoint's URL: all that proves that a postback came from CallFire.

CallFire signs nothing; its own advice is a secret token in the endpoint. This module imports nothing of the package.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import warnings
from urllib.parse import urlsplit

__all__ = ["EndpointTokens"]

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
        self._current = current
        self._digests = [_digest(token) for token in tokens]

    @staticmethod
    def generate() -> str:
        """Return a new random token of 43 characters (256 bits)."""
        return secrets.token_urlsafe(32)

    def opens(self, token: str | None) -> bool:
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

    def __repr__(self) -> str:
        """Say how many there are, and nothing else."""
        return f"<EndpointTokens: {len(self._digests)}>"


def _digest(token: str) -> bytes:
    # compare_digest refuses text that is not ASCII, and what a stranger sends need not be.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
