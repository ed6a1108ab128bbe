"""Endpoint tokens."""

import pytest

from callfire_async.notifications import EndpointTokens

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
    "base",
    [
        *("", "hooks.example.com", "ftp://a.example"),
        *("https://a.example?x=1", "https://a.example#x", "https://a.example/?", "https://a.example/#"),
    ],
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
