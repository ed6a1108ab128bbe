"""The order of the long forms: by completed share, what failed first, and only what fits into the time."""

import math
from typing import Any

from attrs import evolve
from torture.forms import Form
from torture.records import FAILED, PASSED, STOPPED, Record, added, open_failures, read, write
from torture.schedule import next_entry, smallest_share

SEEDS = Form("seeds", "promise", "method", ("tests",), 1.0, units=100, units_per_entry=10)
WHOLE = Form("whole", "promise", "method", ("tests",), 60.0)
FORMS = (SEEDS, WHOLE)


def record(form: Form, seed: int = 0, count: int = 1, **values: Any) -> Record:
    defaults = {"seconds": count, "result": PASSED, "tests": "1 passed", "commit": "abc", "date": "2026-11-30"}
    return Record(form=form.name, seed=seed, count=count, **defaults | values)


def chosen(records: list[Record], seconds: float = 1000.0, target: float = math.inf, commit: str = "abc"):
    entry = next_entry(records, seconds, target, FORMS, commit)
    return entry and (entry.form.name, entry.seed, entry.count)


def test_all_forms_start_before_one_continues():
    """First in order of value, then the least complete form."""
    records = [record(SEEDS, count=10)]

    assert chosen([]) == ("seeds", 0, 10)
    assert chosen(records) == ("whole", 0, 1)
    assert chosen([*records, record(WHOLE)]) == ("seeds", 10, 10)


def test_what_does_not_fit_is_divided_or_left_out():
    """A form of one unit is left out; an entry of seeds gets fewer of them."""
    records = [record(SEEDS, count=10)]

    assert chosen(records, 60.0) == ("seeds", 10, 10)
    assert chosen(records, 6.0) == ("seeds", 10, 5)
    assert chosen(records, 0.5) is None


def test_the_last_run_is_the_estimate():
    """An entry that was stopped needs at least twice its time."""
    assert chosen([record(WHOLE, seconds=10), record(SEEDS, count=200)], 60.0) == ("whole", 1, 1)
    assert chosen([record(WHOLE, seconds=30, result=STOPPED), record(SEEDS, count=100)], 60.0) == ("seeds", 100, 10)


def test_a_run_without_a_deadline_ends_when_all_forms_are_complete():
    """The next one runs all of them again, with other seeds."""
    records = [record(SEEDS, count=100), record(WHOLE)]

    assert smallest_share(records, FORMS) == 1.0
    assert chosen(records, math.inf, target=1.0) is None
    assert chosen(records, math.inf, target=2.0) == ("seeds", 100, 10)


def test_a_failed_entry_runs_again_first_if_the_code_has_changed():
    """With the same code it would fail again; after it has passed, the next seeds run."""
    failed = record(SEEDS, 20, 10, result=FAILED)
    passed = evolve(failed, result=PASSED, commit="def")

    assert chosen([failed], commit="abc") == ("whole", 0, 1)
    assert chosen([failed], commit="def") == ("seeds", 20, 10)
    assert chosen([failed, evolve(failed, commit="def")], commit="def") == ("whole", 0, 1)
    assert [*open_failures([failed])] == [failed]
    assert [*open_failures([failed, passed])] == []


def test_records_of_consecutive_seeds_are_joined():
    """A hundred entries of one commit are one record."""
    records = added([record(SEEDS, count=10), record(WHOLE)], record(SEEDS, 10, 10, date="2026-12-01"))

    assert records == [record(SEEDS, count=20, date="2026-12-01"), record(WHOLE)]
    assert len(added(records, record(SEEDS, 20, 10, commit="def"))) == 3
    assert len(added(records, record(SEEDS, 20, 10, result=FAILED))) == 3


def test_a_stopped_entry_is_replaced_by_the_next_one():
    """It says only how long the form takes at least."""
    stopped = record(WHOLE, result=STOPPED)

    assert added([stopped], record(WHOLE)) == [record(WHOLE)]
    assert added([stopped], record(SEEDS)) == [stopped, record(SEEDS)]


def test_records_survive_a_file(tmp_path):
    """What is empty is not stored."""
    path = tmp_path / "results.json"
    records = [record(WHOLE, figures=["5 kills"]), record(SEEDS, result=FAILED, output=["E  assert 1 == 2"])]
    assert read(path) == []
    write(records, path)

    assert read(path) == records
    assert path.read_text().count("figures") == 1
