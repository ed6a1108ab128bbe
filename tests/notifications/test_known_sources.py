"""Events of known subscriptions and webhooks."""

import asyncio

import pytest

from callfire_async import HandlerErrors, Text
from callfire_async.notifications import TextSent
from callfire_async.notifications.security._allowlist import AllowList
from callfire_async.notifications.worker._known_sources import KnownSources


def known(subscriptions: object = None, webhooks: object = None) -> KnownSources:
    return KnownSources(AllowList("known_subscriptions", subscriptions), AllowList("known_webhooks", webhooks))


@pytest.mark.parametrize(
    ("ids", "reason"),
    [
        ({"subscription_id": 7}, ""),
        ({"subscription_id": 5}, "subscription 5 is not in known_subscriptions"),
        ({"webhook_id": 5}, ""),
        ({"webhook_id": 7}, "webhook 7 is not in known_webhooks"),
        ({}, ""),
    ],
)
async def test_each_list_applies_to_its_own_ids(ids, reason):
    """An event with neither id is handled."""
    assert await known({7}, {5}).find_unknown(TextSent(text=Text(1), **ids)) == reason


async def test_without_lists_all_events_are_handled():
    """None allows all."""
    assert await known().find_unknown(TextSent(text=Text(1), webhook_id=5)) == ""


async def test_a_failure_names_the_function():
    """Its event is retried, or the response is 500."""

    async def fetch() -> set[int]:
        raise OSError

    with pytest.raises(HandlerErrors) as caught:
        await known(webhooks=fetch).find_unknown(TextSent(text=Text(1), webhook_id=5))

    assert [*caught.value.failed] == ["known_webhooks"]


async def test_a_function_that_hangs_fails_after_the_timeout():
    """Otherwise it would keep all slots of the worker."""

    async def hang() -> set[int]:
        await asyncio.get_running_loop().create_future()

    sources = KnownSources.from_arguments(hang, None, 0.01)
    with pytest.raises(HandlerErrors) as caught:
        await sources.find_unknown(TextSent(text=Text(1), subscription_id=5))

    (error,) = caught.value.exceptions
    assert (type(error), error.__notes__) == (TimeoutError, ["known_subscriptions took longer than 0.01 seconds"])
