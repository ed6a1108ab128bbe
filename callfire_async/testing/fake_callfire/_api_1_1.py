"""The fake's API 1.1: CallFire's operations and quirks in XML and JSON."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any, Literal

from attrs import evolve
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response

from callfire_async._codec import converters, documents
from callfire_async.models import Call, Subscription, SubscriptionFilter, Text
from callfire_async.testing.fake_callfire._api_error import ApiErrorResponse
from callfire_async.testing.fake_callfire._message_store import MessageStore
from callfire_async.testing.fake_callfire._parameters import Parameters, query_number, read_parameters
from callfire_async.testing.fake_callfire._rest_api import Operation
from callfire_async.testing.fake_callfire._subscription_store import SubscriptionStore

__all__ = ["ListOfOne", "MessagingService", "UpdateStatus"]

#: The JSON form of a list with one item.
ListOfOne = Literal["object", "array"]
#: The status of an update's response: no content, or an empty body.
UpdateStatus = Literal[204, 200]

MAX_RESULTS = 1000


class MessagingService:
    """``/subscription``, ``/text`` and ``/call`` below any base path, in XML and (``.json``) JSON."""

    def __init__(
        self,
        subscriptions: SubscriptionStore,
        messages: MessageStore,
        after_send: Callable[[type[Text | Call]], Awaitable[None]],
        *,
        list_of_one: ListOfOne,
        update_status: UpdateStatus,
    ) -> None:
        self._subscriptions = subscriptions
        self._messages = messages
        self._after_send = after_send
        self._list_of_one = list_of_one
        self._update_status = update_status

    def operations(self) -> Iterable[Operation]:
        """Return the operations, each for XML and for JSON."""
        operations: list[Operation] = [
            ("/subscription", "POST", self._create),
            ("/subscription", "GET", self._query),
            ("/subscription/{id:int}", "GET", self._get),
            ("/subscription/{id:int}", "PUT", self._update),
            ("/subscription/{id:int}", "DELETE", self._delete),
            ("/text", "POST", partial(self._send, Text)),
            ("/text", "GET", partial(self._query_actions, Text)),
            ("/text/{id:int}", "GET", partial(self._get_action, Text)),
            ("/call", "POST", partial(self._send, Call)),
            ("/call", "GET", partial(self._query_actions, Call)),
            ("/call/{id:int}", "GET", partial(self._get_action, Call)),
            ("/broadcast/{id:int}", "GET", self._get_broadcast),
        ]
        return [(path + ending, method, handler) for path, method, handler in operations for ending in ("", ".json")]

    def error_response(self, request: Request, status: int, message: str, headers: Any) -> Response:
        """Return a ``ResourceException``."""
        content = {"HttpStatus": status, "Message": message}
        return _response(request, "ResourceException", content, status=status, headers=headers)

    async def _create(self, request: Request) -> Response:
        subscription_id = self._subscriptions.create(await read_parameters(request))
        return _reference(request, subscription_id, "subscription")

    async def _query(self, request: Request) -> Response:
        parameters = await read_parameters(request)
        return self._page(request, parameters, Subscription, [*self._subscriptions.subscriptions.values()])

    def _page(self, request: Request, parameters: Parameters, kind: type, models: Sequence[object]) -> Response:
        max_results = query_number(parameters, "MaxResults", MAX_RESULTS)
        if not 1 <= max_results <= MAX_RESULTS:
            raise ApiErrorResponse(400, f"MaxResults must be from 1 to {MAX_RESULTS}")
        first = query_number(parameters, "FirstResult", 0)
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
        self._subscriptions.update(request.path_params["id"], await read_parameters(request))
        return Response(status_code=self._update_status)

    async def _delete(self, request: Request) -> Response:
        self._subscriptions.delete(request.path_params["id"])
        return Response(status_code=204)

    async def _send(self, kind: type[Text | Call], request: Request) -> Response:
        broadcast_id = self._messages.send(kind, await read_parameters(request))
        response = _reference(request, broadcast_id, "broadcast")
        response.background = BackgroundTask(self._after_send, kind)
        return response

    async def _query_actions(self, kind: type[Text | Call], request: Request) -> Response:
        parameters = await read_parameters(request)
        return self._page(request, parameters, kind, self._messages.query(kind, parameters))

    async def _get_action(self, kind: type[Text | Call], request: Request) -> Response:
        action = self._messages.get(kind, request.path_params["id"])
        return _response(request, "Resource", {kind.__name__: _resource(action)})

    async def _get_broadcast(self, request: Request) -> Response:
        broadcast = self._messages.get_broadcast(request.path_params["id"])
        return _response(request, "Resource", {"Broadcast": _resource(broadcast)})


def _resource(model: object) -> dict[str, Any]:
    # CallFire sends an empty filter for a subscription that has none.
    if isinstance(model, Subscription) and model.filter is None:
        model = evolve(model, filter=SubscriptionFilter())
    return converters.unstructure(model)


def _reference(request: Request, id: int, kind: str) -> Response:
    url = request.url.replace(query="")
    folder, _, _ = url.path.rpartition("/")
    location = str(url.replace(path=f"{folder}/{kind}/{id}"))
    return _response(request, "ResourceReference", {"Id": id, "Location": location}, status=201)


def _response(
    request: Request, wrapper: str, content: dict[str, Any], *, status: int = 200, headers: Any = None
) -> Response:
    """Return a response in the format of the request's path."""
    if request.url.path.endswith(".json"):
        body = documents.write_json({wrapper: _apply_json_forms(content)})
        return Response(body, status, headers, "application/json")
    return Response(documents.write_xml(_element(wrapper, content)), status, headers, "application/xml")


def _apply_json_forms(node: Any) -> Any:
    """Return a tree as in CallFire's JSON responses: the number that was called is an object, an amount is a number."""
    if isinstance(node, dict):
        return {name: _json_value(name, value, node) for name, value in node.items()}
    return [_apply_json_forms(item) for item in node] if isinstance(node, list) else node


def _json_value(name: str, value: Any, parent: dict[str, Any]) -> Any:
    if name == "BilledAmount":
        return float(value)
    # The filter of a subscription has a number, too, which is text.
    if name == "ToNumber" and "State" in parent and isinstance(value, str):
        return {"#text": value}
    return _apply_json_forms(value)


def _element(wrapper: str, content: dict[str, Any]) -> dict[str, Any]:
    """Put the wrapper's own fields into its namespace, and add the note that CallFire adds."""
    unprefixed = ("Subscription", "Text", "Call", "Broadcast", "@totalResults")
    fields = {name if name in unprefixed else f"r:{name}": content[name] for name in content}
    namespaces = {"@xmlns": documents.DATA, "@xmlns:r": documents.RESOURCE}
    return {f"r:{wrapper}": namespaces | fields | {"r:note": "Processing time was 38.7ms"}}
