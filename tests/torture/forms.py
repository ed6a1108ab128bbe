"""The long forms of the tests, in order of value, and the promise that each of them checks."""

from __future__ import annotations

from attrs import frozen
from simulation.settings import SCENARIOS

LOST = "204 means stored: nothing that was acknowledged is lost"
ONCE = "A handler that succeeded runs again only after a crash, an expired lease or a lost response"
EXACTLY_ONCE = "Handlers that use `complete_in` take effect exactly once"
OUTAGES = "With a spool, postbacks are accepted while the primary inbox is unavailable, and none is lost"
SHUTDOWN = "A stop loses and repeats nothing, and another process takes over"
STATES = "All inboxes behave alike, in any order of operations"
PARSE = "`parse` returns an event or raises a `NotificationError`, for any bytes"
CREATE = "A create is never doubled, and a failure at any byte leaves the client usable"
CANCELLATION = "Cancellation is safe: each connection of the pool stays usable"
STATUS = "The endpoint responds with the documented status codes only"
SERVERS = "The documented servers run the receiver, and stop it"
EVENTS = "Each event reaches its handler, from the API call to the handler"

SCHEDULES = "tests/simulation/test_schedules.py::test_promises_hold_in_all_schedules"
CRASH = "tests/notifications/crash"
INBOX = "tests/notifications/inbox"
CLIENT = "tests/client"
PARTITIONS = "tests/partitions/test_partitions.py::test_promises_are_kept_in_partitions"
LARGE = f"{CRASH}/exactly_once/test_exactly_once.py::test_every_effect_happens_exactly_once[torture]"


@frozen
class Form:
    """
    One or more tests in their long form.

    A form has a number of units, each with a seed of its own, such as schedules. Most forms have one unit: a whole run.
    """

    name: str
    promise: str
    #: What a full run does, for the documentation.
    method: str
    #: What pytest runs: folders, files or tests.
    tests: tuple[str, ...]
    #: How long one unit takes at first, in seconds; later, the last run is the estimate.
    seconds: float
    options: tuple[str, ...] = ()
    #: The number of units of a full run, and how many of them one entry runs.
    units: int = 1
    units_per_entry: int = 1

    @property
    def is_divisible(self) -> bool:
        """Whether an entry can run fewer units if the time is short."""
        return self.units_per_entry > 1

    def command(self, seed: int, count: int) -> list[str]:
        """Return the arguments of pytest for *count* units from *seed*."""
        seeds = [f"--seeds={count}"] if self.is_divisible else []
        return [*self.tests, *self.options, "--torture", f"--seed={seed}", f"--hypothesis-seed={seed}", *seeds]


def _scenario(name: str, method: str) -> Form:
    return Form(
        f"schedules-{name}",
        ONCE if name == "clock" else LOST,
        f"25,000 simulated schedules: {method}",
        (f"{SCHEDULES}[{name}]",),
        0.2,
        units=25_000,
        units_per_entry=1_000,
    )


def _partition(setup: str, cluster: str, spool: str) -> Form:
    return Form(
        f"partitions-{setup}",
        OUTAGES if spool else LOST,
        f"a quarter of an hour of partitions, loss and delay between three receivers{spool} and {cluster}",
        (f"{PARTITIONS}[{setup}]",),
        1100.0,
    )


NATS = "three NATS servers"
STANDBY = "PostgreSQL with a synchronous standby"

FORMS = (
    *(_scenario(name, settings.description) for name, settings in SCENARIOS.items()),
    Form(
        "planted-bugs",
        LOST,
        "bugs that are planted in the package are found by simulated schedules, within 2,000 seeds each",
        ("tests/simulation/test_planted_bugs.py",),
        120.0,
    ),
    Form(
        "power-cuts",
        LOST,
        "40 recordings of the writes of a `SqliteInbox`, each with 50 power failures",
        (f"{INBOX}/sqlite/power",),
        20.0,
        units=40,
        units_per_entry=10,
    ),
    Form(
        "postgres-power-cuts",
        LOST,
        "10 recordings of the writes of a PostgreSQL server, each with 100 power failures",
        (f"{INBOX}/postgres/power",),
        150.0,
        units=10,
        units_per_entry=2,
    ),
    Form(
        "exactly-once",
        EXACTLY_ONCE,
        "20,000 events, 200 killed workers, 3 crashes of PostgreSQL, leases cut short and clock changes",
        (f"{CRASH}/exactly_once",),
        600.0,
        (f"--deselect={LARGE}",),
    ),
    Form(
        "stops",
        SHUTDOWN,
        "receivers are stopped under load 20 times, and replaced 20 times",
        (f"{CRASH}/test_shutdown.py",),
        300.0,
    ),
    _partition("jetstream-direct", NATS, ""),
    _partition("jetstream-spooled", NATS, " with spools"),
    _partition("postgres-direct", STANDBY, ""),
    _partition("postgres-spooled", STANDBY, " with spools"),
    Form(
        "envelopes",
        LOST,
        "20 kills of a receiver while it splits envelopes of API v2",
        (f"{CRASH}/test_split_envelopes.py",),
        120.0,
    ),
    Form(
        "shared-inboxes",
        LOST,
        "200 kills of receivers that share a PostgreSQL or JetStream inbox; 30 crashes of the PostgreSQL server",
        (f"{CRASH}/test_shared_inbox.py",),
        900.0,
    ),
    Form(
        "outages",
        OUTAGES,
        "PostgreSQL crashes 30 times, and each server of a NATS cluster is killed 10 times, under load",
        (f"{INBOX}/spool/test_outages.py",),
        900.0,
    ),
    Form(
        "cluster",
        LOST,
        "20 kills of servers of a NATS cluster with three replicas, leader and followers in turn",
        (f"{INBOX}/jetstream/test_cluster.py",),
        300.0,
    ),
    Form(
        "network-faults",
        LOST,
        "latency, cuts and lost responses between a receiver and its PostgreSQL or NATS server, 20 of each",
        (f"{INBOX}/test_faults.py",),
        600.0,
    ),
    Form(
        "cancellations",
        CANCELLATION,
        "20,000 cancellations at random times in each of three ways, and one at each await of each call",
        (f"{CLIENT}/test_cancellation.py",),
        900.0,
    ),
    Form(
        "byte-cuts",
        CREATE,
        "the connection is cut after each byte of the request and of the response of each operation",
        (f"{CLIENT}/test_byte_cuts.py",),
        1200.0,
    ),
    Form(
        "fuzzing",
        PARSE,
        "10 times 1,000,000 runs of `parse`, guided by branch coverage; bodies of any bytes through a receiver",
        ("tests/notifications/parsing/test_fuzzing.py",),
        400.0,
        units=10,
    ),
    Form(
        "parse-properties",
        PARSE,
        "5,000 generated inputs for each property of the parser",
        ("tests/notifications/parsing/test_properties.py", "tests/codec"),
        900.0,
        ("--hypothesis-profile=torture",),
    ),
    Form(
        "state-machines",
        STATES,
        "random operations on each inbox and on a model of it, 1,000 sequences for SQLite",
        (f"{INBOX}/test_machine.py",),
        1800.0,
        ("--hypothesis-profile=torture",),
    ),
    Form(
        "status-codes",
        STATUS,
        "500 generated requests for each operation of the OpenAPI description",
        ("tests/notifications/test_openapi.py",),
        300.0,
    ),
    Form(
        "servers",
        SERVERS,
        "each server command of the documentation: start, a postback, SIGTERM",
        ("tests/test_documented_files.py",),
        60.0,
    ),
    Form(
        "missed-postbacks",
        EVENTS,
        "20,000 events; CallFire drops 5 % of the postbacks and repeats 3 %, and the receiver is killed twice",
        ("tests/reconcile/test_missed_postbacks.py",),
        300.0,
    ),
    Form(
        "kills",
        LOST,
        "1,000,000 postbacks to a receiver that is killed 100 times",
        (f"{CRASH}/test_kills.py",),
        3600.0,
    ),
    Form(
        "exactly-once-large",
        EXACTLY_ONCE,
        "200,000 events, 2,000 killed workers, 30 crashes of PostgreSQL, leases cut short and clock changes",
        (LARGE,),
        7200.0,
    ),
)
