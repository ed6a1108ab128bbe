"""Checks of a receiver's arguments, so that a wrong one is refused by the constructor and not by the first event."""

import warnings

from callfire_async._arguments import (
    check_async_function,
    check_bool,
    check_instance,
    check_integer,
    check_methods,
    check_number,
    type_name,
)
from callfire_async.notifications.inbox._inbox_arguments import check_inbox
from callfire_async.notifications.retry import RetryPolicy
from callfire_async.notifications.routing.router import Router
from callfire_async.notifications.security.signatures import SignaturePolicy, SigningSecrets
from callfire_async.notifications.security.tokens import EndpointTokens

# Those that the adapters call.
_RECEIVER_METHODS = ("__aenter__", "receive", "redact", "health")


def check_receiver(receiver: object) -> None:
    """Raise a `TypeError` if a value is a class, or lacks a method of a receiver."""
    check_methods("receiver", receiver, _RECEIVER_METHODS, "a Receiver, such as Receiver(router, tokens=tokens)")


def to_endpoint_tokens(tokens: object) -> EndpointTokens | None:
    """Return the argument as endpoint tokens; None accepts requests without a token."""
    if isinstance(tokens, str):
        return EndpointTokens(tokens)
    if tokens is None or isinstance(tokens, EndpointTokens):
        return tokens
    raise TypeError(
        "tokens must be an EndpointTokens, a string, or None to accept requests without a token, not "
        f"{type_name(tokens)}"
    )


def to_signature_policy(signing_secrets: object, *, require_signature: bool, tokens: object) -> SignaturePolicy | None:
    """Return the arguments as a policy; None ignores signatures. Warn if anyone may post without a signature."""
    check_bool("require_signature", require_signature)
    secrets = _to_signing_secrets(signing_secrets)
    if secrets is not None:
        if tokens is None and not require_signature:
            warnings.warn(
                "require_signature=False with tokens=None accepts postbacks from anyone; pass tokens", stacklevel=3
            )
        return SignaturePolicy(secrets, require_signature)
    if not require_signature:
        raise TypeError("require_signature=False can only be used with signing_secrets")
    return None


def _to_signing_secrets(secrets: object) -> SigningSecrets | None:
    if isinstance(secrets, str):
        return SigningSecrets(secrets)
    if secrets is None or isinstance(secrets, SigningSecrets):
        return secrets
    raise TypeError(
        f"signing_secrets must be a SigningSecrets, a string, or None to ignore signatures, not {type_name(secrets)}"
    )


def check_router(router: object) -> None:
    """Raise an error unless this is a router with a handler."""
    check_instance("router", router, Router, "Router()")
    if isinstance(router, Router) and router.is_empty:
        raise ValueError("router must have a handler; register the handlers before creating the receiver")


def check_limits(*, max_body_bytes: object, body_timeout: object, handler_timeout: object) -> None:
    """Raise an error unless the limits are positive numbers; *handler_timeout* may be None."""
    check_integer("max_body_bytes", max_body_bytes, minimum=1)
    check_number("body_timeout", body_timeout, is_exclusive=True)
    if handler_timeout is not None:
        check_number("handler_timeout", handler_timeout, is_exclusive=True)


def check_worker_arguments(
    inbox: object,
    *,
    concurrency: object,
    retry: object,
    shutdown_timeout: object,
    on_dead_letter: object,
    unhandled: object,
) -> None:
    """Raise an error unless the arguments that are given are valid, and there is an inbox if any is given."""
    if concurrency is not None:
        check_integer("concurrency", concurrency)
    if retry is not None:
        check_instance("retry", retry, RetryPolicy, "RetryPolicy(max_attempts=3)")
    if shutdown_timeout is not None:
        check_number("shutdown_timeout", shutdown_timeout)
    if on_dead_letter is not None:
        check_async_function("on_dead_letter", on_dead_letter, "async def report(entry)", on_dead_letter)
    if unhandled not in (None, "dead_letter", "ignore"):
        raise ValueError('unhandled must be "dead_letter" or "ignore"')
    if inbox is not None:
        check_inbox("inbox", inbox)
        return
    arguments = {
        "concurrency": concurrency,
        "retry": retry,
        "shutdown_timeout": shutdown_timeout,
        "on_dead_letter": on_dead_letter,
        "unhandled": unhandled,
    }
    if given := [name for name, value in arguments.items() if value is not None]:
        raise TypeError(f"{', '.join(given)} can only be used with an inbox")
