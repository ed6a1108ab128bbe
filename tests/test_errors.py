"""Tests of the errors: the tree, copies, pickles, and no private data when they are printed."""

import copy
import pickle

import pytest

from callfire_async import errors
from callfire_async.errors import (
    APIError,
    CallFireError,
    ClientClosedError,
    HandlerErrors,
    InboxError,
    InvalidNotificationError,
    MalformedNotificationError,
    NotificationError,
    RateLimitError,
    RequestTimeoutError,
    ResponseError,
    ServerError,
    TransportError,
)

SECRET = "12135551212"
API = {
    "status_code": 429,
    "method": "POST",
    "path": "/subscription",
    "message": f"{SECRET} is no number",
    "code": "40001",
    "body": f"<Message>{SECRET}</Message>".encode(),
    "request_id": "0123456789abcdef",
    "attempts": 4,
    "retry_after": 61.5,
}
TRANSPORT = {"method": "GET", "path": "/subscription/42", "attempts": 4}
RESPONSE = {"method": "GET", "path": "/subscription/42", "status_code": 302, "body": SECRET.encode()}


def details(kind):
    """Return the keyword arguments for an error class."""
    for parent, values in ((APIError, API), (TransportError, TRANSPORT), (ResponseError, RESPONSE)):
        if issubclass(kind, parent):
            return values
    return {"problems": ["not a time @ Call.Created"]} if issubclass(kind, InvalidNotificationError) else {}


KINDS = [kind for kind in map(vars(errors).get, errors.__all__) if kind is not HandlerErrors]
ERRORS = [kind("a failure", **details(kind)) for kind in KINDS]

through_pickle = [
    pytest.param(lambda error, protocol=protocol: pickle.loads(pickle.dumps(error, protocol)), id=f"pickle-{protocol}")
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
]
each_copy = pytest.mark.parametrize(
    "copied", [*through_pickle, pytest.param(copy.copy, id="copy"), pytest.param(copy.deepcopy, id="deepcopy")]
)


@each_copy
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_can_be_copied_and_pickled(error, copied):
    """Its type, message, attributes and notes are kept."""
    error = copy.copy(error)
    error.add_note("a note")

    duplicate = copied(error)

    assert type(duplicate) is type(error)
    assert (str(duplicate), duplicate.args) == ("a failure", ("a failure",))
    assert vars(duplicate) == vars(error)
    assert duplicate.__notes__ == ["a note"]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_prints_its_message_only(error):
    """The attributes are not printed, because they may have CallFire's response."""
    assert str(error) == "a failure"
    assert repr(error) == f"{type(error).__name__}('a failure')"


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_is_a_callfire_error_with_a_docstring(error):
    """Its attributes are the arguments of its constructor."""
    assert isinstance(error, CallFireError)
    assert type(error).__doc__.strip()
    assert vars(error) == {
        name: tuple(value) if name == "problems" else value for name, value in details(type(error)).items()
    }


@pytest.mark.parametrize(
    ("kind", "parent"),
    [
        *((kind, APIError) for kind in KINDS if kind.__name__ in "BadRequestError AuthenticationError NotFoundError"),
        (errors.PermissionDeniedError, APIError),
        (RateLimitError, APIError),
        (ServerError, APIError),
        (APIError, CallFireError),
        (TransportError, CallFireError),
        (RequestTimeoutError, TransportError),
        (ResponseError, CallFireError),
        (ClientClosedError, CallFireError),
        (NotificationError, CallFireError),
        (MalformedNotificationError, NotificationError),
        (InvalidNotificationError, NotificationError),
        (HandlerErrors, CallFireError),
        (HandlerErrors, ExceptionGroup),
        (InboxError, CallFireError),
        (errors.InboxLockedError, InboxError),
        (errors.InboxUnavailableError, InboxError),
    ],
)
def test_the_tree_of_errors(kind, parent):
    """Every class is in the tree in the module docstring."""
    assert issubclass(kind, parent)
    assert kind.__name__ in errors.__doc__


def test_most_attributes_of_an_api_error_are_optional():
    """A status, a method and a path suffice."""
    error = APIError("no", status_code=418, method="GET", path="/")

    assert (error.message, error.body, error.request_id, error.attempts, error.retry_after) == (
        None,
        b"",
        None,
        1,
        None,
    )


def test_a_notification_error_has_a_status_hint():
    """The status is 400 for a body that is not a document, and 422 for one that is not a notification."""
    hints = [kind.status_hint for kind in (NotificationError, MalformedNotificationError, InvalidNotificationError)]

    assert hints == [400, 400, 422]


# --- HandlerErrors ----------------------------------------------------------------------------------------


class Unpicklable(Exception):
    """An exception whose constructor does not accept its ``args``."""

    def __init__(self, number, reason):
        super().__init__(f"{number}: {reason}")


def group():
    """Return a group of three exceptions."""
    return HandlerErrors(
        "three handlers failed",
        [ValueError(SECRET), LookupError("b"), TypeError("c")],
        completed=frozenset(["shop.paid"]),
        failed=["shop.first", "shop.second", "shop.third"],
    )


@each_copy
def test_a_group_can_be_copied_and_pickled(copied):
    """Its exceptions and the handlers' names are kept."""
    duplicate = copied(group())

    assert type(duplicate) is HandlerErrors
    assert duplicate.message == "three handlers failed"
    assert [(type(error), error.args) for error in duplicate.exceptions] == [
        (ValueError, (SECRET,)),
        (LookupError, ("b",)),
        (TypeError, ("c",)),
    ]
    assert (duplicate.completed, duplicate.failed) == (
        frozenset(["shop.paid"]),
        ("shop.first", "shop.second", "shop.third"),
    )


def test_a_printed_group_has_no_message_of_a_handler():
    """A handler's exception may have private data in its message."""
    error = group()

    assert str(error) == "three handlers failed (3 sub-exceptions)"
    assert error.args == ("three handlers failed",)
    assert SECRET not in repr(error)


def test_an_exception_that_cannot_be_pickled_is_replaced():
    """The replacement has the name of its type."""
    error = HandlerErrors("one handler failed", [Unpicklable(1, SECRET)], failed=["shop.first"])

    (replacement,) = pickle.loads(pickle.dumps(error)).exceptions

    assert (type(replacement), replacement.args) == (Exception, ("Unpicklable",))


def test_a_part_of_a_group_has_the_names_of_its_handlers():
    """`except*` and `split` select exceptions, and each keeps its handler."""
    matching, rest = group().split(LookupError)

    assert isinstance(matching, HandlerErrors)
    assert (matching.failed, rest.failed) == (("shop.second",), ("shop.first", "shop.third"))
    assert matching.completed == rest.completed == frozenset(["shop.paid"])


def test_an_added_exception_has_no_handler():
    """`derive` may be called with exceptions that are not in the group."""
    error = group()

    derived = error.derive([error.exceptions[2], OSError("new")])

    assert derived.failed == ("shop.third",)
    assert derived.completed == error.completed
