"""
Fuzz `parse` with libFuzzer, and check that it returns an event or raises a `NotificationError`.

The program takes libFuzzer's options and the directory of a corpus. It exits with status 0 after ``-runs`` inputs, or
else prints the failing input. ``-seed`` repeats a run; ``--write-corpus DIRECTORY`` writes the initial corpus.
"""

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["callfire_async", "cattrs", "json", "xmltodict"]):
    from callfire_async.errors import NotificationError
    from callfire_async.notifications.encoding import encode_envelope
    from callfire_async.notifications.events import Notification
    from callfire_async.notifications.parsing import parse, parse_all, parse_or_split

CONTENT_TYPES = (None, "application/json", "text/xml; charset=latin-1", "text/xml; charset=windows-1252")


def parse_one(data: bytes) -> None:
    """Parse one body. The first byte selects the content type, and whether the body is parsed as text."""
    kind, body = data[:1], data[1:]
    number = kind[0] if kind else 0
    content_type = CONTENT_TYPES[number % len(CONTENT_TYPES)]
    document = body.decode("utf-8", "surrogatepass" if number & 16 else "replace") if is_text(number, body) else body
    try:
        events = parse_all(document, content_type)
    except NotificationError as error:
        str(error).encode()
        return
    repr((events, hash(events), [event.key for event in events])).encode()
    if events != parse_all(document, content_type):
        raise AssertionError("parsing a body twice returned different events")
    check_parts(events, parse_or_split(document, content_type), content_type)


def check_parts(
    events: tuple[Notification, ...], result: Notification | tuple[bytes, ...], content_type: str | None
) -> None:
    """Check that an envelope is split without a loss."""
    parts = tuple(parse(part, content_type) for part in result) if isinstance(result, tuple) else (result,)
    if events != parts:
        raise AssertionError("splitting a body returned different events")


def is_text(number: int, body: bytes) -> bool:
    """Return whether a body is to be parsed as text, and can be."""
    if not number & 8:
        return False
    try:
        body.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return bool(not number & 16)
    return True


def write_corpus(directory: Path) -> None:
    """Write the body of each event in each format, and the short hostile bodies."""
    from notifications.parsing.attacks import CASES

    from callfire_async.testing import samples

    bodies = [samples.body(root, form) for root in samples.EVENTS for form in ("XML", "JSON", "SOAP")]
    bodies += [samples.body(name, api="v2") for name in samples.EVENTS_V2]
    bodies += [encode_envelope(list(samples.EVENTS_V2.values())[:3])[1]]
    bodies += [body for case in CASES.values() if "megabyte" not in case.name and len(body := case.body()) < 4_000]
    for number, body in enumerate(bodies):
        (directory / f"{number:03}").write_bytes(bytes([number % 32]) + body)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write-corpus"]:
        write_corpus(Path(sys.argv[2]))
    else:
        atheris.Setup(sys.argv, parse_one)
        atheris.Fuzz()
