"""
Mutation tests: change the code in small ways, one at a time, and list the changes that no test detects.

``nox -s mutation -- worker`` makes all changes of a part; with ``--sample 150``, only 150 that are chosen at random.
They are made in a copy of the checkout.
"""

import argparse
import os
import pickle
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from attrs import frozen
from mutation.changes import Change, write_changes

ROOT = Path(__file__).parent.parent.parent
# A test may take this many seconds, also on a busy machine.
TIMEOUT = 30
PYTEST = (
    *(sys.executable, "-m", "pytest", "-q", "-mnot slow", "--numprocesses=0", f"--timeout={TIMEOUT}"),
    *("-p", "no:cacheprovider", "-p", "mutation.loop"),
)


@frozen
class Part:
    """Modules that are changed, and the fast tests that concern them."""

    modules: str
    tests: str


PARTS = {
    "worker": Part(
        "callfire_async/notifications/worker/*.py",
        """
        tests/notifications/test_worker.py
        tests/notifications/test_envelopes.py
        tests/notifications/test_failed_claim_log.py
        tests/notifications/test_known_sources.py
        tests/notifications/test_failure_logs.py
        tests/notifications/test_cancelled_handlers.py
        tests/notifications/test_observers.py
        tests/notifications/test_attempt.py
        tests/notifications/test_stop.py
        """,
    ),
    "intake": Part(
        "callfire_async/notifications/intake.py",
        """
        tests/notifications/test_intake.py
        tests/notifications/test_receiver.py
        tests/notifications/test_worker.py
        tests/notifications/test_envelopes.py
        tests/notifications/test_health.py
        tests/notifications/test_cancelled_handlers.py
        tests/notifications/test_event_loops.py
        tests/notifications/test_observers.py
        tests/notifications/test_attempt.py
        tests/notifications/test_stop.py
        """,
    ),
    "receiver": Part(
        "callfire_async/notifications/receiver/*.py",
        """
        tests/test_arguments.py
        tests/notifications/test_adapters.py
        tests/notifications/test_failure_logs.py
        tests/notifications/test_stop.py
        tests/notifications/test_receiver.py
        tests/notifications/test_worker.py
        tests/notifications/test_start_advice.py
        tests/notifications/test_health.py
        tests/notifications/test_event_loops.py
        tests/notifications/test_observers.py
        tests/notifications/security/test_signed_requests.py
        """,
    ),
    "queries": Part(
        "callfire_async/notifications/inbox/sqlite/_queries.py",
        """
        tests/notifications/inbox/test_conformance.py::TestSqliteInbox
        tests/notifications/inbox/sqlite/test_sqlite.py
        tests/notifications/inbox/sqlite/test_recent_keys.py
        """,
    ),
    "responses": Part(
        "callfire_async/client/_responses.py",
        "tests/client/test_connection.py tests/client/test_operations.py",
    ),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--sample", type=int, help="number of changes, chosen at random; default: all")
    parser.add_argument("--seed", type=int, default=1, help="seed of the sample; default: 1")
    parser.add_argument("--only", default="", help="a part of the names of the changes; default: all")
    options = parser.parse_args()
    part = PARTS[options.part]
    with tempfile.TemporaryDirectory() as folder:
        copy_checkout(Path(folder))
        os.chdir(folder)
        changes = [change for change in all_changes(part) if options.only in change.name]
        if options.sample:
            changes = random.Random(options.seed).sample(changes, min(options.sample, len(changes)))
        return run(part, changes)


def copy_checkout(folder: Path) -> None:
    for name in ("callfire_async", "tests", "docs"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "pyproject.toml", folder)
    # mutmut requires a configuration.
    (folder / "setup.cfg").write_text("[mutmut]\nsource_paths = callfire_async\n")


def all_changes(part: Part) -> list[Change]:
    paths = [path for pattern in part.modules.split() for path in sorted(Path().glob(pattern))]
    return [change for path in paths for change in write_changes(path)]


def run(part: Part, changes: list[Change]) -> int:
    """Run the tests in the current folder with each change."""
    Path("changes").write_bytes(pickle.dumps(changes))
    # The copy is imported, not the checkout.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), str(Path("tests").absolute())])}
    command = (*PYTEST, "--changes=changes", *part.tests.split())
    return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
