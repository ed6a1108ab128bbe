"""A real pgbouncer in transaction mode in front of the tests' PostgreSQL."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engines.postgres import PASSWORD, PostgresServer
from engines.unprivileged import give_to_unprivileged_user, report_missing, unprivileged_folder, user_options

_DEADLINE_SECONDS = 180.0
_POLL_SECONDS = 0.01

_CONFIGURATION = """
[databases]
* = host={server} user=postgres password={password}
[pgbouncer]
pool_mode = transaction
default_pool_size = 2
listen_addr =
listen_port = 5432
unix_socket_dir = {folder}
auth_type = trust
auth_file = {folder}/users
logfile = {folder}/log
"""


@contextmanager
def running_pgbouncer(server: PostgresServer) -> Iterator[Path]:
    """Run pgbouncer; yield the folder of its socket."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        report_missing("pgbouncer", "apt-get install pgbouncer")
    with unprivileged_folder("pgb-") as folder:
        files = {
            "users": f'"postgres" "{PASSWORD}"',
            "configuration": _CONFIGURATION.format(server=server.folder, password=PASSWORD, folder=folder),
        }
        for name, text in files.items():
            (folder / name).write_text(text)
            give_to_unprivileged_user(folder / name)
        with subprocess.Popen([program, "-q", folder / "configuration"], cwd=folder, **user_options()) as process:
            try:
                _wait_for(folder / ".s.PGSQL.5432", process)
                yield folder
            finally:
                process.kill()


def _wait_for(address: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while not _is_listening(address):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(_POLL_SECONDS)


def _is_listening(address: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        return connection.connect_ex(str(address)) == 0
