"""A pytest plugin that runs the tests once, then for each change the tests that call its functions, until one fails."""

import os
import pickle
import signal
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import NoReturn

import pytest
from attrs import define, field
from mutation.changes import Change
from mutmut.mutation.trampoline import set_mutant_under_test
from mutmut.state import state

# Some processes wait for a timeout.
PROCESSES = 2 * (os.cpu_count() or 1)
# The tests of a change may take at least this long, and this many times their time without the change.
_MIN_LIMIT_SECONDS = 60
_SLOWDOWN = 3
NOTICED = "noticed"
# By the exit status of the process; any other status is a test that failed.
_RESULTS = {0: "not noticed", int(signal.SIGALRM): f"{NOTICED} by the time limit"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--changes", type=Path, help="a file with changes whose code the modules contain")


def pytest_configure(config: pytest.Config) -> None:
    changes = pickle.loads(config.option.changes.read_bytes())
    config.pluginmanager.register(Loop(config, changes))


@define(eq=False)
class Loop:
    """Runs the tests of a session with each change."""

    config: pytest.Config
    changes: list[Change]
    #: How long each test takes without a change.
    seconds: dict[pytest.Item, float] = field(factory=dict)
    #: The tests that call a function, by its name.
    callers: dict[str, set[pytest.Item]] = field(factory=lambda: defaultdict(set))
    running: dict[int, Change] = field(factory=dict)
    results: list[str] = field(factory=list)

    @property
    def terminal(self) -> pytest.TerminalReporter:
        return self.config.pluginmanager.getplugin("terminalreporter")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        set_mutant_under_test("stats")
        for item, following in with_following(session.items):
            self._measure(item, following)
        set_mutant_under_test("none")
        self._leave_out(self._failures_in_fork())
        for change in self.changes:
            while len(self.running) >= PROCESSES:
                self._wait()
            self._start(change)
        while self.running:
            self._wait()
        return True

    def _measure(self, item: pytest.Item, following: pytest.Item | None) -> None:
        """Run a test without a change, and store which functions it calls; a test that fails now is not used."""
        state()._stats.clear()
        start = time.monotonic()
        if passes(item, following):
            self.seconds[item] = time.monotonic() - start
            for function in state()._stats:
                self.callers[function].add(item)

    def _failures_in_fork(self) -> set[str]:
        """Return the names of the tests that fail in a forked process without a change."""
        reader, writer = os.pipe()
        if not os.fork():
            self.config.pluginmanager.unregister(self.terminal)
            failed = [
                item.nodeid
                for item, following in with_following(self._sorted(self.seconds))
                if not passes(item, following)
            ]
            os.write(writer, "\n".join(failed).encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as lines:
            return set(lines.read().splitlines())

    def _leave_out(self, failures: set[str]) -> None:
        for name in sorted(failures):
            self.terminal.write_line(f"not used, because it fails in a forked process: {name}")
        for items in self.callers.values():
            items -= {item for item in items if item.nodeid in failures}

    def _sorted(self, items: Iterable[pytest.Item]) -> list[pytest.Item]:
        return sorted(items, key=self.seconds.__getitem__)

    def _start(self, change: Change) -> None:
        items = self._sorted({item for name in change.functions for item in self.callers[name]})
        if not items:
            self._report(change, "called by no test")
        elif pid := os.fork():
            self.running[pid] = change
        else:
            self._run(change, items)

    def _run(self, change: Change, items: list[pytest.Item]) -> NoReturn:
        """Run tests in a forked process until one fails."""
        has_passed = False
        try:
            # A group of its own, which ends with it: after a change, a test may leave processes that run more tests.
            os.setpgid(0, 0)
            # Ends the process if a fixture hangs, which has no timeout.
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(_MIN_LIMIT_SECONDS + round(_SLOWDOWN * sum(map(self.seconds.__getitem__, items))))
            self.config.pluginmanager.unregister(self.terminal)
            # A test that hangs ends its process.
            self.config._env_timeout_method = "thread"
            change.make()
            has_passed = all(passes(*pair) for pair in with_following(items))
        finally:
            os._exit(0 if has_passed else 1)

    def _wait(self) -> None:
        """Wait for a process: one that runs tests with a change, or one that a test started."""
        pid, status = os.wait()
        if pid in self.running:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            self._report(self.running.pop(pid), _RESULTS.get(status, NOTICED))

    def _report(self, change: Change, result: str) -> None:
        self.results.append(result)
        if result != NOTICED:
            self.terminal.write_line(f"\n{len(self.results)} of {len(self.changes)}, {result}: {change}", flush=True)

    def pytest_terminal_summary(self) -> None:
        noticed, total = sum(result.startswith(NOTICED) for result in self.results), len(self.results)
        self.terminal.write_line(f"{noticed} of {total} changes noticed: {noticed / max(1, total):.1%}")


def with_following(items: Sequence[pytest.Item]) -> Iterator[tuple[pytest.Item, pytest.Item | None]]:
    """Yield each test with the one that follows, for which pytest keeps fixtures."""
    yield from pairwise([*items, None])


def passes(item: pytest.Item, following: pytest.Item | None) -> bool:
    """Run a test; return whether it passed or was skipped."""
    failed = item.session.testsfailed
    item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
    return item.session.testsfailed == failed
