"""Liveness, readiness and health of a receiver: restart the process? send it traffic? raise an alert?"""

import asyncio
from typing import Literal, TypeAlias

from attrs import frozen

from callfire_async.notifications.inbox._inbox_arguments import check_seconds
from callfire_async.notifications.intake import InlineIntake, QueuedIntake
from callfire_async.notifications.security.request_validation import Reply

__all__ = ["Health", "health_reply"]

#: One of the three checks; None is health.
HealthCheck: TypeAlias = Literal["live", "ready"] | None

# Counting takes milliseconds, and clients of a health check wait only a few seconds.
_STATS_TIMEOUT_SECONDS = 2.0


@frozen
class Health:
    """The state of a receiver at one moment."""

    #: Whether its worker runs; if not, restart the process.
    live: bool
    #: Whether it can accept postbacks. Neither a backlog nor dead letters make a receiver unready.
    ready: bool
    #: Whether no alert is needed: there are no reasons.
    healthy: bool
    #: What needs attention, one sentence each.
    reasons: tuple[str, ...] = ()


async def intake_health(intake: QueuedIntake | InlineIntake | None, max_age: float) -> Health:
    """Return the health of a running receiver's intake; None is a receiver that is not running. Check *max_age*."""
    check_seconds(max_age=max_age)
    if intake is None:
        return Health(live=True, ready=False, healthy=False, reasons=("the receiver is not running",))
    # First, because reading an inbox finds that its file is gone.
    backlog = await _backlog(intake, max_age)
    checks = {
        "the worker has stopped claiming deliveries": not intake.is_working,
        "the inbox cannot be written to": not intake.last_store_succeeded,
        "a delivery became a dead letter within the last 15 minutes": intake.has_recent_dead_letters,
    }
    reasons = [reason for reason, failed in checks.items() if failed] + backlog
    ready = intake.is_working and intake.can_accept
    return Health(live=intake.is_working, ready=ready, healthy=not reasons, reasons=tuple(reasons))


async def _backlog(intake: QueuedIntake | InlineIntake, max_age: float) -> list[str]:
    try:
        async with asyncio.timeout(_STATS_TIMEOUT_SECONDS):
            stats = await intake.inbox_stats()
    except Exception:  # noqa: BLE001  # a custom inbox may raise anything, and its message may be private
        return ["the inbox cannot be read"]
    age = 0.0 if stats is None else stats.oldest_ready_age or 0.0
    return [f"a delivery has been due for {age:.0f} s (max_age is {max_age:.0f} s)"] if age > max_age else []


def health_reply(health: Health, check: HealthCheck = None) -> Reply:
    """Return 200 if *check* passes, else 503 with the reasons, one a line."""
    passes = {"live": health.live, "ready": health.ready, None: health.healthy}[check]
    lines = ["ok"] if passes else health.reasons
    headers = (("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store"))
    return Reply(200 if passes else 503, headers, "".join(f"{line}\n" for line in lines).encode())
