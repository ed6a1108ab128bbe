"""Tests of the conversion of single values that no test of the models covers."""

import pytest

from callfire_async._codec.scalars import format_scalar, normalize


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
