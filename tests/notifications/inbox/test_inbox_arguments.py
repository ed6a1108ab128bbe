"""Wrong arguments of inboxes are refused by their constructors, with an error that begins with the parameter's name."""

import math
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from callfire_async.notifications import Inbox, MemoryInbox, SqliteInbox
from callfire_async.notifications.inbox.jetstream import JetStreamInbox
from callfire_async.notifications.inbox.postgres import PostgresInbox
from callfire_async.notifications.inbox.spool import SpoolingInbox

NOT_SECONDS = ["1", None, True, Decimal(1), [1], math.nan, -1]
NOT_POSITIVE = [*NOT_SECONDS, 0]
NOT_FLAGS = [None, 1, "no"]
NOT_INBOXES = [None, "callfire.db", b"callfire.db", Path("callfire.db"), SqliteInbox, MemoryInbox]

MAKE: dict[str, Callable[..., Inbox]] = {
    "memory": MemoryInbox,
    "sqlite": lambda **options: SqliteInbox("callfire.db", **options),
    "directory": lambda **options: SqliteInbox.in_directory("inboxes", **options),
    "postgres": lambda **options: PostgresInbox("postgresql://localhost/callfire", **options),
    "jetstream": lambda **options: JetStreamInbox("nats://localhost", **options),
    "spool": lambda **options: SpoolingInbox(**{"primary": MemoryInbox(), "spool": MemoryInbox()} | options),
}
STORING = ["memory", "sqlite", "directory", "postgres", "jetstream"]


@pytest.mark.parametrize(
    ("engine", "name", "values"),
    [
        *((engine, "dedupe_window", NOT_SECONDS) for engine in STORING),
        *((engine, "retention", NOT_SECONDS) for engine in STORING),
        *((engine, "keep_bodies", NOT_FLAGS) for engine in STORING),
        *((engine, "clock", [1, "now", object()]) for engine in ("memory", "sqlite", "directory")),
        *((engine, "timeout", NOT_POSITIVE) for engine in ("postgres", "jetstream", "spool")),
        ("memory", "max_deliveries", ["callfire.db", None, 1.5, True, -1]),
        ("sqlite", "lock_timeout", NOT_SECONDS),
        ("sqlite", "read_only", NOT_FLAGS),
        ("postgres", "schema", [None, 7, b"callfire", "", "Callfire"]),
        ("postgres", "allow_lossy_commits", NOT_FLAGS),
        ("jetstream", "name", [None, 7, b"callfire", "", "call fire"]),
        ("jetstream", "replicas", [None, "3", 1.5, True, 0]),
        ("jetstream", "tls", [True, "cert.pem"]),
        ("spool", "primary", NOT_INBOXES),
        ("spool", "spool", [*NOT_INBOXES, object()]),
        ("spool", "operation_timeout", NOT_POSITIVE),
        ("spool", "failure_threshold", [None, "3", 1.5, True, 0]),
        ("spool", "recovery_timeout", NOT_POSITIVE),
        ("spool", "drain_timeout", NOT_SECONDS),
    ],
)
def test_a_wrong_argument_is_refused(engine, name, values):
    """Not when the inbox is opened, or when the first delivery arrives."""
    for value in values:
        with pytest.raises((TypeError, ValueError), match=f"^{name} must "):
            MAKE[engine](**{name: value})


@pytest.mark.parametrize("engine", STORING)
def test_a_number_of_seconds_may_be_zero_or_an_integer(engine):
    """Zero turns deduplication off."""
    MAKE[engine](dedupe_window=0, retention=86400)
