"""Configuration that must precede the imports of the inbox tests."""

import pytest

pytest.register_assert_rewrite("notifications.inbox.suite")
