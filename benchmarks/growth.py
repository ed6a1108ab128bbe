"""What grows with its input, and no faster: ten times as much beside as much, by tens."""

from __future__ import annotations

import time

from benchmarks.rows import Costs, Effort, Row, compare
from callfire_async import Subscription, SubscriptionFilter, SubscriptionSpec, TriggerEvent
from callfire_async.declare import Plan, by_key
from callfire_async.declare import compare as planned
from callfire_async.notifications import EndpointTokens

CURRENT, PREVIOUS, STRANGER = "current-token-1234", "previous-token-123", "a-stranger-s-token"
TOKENS = EndpointTokens(CURRENT, PREVIOUS)
TRIGGER_EVENT = TriggerEvent.OUTBOUND_TEXT_FINISHED


def spec(number: int) -> SubscriptionSpec:
    """Make one of the specs."""
    return SubscriptionSpec(_endpoint(CURRENT), TRIGGER_EVENT, SubscriptionFilter(broadcast_id=1 + number))


def found(number: int) -> Subscription:
    """
    Make one of the account's subscriptions.

    Of the specs, a part is not there, a part is there with an older token, a part has lost a field of its filter; of
    the subscriptions, a part is not wanted, a part is there twice, and a part is another application's.
    """
    token = (CURRENT, CURRENT, CURRENT, PREVIOUS, STRANGER)[number % 5]
    batch_id = 7 if number % 7 == 0 else None
    wanted = SubscriptionFilter(broadcast_id=1 + number - (number % 11 == 0), batch_id=batch_id)
    return Subscription(1 + number, endpoint=_endpoint(token), trigger_event=TRIGGER_EVENT, filter=wanted)


def _endpoint(token: str) -> str:
    return f"https://hooks.example.com/callfire/{token}"


def _planning(effort: Effort) -> Costs:
    """Compare what is wanted with what is there, no network between: ten times as many, and as many ten times."""
    less = effort.of(1_000)
    few, many = _plan_of(less), _plan_of(10 * less)
    costs = compare(many, few, effort, clock=time.process_time)
    return Costs(costs.ours / 10, costs.beside)


def _plan_of(count: int):  # noqa: ANN202  # a function of no arguments
    specs, there = [*map(spec, range(count))], [*map(found, range(count))]

    def plan() -> Plan:
        return planned(by_key(specs, TOKENS), there, tokens=TOKENS, prune=True)

    return plan


ROWS = (Row("planning 10,000 subscriptions, for each of them", "planning 1,000, for each of them", 1.3, _planning),)
