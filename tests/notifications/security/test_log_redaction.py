"""Redaction of endpoint tokens in log records."""

import logging

import pytest

from callfire_async.notifications import EndpointTokens, RedactTokenFilter

CURRENT = "current-0123456789"


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
        (["%s", {f"/{CURRENT}": 1, 2: 3}], "{'/***': 1, 2: 3}"),
    ],
)
def test_a_record_is_masked_in_message_and_arguments(message, written):
    """Arguments of any type; one that shows no token is unchanged."""
    assert logged(*message).getMessage() == written


class Unformattable(Shows):
    """An object that cannot be formatted, like a row of a database whose session is closed."""

    def __repr__(self) -> str:
        raise LookupError


def test_an_object_that_cannot_be_formatted_does_not_fail_the_code_that_logs_it():
    """Logging reports that itself if it writes the record; the other text of the object is masked."""
    hidden, shown = Unformattable("nothing"), Unformattable(CURRENT)

    assert logged("%s %r", shown, hidden).args == ("***", hidden)


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
