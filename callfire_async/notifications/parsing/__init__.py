"""
Parse a postback's body into events, without I/O.

This module reads the document and maps errors, for both API generations. `api_1_1` and `api_2` create the events.
"""

from collections.abc import Callable
from typing import TypeVar

from attrs import evolve

from callfire_async._arguments import type_name
from callfire_async._codec import documents
from callfire_async._codec.document_limits import InvalidDocumentError, UnexpectedDocumentError
from callfire_async._codec.model_reader import ConversionError
from callfire_async.errors import InvalidNotificationError, MalformedNotificationError
from callfire_async.notifications.events import Notification
from callfire_async.notifications.parsing import api_1_1, api_2

__all__ = ["parse", "parse_all", "parse_each", "parse_or_split"]

T = TypeVar("T")
Source = documents.Document | documents.Members


def parse(body: bytes | str, content_type: str | None = None) -> Notification:
    """
    Parse the body of a postback with one event: XML, JSON or SOAP of API 1.1, or an envelope of API v2.

    A JSON object with the key ``events`` is an envelope; other JSON must be an object with exactly one key.

    Args:
        body: The body as it was received.
        content_type: The ``Content-Type`` header. The format is detected from the body; only the charset is used.

    Returns:
        The event. ``problems`` lists the fields that are None because they cannot be read, and the values with
        characters that the format forbids, which are repaired.

    Raises:
        TypeError: *body* is neither bytes nor a string.
        MalformedNotificationError: The body is neither XML nor JSON, or exceeds a limit for hostile input.
        InvalidNotificationError: The body is well-formed, but it is not one named object or an envelope of one event,
            its text, call or other subject is missing, or an id is missing or invalid.
    """
    return _read(body, content_type, _only_event)


def parse_all(body: bytes | str, content_type: str | None = None) -> tuple[Notification, ...]:
    """
    Parse the body of a postback with any number of events: one in API 1.1, up to 1,000 in an envelope of API v2.

    Args:
        body: The body as it was received.
        content_type: The ``Content-Type`` header, as for `parse`.

    Returns:
        The events, in the order of the body; at least one.

    Raises:
        MalformedNotificationError: See `parse`.
        InvalidNotificationError: See `parse`; or the envelope has no events, more than 1,000, or one that cannot be
            read, whose index is in the problems.
    """
    return _read(body, content_type, _all_events)


def parse_each(
    body: bytes | str, content_type: str | None = None
) -> tuple[Notification | InvalidNotificationError, ...]:
    """
    Parse the body of a postback as `parse_all` does, with an error in place of each event that cannot be read.

    Args:
        body: The body as it was received.
        content_type: The ``Content-Type`` header, as for `parse`.

    Raises:
        MalformedNotificationError: See `parse`.
        InvalidNotificationError: See `parse`, for API 1.1; or the envelope has no events or more than 1,000.
    """
    return _read(body, content_type, _each_event)


def parse_or_split(body: bytes | str, content_type: str | None = None) -> Notification | tuple[bytes, ...]:
    """
    Parse the body of a postback with one event, or split an envelope with several without converting its events.

    Args:
        body: The body as it was received.
        content_type: The ``Content-Type`` header, as for `parse`.

    Returns:
        The event; or a body in UTF-8 for each of two or more events, in their order: the envelope with that event only.
        `parse` returns for it what `parse_all` returns at its index, or raises an error if that event cannot be read.

    Raises:
        MalformedNotificationError: See `parse`.
        InvalidNotificationError: See `parse`; or the envelope has no events, more than 1,000, or several and more than
            4,096 bytes in addition to them, which would be repeated for each.
    """
    return _read(body, content_type, _event_or_parts)


def _read(body: bytes | str, content_type: str | None, convert: Callable[[Source], T]) -> T:
    if not isinstance(body, bytes | str):
        raise TypeError(f"body must be bytes or a string, not {type_name(body)}")
    try:
        return convert(documents.read_postback(body, content_type))
    except UnexpectedDocumentError as error:
        raise InvalidNotificationError(f"not a notification: {error}") from None
    except InvalidDocumentError as error:
        raise MalformedNotificationError(str(error)) from None
    except ConversionError as error:
        raise _unreadable(error) from None


def _unreadable(error: ConversionError) -> InvalidNotificationError:
    return InvalidNotificationError(f"not a notification: {error}", problems=error.problems)


def _only_event(document: Source) -> Notification:
    if isinstance(document, documents.Document):
        return _single(document)
    elements = api_2.list_elements(document.content)
    if len(elements) > 1:
        raise UnexpectedDocumentError(f"the envelope has {len(elements)} events, which parse_all returns")
    return api_2.create_event(document, elements[0])


def _event_or_parts(document: Source) -> Notification | tuple[bytes, ...]:
    if isinstance(document, documents.Document) or len(elements := api_2.list_elements(document.content)) == 1:
        return _only_event(document)
    return api_2.split(document.content, elements)


def _all_events(document: Source) -> tuple[Notification, ...]:
    if isinstance(document, documents.Document):
        return (_single(document),)
    elements = api_2.list_elements(document.content)
    return tuple([_event_at(document, index, element) for index, element in enumerate(elements)])


def _each_event(document: Source) -> tuple[Notification | InvalidNotificationError, ...]:
    if isinstance(document, documents.Document):
        return (_single(document),)
    elements = api_2.list_elements(document.content)
    return tuple([_event_or_error(document, index, element) for index, element in enumerate(elements)])


def _event_or_error(
    envelope: documents.Members, index: int, element: object
) -> Notification | InvalidNotificationError:
    try:
        return _event_at(envelope, index, element)
    except ConversionError as error:
        return _unreadable(error)


def _event_at(envelope: documents.Members, index: int, element: object) -> Notification:
    try:
        return api_2.create_event(envelope, element)
    except ConversionError as error:
        raise ConversionError(tuple(_with_index(problem, index) for problem in error.problems)) from None


def _with_index(problem: str, index: int) -> str:
    kind, _, path = problem.partition(" @ ")
    return f"{kind} @ events[{index}]" + (f".{path}" if path != "events" else "")


def _single(document: documents.Document) -> Notification:
    event = api_1_1.create_event(document.root, document.content)
    return evolve(event, problems=document.problems + event.problems) if document.problems else event
