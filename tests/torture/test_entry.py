"""One entry runs pytest, and its record has the result, the figures and the last lines of a failure."""

import pytest
from torture import entry
from torture.entry import Entry, last_commit
from torture.forms import Form
from torture.records import FAILED, PASSED, STOPPED

CONFTEST = """
import pytest

def pytest_addoption(parser):
    parser.addoption("--torture", action="store_true")
    parser.addoption("--seed", type=int)

def pytest_terminal_summary(terminalreporter):
    terminalreporter.section("figures of the randomized tests, seed 3")
    terminalreporter.write_line("test_kills: 5 kills")
"""
TESTS = """
import time

def test_passes(request):
    assert request.config.option.torture and request.config.option.seed == 3

def test_fails():
    assert 1 == 2

def test_hangs():
    time.sleep(3600)
"""

pytestmark = pytest.mark.slow


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return a function that runs one of the tests above."""
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_it.py").write_text(TESTS)
    monkeypatch.setattr(entry, "ROOT", tmp_path)

    def run(test: str, seconds: float = 60.0):
        form = Form("name", "promise", "method", (f"test_it.py::{test}",), 1.0)
        return Entry(form, 3, 1).run(seconds)

    return run


def test_an_entry_that_passes(run):
    """The figures are those that the tests print after the run."""
    record = run("test_passes")

    assert (record.form, record.seed, record.count, record.result) == ("name", 3, 1, PASSED)
    assert (record.tests, record.figures, record.output) == ("1 passed", ["test_kills: 5 kills"], [])
    assert record.commit == "unknown"


def test_figures_are_found_by_the_title_of_their_section():
    """The title in the tests' own configuration."""
    assert 'section(f"figures of the randomized tests' in (entry.ROOT / "tests" / "conftest.py").read_text()


def test_an_entry_that_fails(run):
    """The record has the last lines of the output."""
    record = run("test_fails")

    assert (record.result, record.tests) == (FAILED, "1 failed")
    assert "E       assert 1 == 2" in record.output


def test_an_entry_whose_tests_do_not_exist(run):
    """It has failed, although no test has."""
    record = run("test_is_missing")

    assert (record.result, record.tests) == (FAILED, "exit status 4")


def test_an_entry_without_time(run):
    """It is stopped, which is not a failure."""
    assert run("test_hangs", 3.0).result == STOPPED


@pytest.mark.skipif(not (entry.ROOT / ".git").exists(), reason="this is not a checkout")
def test_the_commit_is_known():
    """In a checkout, and with a mark for changes."""
    assert last_commit().rstrip("+") not in ("", "unknown")
