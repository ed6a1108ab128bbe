"""Describe why a request failed, from the exception of the HTTP library and its causes; without I/O."""

from __future__ import annotations

import errno
import os
import re
import socket
import ssl
from collections.abc import Iterator

__all__ = ["causes", "failure_reason"]

# OpenSSL's reasons if the server's first bytes are not TLS.
_NOT_TLS = frozenset(["WRONG_VERSION_NUMBER", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "UNKNOWN_PROTOCOL"])
_UNKNOWN_HOST = frozenset([socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)])

# The messages of httpcore and h11 that are reasons of their own.
_PROTOCOL_REASONS = {
    "Server disconnected": "the server closed the connection without a response",
    "peer closed connection": "the server closed the connection before the end of the response",
}


def failure_reason(error: BaseException) -> str | None:
    """
    Return why a request failed, or None if the exception and its causes do not have a known reason.

    The text depends on types and codes. It quotes no message except OpenSSL's about a certificate: other messages can
    contain parts of a response.
    """
    reasons = (_reason_of(cause) for cause in causes(error))
    return next((reason for reason in reasons if reason), None)


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception, then the members of a group and the causes, each once."""
    pending, known = [error], set[int]()
    while pending:
        current = pending.pop(0)
        if id(current) in known:  # an exception can be its own cause
            continue
        known.add(id(current))
        yield current
        members = current.exceptions if isinstance(current, BaseExceptionGroup) else ()
        pending += [cause for cause in (*members, current.__cause__ or current.__context__) if cause]


def _reason_of(error: BaseException) -> str | None:
    if isinstance(error, ssl.SSLError):
        return _tls_reason(error)
    if isinstance(error, OSError):
        return _system_reason(error)
    return _protocol_reason(error)


def _tls_reason(error: ssl.SSLError) -> str:
    # Only errors that Python's own ssl module raises have these attributes.
    reason = getattr(error, "reason", None)
    if isinstance(error, ssl.SSLCertVerificationError):
        details = getattr(error, "verify_message", "").rstrip(".")
        return f"certificate verification failed{': ' if details else ''}{details}"
    if isinstance(error, ssl.SSLEOFError):
        return "the server closed the connection during the TLS handshake"
    if reason in _NOT_TLS:
        return "the server does not use TLS on this port"
    return f"TLS error: {reason.replace('_', ' ').lower()}" if reason else "TLS error"


def _system_reason(error: OSError) -> str | None:
    if isinstance(error, socket.gaierror):
        return _resolver_reason(error)
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, ConnectionError):
        return "connection reset by the server"
    # The text of the system's code, since the exception's own can contain a path or a message.
    return os.strerror(code).lower() if (code := error.errno or 0) in errno.errorcode else None


def _resolver_reason(error: socket.gaierror) -> str:
    if error.errno in _UNKNOWN_HOST:
        return "host name not found"
    is_temporary = error.errno == socket.EAI_AGAIN
    return f"host name cannot be resolved{': temporary failure of the name server' if is_temporary else ''}"


def _protocol_reason(error: BaseException) -> str | None:
    # By name, since the exceptions of several HTTP libraries have these names.
    kind = type(error).__name__
    if kind == "ProxyError":
        status = re.match(r"[1-9][0-9]{2}\b", str(error))
        return f"the proxy returned {status[0]}" if status else "the proxy rejected the connection"
    if kind != "RemoteProtocolError":
        return None
    for start, reason in _PROTOCOL_REASONS.items():
        if str(error).startswith(start):
            return reason
    # A custom transport can raise an HTTP library's exception for another reason, but not the parser's.
    return "the response is not valid HTTP" if type(error).__module__.partition(".")[0] == "h11" else None
