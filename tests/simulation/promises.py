"""The promises that are checked after a simulated run, when all faults are over and no delivery is pending."""

from collections.abc import Iterator

from attrs import define
from simulation.environment import Environment
from simulation.handlers import HANDLERS
from simulation.postbacks import all_delivery_keys, delivery_keys

from callfire_async.notifications.inbox.base import InboxEntry
from callfire_async.notifications.worker import _MAX_CRASHES


async def find_broken_promises(env: Environment) -> list[str]:
    """Return which promises were broken: during the run, and now."""
    stored = [
        StoredEntry(server.name, entry.delivery.key, entry)
        for server in env.primaries
        for entry in await server.entries()
    ]
    return [
        *env.history.violations,
        *_find_lost(env, stored),
        *_find_unfinished(env, stored),
        *_find_unhandled(env, stored),
        *_find_repeated(env, stored),
    ]


@define(eq=False)
class StoredEntry:
    """A delivery of one server or file."""

    server: str
    key: str
    entry: InboxEntry


def _find_lost(env: Environment, stored: list[StoredEntry]) -> Iterator[str]:
    keys = {each.key for each in stored}
    for number in sorted(env.history.acknowledged):
        for event, key in delivery_keys(number, env.settings).items():
            if key not in keys:
                yield f"event {event} was acknowledged and lost"


def _find_unfinished(env: Environment, stored: list[StoredEntry]) -> Iterator[str]:
    for each in stored:
        entry = each.entry
        # Each lease that expires counts as a crash, whether the process crashed, the clock jumped or a claim was lost.
        is_blamed = env.history.expirations[each.server, each.key] >= _MAX_CRASHES
        if entry.state != "done" and not (entry.state == "dead" and is_blamed):
            yield f"delivery {entry.id} is {entry.state}: {entry.reason}"


def _find_unhandled(env: Environment, stored: list[StoredEntry]) -> Iterator[str]:
    successes = env.history.successes()
    for event, key in all_delivery_keys(env.settings).items():
        done = sum(each.key == key and each.entry.state == "done" for each in stored)
        for handler in HANDLERS:
            if successes[event, handler] < done:
                yield f"event {event} is done, and its {handler} handler succeeded less often"


def _find_repeated(env: Environment, stored: list[StoredEntry]) -> Iterator[str]:
    """Find handlers that succeeded more than once for a postback although no lease expired and no response was lost."""
    keys = all_delivery_keys(env.settings)
    for (event, handler), count in env.history.successes().items():
        # An event has the key of its postback, and an index if there are several.
        postback = keys[event].partition("/")[0]
        servers = [each.server for each in stored if each.key == postback]
        if count > len(servers) and not any(env.history.excuses.get((server, keys[event])) for server in servers):
            yield f"the {handler} handler of event {event} succeeded {count} times without a reason"
