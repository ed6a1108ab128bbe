"""
Finds the endpoint of an application: the path at which a receiver takes postbacks.

It imports `notifications.receiver` and, of the adapters, that for ASGI; of the frameworks only what is loaded already.
"""

import sys
from collections.abc import Iterable, Iterator
from typing import Any

from attrs import frozen

from callfire_async.notifications.asgi import NotificationApp
from callfire_async.notifications.receiver import Receiver

__all__ = ["Endpoint", "find_endpoint", "is_aiohttp_target"]

_TOKEN = "/{token}"  # noqa: S105  # where it stands in a path


@frozen
class Endpoint:
    """A receiver, and the path before its token."""

    receiver: Receiver
    prefix: str

    def path(self, token: str | None) -> str:
        """Return the path that *token* makes, or else the receiver's own; it ends with a slash where there is none."""
        tokens = self.receiver.tokens
        if token is None and tokens is not None:
            # A URL needs a host; whose, is of no importance.
            return tokens.url(f"http://localhost{self.prefix}").removeprefix("http://localhost")
        return f"{self.prefix}/{token or ''}"


def find_endpoint(target: Any, path: str | None, receiver: Receiver | None) -> Endpoint:
    """
    Return the endpoint of an application; its only one, unless *path* says which.

    Raises:
        LookupError: There is none, or more than one.
    """
    prefix = None if path is None else path.rstrip("/")
    if receiver is not None:
        return Endpoint(receiver, prefix or "")
    found = list(dict.fromkeys(_of_aiohttp(target) if is_aiohttp_target(target) else _of_asgi(target, "")))
    fitting = [endpoint for endpoint in found if prefix in (None, endpoint.prefix)]
    if len(fitting) == 1:
        return fitting[0]
    there = ", ".join(endpoint.prefix or "/" for endpoint in found) or "none that can be seen"
    raise LookupError(f"say which endpoint with path=, or hand over receiver= and path=; found: {there}")


def is_aiohttp_target(target: object) -> bool:
    """Tell whether this is an application of aiohttp's, or one of the servers and clients that it has for tests."""
    return any(kind.__module__.partition(".")[0] == "aiohttp" for kind in type(target).__mro__)


def _of_aiohttp(target: Any) -> Iterator[Endpoint]:
    application = getattr(target, "app", target)
    for route in application.router.routes():
        yield from _taken(route.handler, route.resource.canonical)


def _of_asgi(application: Any, prefix: str) -> Iterator[Endpoint]:
    if isinstance(application, NotificationApp):
        yield Endpoint(application.receiver, prefix)
        return
    for route in _routes(application):
        path = prefix + (getattr(route, "path", None) or "")
        yield from _taken(getattr(route, "endpoint", None), path)
        # A mount holds an application of its own.
        yield from _of_asgi(getattr(route, "app", None), path)
    if not hasattr(application, "routes"):
        # A middleware holds the application that it stands before.
        yield from _of_asgi(application.app, prefix) if hasattr(application, "app") else ()


def _routes(application: Any) -> Iterable[Any]:
    routes = getattr(application, "routes", None) or ()
    # Later versions of FastAPI keep what is included folded, and have this to unfold it.
    unfold = getattr(sys.modules.get("fastapi.routing"), "iter_route_contexts", iter)
    return unfold(routes)


def _taken(handler: Any, path: str) -> Iterator[Endpoint]:
    """Yield the endpoint that a route is, if it is one: the adapters' handlers are methods of what has the receiver."""
    receiver = getattr(getattr(handler, "__self__", None), "receiver", None)
    if isinstance(receiver, Receiver) and path.endswith(_TOKEN):
        yield Endpoint(receiver, path.removesuffix(_TOKEN))
