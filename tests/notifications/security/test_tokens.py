"""The token in the endpoint's URL."""

import logging

import pytest

from callfire_async.notifications import EndpointTokens, RedactTokenFilter

CURRENT = "current-0123456789"
PREVIOUS = "previous-0123456789"


@pytest.mark.parametrize("token", [CURRENT, PREVIOUS])
def test_any_of_the_tokens_opens(token):
    """While a token is changed both the new and the old one open."""
    assert EndpointTokens(CURRENT, PREVIOUS).verify(token)


@pytest.mark.parametrize("token", [None, "", CURRENT[:-1], CURRENT + "0", CURRENT.upper(), "é", "\ud800", "\0"])
def test_nothing_else_opens(token):
    """Not a near one, not one that is no ASCII, not none."""
    assert not EndpointTokens(CURRENT, PREVIOUS).verify(token)


@pytest.mark.parametrize(
    "token", ["", "with space-0123456", "slash/0123456789", "ümlaut-0123456789", "line\n012345678901"]
)
def test_a_token_must_need_no_escaping(token):
    """What a URL or a proxy could change is refused at once."""
    with pytest.raises(ValueError, match="ASCII"):
        EndpointTokens(CURRENT, token)


def test_a_short_token_is_warned_of():
    """Fewer than 16 characters can be guessed."""
    with pytest.warns(UserWarning, match="16"):
        EndpointTokens("short")


def test_generated_tokens_are_long_and_unlike():
    """Two of them are good for a current and a previous one."""
    first, second = EndpointTokens.generate(), EndpointTokens.generate()

    assert (first != second, len(first), EndpointTokens(first, second).verify(second)) == (True, 43, True)


@pytest.mark.parametrize("base", ["https://hooks.example.com/callfire", "https://hooks.example.com/callfire/"])
def test_the_url_ends_with_the_current_token(base):
    """What create is called with."""
    assert EndpointTokens(CURRENT, PREVIOUS).url(base) == f"https://hooks.example.com/callfire/{CURRENT}"


@pytest.mark.parametrize(
    "base", ["", "hooks.example.com", "ftp://a.example", "https://a.example?x=1", "https://a.example#x"]
)
def test_a_base_that_no_token_can_follow_is_refused(base):
    """A query or a fragment would swallow the token."""
    with pytest.raises(ValueError, match="https"):
        EndpointTokens(CURRENT).url(base)


def test_the_repr_tells_no_token():
    """Not even a part of one."""
    assert repr(EndpointTokens(CURRENT, PREVIOUS)) == "<EndpointTokens: 2>"


def test_the_attributes_tell_no_token():
    """Nor do tools that print what an object holds."""
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
def test_tokens_are_masked_wherever_they_stand(text, masked):
    """As they are or percent-encoded; of two that begin alike the longer one."""
    assert EndpointTokens(CURRENT, PREVIOUS, f"{PREVIOUS}-longer").masked(text) == masked


class Shows:
    """Says a text."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __str__(self) -> str:
        return self._text


class ShowsInItsRepr(Shows):
    """Says it there only."""

    __repr__ = Shows.__str__

    def __str__(self) -> str:
        return "nothing"


def logged(*said: object, redacting: RedactTokenFilter | None = None, **more: object) -> logging.LogRecord:
    """Let a record through the filter."""
    record = logging.LogRecord("name", logging.INFO, "path", 1, said[0], said[1:] or None, None)
    vars(record).update(more)
    assert (redacting or RedactTokenFilter(EndpointTokens(CURRENT))).filter(record)
    return record


@pytest.mark.parametrize(
    ("said", "written"),
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
def test_a_record_is_masked_in_message_and_arguments(said, written):
    """Whatever kind they are of; what shows no token stays what it was."""
    assert logged(*said).getMessage() == written


def test_the_arguments_of_uvicorn_stay_five():
    """Its formatter takes them apart."""
    record = logged('%s - "%s %s HTTP/%s" %d', "127.0.0.1:1", "POST", f"/{CURRENT}", "1.1", 204)

    assert record.args == ("127.0.0.1:1", "POST", "/***", "1.1", 204)


def test_a_record_is_masked_in_what_was_added_to_it():
    """A formatter of JSON writes that too."""
    extra = {"first_request_line": f"POST /{CURRENT}", "request_header": {"Referer": f"/{CURRENT}"}}
    record = logged("request", **extra)

    assert (record.first_request_line, record.request_header) == ("POST /***", {"Referer": "/***"})


@pytest.mark.parametrize(("words", "kept"), [("nothing", True), (f"bad line /{CURRENT}", False)])
def test_a_traceback_that_shows_a_token_is_masked(words, kept):
    """Another is left to whoever formats it."""
    with pytest.raises(ValueError, match=words) as caught:
        raise ValueError(words)
    record = logged("failed", exc_info=(ValueError, caught.value, caught.tb))

    assert (record.exc_info is not None) == kept
    assert ("Traceback" in logging.Formatter().format(record), CURRENT in logging.Formatter().format(record)) == (
        True,
        False,
    )


def test_a_filter_for_one_token_takes_its_text():
    """As a receiver does."""
    assert logged(CURRENT, redacting=RedactTokenFilter(CURRENT)).getMessage() == "***"
