"""What users import: complete, described, in order, and light."""

import importlib
import os
import subprocess
import sys

import pytest

ERRORS = """
CallFireError
APIError BadRequestError AuthenticationError PermissionDeniedError NotFoundError RateLimitError ServerError
TransportError RequestTimeoutError
ResponseError ClientClosedError
NotificationError MalformedNotificationError InvalidNotificationError
HandlerErrors
InboxError InboxLockedError InboxUnavailableError
""".split()
MODELS = """
Subscription SubscriptionFilter ResourceReference Page
Text TextRecord Call CallRecord RecordingMeta
Broadcast TextBroadcastConfig VoiceBroadcastConfig IvrBroadcastConfig
NotificationFormat TriggerEvent ActionState Result BroadcastStatus BroadcastType
""".split()
DECLARED = ["Applied", "Match", "Plan", "SubscriptionSpec"]
EVENTS = """
Notification
TextNotification TextFinished TextSent TextReceived
CallFinished
CampaignNotification CampaignStarted CampaignStopped CampaignFinished
UnknownNotification
""".split()
PROMISED = {
    "callfire_async": {"CallFire", "Connection", "Subscriptions", "Texts", "Calls", *DECLARED, *ERRORS, *MODELS},
    "callfire_async.notifications": {
        *("parse", "Router", "EndpointTokens", "Receiver", "Postback", "Reply"),
        *("Inbox", "MemoryInbox", "SqliteInbox", "Delivery", "Appended", "Lease", "Entry", "Stats"),
        *("Reject", "RetryPolicy"),
        *EVENTS,
    },
}
NOT_FOR_EVERYBODY = "aiohttp asyncpg fastapi starlette uvicorn sqlite3 typer rich pytest opentelemetry".split()

each_module = pytest.mark.parametrize("module", PROMISED)


@each_module
def test_the_promised_names_are_public(module):
    """Nothing that the documentation names is missing."""
    public = set(importlib.import_module(module).__all__)

    assert PROMISED[module] <= public


@each_module
def test_public_names_are_sorted(module):
    """`__all__` is in alphabetical order, so that a reader finds a name and a diff shows one line."""
    public = importlib.import_module(module).__all__

    assert list(public) == sorted(set(public))


@each_module
def test_public_names_are_described(module):
    """Every public name can be imported and has a docstring of its own."""
    home = importlib.import_module(module)

    bare = [name for name in home.__all__ if not getattr(home, name).__doc__]

    assert not bare


@each_module
def test_importing_is_light(module):
    """An import loads no framework, driver, test runner or command-line library."""
    script = f"import sys, {module}; print(*sys.modules.keys() & set(sys.argv[1:]))"

    # Whoever measures this process loads a database of his own.
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    command = [sys.executable, "-c", script, *NOT_FOR_EVERYBODY]
    result = subprocess.run(command, check=True, capture_output=True, text=True, env=env)

    assert result.stdout.split() == []


def test_a_name_that_is_not_there_is_an_attribute_error():
    """Though one of the names is loaded only when it is asked for."""
    with pytest.raises(AttributeError, match="Missing"):
        getattr(importlib.import_module("callfire_async.notifications"), "Missing")  # noqa: B009  # asked as users ask
