"""Find the path in an application at which a receiver accepts postbacks."""

import sys
from collections.abc import Iterable, Iterator
from typing import Any

from attrs import frozen

from callfire_async.notifications.asgi import NotificationApp
from callfire_async.notifications.receiver import Receiver

__all__ = ["Endpoint", "find_endpoint", "is_aiohttp_target"]

_TOKEN_SEGMENT = "/{token}"  # noqa: S105  # the placeholder in a route's path


@frozen
class Endpoint:
    """A receiver and its path without the token."""

    receiver: Receiver
    prefix: str

    def path(self, token: str | None) -> str:
        """Return the path with *token*, or with the receiver's own; without any token it ends with a slash."""
        tokens = self.receiver.tokens
        if token is None and tokens is not None:
            # `url` requires an absolute URL; the host is removed again.
            return tokens.url(f"http://localhost{self.prefix}").removeprefix("http://localhost")
        return f"{self.prefix}/{token or ''}"


def find_endpoint(target: Any, path: str | None, receiver: Receiver | None) -> Endpoint:
    """
    Return the endpoint of an application: the one at *path*, or the only one.

    Raises:
        LookupError: No endpoint matches, or several do.
    """
    prefix = None if path is None else path.rstrip("/")
    if receiver is not None:
        return Endpoint(receiver, prefix or "")
    found = list(dict.fromkeys(_in_aiohttp(target) if is_aiohttp_target(target) else _in_asgi(target, "")))
    matching = [endpoint for endpoint in found if prefix in (None, endpoint.prefix)]
    if len(matching) == 1:
        return matching[0]
    paths = ", ".join(endpoint.prefix or "/" for endpoint in found) or "none"
    raise LookupError(f"path must match one endpoint, or pass receiver= and path=; endpoints found: {paths}")


def is_aiohttp_target(target: object) -> bool:
    """Return whether *target* is an aiohttp application, ``TestServer`` or ``TestClient``."""
    return any(kind.__module__.partition(".")[0] == "aiohttp" for kind in type(target).__mro__)


def _in_aiohttp(target: Any) -> Iterator[Endpoint]:
    application = getattr(target, "app", target)
    for route in application.router.routes():
        yield from _from_handler(route.handler, route.resource.canonical)


def _in_asgi(application: Any, prefix: str) -> Iterator[Endpoint]:
    if isinstance(application, NotificationApp):
        yield Endpoint(application.receiver, prefix)
        return
    for route in _routes(application):
        path = prefix + (getattr(route, "path", None) or "")
        yield from _from_handler(getattr(route, "endpoint", None), path)
        # A mount has an application of its own.
        yield from _in_asgi(getattr(route, "app", None), path)
    if not hasattr(application, "routes"):
        # A middleware has the wrapped application as `app`.
        yield from _in_asgi(application.app, prefix) if hasattr(application, "app") else ()


def _routes(application: Any) -> Iterable[Any]:
    routes = getattr(application, "routes", None) or ()
    # Newer versions of FastAPI keep included routers nested and flatten them with this function.
    flatten = getattr(sys.modules.get("fastapi.routing"), "iter_route_contexts", iter)
    return flatten(routes)


def _from_handler(handler: Any, path: str) -> Iterator[Endpoint]:
    """Yield the endpoint of a route if its handler is an adapter's: a method of an object with a receiver."""
    receiver = getattr(getattr(handler, "__self__", None), "receiver", None)
    if isinstance(receiver, Receiver) and path.endswith(_TOKEN_SEGMENT):
        yield Endpoint(receiver, path.removesuffix(_TOKEN_SEGMENT))
