"""Faults that tests inject into requests to the fake and into its postbacks."""

import asyncio
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Literal, get_args

from attrs import frozen
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from callfire_async._arguments import check_integer

__all__ = ["ConnectionAborted", "Cut", "Fault", "PostbackFault", "with_fault"]

#: When the connection is closed: after the request (which is not carried out), before the response, or halfway through
#: the response's body.
Cut = Literal["request", "answer", "body"]


class ConnectionAborted(Exception):
    """Raised instead of closing the connection if the ASGI server does not expose its transport."""


class PostbackFault(Enum):
    """A fault of one postback."""

    #: It is not sent.
    DROPPED = "dropped"
    #: It is sent twice.
    DUPLICATED = "duplicated"
    #: It is sent after the postbacks of the next event.
    LATE = "late"
    #: The connection is closed halfway through its body.
    CUT = "cut"


@frozen(kw_only=True)
class Fault:
    """
    A fault of one request to the fake.

    Args:
        status: Status of an error response that is returned instead of carrying the request out.
        carried_out: With *status*: carry the request out before the error response.
        retry_after: With *status*: the response's ``Retry-After`` header, in seconds or as an HTTP date.
        html: With *status*: return an HTML page, as a proxy does, instead of a ``ResourceException``.
        hold: Awaited before the response is sent, for example ``asyncio.Event().wait``.
        cut: When the connection is closed. A response without a body is cut before it is sent.
    """

    status: int | None = None
    carried_out: bool = False
    retry_after: float | str | None = None
    html: bool = False
    hold: Callable[[], Awaitable[object]] | None = None
    cut: Cut | None = None

    def __attrs_post_init__(self) -> None:
        """Reject unknown values, and combinations that have no effect."""
        if self.status is not None:
            check_integer("status", self.status, minimum=100)
        if self.cut not in (None, *get_args(Cut)):
            raise ValueError(f"cut must be one of {', '.join(get_args(Cut))}, or None")
        if self.status is None and (self.carried_out or self.retry_after is not None or self.html):
            raise TypeError("carried_out, retry_after and html require status")
        if self.status is not None and self.cut == "request":
            raise TypeError("status cannot be combined with cut='request': no response is sent")
        if self.status is None and self.hold is None and self.cut is None:
            raise TypeError("Fault requires status, hold or cut")


def with_fault(fault: Fault, application: ASGIApp, error: ASGIApp) -> ASGIApp:
    """Return an application that responds to one HTTP request with a fault; *error* returns the error response."""

    async def faulty(scope: Scope, receive: Receive, send: Send) -> None:
        response: list[Message] = []

        async def record(message: Message) -> None:
            response.append(message)

        if fault.cut == "request":
            await _read_all(receive)
        if fault.carried_out:
            await application(scope, receive, _discard)
        if fault.status is not None:
            await error(scope, receive, record)
        elif fault.cut != "request":
            await application(scope, receive, record)
        if fault.hold is not None:
            await fault.hold()
        await _send(response, fault.cut, receive, send)

    return faulty


async def _discard(_: Message) -> None:
    pass


async def _read_all(receive: Receive) -> None:
    while (await receive()).get("more_body"):
        pass


async def _send(response: list[Message], cut: Cut | None, receive: Receive, send: Send) -> None:
    if cut is None:
        for message in response:
            await send(message)
        return
    body = b"".join(message.get("body", b"") for message in response)
    if cut == "body" and body:
        await send(response[0])
        await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
    await _close_connection(receive, send)


async def _close_connection(receive: Receive, send: Send) -> None:
    # ASGI cannot close a connection. uvicorn's `send` is a method of an object that has the transport.
    transport: asyncio.Transport | None = getattr(getattr(send, "__self__", None), "transport", None)
    if transport is None:
        raise ConnectionAborted
    transport.close()
    while (await receive())["type"] != "http.disconnect":
        pass


Fault.__module__ = "callfire_async.testing"
PostbackFault.__module__ = "callfire_async.testing"
