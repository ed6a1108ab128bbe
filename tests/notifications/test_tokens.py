"""The token in the endpoint's URL."""

import pytest

from callfire_async.notifications import EndpointTokens

CURRENT = "current-0123456789"
PREVIOUS = "previous-0123456789"


@pytest.mark.parametrize("token", [CURRENT, PREVIOUS])
def test_any_of_the_tokens_opens(token):
    """While a token is changed both the new and the old one open."""
    assert EndpointTokens(CURRENT, PREVIOUS).opens(token)


@pytest.mark.parametrize("token", [None, "", CURRENT[:-1], CURRENT + "0", CURRENT.upper(), "é", "\ud800", "\0"])
def test_nothing_else_opens(token):
    """Not a near one, not one that is no ASCII, not none."""
    assert not EndpointTokens(CURRENT, PREVIOUS).opens(token)


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

    assert (first != second, len(first), EndpointTokens(first, second).opens(second)) == (True, 43, True)


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
