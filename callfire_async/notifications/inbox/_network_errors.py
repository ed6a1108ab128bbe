"""The causes of connection failures in words that are the same for all servers."""

from __future__ import annotations

import errno
import os
import re
import socket
import ssl

__all__ = ["CONNECTION_CLOSED", "describe_network_error"]

CONNECTION_CLOSED = "the server closed the connection"

# The message of asyncio if a name has several addresses and each of them failed.
_NUMBERS = re.compile(r"\[Errno (\d+)\]")
_TEXTS = {
    errno.ECONNREFUSED: "connection refused",
    errno.ECONNRESET: CONNECTION_CLOSED,
    errno.EPIPE: CONNECTION_CLOSED,
    errno.ECONNABORTED: CONNECTION_CLOSED,
    errno.ETIMEDOUT: "the host did not respond",
    errno.ENOENT: "there is no socket at this path",
}
# OpenSSL's reasons for a peer that does not use TLS, and for one that speaks it too early.
_NO_TLS_REASONS = frozenset(["WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"])


def describe_network_error(error: BaseException) -> str | None:
    """Return the cause of a failed connection; None if *error* is not a network error."""
    if isinstance(error, ssl.SSLError):
        return _describe_tls_error(error)
    if isinstance(error, socket.gaierror):
        return f"unknown host: the name cannot be resolved ({_reason(error)})"
    if isinstance(error, UnicodeError):
        return "unknown host: the name is invalid"
    if isinstance(error, TimeoutError) and not error.errno:
        return "no response"
    return _describe_os_error(error) if isinstance(error, OSError) else None


def _describe_tls_error(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS failed: the server's certificate is not accepted: {error.verify_message}"
    if error.reason in _NO_TLS_REASONS:
        return "TLS failed: the server does not use TLS on this port"
    return f"TLS failed: {error.reason or 'the server ended the handshake'}"


def _describe_os_error(error: OSError) -> str:
    numbers = {error.errno} if error.errno else {int(number) for number in _NUMBERS.findall(str(error))}
    texts = sorted({_TEXTS.get(number) or os.strerror(number) for number in numbers})
    return " and ".join(texts) or _text_without_number(error)


def _text_without_number(error: OSError) -> str:
    closed = isinstance(error, ConnectionResetError | BrokenPipeError | ConnectionAbortedError)
    return CONNECTION_CLOSED if closed else str(error) or type(error).__name__


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
