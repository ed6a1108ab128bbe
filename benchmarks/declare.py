# ruff: noqa: INP001  # a script, not part of a package
"""
Planning takes time that grows linearly: 10,000 subscriptions against 10,000 specs, and 1,000 against 1,000.

Of the specs, a part is not there, a part is there with an older token, a part has lost a field of its filter; of the
subscriptions, a part is not wanted, a part is there twice, and a part is another application's. No network: it is the
comparing alone.
"""

import argparse
import platform
import sys
import time

from callfire_async import Subscription, SubscriptionFilter, SubscriptionSpec, TriggerEvent
from callfire_async.declare import Plan, by_key, compare
from callfire_async.notifications import EndpointTokens

CURRENT, PREVIOUS, STRANGER = "current-token-1234", "previous-token-123", "a-stranger-s-token"
TOKENS = EndpointTokens(CURRENT, PREVIOUS)
TRIGGER_EVENT = TriggerEvent.OUTBOUND_TEXT_FINISHED


def spec(number: int) -> SubscriptionSpec:
    """Make one of the specs."""
    return SubscriptionSpec(_endpoint(CURRENT), TRIGGER_EVENT, SubscriptionFilter(broadcast_id=1 + number))


def found(number: int) -> Subscription:
    """Make one of the account's subscriptions."""
    token = (CURRENT, CURRENT, CURRENT, PREVIOUS, STRANGER)[number % 5]
    batch_id = 7 if number % 7 == 0 else None
    wanted = SubscriptionFilter(broadcast_id=1 + number - (number % 11 == 0), batch_id=batch_id)
    return Subscription(1 + number, endpoint=_endpoint(token), trigger_event=TRIGGER_EVENT, filter=wanted)


def _endpoint(token: str) -> str:
    return f"https://hooks.example.com/callfire/{token}"


def seconds_for(count: int, repeats: int) -> tuple[float, Plan]:
    """Plan *count* against *count*; return the shortest processor time of *repeats*, and the plan."""
    specs, there = [*map(spec, range(count))], [*map(found, range(count))]
    times = []
    for _ in range(repeats):
        begun = time.process_time()
        plan = compare(by_key(specs, TOKENS), there, tokens=TOKENS, prune=True)
        times.append(time.process_time() - begun)
    return min(times), plan


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="of which the shortest counts")
    repeats = parser.parse_args().repeats
    _print(f"Python {platform.python_version()}, {platform.system()} {platform.machine()}")
    thousand, _ = seconds_for(1_000, repeats)
    ten_thousand, plan = seconds_for(10_000, repeats)
    _print(f" 1,000 against  1,000: {thousand * 1000:7.1f} ms")
    _print(f"10,000 against 10,000: {ten_thousand * 1000:7.1f} ms, {ten_thousand / thousand:.1f} times as long")
    _print(str(plan).splitlines()[-1])


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()
