"""The checker of histories: each planted fault is found, and a faultless history has none."""

import pytest
from partitions.checker import judge
from partitions.history import Entry, Journal, read_history


def history(*steps: str) -> list[Entry]:
    """Return a history from steps such as ``r1 settled 7 A ack``: host, word, event, lease, detail."""
    entries = []
    for at, step in enumerate(steps):
        host, word, event, *more = step.split()
        entries.append(Entry(float(at), host, word, int(event), *more))
    return entries


POSTED = ("sender posting 7", "sender acknowledged 7")
HANDLED = ("r1 claimed 7 A", "r1 began 7 A", "r1 succeeded 7 A", "r1 settling 7 A ack", "r1 settled 7 A ack")


def test_a_faultless_history_breaks_no_promise():
    """Posted, acknowledged, handled and settled once."""
    verdict = judge(history(*POSTED, *HANDLED))

    assert verdict.broken == {}
    assert (verdict.availability, verdict.repeated) == (1.0, frozenset())


@pytest.mark.parametrize(
    ("steps", "broken"),
    [
        (POSTED, "acknowledged and lost"),
        ((*POSTED, "r1 claimed 7 A", "r1 began 7 A"), "acknowledged and lost"),
        ((*POSTED, *HANDLED, "r2 settled 7 B ack"), "settled twice by different lease holders"),
        ((*POSTED, *HANDLED, "r1 settled 7 B dead_letter"), "settled twice by different lease holders"),
        ((*POSTED, *HANDLED, "r2 claimed 7 B", "r2 began 7 B"), "handled after it was settled"),
        ((*POSTED, "r1 claimed 7 A", "r1 settled 7 A dead_letter"), "acknowledged and dead"),
    ],
)
def test_a_planted_fault_is_found(steps, broken):
    """Each with the event that shows it."""
    assert judge(history(*steps)).broken[broken] == {7}


@pytest.mark.parametrize(
    "steps",
    [
        # The response was lost, and the lease expired: allowed.
        (*POSTED, "r1 claimed 7 A", "r1 began 7 A", "r1 succeeded 7 A", "r1 unsettled 7 A ack", *HANDLED),
        # A late worker learns that its lease is lost.
        (*POSTED, "r2 claimed 7 B", "r2 began 7 B", *HANDLED, "r2 succeeded 7 B", "r2 lost 7 B ack"),
        # The same lease is settled again after a lost response.
        (*POSTED, *HANDLED, "r1 settled 7 A ack"),
        # Another attempt after a nack.
        (*POSTED, "r2 claimed 7 B", "r2 began 7 B", "r2 settled 7 B nack", *HANDLED),
        # A refused postback may be handled, and need not be.
        ("sender posting 7", "sender refused 7", *HANDLED),
        ("sender posting 7", "sender unanswered 7"),
    ],
)
def test_what_is_allowed_breaks_no_promise(steps):
    """Repeats that a lost response or a lost lease explains."""
    assert judge(history(*steps)).broken == {}


def test_figures_are_counted():
    """Availability, repeats, events that were handled and not acknowledged, and the longest gap."""
    verdict = judge(
        history(
            "sender posting 1",
            "sender posting 2",
            "sender refused 1 - 503",
            "r1 succeeded 1 A",
            "sender acknowledged 2",
            "r1 succeeded 2 A",
            "r2 succeeded 2 B",
            "sender posting 3",
        )
    )

    assert verdict.availability == pytest.approx(1 / 3)
    assert verdict.handled_unacknowledged == {1}
    assert verdict.repeated == {2}
    assert verdict.longest_gap == 4.0
    assert "33.3%" in str(verdict)


def test_journals_are_merged_in_the_order_of_time(tmp_path):
    """Entries of several processes."""
    journals = [Journal(tmp_path / name, name) for name in ("one", "two")]
    for number in range(4):
        journals[number % 2].write("began", number, "token", "detail")
    for journal in journals:
        journal.close()

    entries = read_history([tmp_path / "one", tmp_path / "two"])

    assert [(entry.host, entry.event) for entry in entries] == [("one", 0), ("two", 1), ("one", 2), ("two", 3)]
    assert entries[0].lease == "token"
