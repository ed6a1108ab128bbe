"""The log of failed claims."""

from callfire_async.notifications.worker._failed_claim_log import FailedClaimLog


def test_the_same_cause_is_logged_once_a_minute(caplog):
    """Another cause, and the first one after a claim that succeeded, are logged at once; so is the end of an outage."""
    now = [0.0]
    log = FailedClaimLog(clock=lambda: now[0])
    for now[0], cause in ((0.0, "a"), (1.0, "a"), (2.0, "b"), (61.0, "b"), (62.0, "b")):
        log.record(cause, 1.0)
    log.clear()
    log.clear()
    log.record("b", 1.0)

    lines = [f"cannot claim deliveries, retrying in 1 s: {cause}" for cause in "abbb"]
    assert [record.getMessage() for record in caplog.records] == [
        *lines[:3],
        "deliveries can be claimed again",
        lines[3],
    ]
