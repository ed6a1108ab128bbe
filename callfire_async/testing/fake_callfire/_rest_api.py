"""
CallFire's operations as a Starlette application, with its oddities.

It imports `_wire`, `_convert`, `account` and `traffic`.
"""

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

#: How JSON words a list that holds one item.
ListOfOne = Literal["object", "array"]
#: What an update answers: no content, or an empty body.
UpdateStatus = Literal[204, 200]

MAX_RESULTS = 1000
_HTML = "<html><head><title>{status}</title></head><body><h1>{status}</h1><hr>gateway</body></html>"

Handler = Callable[[Request], Awaitable[Response]]


class RestService:
    """``/subscription``, ``/text`` and ``/call`` below any base path, in XML and (``.json``) in JSON."""

    def __init__(
        self,
        account: SubscriptionStore,
        traffic: MessageStore,
        after_send: Callable[[], Awaitable[None]],
        *,
        login: str,
        password: str,
        list_of_one: ListOfOne,
        update_status: UpdateStatus,
    ) -> None:
        self._account = account
        self._traffic = traffic
        self._after_send = after_send
        self._credentials = f"{login}:{password}".encode()
        self._list_of_one = list_of_one
        self._update_status = update_status

    def application(self, lifespan: Lifespan[Starlette]) -> Starlette:
        """Make the ASGI application."""
        routes = [
            Route(f"{base}{path}{ending}", self._checked(handler), methods=[method])
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
        application = Starlette(routes=routes, lifespan=lifespan, exception_handlers={HTTPException: _refusal})
        application.router.redirect_slashes = False
        return application

    def _checked(self, handler: Handler) -> Handler:
        """Ask for the credentials first, and word refusals as CallFire does."""

        async def checked(request: Request) -> Response:
            if not self._knows(request.headers.get("Authorization", "")):
                raise HTTPException(401, "Unauthorized", {"WWW-Authenticate": 'Basic realm="CallFire"'})
            try:
                return await handler(request)
            except ApiErrorResponse as refused:
                raise HTTPException(refused.status, refused.message) from None

        return checked

    def _knows(self, authorization: str) -> bool:
        scheme, _, encoded = authorization.partition(" ")
        expected = base64.b64encode(self._credentials)
        return scheme.lower() == "basic" and hmac.compare_digest(encoded.strip().encode(), expected)

    async def _create(self, request: Request) -> Response:
        subscription_id = self._account.create(await _form(request))
        return _reference(request, subscription_id, "subscription")

    async def _query(self, request: Request) -> Response:
        return self._page(request, Subscription, [*self._account.subscriptions.values()])

    def _page(self, request: Request, kind: type, found: Sequence[object]) -> Response:
        count = _number(request, "MaxResults", MAX_RESULTS)
        if not 1 <= count <= MAX_RESULTS:
            raise ApiErrorResponse(400, f"MaxResults must be from 1 to {MAX_RESULTS}")
        first = _number(request, "FirstResult", 0)
        items = [_resource(one) for one in found[first : first + count]]
        resource_list: dict[str, Any] = {"@totalResults": len(found)}
        if items:
            bare = len(items) == 1 and self._list_of_one == "object"
            resource_list[kind.__name__] = items[0] if bare else items
        return _answer(request, "ResourceList", resource_list)

    async def _get(self, request: Request) -> Response:
        subscription = self._account.get(request.path_params["id"])
        return _answer(request, "Resource", {"Subscription": _resource(subscription)})

    async def _update(self, request: Request) -> Response:
        self._account.update(request.path_params["id"], await _form(request))
        return Response(status_code=self._update_status)

    async def _delete(self, request: Request) -> Response:
        self._account.delete(request.path_params["id"])
        return Response(status_code=204)

    async def _send(self, request: Request) -> Response:
        response = _reference(request, self._traffic.send(await _form(request)), "broadcast")
        response.background = BackgroundTask(self._after_send)
        return response

    async def _query_actions(self, kind: type[Text | Call], request: Request) -> Response:
        return self._page(request, kind, self._traffic.query(kind, request.query_params))

    async def _get_action(self, kind: type[Text | Call], request: Request) -> Response:
        action = self._traffic.get(kind, request.path_params["id"])
        return _answer(request, "Resource", {kind.__name__: _resource(action)})


def error_application(fault: Fault) -> ASGIApp:
    """Make the application that answers as a fault with a status says."""
    status = fault.status or 500
    headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if fault.html:
            response: Response = HTMLResponse(_HTML.format(status=status), status, headers)
        else:
            error = HTTPException(status, "This was asked for", headers)
            response = await _refusal(Request(scope), error)
        await response(scope, receive, send)

    return application


async def _form(request: Request) -> dict[str, str]:
    try:
        return documents.read_form(await request.body())
    except UnicodeDecodeError:
        raise ApiErrorResponse(400, "The form is not UTF-8") from None


def _number(request: Request, name: str, default: int) -> int:
    words = request.query_params.get(name, str(default))
    # Of more digits than this nothing is counted, and Python reads some thousands only.
    if not (words.isascii() and words.isdigit() and len(words) <= 18):
        raise ApiErrorResponse(400, f"{name} must be a number")
    return int(words)


def _resource(model: object) -> dict[str, Any]:
    # A filter that says nothing is there all the same, empty.
    filter_of: dict[str, Any] = {"SubscriptionFilter": {}} if isinstance(model, Subscription) else {}
    return filter_of | converters.unstructure(model)


def _reference(request: Request, id: int, kind: str) -> Response:
    url = request.url.replace(query="")
    folder, _, _ = url.path.rpartition("/")
    location = str(url.replace(path=f"{folder}/{kind}/{id}"))
    return _answer(request, "ResourceReference", {"Id": id, "Location": location}, status=201)


async def _refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    content = {"HttpStatus": error.status_code, "Message": error.detail}
    return _answer(request, "ResourceException", content, status=error.status_code, headers=error.headers)


def _answer(
    request: Request, wrapper: str, content: dict[str, Any], *, status: int = 200, headers: Any = None
) -> Response:
    """Wrap what is answered, in the format that the path asks for."""
    if request.url.path.endswith(".json"):
        return Response(documents.write_json({wrapper: content}), status, headers, "application/json")
    return Response(documents.write_xml(_element(wrapper, content)), status, headers, "application/xml")


def _element(wrapper: str, content: dict[str, Any]) -> dict[str, Any]:
    """Put the wrapper's own fields into its namespace, and add the note that nobody asked for."""
    plain = ("Subscription", "Text", "Call", "@totalResults")
    inside = {name if name in plain else f"r:{name}": content[name] for name in content}
    namespaces = {"@xmlns": documents.DATA, "@xmlns:r": documents.RESOURCE}
    return {f"r:{wrapper}": namespaces | inside | {"r:note": "Processing time was 38.7ms"}}
