"""What the tests of the inboxes need before they are imported."""

import pytest

pytest.register_assert_rewrite("notifications.inbox.suite")
