"""The promises that are checked after a simulated run, when all faults are over and no delivery is pending."""

from collections.abc import Iterator

from simulation.environment import Environment
from simulation.handlers import HANDLERS
from simulation.postbacks import all_delivery_keys, delivery_keys

from callfire_async.notifications.inbox.base import InboxEntry
from callfire_async.notifications.worker import _MAX_CRASHES


async def find_broken_promises(env: Environment) -> list[str]:
    """Return which promises were broken: during the run, and now."""
    entries = {entry.delivery.key: entry for entry in await env.server.entries()}
    return [
        *env.history.violations,
        *_find_lost(env, entries),
        *_find_unfinished(env, entries),
        *_find_unhandled(env, entries),
        *_find_repeated(env),
    ]


def _find_lost(env: Environment, entries: dict[str, InboxEntry]) -> Iterator[str]:
    for number in sorted(env.history.acknowledged):
        for event, key in delivery_keys(number, env.settings).items():
            if key not in entries:
                yield f"event {event} was acknowledged and lost"


def _find_unfinished(env: Environment, entries: dict[str, InboxEntry]) -> Iterator[str]:
    for key, entry in entries.items():
        # Each lease that expires counts as a crash, whether the process crashed, the clock jumped or a claim was lost.
        is_blamed = env.history.expirations[env.server.name, key] >= _MAX_CRASHES
        if entry.state != "done" and not (entry.state == "dead" and is_blamed):
            yield f"delivery {entry.id} is {entry.state}: {entry.reason}"


def _find_unhandled(env: Environment, entries: dict[str, InboxEntry]) -> Iterator[str]:
    successes = env.history.successes()
    for event, key in all_delivery_keys(env.settings).items():
        if key in entries and entries[key].state == "done":
            for handler in HANDLERS:
                if not successes[event, handler]:
                    yield f"event {event} is done, and its {handler} handler never succeeded"


def _find_repeated(env: Environment) -> Iterator[str]:
    """Find handlers that succeeded more than once although no lease expired and no response was lost."""
    keys = all_delivery_keys(env.settings)
    for (event, handler), count in env.history.successes().items():
        if count > 1 and not env.history.excuses.get((env.server.name, keys[event])):
            yield f"the {handler} handler of event {event} succeeded {count} times without a reason"
