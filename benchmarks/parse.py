"""`parse`, compared with the libraries that it uses and with other libraries that produce typed values."""

from __future__ import annotations

import json
from collections.abc import Callable

import xmltodict

from benchmarks.instructions import instructions
from benchmarks.rows import Costs, Effort, Row, compare
from callfire_async.models import NotificationFormat
from callfire_async.notifications import parse
from callfire_async.testing import encode, samples

XML = samples.body("TextReceived")
JSON = samples.body("TextReceived", NotificationFormat.JSON)


V2 = encode(samples.EVENTS["TextReceived"], api="v2")[1]


def _in_instructions(effort: Effort) -> Costs:
    count = effort.of(1_000)
    ours, baseline = (instructions(operation, XML, count) for operation in ("parse", "expat"))
    return Costs(ours, baseline, "instructions")


def _compare_with_xmltodict(effort: Effort) -> Costs:
    return compare(lambda: parse(XML), lambda: xmltodict.parse(XML), effort)


def _compare_with_json(effort: Effort) -> Costs:
    return compare(lambda: parse(JSON), lambda: json.loads(JSON), effort)


def _compare_generations(effort: Effort) -> Costs:
    return compare(lambda: parse(V2), lambda: parse(JSON), effort)


def _compare_with_pydantic_xml(effort: Effort) -> Costs:
    from benchmarks.xml_peers import parse_with_pydantic_xml  # noqa: PLC0415  # may not be installed

    return _compare_with(parse_with_pydantic_xml, effort)


def _compare_with_xsdata(effort: Effort) -> Costs:
    from benchmarks.xml_peers import parse_with_xsdata  # noqa: PLC0415  # may not be installed

    return _compare_with(parse_with_xsdata, effort)


def _compare_with(read: Callable[[bytes], object], effort: Effort) -> Costs:
    return compare(lambda: parse(XML), lambda: read(XML), effort)


_PARSE_XML = f"`parse` of an XML notification of {len(XML)} bytes"

ROWS = (
    Row(f"{_PARSE_XML}, in instructions", "expat with empty handlers in Python", 3.75, _in_instructions),
    Row(_PARSE_XML, "`xmltodict.parse`", 1.35, _compare_with_xmltodict),
    Row(_PARSE_XML, "pydantic-xml", 1.4, _compare_with_pydantic_xml, better="higher"),
    Row(_PARSE_XML, "xsdata", 4.0, _compare_with_xsdata, better="higher"),
    Row(f"`parse` of a JSON notification of {len(JSON)} bytes", "`json.loads`", 2.5, _compare_with_json),
    Row(
        f"`parse` of a text of API v2 in an envelope of {len(V2)} bytes",
        "`parse` of the same text in JSON of API 1.1",
        1.2,
        _compare_generations,
    ),
)
