"""`Operation`: one request of any API generation, how its response is read, and whether it can be repeated."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Generic, Literal, NamedTuple, TypeVar

from attrs import field, frozen

from callfire_async._codec.documents import write_form
from callfire_async._codec.json_documents import write_object

T = TypeVar("T")

Problems = tuple[str, ...]
Reader = Callable[[bytes, str | None], tuple[T, Problems]]
ResponseFormat = Literal["json", "xml"]
ApiVersion = Literal["1.1", "2"]


class ErrorDetails(NamedTuple):
    """The readable parts of an error response's body."""

    #: CallFire's message, or None.
    message: str | None = None
    #: API v2's code of the error, or None.
    code: str | None = None


@frozen
class Operation(Generic[T]):
    """
    One API request.

    Attributes:
        method: The HTTP method.
        path: The path below the API's base URL, as in CallFire's reference: ``/subscription/42``.
        read: Reads a successful response from its body and content type. Returns the value, and the fields that
            could not be read.
        api_version: The API generation that has the operation.
        query: The parameters in the URL.
        form: The fields of the body; None for a request without a form.
        json: The members of the JSON object in the body; None for a request without one.
        success_statuses: The statuses of a successful response.
        repeat_success_statuses: Further such statuses, if an earlier attempt may have been executed.
        is_idempotent: Whether executing it twice has the same effect as executing it once.
        is_at_most_once: Whether it is never repeated after any part of it may have been sent, not even after a 429.
        ambiguity_note: How an error describes an operation that may have been executed.
    """

    method: str
    path: str
    read: Reader[T]
    api_version: ApiVersion = "1.1"
    query: Mapping[str, str] = field(factory=dict, repr=False)
    form: Mapping[str, str] | None = field(default=None, repr=False)
    json: Mapping[str, object] | None = field(default=None, repr=False)
    success_statuses: frozenset[int] = frozenset([200])
    repeat_success_statuses: frozenset[int] = frozenset()
    is_idempotent: bool = True
    is_at_most_once: bool = False
    ambiguity_note: str = "may have been executed"

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def request_id(self) -> str | None:
        """The ``RequestId`` of the form, or None."""
        return (self.form or {}).get("RequestId")

    @property
    def route(self) -> str:
        """The path with ``{id}`` in place of each ID."""
        return re.sub(r"/[0-9]+", "/{id}", self.path)

    def address(self, response_format: ResponseFormat) -> str:
        """Return the path, with the suffix that selects the response format of API 1.1."""
        return f"{self.path}.json" if self.api_version == "1.1" and response_format == "json" else self.path

    def target(self, response_format: ResponseFormat) -> str:
        """Return path and query."""
        query = f"?{write_form(self.query).decode()}" if self.query else ""
        return f"{self.address(response_format)}{query}"

    @property
    def content_type(self) -> str | None:
        """The type of the request body, or None."""
        if self.json is not None:
            return "application/json"
        return None if self.form is None else "application/x-www-form-urlencoded"

    def content(self) -> bytes | None:
        """Return the request body, or None."""
        if self.json is not None:
            return write_object(self.json)
        return None if self.form is None else write_form(self.form)
