"""What the tests of the inboxes need before they are imported."""

import pytest
from hypothesis import settings

pytest.register_assert_rewrite("notifications.inbox.suite")

# The long form: pytest --hypothesis-profile=torture tests/notifications/inbox
settings.register_profile("torture", max_examples=5_000, deadline=None)
