"""
Make sure that CallFire posts what the handlers want: ``python -m service.subscribe``, at each deployment.

``CALLFIRE_API_LOGIN``, ``CALLFIRE_API_PASSWORD``, ``CALLFIRE_TOKEN`` and ``PUBLIC_URL`` say where.
"""

from __future__ import annotations

import asyncio

from callfire_async import CallFire, NotificationFormat, SubscriptionSpec
from service.handlers import make_router
from service.ledger import Ledger
from service.settings import Settings


async def subscribe(callfire: CallFire, settings: Settings) -> None:
    """Print what is to be done, and do it; what is there already is left, also with an older token."""
    endpoint = settings.tokens.url(settings.public_url)
    # The router is asked what it wants; nothing is handled here, and no database is opened.
    wanted = make_router(Ledger(settings.database)).trigger_events
    specs = [SubscriptionSpec(endpoint, trigger, notification_format=NotificationFormat.JSON) for trigger in wanted]
    plan = await callfire.subscriptions.plan(specs, tokens=settings.tokens)
    print(plan)
    applied = await callfire.subscriptions.apply(plan)
    if applied.errors:
        raise ExceptionGroup("not everything could be done; run it again", [*applied.errors.values()])


async def main() -> None:
    """Do so with the account that the environment names."""
    async with CallFire() as callfire:
        await subscribe(callfire, Settings.from_environment())


if __name__ == "__main__":
    asyncio.run(main())
