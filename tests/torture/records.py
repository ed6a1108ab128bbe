"""The records of long forms: what ran, with which seeds, and its result; stored in a file that is committed."""

import json
from collections.abc import Iterator
from pathlib import Path

import attrs
from attrs import asdict, evolve, field, frozen
from torture.forms import Form

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
PASSED, FAILED, STOPPED = "passed", "failed", "stopped"


@frozen(kw_only=True)
class Record:
    """One or more entries of a form that ran on one commit, with consecutive seeds."""

    form: str
    #: The first seed, and the number of units.
    seed: int
    count: int
    #: The duration.
    seconds: int
    #: `PASSED`, `FAILED`, or `STOPPED` because the time was over.
    result: str
    #: The summary of pytest, for example ``2 passed``.
    tests: str
    #: The last commit that changed the code.
    commit: str
    #: The day on which it ended.
    date: str
    #: What the tests measured.
    figures: list[str] = field(factory=list)
    #: The last lines of a failed entry.
    output: list[str] = field(factory=list)

    @property
    def next_seed(self) -> int:
        return self.seed + self.count

    def continues(self, other: "Record") -> bool:
        """Return whether one record is enough for *other* and the entry after it."""
        is_alike = (self.form, self.commit, self.tests) == (other.form, other.commit, other.tests)
        return is_alike and self.seed == other.next_seed and self.is_plain and other.is_plain

    @property
    def is_plain(self) -> bool:
        """Whether it has passed without figures of its own."""
        return self.result == PASSED and not self.figures

    def repeats(self, other: "Record") -> bool:
        """Return whether this entry ran with the seeds of *other*."""
        return self.form == other.form and self.seed <= other.seed and self.next_seed >= other.next_seed


def read(path: Path = RESULTS) -> list[Record]:
    """Return the records in a file."""
    return [Record(**each) for each in json.loads(path.read_text(encoding="utf-8"))] if path.exists() else []


def write(records: list[Record], path: Path = RESULTS) -> None:
    """Replace the file, so that a crash leaves the old records or the new ones."""
    stored = [asdict(record, filter=_is_set) for record in records]
    new = path.with_suffix(".new")
    new.write_text(json.dumps(stored, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    new.replace(path)


def _is_set(_: "attrs.Attribute[object]", value: object) -> bool:
    return value != []


def added(records: list[Record], new: Record) -> list[Record]:
    """Return the records with a new one: it replaces stopped entries of its form, and extends the one before it."""
    kept = [each for each in records if (each.form, each.result) != (new.form, STOPPED)]
    for index, each in enumerate(kept):
        if new.continues(each):
            both = evolve(new, seed=each.seed, count=each.count + new.count, seconds=each.seconds + new.seconds)
            return [*kept[:index], both, *kept[index + 1 :]]
    return [*kept, new]


def of(form: Form, records: list[Record]) -> list[Record]:
    """Return the records of a form, without those of entries that were stopped."""
    return [each for each in records if each.form == form.name and each.result != STOPPED]


def next_seed(form: Form, records: list[Record]) -> int:
    """Return the first seed that has not run."""
    return max((each.next_seed for each in of(form, records)), default=0)


def share(form: Form, records: list[Record]) -> float:
    """Return how much of a full run is done; more than 1 after further runs."""
    return next_seed(form, records) / form.units


def seconds_per_unit(form: Form, records: list[Record]) -> float:
    """Return how long a unit takes: as long as in the last run, or twice as long if that was stopped before its end."""
    for each in reversed(records):
        if each.form == form.name and each.result != FAILED:
            return max(each.seconds, 1) / each.count * (2 if each.result == STOPPED else 1)
    return form.seconds


def open_failures(records: list[Record]) -> Iterator[Record]:
    """Yield failed entries whose seeds have not passed since."""
    for index, each in enumerate(records):
        later = (other for other in records[index + 1 :] if other.repeats(each))
        if each.result == FAILED and not any(other.result == PASSED for other in later):
            yield each
