"""The page *How it is tested* shows the records."""

from torture.forms import FORMS
from torture.page import PAGE, figures, with_figures
from torture.records import FAILED, PASSED, Record, read

SCHEDULES = FORMS[0]


def test_the_page_shows_the_records():
    """``python -m torture`` writes both."""
    text = PAGE.read_text(encoding="utf-8")

    assert with_figures(text, read()) == text, "run: PYTHONPATH=tests python -m torture --hours 0"


def record(**values):
    common = {"form": SCHEDULES.name, "count": 1000, "seconds": 90, "commit": "abc", "date": "2026-11-30"}
    return Record(**common | values)


def test_a_row_has_the_figures_of_all_runs():
    """Failures are listed until their seeds pass."""
    passed = record(seed=0, result=PASSED, tests="1 passed")
    failed = record(seed=1000, result=FAILED, tests="1 failed")
    repaired = record(seed=1000, result=PASSED, tests="1 passed", figures=["5 kills"])

    assert "| **1,000 of 25,000 passed**, 1 failed, 2 min, 2026-11-30, `abc` |" in figures([passed, failed])
    assert f"- {SCHEDULES.name}, seed 1000, `abc`: 1 failed" in figures([passed, failed])
    assert "| **2,000 of 25,000 passed**, 1 passed, 3 min, 2026-11-30, `abc` |" in figures([passed, failed, repaired])
    assert "pass with later code: 1. Others: none." in figures([passed, failed, repaired])
    assert "- 5 kills" in figures([passed, failed, repaired])
