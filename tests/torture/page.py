"""The figures of the page *How it is tested*: the forms of each promise, and their last runs."""

from collections.abc import Iterator
from pathlib import Path

from torture.forms import FORMS, Form
from torture.records import FAILED, PASSED, Record, of, open_failures

PAGE = Path(__file__).parent.parent.parent / "docs" / "how-it-is-tested.md"
BEGIN, END = "<!-- figures of python -m torture -->\n", "<!-- end of the figures -->\n"


def write(records: list[Record], path: Path = PAGE) -> None:
    """Replace the figures in the page."""
    text = path.read_text(encoding="utf-8")
    path.write_text(with_figures(text, records), encoding="utf-8")


def with_figures(text: str, records: list[Record]) -> str:
    """Return the page with these figures."""
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + figures(records) + END + rest.partition(END)[2]


def figures(records: list[Record]) -> str:
    """Return a section for each promise, with a table of its forms, and what the tests measured."""
    promises = dict.fromkeys(form.promise for form in FORMS)
    sections = [line for promise in promises for line in _section(promise, records)]
    return "\n".join(["", *sections, *_measured(records), *_failures(records)])


def _section(promise: str, records: list[Record]) -> Iterator[str]:
    yield from [f"### {promise}", "", "| full form | tests | last run |", "| --- | --- | --- |"]
    for form in FORMS:
        if form.promise == promise:
            tests = "<br>".join(f"`{test.partition('::')[0].removeprefix('tests/')}`" for test in form.tests)
            yield f"| {form.method} | {tests} | {_last_run(form, of(form, records))} |"
    yield ""


def _last_run(form: Form, records: list[Record]) -> str:
    if not records:
        return "not run yet"
    passed = [each for each in records if each.result == PASSED]
    units = sum(each.count for each in passed)
    amount = f"{units:,} of {form.units:,} passed" if form.units > 1 else records[-1].result
    last, minutes = records[-1], sum(each.seconds for each in passed or records) / 60
    return f"**{amount}**, {last.tests}, {minutes:,.0f} min, {last.date}, `{last.commit}`"


def _measured(records: list[Record]) -> Iterator[str]:
    lines = [f"- {line}" for form in FORMS for each in of(form, records)[-1:] for line in each.figures]
    if lines:
        yield from ["### Measured in these runs", "", *lines, ""]


def _failures(records: list[Record]) -> Iterator[str]:
    lines = [f"- {each.form}, seed {each.seed}, `{each.commit}`: {each.tests}" for each in open_failures(records)]
    repaired = sum(each.result == FAILED for each in records) - len(lines)
    yield from ["### Failures", ""]
    yield f"Failures whose seeds pass with later code: {repaired}. Others: {len(lines) or 'none'}."
    yield from ["", *lines, ""]
