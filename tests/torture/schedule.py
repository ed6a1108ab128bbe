"""What runs next."""

from collections.abc import Sequence

from torture.entry import Entry, last_commit
from torture.forms import FORMS, Form
from torture.records import Record, next_seed, open_failures, seconds_per_unit, share

#: An entry may take longer than the last one.
MARGIN = 1.2
#: A divided entry runs at least this part of its units, because pytest takes time to start.
SMALLEST_PART = 0.1


def next_entry(
    records: list[Record], seconds: float, target: float, forms: Sequence[Form] = FORMS, commit: str = ""
) -> Entry | None:
    """
    Return the next entry that fits into the time: one that failed with older code, or of the least complete form.

    Args:
        records: What ran before.
        seconds: The remaining time.
        target: The share of each form at which it is complete.
        forms: All forms; of two with the same share, the first one runs.
        commit: The last commit that changed the code; by default that of this checkout.

    Returns:
        The entry, or None if nothing fits, or all forms are complete.
    """
    repeated = _failed_entry(records, seconds, forms, commit or last_commit())
    if repeated is not None:
        return repeated
    for form in sorted(forms, key=lambda each: share(each, records)):
        count = _fitting(form, records, seconds)
        if count and share(form, records) < target:
            return Entry(form, next_seed(form, records), count)
    return None


def _failed_entry(records: list[Record], seconds: float, forms: Sequence[Form], commit: str) -> Entry | None:
    for failed in open_failures(records):
        for form in forms:
            fits = seconds_per_unit(form, records) * failed.count * MARGIN <= seconds
            if form.name == failed.form and fits and not _has_run(failed, records, commit):
                return Entry(form, failed.seed, failed.count)
    return None


def _has_run(failed: Record, records: list[Record], commit: str) -> bool:
    return any(each.commit == commit and each.repeats(failed) for each in records)


def _fitting(form: Form, records: list[Record], seconds: float) -> int:
    """Return how many units of a form to run, 0 if the time is too short for them."""
    if (affordable := seconds / (seconds_per_unit(form, records) * MARGIN)) >= form.units_per_entry:
        return form.units_per_entry
    is_enough = form.is_divisible and affordable >= max(1, form.units_per_entry * SMALLEST_PART)
    return int(affordable) if is_enough else 0


def smallest_share(records: list[Record], forms: Sequence[Form] = FORMS) -> float:
    """Return how complete the least complete form is."""
    return min(share(form, records) for form in forms)
