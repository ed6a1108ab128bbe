"""The fake's API 1.1: CallFire's operations and quirks as a Starlette application."""

import base64
import hmac
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Literal

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Lifespan, Receive, Scope, Send

from callfire_async._codec import converters, documents
from callfire_async.models import Call, Subscription, Text
from callfire_async.testing.fake_callfire._message_store import MessageStore
from callfire_async.testing.fake_callfire._subscription_store import ApiErrorResponse, SubscriptionStore
from callfire_async.testing.faults import Fault

__all__ = ["ListOfOne", "RestService", "UpdateStatus", "error_application"]

#: The JSON form of a list with one item.
ListOfOne = Literal["object", "array"]
#: The status of an update's response: no content, or an empty body.
UpdateStatus = Literal[204, 200]

MAX_RESULTS = 1000
_HTML = "<html><head><title>{status}</title></head><body><h1>{status}</h1><hr>gateway</body></html>"

Handler = Callable[[Request], Awaitable[Response]]


class RestService:
    """``/subscription``, ``/text`` and ``/call`` below any base path, in XML and (``.json``) JSON."""

    def __init__(
        self,
        subscriptions: SubscriptionStore,
        messages: MessageStore,
        after_send: Callable[[], Awaitable[None]],
        *,
        login: str,
        password: str,
        list_of_one: ListOfOne,
        update_status: UpdateStatus,
    ) -> None:
        self._subscriptions = subscriptions
        self._messages = messages
        self._after_send = after_send
        self._credentials = f"{login}:{password}".encode()
        self._list_of_one = list_of_one
        self._update_status = update_status

    def application(self, lifespan: Lifespan[Starlette]) -> Starlette:
        """Return the ASGI application."""
        routes = [
            Route(f"{base}{path}{ending}", self._authenticated(handler), methods=[method])
            for base in ("", "/{base:path}")
            for path, method, handler in (
                ("/subscription", "POST", self._create),
                ("/subscription", "GET", self._query),
                ("/subscription/{id:int}", "GET", self._get),
                ("/subscription/{id:int}", "PUT", self._update),
                ("/subscription/{id:int}", "DELETE", self._delete),
                ("/text", "POST", self._send),
                ("/text", "GET", partial(self._query_actions, Text)),
                ("/text/{id:int}", "GET", partial(self._get_action, Text)),
                ("/call", "GET", partial(self._query_actions, Call)),
                ("/call/{id:int}", "GET", partial(self._get_action, Call)),
            )
            for ending in ("", ".json")
        ]
        application = Starlette(routes=routes, lifespan=lifespan, exception_handlers={HTTPException: _error_response})
        application.router.redirect_slashes = False
        return application

    def _authenticated(self, handler: Handler) -> Handler:
        """Return a handler that checks the credentials, and turns `ApiErrorResponse` into a response."""

        async def authenticated(request: Request) -> Response:
            if not self._has_credentials(request.headers.get("Authorization", "")):
                raise HTTPException(401, "Unauthorized", {"WWW-Authenticate": 'Basic realm="CallFire"'})
            try:
                return await handler(request)
            except ApiErrorResponse as error:
                raise HTTPException(error.status, error.message) from None

        return authenticated

    def _has_credentials(self, authorization: str) -> bool:
        scheme, _, encoded = authorization.partition(" ")
        expected = base64.b64encode(self._credentials)
        return scheme.lower() == "basic" and hmac.compare_digest(encoded.strip().encode(), expected)

    async def _create(self, request: Request) -> Response:
        subscription_id = self._subscriptions.create(await _form(request))
        return _reference(request, subscription_id, "subscription")

    async def _query(self, request: Request) -> Response:
        return self._page(request, Subscription, [*self._subscriptions.subscriptions.values()])

    def _page(self, request: Request, kind: type, models: Sequence[object]) -> Response:
        max_results = _number(request, "MaxResults", MAX_RESULTS)
        if not 1 <= max_results <= MAX_RESULTS:
            raise ApiErrorResponse(400, f"MaxResults must be from 1 to {MAX_RESULTS}")
        first = _number(request, "FirstResult", 0)
        items = [_resource(model) for model in models[first : first + max_results]]
        resource_list: dict[str, Any] = {"@totalResults": len(models)}
        if items:
            is_bare = len(items) == 1 and self._list_of_one == "object"
            resource_list[kind.__name__] = items[0] if is_bare else items
        return _response(request, "ResourceList", resource_list)

    async def _get(self, request: Request) -> Response:
        subscription = self._subscriptions.get(request.path_params["id"])
        return _response(request, "Resource", {"Subscription": _resource(subscription)})

    async def _update(self, request: Request) -> Response:
        self._subscriptions.update(request.path_params["id"], await _form(request))
        return Response(status_code=self._update_status)

    async def _delete(self, request: Request) -> Response:
        self._subscriptions.delete(request.path_params["id"])
        return Response(status_code=204)

    async def _send(self, request: Request) -> Response:
        response = _reference(request, self._messages.send(await _form(request)), "broadcast")
        response.background = BackgroundTask(self._after_send)
        return response

    async def _query_actions(self, kind: type[Text | Call], request: Request) -> Response:
        return self._page(request, kind, self._messages.query(kind, request.query_params))

    async def _get_action(self, kind: type[Text | Call], request: Request) -> Response:
        action = self._messages.get(kind, request.path_params["id"])
        return _response(request, "Resource", {kind.__name__: _resource(action)})


def error_application(fault: Fault) -> ASGIApp:
    """Return an application that returns the error response of a fault."""
    status = fault.status or 500
    headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if fault.html:
            response: Response = HTMLResponse(_HTML.format(status=status), status, headers)
        else:
            error = HTTPException(status, "Injected fault", headers)
            response = await _error_response(Request(scope), error)
        await response(scope, receive, send)

    return application


async def _form(request: Request) -> dict[str, str]:
    try:
        return documents.read_form(await request.body())
    except UnicodeDecodeError:
        raise ApiErrorResponse(400, "The form is not UTF-8") from None


def _number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, str(default))
    # 18 digits fit into 64 bits; `int` raises ValueError for thousands of digits.
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise ApiErrorResponse(400, f"{name} must be a number")
    return int(text)


def _resource(model: object) -> dict[str, Any]:
    # CallFire sends an empty filter for a subscription that has none.
    defaults: dict[str, Any] = {"SubscriptionFilter": {}} if isinstance(model, Subscription) else {}
    return defaults | converters.unstructure(model)


def _reference(request: Request, id: int, kind: str) -> Response:
    url = request.url.replace(query="")
    folder, _, _ = url.path.rpartition("/")
    location = str(url.replace(path=f"{folder}/{kind}/{id}"))
    return _response(request, "ResourceReference", {"Id": id, "Location": location}, status=201)


async def _error_response(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    content = {"HttpStatus": error.status_code, "Message": error.detail}
    return _response(request, "ResourceException", content, status=error.status_code, headers=error.headers)


def _response(
    request: Request, wrapper: str, content: dict[str, Any], *, status: int = 200, headers: Any = None
) -> Response:
    """Return a response in the format of the request's path."""
    if request.url.path.endswith(".json"):
        return Response(documents.write_json({wrapper: content}), status, headers, "application/json")
    return Response(documents.write_xml(_element(wrapper, content)), status, headers, "application/xml")


def _element(wrapper: str, content: dict[str, Any]) -> dict[str, Any]:
    """Put the wrapper's own fields into its namespace, and add the note that CallFire adds."""
    unprefixed = ("Subscription", "Text", "Call", "@totalResults")
    fields = {name if name in unprefixed else f"r:{name}": content[name] for name in content}
    namespaces = {"@xmlns": documents.DATA, "@xmlns:r": documents.RESOURCE}
    return {f"r:{wrapper}": namespaces | fields | {"r:note": "Processing time was 38.7ms"}}
