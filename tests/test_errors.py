"""Every error can be pickled, copied and printed, and shows nothing that is nobody's business."""

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
    "body": f"<Message>{SECRET}</Message>".encode(),
    "request_id": "0123456789abcdef",
    "attempts": 4,
    "retry_after": 61.5,
}
TRANSPORT = {"method": "GET", "path": "/subscription/42", "attempts": 4}
RESPONSE = {"method": "GET", "path": "/subscription/42", "status_code": 302, "body": SECRET.encode()}


def details(kind):
    """Tell what an error of this kind is made with, besides its message."""
    for parent, values in ((APIError, API), (TransportError, TRANSPORT), (ResponseError, RESPONSE)):
        if issubclass(kind, parent):
            return values
    return {"problems": ["not a time @ Call.Created"]} if issubclass(kind, InvalidNotificationError) else {}


KINDS = [kind for kind in map(vars(errors).get, errors.__all__) if kind is not HandlerErrors]
ERRORS = [kind("what went wrong", **details(kind)) for kind in KINDS]

through_pickle = [
    pytest.param(lambda error, protocol=protocol: pickle.loads(pickle.dumps(error, protocol)), id=f"pickle-{protocol}")
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
]
reproduce = pytest.mark.parametrize(
    "reproduced", [*through_pickle, pytest.param(copy.copy, id="copy"), pytest.param(copy.deepcopy, id="deepcopy")]
)


@reproduce
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_survives(error, reproduced):
    """Its type, its message and each of its attributes, a note among them."""
    error = copy.copy(error)
    error.add_note("a note")

    again = reproduced(error)

    assert type(again) is type(error)
    assert (str(again), again.args) == ("what went wrong", ("what went wrong",))
    assert vars(again) == vars(error)
    assert again.__notes__ == ["a note"]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_prints_its_message_only(error):
    """Attributes give what CallFire said; what is printed does not."""
    assert str(error) == "what went wrong"
    assert repr(error) == f"{type(error).__name__}('what went wrong')"


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_is_of_the_tree_and_described(error):
    """One `except CallFireError` catches all; its docstring says when it is raised."""
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
def test_the_tree(kind, parent):
    """As the module's docstring draws it."""
    assert issubclass(kind, parent)
    assert kind.__name__ in errors.__doc__


def test_an_api_error_says_little_unless_told_more():
    """A status and what was asked are enough."""
    error = APIError("no", status_code=418, method="GET", path="/")

    assert (error.message, error.body, error.request_id, error.attempts, error.retry_after) == (
        None,
        b"",
        None,
        1,
        None,
    )


def test_a_notification_error_knows_the_status_of_its_answer():
    """400 for what is no document, 422 for what is no notification."""
    hints = [kind.status_hint for kind in (NotificationError, MalformedNotificationError, InvalidNotificationError)]

    assert hints == [400, 400, 422]


# --- what handlers raised ---------------------------------------------------------------------------------


class Unpicklable(Exception):
    """Cannot be made again from its arguments."""

    def __init__(self, number, reason):
        super().__init__(f"{number}: {reason}")


def group():
    """Make a group of three."""
    return HandlerErrors(
        "three handlers failed",
        [ValueError(SECRET), LookupError("b"), TypeError("c")],
        completed=frozenset(["shop.paid"]),
        failed=["shop.first", "shop.second", "shop.third"],
    )


@reproduce
def test_a_group_survives(reproduced):
    """With its exceptions, and the handlers' names."""
    again = reproduced(group())

    assert type(again) is HandlerErrors
    assert again.message == "three handlers failed"
    assert [(type(error), error.args) for error in again.exceptions] == [
        (ValueError, (SECRET,)),
        (LookupError, ("b",)),
        (TypeError, ("c",)),
    ]
    assert (again.completed, again.failed) == (frozenset(["shop.paid"]), ("shop.first", "shop.second", "shop.third"))


def test_a_group_prints_no_word_of_a_handler():
    """What a handler says in its exception may be about people."""
    error = group()

    assert str(error) == "three handlers failed (3 sub-exceptions)"
    assert error.args == ("three handlers failed",)
    assert SECRET not in repr(error)


def test_what_cannot_be_pickled_leaves_its_name():
    """A handler's exception of its own making does not make the group unfit to travel."""
    error = HandlerErrors("one handler failed", [Unpicklable(1, SECRET)], failed=["shop.first"])

    (stand_in,) = pickle.loads(pickle.dumps(error)).exceptions

    assert (type(stand_in), stand_in.args) == (Exception, ("Unpicklable",))


def test_a_part_of_a_group_keeps_the_names_that_belong_to_it():
    """`except*` and `split` take some exceptions out, each still beside its handler."""
    matching, rest = group().split(LookupError)

    assert isinstance(matching, HandlerErrors)
    assert (matching.failed, rest.failed) == (("shop.second",), ("shop.first", "shop.third"))
    assert matching.completed == rest.completed == frozenset(["shop.paid"])


def test_a_group_derived_from_others_names_only_its_own():
    """An exception that was never in the group has no handler."""
    error = group()

    derived = error.derive([error.exceptions[2], OSError("new")])

    assert derived.failed == ("shop.third",)
    assert derived.completed == error.completed
