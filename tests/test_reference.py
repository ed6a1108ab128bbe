"""The reference is complete: every public name, every event, every root."""

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
    """Read the table of events: by the event's name, the other cells; *itself* is no part of a name."""
    cells = [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in (DOCS / "events.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| `")
    ]
    return {re.findall(r"\w+", row[0])[0]: row[1:] for row in cells}


def below(kind: type[Notification]) -> set[str]:
    """Name all kinds below one."""
    return {name for one in kind.__subclasses__() for name in {one.__name__} | below(one)}


@pytest.mark.parametrize("module", ["callfire_async", "callfire_async.notifications", "callfire_async.testing"])
def test_every_public_name_has_an_entry(module):
    """Nothing that can be imported is left out."""
    reference = (DOCS / "reference.md").read_text(encoding="utf-8")

    missing = [name for name in importlib.import_module(module).__all__ if not re.search(rf"\b{name}\b", reference)]

    assert not missing


def test_every_kind_of_event_has_a_row():
    """In the order in which the tree is drawn."""
    kinds = {name for name in below(Notification) if name in notifications.__all__}

    assert rows().keys() == kinds


@pytest.mark.parametrize("event", samples.EVENTS.values(), ids=samples.EVENTS)
def test_the_row_of_an_event_says_what_it_is(event):
    """Which trigger makes CallFire post it, under which root, and what its key is."""
    subscribed, posted, key = rows()[type(event).__name__]
    trigger = trigger_event_of(event)
    trigger_is_named = trigger is not None and (str(trigger) in subscribed or subscribed == "either of the two")

    assert trigger_is_named
    assert f"`{event.name}`" in posted or "that is neither" in posted
    assert parse(event.to_xml()).key[0] in key or key == "likewise" or "…" in key
