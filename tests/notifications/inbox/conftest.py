"""Configuration that must precede the imports of the inbox tests."""

import pytest

pytest.register_assert_rewrite("notifications.inbox.suite")


@pytest.fixture(autouse=True)
def _long_close(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a `JetStreamInbox` release its leases when it is closed, also if the machine is busy."""
    monkeypatch.setattr("callfire_async.notifications.inbox.jetstream._connection._MAX_CLOSE_SECONDS", 10.0)
