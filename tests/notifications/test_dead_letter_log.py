"""Rate-limited logging of dead letters."""

import logging

from callfire_async.notifications._dead_letter_log import DeadLetterLog, _log


def test_ten_dead_letters_a_minute_are_logged_one_by_one(caplog):
    """The number of the others follows when the minute is over."""
    now = [0.0]
    log = DeadLetterLog(clock=lambda: now[0])
    for number in range(25):
        log.record(number, "why")
    log.flush_if_due()
    within = len(caplog.records)
    now[0] = 61.0
    log.flush_if_due()
    log.flush_if_due()
    log.record(25, "why")

    messages = [record.getMessage() for record in caplog.records]
    assert (within, messages[10:]) == (
        10,
        ["15 more deliveries became dead letters within a minute", "delivery 25 became a dead letter: why"],
    )


def test_a_dead_letter_is_recent_for_15_minutes():
    """The receiver is unhealthy for the same time."""
    now = [0.0]
    log = DeadLetterLog(clock=lambda: now[0])
    log.record(1, "why")
    recent = []
    for now[0] in (0.0, 899.0, 900.0):
        recent.append(log.has_recent)

    assert recent == [True, True, False]


def test_dead_letters_have_a_logger_of_their_own():
    """It can be forwarded to the engineer on call."""
    assert _log is logging.getLogger("callfire_async.dead_letters")
