"""What is said of burials."""

import logging

from callfire_async.notifications._dead_letter_log import DeadLetterLog, _log


def test_of_many_burials_only_the_first_are_logged_one_by_one(caplog):
    """Ten a minute, then how many more there were."""
    now = [0.0]
    letters = DeadLetterLog(clock=lambda: now[0])
    for number in range(25):
        letters.record(number, "why")
    letters.flush_if_due()
    within = len(caplog.records)
    now[0] = 61.0
    letters.flush_if_due()
    letters.flush_if_due()
    letters.record(25, "why")

    said = [record.getMessage() for record in caplog.records]
    assert (within, said[10:]) == (
        10,
        ["15 more deliveries became dead letters within a minute", "delivery 25 became a dead letter: why"],
    )


def test_a_burial_is_fresh_for_a_quarter_of_an_hour():
    """As long a receiver is not healthy."""
    now = [0.0]
    letters = DeadLetterLog(clock=lambda: now[0])
    letters.record(1, "why")
    fresh = []
    for now[0] in (0.0, 899.0, 900.0):
        fresh.append(letters.has_recent)

    assert fresh == [True, True, False]


def test_the_log_of_dead_letters_has_a_name_of_its_own():
    """So that it can be sent to whoever is on call."""
    assert _log is logging.getLogger("callfire_async.dead_letters")
