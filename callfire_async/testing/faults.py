"""
What can go wrong on the way to and from CallFire, as values, and how an ASGI application makes it happen.

It imports nothing of the package.
"""

import asyncio
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Literal

from attrs import frozen
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["ConnectionAborted", "Cut", "Fault", "PostbackFault", "with_fault"]

#: Where a connection ends: after the request, which is not carried out; before the answer; in the middle of it.
Cut = Literal["request", "answer", "body"]


class ConnectionAborted(Exception):
    """Raised by an application whose server gives it no hold of the connection, in place of cutting it."""


class PostbackFault(Enum):
    """What goes wrong with one postback."""

    #: It never comes.
    DROPPED = "dropped"
    #: It comes twice.
    DUPLICATED = "duplicated"
    #: It comes after those of the next event.
    LATE = "late"
    #: The connection ends in the middle of its body.
    CUT = "cut"


@frozen(kw_only=True)
class Fault:
    """
    What goes wrong with one request to the fake.

    Args:
        status: Answered in place of carrying the request out.
        carried_out: With *status*: the request was carried out all the same.
        retry_after: With *status*: the ``Retry-After`` of that answer, in seconds or as an HTTP date.
        html: With *status*: the body is a page of HTML, as from a proxy, and not a ``ResourceException``.
        hold: Awaited before the answer, as ``asyncio.Event().wait``.
        cut: Where the connection ends, if it does. An answer without a body is cut before it.
    """

    status: int | None = None
    carried_out: bool = False
    retry_after: float | str | None = None
    html: bool = False
    hold: Callable[[], Awaitable[object]] | None = None
    cut: Cut | None = None

    def __attrs_post_init__(self) -> None:
        """Refuse what would do nothing."""
        if self.status is None and (self.carried_out or self.retry_after is not None or self.html):
            raise TypeError("carried_out, retry_after and html say more of a status: give one")
        if self.status is not None and self.cut == "request":
            raise TypeError("a connection that is cut after the request never shows a status")
        if self.status is None and self.hold is None and self.cut is None:
            raise TypeError("a fault that does nothing: give a status, a hold or a cut")


def with_fault(fault: Fault, application: ASGIApp, error: ASGIApp) -> ASGIApp:
    """Make the application that answers one HTTP request in the way of a fault; *error* makes its error answer."""

    async def faulty(scope: Scope, receive: Receive, send: Send) -> None:
        answer: list[Message] = []

        async def keep(message: Message) -> None:
            answer.append(message)

        if fault.cut == "request":
            await _read_all(receive)
        if fault.carried_out:
            await application(scope, receive, _drop)
        if fault.status is not None:
            await error(scope, receive, keep)
        elif fault.cut != "request":
            await application(scope, receive, keep)
        if fault.hold is not None:
            await fault.hold()
        await _send(answer, fault.cut, receive, send)

    return faulty


async def _drop(_: Message) -> None:
    """Send nothing."""


async def _read_all(receive: Receive) -> None:
    while (await receive()).get("more_body"):
        pass


async def _send(answer: list[Message], cut: Cut | None, receive: Receive, send: Send) -> None:
    if cut is None:
        for message in answer:
            await send(message)
        return
    body = b"".join(message.get("body", b"") for message in answer)
    if cut == "body" and body:
        await send(answer[0])
        await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
    await _cut(receive, send)


async def _cut(receive: Receive, send: Send) -> None:
    # ASGI has no word for this. uvicorn's `send` belongs to a cycle that has the transport.
    transport: asyncio.Transport | None = getattr(getattr(send, "__self__", None), "transport", None)
    if transport is None:
        raise ConnectionAborted
    transport.close()
    while (await receive())["type"] != "http.disconnect":
        pass


Fault.__module__ = "callfire_async.testing"
PostbackFault.__module__ = "callfire_async.testing"
