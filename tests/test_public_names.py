"""Tests of the public names: complete, documented, sorted, and cheap to import."""

import importlib
import os
import pickle
import subprocess
import sys
import typing

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
PLANS = """
ApplyResult SpecMatch Plan SubscriptionSpec
WebhookApplyResult WebhookMatch WebhookPlan WebhookSpec
""".split()
EVENTS = """
Notification
TextNotification TextFinished TextSent TextReceived
CallFinished
CampaignNotification CampaignStarted CampaignStopped CampaignFinished
UnknownNotification
""".split()
DOCUMENTED = {
    "callfire_async": {
        "CallFire",
        "Connection",
        "Subscriptions",
        "Texts",
        "Calls",
        "Webhooks",
        *PLANS,
        *ERRORS,
        *MODELS,
    },
    "callfire_async.notifications": {
        *("parse", "Router", "EndpointTokens", "Receiver", "Postback", "Reply"),
        *("Inbox", "MemoryInbox", "SqliteInbox", "Delivery", "AppendResult", "Lease", "InboxEntry", "InboxStats"),
        *("Reject", "RetryPolicy"),
        *EVENTS,
    },
}
OPTIONAL_LIBRARIES = "aiohttp asyncpg fastapi nats starlette uvicorn sqlite3 typer rich pytest opentelemetry".split()

# Every package that documents classes, the most general one last: a class belongs to the last one that exports it.
PACKAGES = """
callfire_async.inspector callfire_async.client callfire_async.telemetry callfire_async.testing.factories
callfire_async.testing.samples callfire_async.notifications.inbox
callfire_async.notifications.aiohttp callfire_async.notifications.asgi callfire_async.notifications.fastapi
callfire_async.notifications.inbox.jetstream callfire_async.notifications.inbox.memory
callfire_async.notifications.inbox.postgres callfire_async.notifications.inbox.spool
callfire_async.notifications.inbox.sqlite callfire_async.notifications.health callfire_async.reconcile
callfire_async.testing callfire_async.notifications callfire_async callfire_async.errors callfire_async.models
""".split()
PUBLIC_CLASSES = {
    value: package
    for package in PACKAGES
    for name in importlib.import_module(package).__all__
    if isinstance(value := getattr(importlib.import_module(package), name), type)
}

each_class = pytest.mark.parametrize("public", PUBLIC_CLASSES, ids=lambda public: public.__name__)
each_module = pytest.mark.parametrize("module", DOCUMENTED)


@each_module
def test_documented_names_are_public(module):
    """No documented name is missing."""
    public = set(importlib.import_module(module).__all__)

    assert DOCUMENTED[module] <= public


@each_module
def test_public_names_are_sorted(module):
    """`__all__` is in alphabetical order."""
    public = importlib.import_module(module).__all__

    assert list(public) == sorted(set(public))


@each_module
def test_public_names_have_docstrings(module):
    """Every public name can be imported and has a docstring."""
    package = importlib.import_module(module)

    undocumented = [name for name in package.__all__ if not getattr(package, name).__doc__]

    assert not undocumented


@each_module
def test_an_import_loads_no_optional_library(module):
    """No framework, driver, test runner or command-line library is loaded."""
    script = f"import sys, {module}; print(*sys.modules.keys() & set(sys.argv[1:]))"

    # Coverage would load sqlite3 in the subprocess.
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    command = [sys.executable, "-c", script, *OPTIONAL_LIBRARIES]
    result = subprocess.run(command, check=True, capture_output=True, text=True, env=env)

    assert result.stdout.split() == []


def test_an_unknown_name_is_an_attribute_error():
    """The module has a `__getattr__` for a name that is loaded on demand."""
    with pytest.raises(AttributeError, match="Missing"):
        getattr(importlib.import_module("callfire_async.notifications"), "Missing")  # noqa: B009  # the name is not an attribute of the module


@each_class
def test_a_class_belongs_to_the_package_that_exports_it(public):
    """Pickles, reprs and telemetry's `error.type` do not depend on which private module defines a class."""
    assert public.__module__ == PUBLIC_CLASSES[public]
    assert pickle.loads(pickle.dumps(public)) is public


@each_class
def test_the_type_hints_of_a_class_can_be_resolved(public):
    """Of the class and of its methods: tools that read annotations at run time work with every public class."""
    typing.get_type_hints(public)
    for member in vars(public).values():
        if callable(member) and hasattr(member, "__annotations__") and not isinstance(member, type):
            typing.get_type_hints(member)
