"""From bytes to a typed event: beside the libraries underneath, and beside others that make typed values too."""

from __future__ import annotations

import json
from collections.abc import Callable

import xmltodict

from benchmarks.instructions import instructions
from benchmarks.rows import Costs, Effort, Row, compare
from callfire_async.models import NotificationFormat
from callfire_async.notifications import parse
from callfire_async.testing import samples

XML = samples.body("TextReceived")
JSON = samples.body("TextReceived", NotificationFormat.JSON)


def _in_instructions(effort: Effort) -> Costs:
    count = effort.of(1_000)
    ours, floor = (instructions(work, XML, count) for work in ("parsed", "handled_by_expat"))
    return Costs(ours, floor, "instructions")


def _beside_xmltodict(effort: Effort) -> Costs:
    return compare(lambda: parse(XML), lambda: xmltodict.parse(XML), effort)


def _beside_json(effort: Effort) -> Costs:
    return compare(lambda: parse(JSON), lambda: json.loads(JSON), effort)


def _beside_pydantic_xml(effort: Effort) -> Costs:
    from benchmarks.typed_xml import read_with_pydantic_xml  # noqa: PLC0415  # only where it is installed

    return _beside_peer(read_with_pydantic_xml, effort)


def _beside_xsdata(effort: Effort) -> Costs:
    from benchmarks.typed_xml import read_with_xsdata  # noqa: PLC0415  # likewise

    return _beside_peer(read_with_xsdata, effort)


def _beside_peer(read: Callable[[bytes], object], effort: Effort) -> Costs:
    return compare(lambda: parse(XML), lambda: read(XML), effort)


ROWS = (
    Row(
        f"an XML notification of {len(XML)} bytes, guarded, to a typed event, in instructions",
        "expat with handlers in Python that do nothing",
        3.75,
        _in_instructions,
    ),
    Row("the same, in time", "`xmltodict.parse` alone", 1.35, _beside_xmltodict),
    Row("the same", "pydantic-xml", 1.4, _beside_pydantic_xml, better="higher"),
    Row("the same", "xsdata", 4.0, _beside_xsdata, better="higher"),
    Row(f"a JSON notification of {len(JSON)} bytes to a typed event", "`json.loads` alone", 2.5, _beside_json),
)
