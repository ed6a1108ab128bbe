"""
Mutation tests: change the code in small ways, and list the changes that no test notices.

``nox -s mutation -- worker`` makes all changes, one after the other; with ``--sample 150`` a random part of them.
mutmut makes the changes in a copy of the checkout.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from attrs import frozen
from mutmut.mutation.file_mutation import mutate_file_contents
from mutmut.stats import status_by_exit_code
from mutmut.utils.format_utils import get_mutant_name

ROOT = Path(__file__).parent.parent
# A test may take this many seconds, also on a busy machine.
TIMEOUT = 30
# Changes are tested at once, because some wait for the timeout.
PROCESSES = 2 * (os.cpu_count() or 1)
NOTICED = ("killed", "timeout", "segfault")
# mutmut reads its configuration in the folder where it runs.
CONFIGURATION = """\
[mutmut]
source_paths = callfire_async
only_mutate = {sources}
pytest_add_cli_args_test_selection = {tests}
pytest_add_cli_args =
    --numprocesses=0
    --timeout={timeout}
    -mnot slow
    -pno:cacheprovider
timeout_multiplier = 2
timeout_constant = {timeout}
use_git_change_detection = false
"""


@frozen
class Target:
    """Files that are mutated, and the fast tests that concern them."""

    sources: tuple[str, ...]
    tests: tuple[str, ...]

    def configuration(self) -> str:
        return CONFIGURATION.format(sources=lines(self.sources), tests=lines(self.tests), timeout=TIMEOUT)

    def mutants(self) -> list[str]:
        """Return the names of all changes; mutmut's configuration must be in the current folder."""
        return [
            get_mutant_name(path, name)
            for pattern in self.sources
            for path in sorted(Path().glob(pattern))
            for name in mutate_file_contents(str(path), path.read_text()).mutant_names
        ]


TARGETS = {
    "worker": Target(
        ("callfire_async/notifications/worker/*.py",),
        (
            "tests/notifications/test_worker.py",
            "tests/notifications/test_envelopes.py",
            "tests/notifications/test_failed_claim_log.py",
            "tests/notifications/test_known_sources.py",
            "tests/notifications/test_failure_logs.py",
            "tests/notifications/test_cancelled_handlers.py",
            "tests/notifications/test_observers.py",
            "tests/notifications/test_attempt.py",
            "tests/notifications/test_stop.py",
        ),
    ),
    "intake": Target(
        ("callfire_async/notifications/intake.py",),
        (
            "tests/notifications/test_intake.py",
            "tests/notifications/test_receiver.py",
            "tests/notifications/test_worker.py",
            "tests/notifications/test_envelopes.py",
            "tests/notifications/test_health.py",
            "tests/notifications/test_event_loops.py",
            "tests/notifications/test_observers.py",
            "tests/notifications/test_attempt.py",
            "tests/notifications/test_stop.py",
        ),
    ),
    "receiver": Target(
        ("callfire_async/notifications/receiver/*.py",),
        (
            "tests/notifications/test_receiver.py",
            "tests/notifications/test_worker.py",
            "tests/notifications/test_start_advice.py",
            "tests/notifications/test_health.py",
            "tests/notifications/test_event_loops.py",
            "tests/notifications/test_observers.py",
            "tests/notifications/security/test_signed_requests.py",
        ),
    ),
    "queries": Target(
        ("callfire_async/notifications/inbox/sqlite/_queries.py",),
        (
            "tests/notifications/inbox/test_conformance.py::TestSqliteInbox",
            "tests/notifications/inbox/sqlite/test_sqlite.py",
            "tests/notifications/inbox/sqlite/test_recent_keys.py",
        ),
    ),
    "responses": Target(
        ("callfire_async/client/_responses.py",),
        ("tests/client/test_connection.py", "tests/client/test_operations.py"),
    ),
}


def lines(values: Iterable[str]) -> str:
    """Return values as a list of a configuration file."""
    return "".join(f"\n    {value}" for value in values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--sample", type=int, help="number of changes, chosen at random; default: all")
    parser.add_argument("--seed", type=int, default=1, help="seed of the sample; default: 1")
    parser.add_argument("--folder", type=Path, help="where mutmut works, and continues if it was interrupted")
    options = parser.parse_args()
    target = TARGETS[options.target]
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        copy_checkout(folder)
        (folder / "setup.cfg").write_text(target.configuration())
        os.chdir(folder)
        names = target.mutants()
        if options.sample:
            names = random.Random(options.seed).sample(names, min(options.sample, len(names)))
        report(run(names))


def copy_checkout(folder: Path) -> None:
    for name in ("callfire_async", "tests", "docs"):
        shutil.copytree(ROOT / name, folder / name, dirs_exist_ok=True)
    shutil.copy(ROOT / "pyproject.toml", folder)


def run(names: list[str]) -> dict[str, str]:
    """Run mutmut in the current folder; return the result of each change, and print those that survived."""
    # The copy is imported, not the checkout.
    os.environ.pop("PYTHONPATH", None)
    if subprocess.run(["mutmut", "run", f"--max-children={PROCESSES}", *names], check=False).returncode:
        sys.exit("mutmut failed; the tests must pass without changes")
    results = {name: result for name, result in read_results().items() if name in names}
    for name in (name for name, result in results.items() if result in ("survived", "no tests")):
        subprocess.run(["mutmut", "show", name], check=True)
    return results


def read_results() -> dict[str, str]:
    """Return the result of each change that mutmut has stored."""
    results: dict[str, str] = {}
    for path in Path("mutants").rglob("*.py.meta"):
        codes = json.loads(path.read_text())["exit_code_by_key"]
        results |= {name: status_by_exit_code[code] for name, code in codes.items()}
    return results


def report(results: dict[str, str]) -> None:
    """Print the number of changes by result, and the share that a test or a timeout noticed."""
    counts = Counter(results.values())
    score = sum(counts[result] for result in NOTICED) / max(1, len(results))
    sys.stdout.write(f"{score:.1%} of {len(results)} changes were noticed: {dict(counts)}\n")


if __name__ == "__main__":
    main()
