"""Signatures of API v2 postbacks: the header ``X-CallFire-Signature``."""

import base64
import hashlib
import hmac
import secrets
import warnings

from attrs import frozen

from callfire_async._arguments import MIN_SECRET_LENGTH, is_weak_secret, type_name

__all__ = ["SIGNATURE_HEADER", "SignaturePolicy", "SigningSecrets"]

SIGNATURE_HEADER = "X-CallFire-Signature"


class SigningSecrets:
    """
    The secrets that sign a webhook's postbacks: the current one and, while it is being rotated, previous ones.

    CallFire signs the raw body with HMAC-SHA1 and sends the standard Base64 of the digest. The scheme and a test vector
    are from CallFire's published samples. The signature covers no time stamp: it does not prevent replays.

    Args:
        current: Signs, and verifies.
        previous: Still verify.

    Raises:
        TypeError: A secret is not a string.

    A secret that is empty or has fewer than 16 characters causes a warning: it can be guessed.
    """

    def __init__(self, current: str, *previous: str) -> None:
        values = (current, *previous)
        if not all(isinstance(value, str) for value in values):
            raise TypeError("signing secrets must be strings")
        if any(map(is_weak_secret, values)):
            warnings.warn(f"a signing secret of fewer than {MIN_SECRET_LENGTH} characters can be guessed", stacklevel=2)
        # HMAC objects that have absorbed the key: the attributes of this object do not show it.
        self._signers = [hmac.new(value.encode("utf-8", "surrogatepass"), None, hashlib.sha1) for value in values]

    @staticmethod
    def generate() -> str:
        """Return a new random secret of 43 characters (256 bits)."""
        return secrets.token_urlsafe(32)

    def sign(self, body: bytes) -> str:
        """
        Return the signature of *body* with the current secret.

        Raises:
            TypeError: *body* is not bytes.
        """
        return _signature(self._signers[0], body).decode()

    def verify(self, body: bytes, signature: str | None) -> bool:
        """
        Return whether *signature* is that of *body* with any of the secrets (constant-time comparison).

        Raises:
            TypeError: *body* is not bytes, or *signature* is neither a string nor None.
        """
        if signature is not None and not isinstance(signature, str):
            raise TypeError(f"signature must be a string, not {type(signature).__name__}")
        given = (signature or "").encode("utf-8", "surrogatepass")
        # All secrets are tried in any case, so that the time does not depend on which one matched.
        return sum(hmac.compare_digest(_signature(signer, body), given) for signer in self._signers) > 0

    def __repr__(self) -> str:
        return f"<SigningSecrets: {len(self._signers)}>"


@frozen
class SignaturePolicy:
    """Which signatures a receiver accepts."""

    secrets: SigningSecrets
    #: Whether a postback without a signature is refused. A wrong signature is refused in any case.
    is_required: bool

    def accepts(self, body: bytes, signature: str | None) -> bool:
        """Return whether a body is accepted with this value of the header; None if it has no such header."""
        return not self.is_required if signature is None else self.secrets.verify(body, signature)


def _signature(signer: hmac.HMAC, body: bytes) -> bytes:
    if not isinstance(body, bytes | bytearray | memoryview):
        raise TypeError(f"body must be bytes, not {type_name(body)}")
    copy = signer.copy()
    copy.update(body)
    return base64.b64encode(copy.digest())
