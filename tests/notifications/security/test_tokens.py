"""Endpoint tokens, and their redaction in logs."""

import logging

import pytest

from callfire_async.notifications import EndpointTokens, RedactTokenFilter

CURRENT = "current-0123456789"
PREVIOUS = "previous-0123456789"


@pytest.mark.parametrize("token", [CURRENT, PREVIOUS])
def test_each_token_is_valid(token):
    """During a rotation the new and the old one are valid."""
    assert EndpointTokens(CURRENT, PREVIOUS).verify(token)


@pytest.mark.parametrize("token", [None, "", CURRENT[:-1], CURRENT + "0", CURRENT.upper(), "é", "\ud800", "\0"])
def test_other_tokens_are_invalid(token):
    """A similar one, one that is not ASCII, and None."""
    assert not EndpointTokens(CURRENT, PREVIOUS).verify(token)


@pytest.mark.parametrize(
    "token", ["", "with space-0123456", "slash/0123456789", "ümlaut-0123456789", "line\n012345678901"]
)
def test_a_token_must_need_no_escaping(token):
    """Characters that a URL or a proxy could change raise."""
    with pytest.raises(ValueError, match="ASCII"):
        EndpointTokens(CURRENT, token)


def test_a_short_token_warns():
    """Fewer than 16 characters can be guessed."""
    with pytest.warns(UserWarning, match="16"):
        EndpointTokens("short")


def test_generated_tokens_are_long_and_different():
    """Two of them may be the current and the previous one."""
    first, second = EndpointTokens.generate(), EndpointTokens.generate()

    assert (first != second, len(first), EndpointTokens(first, second).verify(second)) == (True, 43, True)


@pytest.mark.parametrize("base", ["https://hooks.example.com/callfire", "https://hooks.example.com/callfire/"])
def test_the_url_ends_with_the_current_token(base):
    """It is the endpoint of a subscription."""
    assert EndpointTokens(CURRENT, PREVIOUS).url(base) == f"https://hooks.example.com/callfire/{CURRENT}"


@pytest.mark.parametrize(
    "base", ["", "hooks.example.com", "ftp://a.example", "https://a.example?x=1", "https://a.example#x"]
)
def test_an_invalid_base_raises(base):
    """A token cannot follow a query or a fragment."""
    with pytest.raises(ValueError, match="https"):
        EndpointTokens(CURRENT).url(base)


def test_the_repr_shows_no_token():
    """Not even a part of one."""
    assert repr(EndpointTokens(CURRENT, PREVIOUS)) == "<EndpointTokens: 2>"


def test_the_attributes_show_no_token():
    """Tools that print attributes do not reveal it."""
    assert CURRENT not in str(vars(EndpointTokens(CURRENT)))


# --- masking ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("nothing", "nothing"),
        (f"POST /callfire/{CURRENT}?a={PREVIOUS} HTTP/1.1", "POST /callfire/***?a=*** HTTP/1.1"),
        (f"{CURRENT}{CURRENT}", "******"),
        ("%63urrent%2d0123456789 %63%75rrent%2D0123456789", "*** ***"),
        (f"{PREVIOUS}-longer", "***"),
        (CURRENT.upper(), CURRENT.upper()),
    ],
)
def test_tokens_are_masked_anywhere_in_a_text(text, masked):
    """Plain or percent-encoded; the longer of two tokens with the same prefix."""
    assert EndpointTokens(CURRENT, PREVIOUS, f"{PREVIOUS}-longer").masked(text) == masked


class Shows:
    """An object whose str is a given text."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __str__(self) -> str:
        return self._text


class ShowsInItsRepr(Shows):
    """An object whose repr alone is a given text."""

    __repr__ = Shows.__str__

    def __str__(self) -> str:
        return "nothing"


def logged(*message: object, redacting: RedactTokenFilter | None = None, **more: object) -> logging.LogRecord:
    """Return a log record after it has passed the filter."""
    record = logging.LogRecord("name", logging.INFO, "path", 1, message[0], message[1:] or None, None)
    vars(record).update(more)
    assert (redacting or RedactTokenFilter(EndpointTokens(CURRENT))).filter(record)
    return record


@pytest.mark.parametrize(
    ("message", "written"),
    [
        ([f"POST /{CURRENT}"], "POST /***"),
        (['%s "%s" %d', "127.0.0.1", f"/{CURRENT}", 204], '127.0.0.1 "/***" 204'),
        (["%s", CURRENT.encode()], "b'***'"),
        (["%s %s", Shows(f"/{CURRENT}"), Shows("/")], "/*** /"),
        (["%r", ShowsInItsRepr(CURRENT)], "'nothing'"),
        (["%s %s", [CURRENT, 1.5], None], "['***', 1.5] None"),
        ([Shows(CURRENT)], "***"),
        (["%(path)s %(code)d", {"path": CURRENT, "code": 204}], "*** 204"),
    ],
)
def test_a_record_is_masked_in_message_and_arguments(message, written):
    """Arguments of any type; one that shows no token is unchanged."""
    assert logged(*message).getMessage() == written


def test_uvicorn_records_keep_five_arguments():
    """Its formatter unpacks them."""
    record = logged('%s - "%s %s HTTP/%s" %d', "127.0.0.1:1", "POST", f"/{CURRENT}", "1.1", 204)

    assert record.args == ("127.0.0.1:1", "POST", "/***", "1.1", 204)


def test_a_record_is_masked_in_its_extra_fields():
    """A JSON formatter writes them."""
    extra = {"first_request_line": f"POST /{CURRENT}", "request_header": {"Referer": f"/{CURRENT}"}}
    record = logged("request", **extra)

    assert (record.first_request_line, record.request_header) == ("POST /***", {"Referer": "/***"})


@pytest.mark.parametrize(("text", "kept"), [("nothing", True), (f"bad line /{CURRENT}", False)])
def test_a_traceback_that_shows_a_token_is_masked(text, kept):
    """Another traceback is left to the formatter."""
    with pytest.raises(ValueError, match=text) as caught:
        raise ValueError(text)
    record = logged("failed", exc_info=(ValueError, caught.value, caught.tb))

    assert (record.exc_info is not None) == kept
    assert ("Traceback" in logging.Formatter().format(record), CURRENT in logging.Formatter().format(record)) == (
        True,
        False,
    )


def test_a_filter_accepts_one_token_as_a_string():
    """As a receiver does."""
    assert logged(CURRENT, redacting=RedactTokenFilter(CURRENT)).getMessage() == "***"
