"""Judges the history of a run: which promises it breaks, and how available the endpoint was."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise

from attrs import frozen
from partitions import history
from partitions.history import Entry

# A delivery that one of these has settled is never claimed again.
FINAL_OPERATIONS = frozenset(["ack", "dead_letter"])


@frozen
class Verdict:
    """What a history shows: sets of events."""

    posted: frozenset[int]
    acknowledged: frozenset[int]
    handled: frozenset[int]
    dead: frozenset[int]
    #: Settled for good by more than one lease.
    settled_twice: frozenset[int]
    #: Handled by a handler that began after the delivery was settled for good.
    handled_after_settled: frozenset[int]
    #: Handled more than once, which a lost lease or a lost response explains.
    repeated: frozenset[int]
    #: The longest time without an acknowledgement while events were posted, in seconds.
    longest_gap: float

    @property
    def lost(self) -> frozenset[int]:
        """Events that were acknowledged and neither handled nor dead-lettered."""
        return self.acknowledged - self.handled - self.dead

    @property
    def handled_unacknowledged(self) -> frozenset[int]:
        """Events that were handled although the sender got no acknowledgement."""
        return self.handled - self.acknowledged

    @property
    def availability(self) -> float:
        """The share of events that were acknowledged."""
        return len(self.acknowledged) / max(1, len(self.posted))

    @property
    def broken(self) -> dict[str, frozenset[int]]:
        """The broken promises, with the events that show them; empty if all were kept."""
        promises = {
            "acknowledged and lost": self.lost,
            "acknowledged and dead": self.acknowledged & self.dead,
            "settled twice by different lease holders": self.settled_twice,
            "handled after it was settled": self.handled_after_settled,
        }
        return {name: events for name, events in promises.items() if events}

    def __str__(self) -> str:
        return (
            f"{len(self.posted)} posted, {len(self.acknowledged)} acknowledged ({self.availability:.1%}),"
            f" {len(self.lost)} lost, {len(self.handled_unacknowledged)} handled and not acknowledged,"
            f" {len(self.settled_twice)} settled twice, {len(self.handled_after_settled)} handled after settled,"
            f" {len(self.repeated)} repeated, {len(self.dead)} dead, longest gap {self.longest_gap:.1f} s"
        )


def judge(entries: Sequence[Entry]) -> Verdict:
    """Judge a complete history, in the order of time."""
    final = [entry for entry in entries if entry.word == history.SETTLED and entry.detail in FINAL_OPERATIONS]
    return Verdict(
        posted=_events(entries, history.POSTING),
        acknowledged=_events(entries, history.ACKNOWLEDGED),
        handled=_events(entries, history.SUCCEEDED),
        dead=frozenset(entry.event for entry in final if entry.detail == "dead_letter"),
        settled_twice=_settled_twice(final),
        handled_after_settled=_handled_after_settled(entries, final),
        repeated=_repeated(entries),
        longest_gap=_longest_gap(entries),
    )


def _events(entries: Iterable[Entry], word: str) -> frozenset[int]:
    return frozenset(entry.event for entry in entries if entry.word == word)


def _settled_twice(final: Iterable[Entry]) -> frozenset[int]:
    leases = defaultdict(set)
    for entry in final:
        leases[entry.event].add((entry.host, entry.lease))
    return frozenset(event for event, holders in leases.items() if len(holders) > 1)


def _handled_after_settled(entries: Iterable[Entry], final: Iterable[Entry]) -> frozenset[int]:
    settled_at: dict[int, float] = {}
    for entry in final:
        settled_at.setdefault(entry.event, entry.at)
    began = (entry for entry in entries if entry.word == history.BEGAN)
    return frozenset(entry.event for entry in began if entry.at > settled_at.get(entry.event, float("inf")))


def _repeated(entries: Iterable[Entry]) -> frozenset[int]:
    times: defaultdict[int, int] = defaultdict(int)
    for entry in entries:
        times[entry.event] += entry.word == history.SUCCEEDED
    return frozenset(event for event, count in times.items() if count > 1)


def _longest_gap(entries: Iterable[Entry]) -> float:
    posting = [entry.at for entry in entries if entry.word == history.POSTING]
    moments = [entry.at for entry in entries if entry.word == history.ACKNOWLEDGED]
    if not posting:
        return 0.0
    moments = [posting[0], *(at for at in moments if at <= posting[-1]), posting[-1]]
    return max(later - earlier for earlier, later in pairwise(moments))
