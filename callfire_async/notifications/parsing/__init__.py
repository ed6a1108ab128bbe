"""
Parse a postback's body into an event, without I/O.

This module reads the document and maps errors, for every API generation. `api_1_1` creates the events of API 1.1.
"""

from attrs import evolve

from callfire_async._codec import documents
from callfire_async._codec.document_limits import InvalidDocumentError, UnexpectedDocumentError
from callfire_async._codec.model_reader import ConversionError
from callfire_async.errors import InvalidNotificationError, MalformedNotificationError
from callfire_async.notifications.events import Notification
from callfire_async.notifications.parsing import api_1_1

__all__ = ["parse"]


def parse(body: bytes | str, content_type: str | None = None) -> Notification:
    """
    Parse the body of a postback in XML, JSON or SOAP.

    Args:
        body: The body as it was received.
        content_type: The ``Content-Type`` header. The format is detected from the body; only the charset is used.

    Returns:
        The event. ``problems`` lists the fields that are None because they cannot be read, and the values with
        characters that the format forbids, which are repaired.

    Raises:
        MalformedNotificationError: The body is neither XML nor JSON, or exceeds a limit for hostile input.
        InvalidNotificationError: The body is well-formed, but it is not one named object, its text, call or broadcast
            is missing, or an id is missing or invalid.
    """
    try:
        document = documents.read(body, content_type)
        event = api_1_1.create_event(document.root, document.content)
    except UnexpectedDocumentError as error:
        raise InvalidNotificationError(f"not a notification: {error}") from None
    except InvalidDocumentError as error:
        raise MalformedNotificationError(str(error)) from None
    except ConversionError as error:
        raise InvalidNotificationError(f"not a notification: {error}", problems=error.problems) from None
    return evolve(event, problems=document.problems + event.problems) if document.problems else event
