"""Which events are handled by the subscription or webhook that sent them."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Self

from attrs import frozen

from callfire_async.notifications.events import Notification
from callfire_async.notifications.routing._user_code import user_result
from callfire_async.notifications.security._allowlist import AllowList, Source

__all__ = ["KnownSources"]


@frozen
class KnownSources:
    """The known subscriptions and webhooks. An event with neither id is always handled."""

    _subscriptions: AllowList
    _webhooks: AllowList
    #: Seconds for each call of a function of the user.
    _timeout: float | None = None

    @classmethod
    def from_arguments(cls, subscriptions: Source | None, webhooks: Source | None, timeout: float | None) -> Self:
        """Return the sources that the arguments of a receiver name; raise `TypeError` if one is wrong."""
        return cls(AllowList("known_subscriptions", subscriptions), AllowList("known_webhooks", webhooks), timeout)

    async def find_unknown(
        self, event: Notification, around: Callable[[str], AbstractContextManager[object]] = nullcontext
    ) -> str:
        """
        Return why an event must not be handled; empty if its subscription or webhook is known.

        Args:
            event: The event.
            around: Called with the name of each function of the user; returns a context manager for its run.

        Raises:
            HandlerErrors: A function of the user failed or took too long.
        """
        for kind, id, known in (
            ("subscription", event.subscription_id, self._subscriptions),
            ("webhook", event.webhook_id, self._webhooks),
        ):
            if not (id is None or known.allows_all or await self._allows(known, id, around)):
                return f"{kind} {id} is not in {known.name}"
        return ""

    async def _allows(self, known: AllowList, id: int, around: Callable[[str], AbstractContextManager[object]]) -> bool:
        with around(known.name):
            return await user_result(self._timeout, known.name, known.allows, id)
