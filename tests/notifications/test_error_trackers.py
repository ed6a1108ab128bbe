"""What Sentry's SDK sends about a failing handler, with the example of docs/error-trackers.md."""

import gzip
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

# Each test runs a service and a server of Sentry.
pytestmark = pytest.mark.slow
PAGE = Path(__file__).parents[2] / "docs" / "error-trackers.md"
EXAMPLES = re.findall(
    r"^```\{code-block\} python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)
POST = """
async def post(receiver, *numbers):
    async with receiver:
        for number in numbers:
            body = b'{"TextSent": {"Text": {"@id": %d}}}' % number
            await receiver.receive(Postback("POST", os.environ["CALLFIRE_TOKEN"], {}, body))
        await receiver.idle(timeout=20)
"""
RUN = "\nasyncio.run(post(RECEIVER, 1, 2))\nsentry_sdk.flush()\n"
WITHOUT_INBOX = 'Receiver(router, tokens=os.environ["CALLFIRE_TOKEN"])'
WITHOUT_EXCEPTIONS = 'Receiver(router, tokens=os.environ["CALLFIRE_TOKEN"], log_exceptions=False)'


class Sentry:
    """The part of a Sentry server that receives events."""

    def __init__(self) -> None:
        self.events: list[dict] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(handler) -> None:  # noqa: N805  # self is the server
                body = handler.rfile.read(int(handler.headers["Content-Length"]))
                self.add(gzip.decompress(body) if handler.headers["Content-Encoding"] == "gzip" else body)
                handler.send_response(200)
                handler.send_header("Content-Length", "2")
                handler.end_headers()
                handler.wfile.write(b"{}")

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def add(self, envelope: bytes) -> None:
        """Store the events of an envelope: lines of JSON, each item after a line with its type."""
        _, *lines = [json.loads(line) for line in envelope.splitlines() if line]
        self.events += [item for header, item in zip(lines[::2], lines[1::2], strict=True) if header["type"] == "event"]

    @property
    def dsn(self) -> str:
        return f"http://key@127.0.0.1:{self.server.server_port}/1"


@pytest.fixture
def sentry() -> Iterator[Sentry]:
    sentry = Sentry()
    thread = threading.Thread(target=sentry.server.serve_forever)
    thread.start()
    yield sentry
    sentry.server.shutdown()
    thread.join()
    sentry.server.server_close()


def run(sentry: Sentry, folder: Path, *sources: str) -> list[dict]:
    """Run a program in its own process, because the SDK changes the libraries that it finds; return the events."""
    env = os.environ | {"SENTRY_DSN": sentry.dsn, "CALLFIRE_TOKEN": "a-token-that-is-long-enough"}
    subprocess.run([sys.executable, "-c", "\n".join(sources)], check=True, cwd=folder, env=env, timeout=60)
    return sentry.events


def exception(event: dict) -> dict:
    return event["exception"]["values"][-1]


def test_events_are_grouped_by_the_exception(sentry, tmp_path):
    """All attempts at all deliveries have the same exception and stack, and the delivery in message and extra."""
    events = run(sentry, tmp_path, EXAMPLES[0], POST, RUN.replace("RECEIVER", "receiver"))
    failed = [event for event in events if event["logger"] == "callfire_async.worker"]

    stacks = [[frame["function"] for frame in exception(event)["stacktrace"]["frames"]] for event in failed]
    assert len(failed) == 4
    assert {exception(event)["type"] for event in failed} == {"ConnectionError"}
    assert {exception(event)["value"] for event in failed} == {"no invoice for text 1", "no invoice for text 2"}
    assert (stacks.count(stacks[0]), stacks[0][-1]) == (4, "charge")
    assert not any("fingerprint" in event for event in failed)
    attempts = {(event["extra"]["callfire_delivery_id"], event["extra"]["callfire_attempt"]) for event in failed}
    assert attempts == {(1, 1), (1, 2), (2, 1), (2, 2)}
    assert "(delivery 1, attempt 1 of 2, next attempt in 0.0 s)" in str([event["logentry"] for event in failed])


def test_without_an_inbox_the_exception_is_sent_too(sentry, tmp_path):
    """Once for each postback."""
    events = run(sentry, tmp_path, EXAMPLES[0], POST, RUN.replace("RECEIVER", WITHOUT_INBOX))

    assert [exception(event)["type"] for event in events] == ["ConnectionError"] * 2
    assert events[0]["extra"]["callfire_handler"] == "__main__.charge"


def test_only_dead_letters_are_sent_if_the_attempts_are_ignored(sentry, tmp_path):
    """As the second example does."""
    events = run(sentry, tmp_path, *EXAMPLES[:2], POST, RUN.replace("RECEIVER", "receiver"))

    assert [event["logger"] for event in events] == ["callfire_async.dead_letters"] * 2


def test_no_message_is_sent_if_exceptions_are_not_logged(sentry, tmp_path):
    """The event has the log line only."""
    events = run(sentry, tmp_path, EXAMPLES[0], POST, RUN.replace("RECEIVER", WITHOUT_EXCEPTIONS))

    assert len(events) == 2
    assert not any("exception" in event for event in events)
    assert "no invoice for text 1" not in json.dumps(events)
