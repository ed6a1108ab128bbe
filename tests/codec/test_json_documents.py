"""Tests of reading and writing JSON objects; the limits are tested with the documents of API 1.1."""

import pytest

from callfire_async._codec.document_limits import InvalidDocumentError, UnexpectedDocumentError
from callfire_async._codec.json_documents import read_object, write_object

OBJECT = {"id": 2**60, "name": "Zoë \U0001f600", "items": [1, None, True], "nested": {"a": 1.5}}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_an_object_is_read(encoding):
    """With any number of keys, in any encoding of JSON."""
    text = write_object(OBJECT).decode()

    assert read_object(text.encode(encoding), max_values=10) == OBJECT
    assert read_object(text, max_values=10) == OBJECT


@pytest.mark.parametrize("body", [b"[]", b"1", b"null", b'"{}"'])
def test_another_value_is_unexpected(body):
    """A document of API v2 is an object."""
    with pytest.raises(UnexpectedDocumentError):
        read_object(body, max_values=10)


@pytest.mark.parametrize("body", [b"", b"{", b"<html></html>", b'{"a": "\xff"}', b'{"a": NaN}', b'{"a": [[], [], []]}'])
def test_invalid_json_is_an_error(body):
    """Anything else is invalid, as are documents above the limit."""
    with pytest.raises(InvalidDocumentError):
        read_object(body, max_values=4)
