"""What happens in a simulated run, and the scenarios of the tests."""

from attrs import frozen


@frozen
class Settings:
    """The number of postbacks and faults in one run. Times are in simulated seconds, rates are from 0 to 1."""

    #: What happens, for the documentation.
    description: str
    processes: int = 2
    postbacks: int = 24
    #: An envelope of API v2 has several events, a postback of API 1.1 has one.
    events_per_postback: int = 1
    #: Rate of the postbacks after which one of those before is sent again.
    repeated_rate: float = 0.2
    #: In this time, all postbacks are sent and all faults begin.
    duration: float = 60.0
    has_spool: bool = False
    #: Whether each process appends to a file of its own, in a directory that all share.
    has_directory: bool = False
    #: Time after which a crashed process is started again, at least and at most.
    restart_seconds: tuple[float, float] = (1.0, 1.0)
    #: Number of the events that crash their process at each attempt.
    crashing_events: int = 0
    crashes: int = 2
    restarts: int = 1
    partitions: int = 2
    #: Processes that end for good, by a crash or a stop, so that others must do their work.
    losses: int = 0
    #: Maximum rate of the operations after which the process crashes before it has the result.
    crash_rate: float = 0.0
    #: Outages of the server for all processes, in which some of them are stopped.
    outages: int = 0
    clock_jumps: int = 0
    #: Rate of the requests that are cancelled, as if the client disconnects.
    cancelled_rate: float = 0.1
    #: Rates of the handlers that fail, or run into their timeout.
    failure_rate: float = 0.15
    hang_rate: float = 0.05
    #: Maximum rates of rejected requests to the server, and of lost requests and lost responses.
    error_rate: float = 0.05
    lost_rate: float = 0.03


SCENARIOS = {
    "shared": Settings("two receivers share an inbox; crashes, restarts, partitions, cancelled requests"),
    "spool": Settings("two receivers with spools, more partitions", has_spool=True, partitions=4, restarts=2),
    "suspects": Settings("events that crash their process", crashing_events=2, crashes=0, restarts=0),
    "clock": Settings(
        "the clock jumps, and responses are lost", clock_jumps=3, restarts=3, lost_rate=0.15, error_rate=0.1
    ),
    "envelopes": Settings("envelopes with three events", postbacks=8, events_per_postback=3, lost_rate=0.15),
    "stops": Settings("three receivers are stopped while their inbox is unavailable", processes=3, outages=3),
    "spooled-envelopes": Settings(
        "envelopes with three events, and spools",
        postbacks=8,
        events_per_postback=3,
        has_spool=True,
        partitions=4,
        restarts=2,
    ),
    "directory": Settings(
        "three receivers with a file each take over the files of those that crashed or stopped",
        processes=3,
        postbacks=12,
        events_per_postback=2,
        has_directory=True,
        restart_seconds=(1.0, 100.0),
        losses=1,
        crash_rate=0.02,
        partitions=0,
        lost_rate=0.0,
    ),
}
