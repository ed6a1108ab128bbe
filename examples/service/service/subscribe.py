"""
Create the subscriptions that the handlers need: ``python -m service.subscribe``, at each deployment.

It reads ``CALLFIRE_API_LOGIN``, ``CALLFIRE_API_PASSWORD``, ``CALLFIRE_TOKEN`` and ``PUBLIC_URL``.
"""

from __future__ import annotations

import asyncio

from callfire_async import CallFire, NotificationFormat, SubscriptionSpec
from service.costs import Costs
from service.handlers import make_router
from service.settings import Settings


async def subscribe(callfire: CallFire, settings: Settings) -> None:
    """Print the plan and apply it; an existing subscription is unchanged, also if its endpoint has an older token."""
    endpoint = settings.tokens.url(settings.public_url)
    # The router is only asked for its trigger events: no database is opened.
    triggers = make_router(Costs(settings.database)).trigger_events
    specs = [SubscriptionSpec(endpoint, trigger, notification_format=NotificationFormat.JSON) for trigger in triggers]
    plan = await callfire.subscriptions.plan(specs, tokens=settings.tokens)
    print(plan)
    result = await callfire.subscriptions.apply(plan)
    if result.errors:
        raise ExceptionGroup("some changes failed; run the command again", [*result.errors.values()])


async def main() -> None:
    """Subscribe with the account in the environment."""
    async with CallFire() as callfire:
        await subscribe(callfire, Settings.from_environment())


if __name__ == "__main__":
    asyncio.run(main())
