"""Recognize requests that are repeated with the same ``RequestId``."""

from collections.abc import Mapping
from typing import Literal

from callfire_async.testing.fake_callfire._api_error import ApiErrorResponse

__all__ = ["RepeatedRequestId", "RequestIds"]

#: How a repeated ``RequestId`` is treated: see `FakeCallFire`.
RepeatedRequestId = Literal["first", "ignored", "refused"]


class RequestIds:
    """The ``RequestId`` of each request that was carried out, with the ID in its response."""

    def __init__(self, repeated: RepeatedRequestId) -> None:
        self._repeated = repeated
        self._responses: dict[tuple[str, str], int] = {}

    def find(self, operation: str, form: Mapping[str, str]) -> int | None:
        """Return the ID in the response to an earlier request with the same ``RequestId``, if that is repeated."""
        response = self._responses.get((operation, form.get("RequestId", "")))
        if response is not None and self._repeated == "refused":
            raise ApiErrorResponse(400, "RequestId was used before")
        return response if self._repeated == "first" else None

    def remember(self, operation: str, form: Mapping[str, str], response: int) -> int:
        """Keep the ID in the response to a request that has a ``RequestId``; return the ID."""
        if form.get("RequestId"):
            self._responses[operation, form["RequestId"]] = response
        return response
