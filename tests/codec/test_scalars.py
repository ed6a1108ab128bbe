"""Tests of the conversion of single values that no test of the models covers."""

from datetime import datetime, timedelta, timezone

import pytest

from callfire_async._codec.scalars import format_scalar, format_time, normalize

EAST, WEST = timezone(timedelta(hours=2)), timezone(timedelta(hours=-2))


@pytest.mark.parametrize(
    ("value", "text"), [("x", "x"), (None, ""), (True, "true"), (False, "false"), (42, "42"), (1.5, "1.5")]
)
def test_a_scalar_is_formatted_as_in_xml(value, text):
    """Booleans are lower case, and None is empty."""
    assert format_scalar(value) == text


@pytest.mark.parametrize(
    ("text", "normalized"),
    [("x", "x"), (" x\t", "x"), ("a\r\nb\rc\nd", "a\nb\nc\nd"), ("", None), (" \r\n ", None), ("a  b", "a  b")],
)
def test_text_is_normalized(text, normalized):
    """Line ends are line feeds, white space around the text is stripped, and empty text is None."""
    assert normalize(text) == normalized


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2024, 5, 6, 7, 8, 9, tzinfo=EAST).replace(tzinfo=None), "2024-05-06T07:08:09"),
        (datetime(2024, 5, 6, 7, 8, 9, tzinfo=EAST), "2024-05-06T05:08:09Z"),
        (datetime.min.replace(tzinfo=EAST), "0001-01-01T00:00:00+02:00"),
        (datetime.max.replace(microsecond=0, tzinfo=WEST), "9999-12-31T23:59:59-02:00"),
    ],
)
def test_a_time_is_in_utc(moment, text):
    """One that UTC does not reach keeps its offset."""
    assert format_time(moment) == text
