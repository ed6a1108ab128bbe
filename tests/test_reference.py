"""The reference documents every public name, event and root."""

import importlib
import re
from pathlib import Path

import pytest

from callfire_async import notifications
from callfire_async.notifications import Notification, parse
from callfire_async.notifications.routing.subscription_filters import trigger_event_of
from callfire_async.testing import samples

DOCS = Path(__file__).parent.parent / "docs"


def rows() -> dict[str, list[str]]:
    """Return the cells of the table of events by the event's name."""
    cells = [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in (DOCS / "events.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| `")
    ]
    return {re.findall(r"\w+", row[0])[0]: row[1:] for row in cells}


def descendants(kind: type[Notification]) -> set[str]:
    """Return the names of all direct and indirect subclasses."""
    return {name for child in kind.__subclasses__() for name in {child.__name__} | descendants(child)}


@pytest.mark.parametrize("module", ["callfire_async", "callfire_async.notifications", "callfire_async.testing"])
def test_every_public_name_is_documented(module):
    """The reference mentions each name in `__all__`."""
    reference = "".join(page.read_text(encoding="utf-8") for page in DOCS.glob("reference-*.md"))

    missing = [name for name in importlib.import_module(module).__all__ if not re.search(rf"\b{name}\b", reference)]

    assert not missing


def test_every_kind_of_event_has_a_row():
    """The table has no other rows."""
    kinds = {name for name in descendants(Notification) if name in notifications.__all__}

    assert rows().keys() == kinds


@pytest.mark.parametrize("event", samples.EVENTS.values(), ids=samples.EVENTS)
def test_the_row_of_an_event(event):
    """It has the event's trigger, root and key."""
    trigger_cell, root_cell, key_cell = rows()[type(event).__name__]
    trigger = trigger_event_of(event)
    trigger_is_named = trigger is not None and (str(trigger) in trigger_cell or trigger_cell == "either of the two")

    assert trigger_is_named
    assert f"`{event.name}`" in root_cell or "that is neither" in root_cell
    assert parse(event.to_xml()).key[0] in key_cell or "…" in key_cell


def test_every_environment_variable_has_a_row():
    """The table has the variables of CallFire that the package names, and no others."""
    package = Path(notifications.__file__).parents[1]
    named = {
        name
        for module in package.rglob("*.py")
        for name in re.findall(r"\bCALLFIRE_\w*[A-Z]\b", module.read_text(encoding="utf-8"))
    }
    documented = re.findall(
        r"^\| `(CALLFIRE_\w+)` \|", (DOCS / "settings.md").read_text(encoding="utf-8"), re.MULTILINE
    )

    assert {*documented} == named
