"""
What a receiver answers to those that watch over its process.

Three questions that are easily mistaken for one another: whether it must be restarted, whether it can take postbacks,
and whether somebody should look at it. It imports the receiver.
"""

import asyncio
from typing import Literal, TypeAlias

from attrs import frozen

from callfire_async.notifications.receiver import Receiver
from callfire_async.notifications.security.request_validation import Reply

__all__ = ["Health", "check_health", "health_reply"]

#: What is asked; None is all of it.
Question: TypeAlias = Literal["live", "ready"] | None

# A count takes milliseconds; whoever asks gives up after some seconds.
_COUNTING_SECONDS = 2.0


@frozen
class Health:
    """How a receiver is."""

    #: Whether it works; if not, only a restart helps.
    live: bool
    #: Whether it can take postbacks. What waits, and what is dead, does not keep it from that.
    ready: bool
    #: What somebody should look at, in words; nothing where all is well.
    reasons: tuple[str, ...] = ()

    @property
    def healthy(self) -> bool:
        """Whether there is nothing to look at."""
        return not self.reasons


async def check_health(receiver: Receiver, *, max_age: float = 300.0) -> Health:
    """
    Ask a receiver how it is; this never raises.

    Args:
        receiver: Any; one that is not running is live, and not ready.
        max_age: Seconds for which a delivery that is due may wait.
    """
    if not receiver.is_running:
        return Health(live=True, ready=False, reasons=("the receiver is not running",))
    way = receiver._way  # noqa: SLF001  # our own
    said = {
        "the receiver claims no more deliveries": not way.is_working,
        "the inbox cannot be written to": not way.is_storing,
        "a delivery became a dead letter within the last quarter of an hour": way.has_buried,
    }
    reasons = [reason for reason, holds in said.items() if holds] + await _waiting(receiver, max_age)
    return Health(live=way.is_working, ready=way.is_working and way.may_store, reasons=tuple(reasons))


async def _waiting(receiver: Receiver, max_age: float) -> list[str]:
    try:
        async with asyncio.timeout(_COUNTING_SECONDS):
            stats = (await receiver.stats()).inbox
    except Exception:  # noqa: BLE001  # the inbox may be the user's own; its words are not ours to tell
        return ["the inbox cannot be read"]
    age = 0.0 if stats is None else stats.oldest_ready_age or 0.0
    return [f"a delivery has been due for {age:.0f} s, {max_age:.0f} s at most"] if age > max_age else []


async def health_reply(receiver: Receiver, question: Question = None, *, max_age: float = 300.0) -> Reply:
    """Answer one of the three: 200 for yes, 503 with the reasons, one a line, for no."""
    health = await check_health(receiver, max_age=max_age)
    holds = {"live": health.live, "ready": health.ready, None: health.healthy}[question]
    lines = ["ok"] if holds else health.reasons
    headers = (("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store"))
    return Reply(200 if holds else 503, headers, "".join(f"{line}\n" for line in lines).encode())
