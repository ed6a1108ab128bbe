"""The fake's REST API: both generations below any base path, authentication and error responses."""

import base64
import hmac
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol, TypeAlias

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Lifespan, Receive, Scope, Send

from callfire_async.testing.fake_callfire._api_error import ApiErrorResponse
from callfire_async.testing.faults import Fault

__all__ = ["Operation", "RestApi", "RestService"]

# CallFire's words for the status, in the documentation of its clients.
_UNAUTHORIZED = "Unauthorized, API Key missing or invalid"
_HTML = "<html><head><title>{status}</title></head><body><h1>{status}</h1><hr>gateway</body></html>"

Handler: TypeAlias = Callable[[Request], Awaitable[Response]]
#: The path below the base path, the method and the handler of an operation.
Operation: TypeAlias = tuple[str, str, Handler]


class RestService(Protocol):
    """One API generation."""

    def operations(self) -> Iterable[Operation]:
        """Return the operations."""
        ...

    def error_response(self, request: Request, status: int, message: str, headers: Any) -> Response:
        """Return an error as this generation does."""
        ...


class RestApi:
    """
    API 1.1 and v2 as one ASGI application.

    A path belongs to v2 if one of its segments is ``v2``, or if it has ``webhooks`` and no ``1.1``: so a client that
    uses the base URL of the other generation gets 404, as it does from CallFire.
    """

    def __init__(
        self, api_1_1: RestService, api_2: RestService, *, login: str, password: str, lifespan: Lifespan[Starlette]
    ) -> None:
        self._credentials = base64.b64encode(f"{login}:{password}".encode())
        self._services = {False: api_1_1, True: api_2}
        self._applications = {
            is_2: self._create_application(service, None if is_2 else lifespan)
            for is_2, service in self._services.items()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request or the lifespan."""
        await self._applications[_is_api_2(scope)](scope, receive, send)

    def failing_application(self, fault: Fault) -> ASGIApp:
        """Return an application that returns the error response of a fault."""
        status = fault.status or 500
        headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            if fault.html:
                response: Response = HTMLResponse(_HTML.format(status=status), status, headers)
            else:
                service = self._services[_is_api_2(scope)]
                response = service.error_response(Request(scope), status, "Injected fault", headers)
            await response(scope, receive, send)

        return application

    def _create_application(self, service: RestService, lifespan: Lifespan[Starlette] | None) -> Starlette:
        routes = [
            Route(f"{base}{path}", self._authenticated(handler), methods=[method])
            for base in ("", "/{base:path}")
            for path, method, handler in service.operations()
        ]

        async def error_response(request: Request, error: Exception) -> Response:
            assert isinstance(error, HTTPException)
            return service.error_response(request, error.status_code, error.detail, error.headers)

        application = Starlette(routes=routes, lifespan=lifespan, exception_handlers={HTTPException: error_response})
        application.router.redirect_slashes = False
        return application

    def _authenticated(self, handler: Handler) -> Handler:
        """Return a handler that checks the credentials, and turns `ApiErrorResponse` into a response."""

        async def authenticated(request: Request) -> Response:
            if not self._has_credentials(request.headers.get("Authorization", "")):
                raise HTTPException(401, _UNAUTHORIZED, {"WWW-Authenticate": 'Basic realm="CallFire"'})
            try:
                return await handler(request)
            except ApiErrorResponse as error:
                raise HTTPException(error.status, error.message) from None

        return authenticated

    def _has_credentials(self, authorization: str) -> bool:
        scheme, _, encoded = authorization.partition(" ")
        return scheme.lower() == "basic" and hmac.compare_digest(encoded.strip().encode(), self._credentials)


def _is_api_2(scope: Scope) -> bool:
    segments = scope.get("path", "").split("/")
    return "v2" in segments or ("webhooks" in segments and "1.1" not in segments)
