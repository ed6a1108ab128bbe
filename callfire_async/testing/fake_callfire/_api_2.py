"""The fake's API v2: webhooks and their resources in JSON."""

from collections.abc import Iterable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from callfire_async._codec import documents
from callfire_async.models import WEBHOOK_EVENTS, WebhookResource
from callfire_async.testing.fake_callfire._api_error import ApiErrorResponse
from callfire_async.testing.fake_callfire._parameters import query_number
from callfire_async.testing.fake_callfire._partial_response import parse_fields, select
from callfire_async.testing.fake_callfire._rest_api import Operation
from callfire_async.testing.fake_callfire._webhook_store import Content, WebhookStore, supported_events

__all__ = ["WebhookService"]

_DEFAULT_LIMIT = 100
# A guess: CallFire publishes no maximum; its older clients send 1000.
_MAX_LIMIT = 1000
_FILTERS = frozenset(["name", "resource", "event", "callback", "enabled"])
_ENABLED = {"": None, "true": True, "false": False}


class WebhookService:
    """``/webhooks`` below any base path, such as ``/v2``."""

    def __init__(self, webhooks: WebhookStore, *, returns_secrets: bool, counts_webhooks: bool) -> None:
        self._webhooks = webhooks
        self._hidden_keys = frozenset() if returns_secrets else frozenset(["secret"])
        self._counts_webhooks = counts_webhooks

    def operations(self) -> Iterable[Operation]:
        """Return the operations: path, method and handler."""
        return (
            ("/webhooks", "GET", self._find),
            ("/webhooks", "POST", self._create),
            ("/webhooks/resources", "GET", self._find_resources),
            ("/webhooks/resources/{resource}", "GET", self._get_resource),
            ("/webhooks/{id:int}", "GET", self._get),
            ("/webhooks/{id:int}", "PUT", self._update),
            ("/webhooks/{id:int}", "DELETE", self._delete),
        )

    def error_response(self, request: Request, status: int, message: str, headers: Any) -> Response:  # noqa: ARG002  # a parameter of the protocol
        """Return an error as API v2 does. CallFire does not publish its internal codes: this one is the status."""
        content = {
            "httpStatusCode": status,
            "internalCode": str(status),
            "message": message,
            "developerMessage": message,
            "helpLink": "https://developers.callfire.com/docs.html",
        }
        return _json(content, status, headers)

    async def _find(self, request: Request) -> Response:
        limit = query_number(request.query_params, "limit", _DEFAULT_LIMIT)
        if not 1 <= limit <= _MAX_LIMIT:
            raise ApiErrorResponse(400, f"limit must be from 1 to {_MAX_LIMIT}")
        offset = query_number(request.query_params, "offset", 0)
        found = self._matching(request.query_params)
        page = {
            "items": [self._visible(content) for content in found[offset : offset + limit]],
            "limit": limit,
            "offset": offset,
            "totalCount": len(found) if self._counts_webhooks else -1,
        }
        return _response(request, page)

    def _matching(self, query: Mapping[str, str]) -> list[Content]:
        # Comparing 10,000 webhooks for each of a hundred pages takes half a minute.
        if not query.keys() & _FILTERS:
            return self._webhooks.contents
        enabled = _enabled(query)
        return [content for content in self._webhooks.contents if _matches(query, content, enabled=enabled)]

    def _visible(self, content: Content) -> Content:
        return {name: value for name, value in content.items() if name not in self._hidden_keys}

    async def _create(self, request: Request) -> Response:
        return _json({"id": self._webhooks.create(await _read_json(request))}, status=201)

    async def _get(self, request: Request) -> Response:
        return _response(request, self._visible(self._webhooks.get(request.path_params["id"])))

    async def _update(self, request: Request) -> Response:
        self._webhooks.update(request.path_params["id"], await _read_json(request))
        return Response(status_code=200)

    async def _delete(self, request: Request) -> Response:
        self._webhooks.delete(request.path_params["id"])
        return Response(status_code=204)

    async def _find_resources(self, request: Request) -> Response:
        return _response(request, {"items": [_resource(resource) for resource in WEBHOOK_EVENTS]})

    async def _get_resource(self, request: Request) -> Response:
        try:
            return _response(request, _resource(request.path_params["resource"]))
        except KeyError:
            raise ApiErrorResponse(404, "Not Found") from None


def _matches(query: Mapping[str, str], content: Content, *, enabled: bool | None) -> bool:
    """Return whether a webhook passes the filters of a query; name and callback are compared exactly (a guess)."""
    return (
        enabled in (None, content["enabled"])
        and all(query.get(name) in (None, content.get(name)) for name in ("name", "callback"))
        and query.get("resource", content["resource"]).casefold() == content["resource"].casefold()
        and ("event" not in query or query["event"].casefold() in map(str.casefold, content["events"]))
    )


def _enabled(query: Mapping[str, str]) -> bool | None:
    text = query.get("enabled", "").lower()
    if text not in _ENABLED:
        raise ApiErrorResponse(400, "enabled must be true or false")
    return _ENABLED[text]


def _resource(name: str) -> dict[str, Any]:
    return {"resource": str(WebhookResource(name)), "supportedEvents": [*supported_events(name)]}


async def _read_json(request: Request) -> object:
    try:
        return await request.json()
    except (ValueError, RecursionError):
        raise ApiErrorResponse(400, "The body must be JSON in UTF-8") from None


def _response(request: Request, content: dict[str, Any]) -> Response:
    return _json(select(content, parse_fields(request.query_params.get("fields", ""))))


def _json(content: dict[str, Any], status: int = 200, headers: Any = None) -> Response:
    return Response(documents.write_json(content), status, headers, "application/json")
