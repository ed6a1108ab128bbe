"""Coverage-guided fuzzing of `parse`, and a round trip of any bytes through a receiver and its inbox."""

import asyncio
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from callfire_async.notifications import (
    MemoryInbox,
    Notification,
    Postback,
    Receiver,
    Reject,
    Reply,
    RetryPolicy,
    Router,
    SqliteInbox,
)

FUZZER = Path(__file__).with_name("fuzz_parse.py")
needs_atheris = pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None,
    reason="atheris is not installed (dependency group torture) or not available for this Python",
)


@needs_atheris
def test_the_fuzzer_finds_nothing_but_events_and_our_errors(tmp_path, torture, seed):
    """20,000 runs by default and a million with --torture, guided by branch coverage."""
    runs = 1_000_000 if torture else 20_000
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, FUZZER, "--write-corpus", corpus], check=True, env=environment, capture_output=True)

    command = [sys.executable, FUZZER, f"-runs={runs}", f"-seed={seed + 1}", "-max_len=4096", "-timeout=10"]
    limits = ["-rss_limit_mb=2048", f"-artifact_prefix={tmp_path}/"]
    result = subprocess.run([*command, *limits, corpus], env=environment, capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stderr[-4000:]
    assert f"Done {runs} runs" in result.stderr


# --- round trip -------------------------------------------------------------------------------------------

EXAMPLES = [b"\0", b"\xff\xfe", b"\xed\xa0\x80", b"\r\n", b"'; DROP TABLE deliveries; --", b"\x1f\x8b", b" " * 70_000]


def rejecting() -> Router:
    router = Router()

    @router.on(Notification)
    async def reject(event: Notification) -> None:
        raise Reject("not today")

    return router


def memory(_: str) -> MemoryInbox:
    return MemoryInbox()


def sqlite(folder: str) -> SqliteInbox:
    return SqliteInbox(Path(folder) / "inbox.db")


@pytest.mark.parametrize(("make", "examples"), [(memory, 100), (sqlite, 25)], ids=["memory", "SQLite"])
def test_replay_returns_any_bytes_unchanged(make, examples, torture):
    """Bodies are stored, dead-lettered, replayed and claimed with the same bytes and content type."""

    @settings(
        max_examples=examples * (40 if torture else 1), deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    @given(st.lists(st.binary(min_size=1), min_size=1, max_size=4, unique=True), st.none() | st.text())
    @example(EXAMPLES, "text/xml; charset=\ud800")
    @example(EXAMPLES, "\0")
    def check(bodies: list[bytes], content_type: str | None) -> None:
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(assert_replayed(bodies, content_type, lambda: make(folder)))

    check()


async def assert_replayed(bodies: list[bytes], content_type: str | None, make: Callable) -> None:
    """Send bodies to a receiver that rejects them, and check the replayed deliveries."""
    inbox = make()
    headers = {} if content_type is None else {"Content-Type": content_type}
    async with Receiver(rejecting(), tokens=None, inbox=inbox, retry=RetryPolicy(1)) as receiver:
        for body in bodies:
            assert await receiver.receive(Postback("POST", None, headers, body)) == Reply(204)
        await receiver.idle(timeout=30)
    async with inbox:
        replayed = await inbox.replay()
        leases = await inbox.claim(len(bodies), lease=60)

    assert replayed == len(bodies)
    assert [lease.delivery.body for lease in leases] == bodies
    kept = None if content_type is None else content_type.strip()
    assert {lease.delivery.content_type for lease in leases} == {kept}
