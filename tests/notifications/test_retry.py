"""The delays between attempts."""

import pytest

from callfire_async.notifications import RetryPolicy


@pytest.mark.parametrize(("attempt", "limit"), [(1, 5.0), (2, 25.0), (3, 125.0), (7, 14400.0), (10**6, 14400.0)])
def test_the_delay_grows_to_its_limit(attempt, limit):
    """It is random up to the limit, so that deliveries that failed together are not retried together."""
    policy = RetryPolicy()

    assert (policy.delay(attempt, 0.0), policy.delay(attempt, 1.0)) == (0.0, limit)


def test_the_default_policy_retries_for_about_a_day():
    """Long enough for a database that is down overnight."""
    policy = RetryPolicy()

    assert sum(policy.delay(attempt, 1.0) for attempt in range(1, policy.max_attempts)) > 86400


@pytest.mark.parametrize(("name", "value"), [("max_attempts", 0), ("initial_delay", -1.0), ("max_delay", -1.0)])
def test_an_invalid_policy_raises(name, value):
    """A policy needs at least one attempt and no negative delay; the error starts with the parameter's name."""
    with pytest.raises(ValueError, match=f"^{name} must"):
        RetryPolicy(**{name: value})
