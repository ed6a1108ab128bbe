"""`listen` and `trigger` in a real terminal, beside each other."""

import os
import shlex
import shutil
import subprocess
import sys
import time
from uuid import uuid4

import pytest
from cli.typing_commands import DEADLINE

COMMAND = f"{shlex.quote(sys.executable)} -m callfire_async"


@pytest.fixture
def tmux(tmp_path):
    """A terminal of 100 letters by 30 lines, with a server of its own."""
    if shutil.which("tmux") is None:
        assert "CI" not in os.environ, "tmux is missing"
        pytest.skip("tmux is missing")
    socket = f"callfire-{uuid4().hex}"

    def tmux(*arguments):
        command = ["tmux", "-L", socket, "-f", "/dev/null", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    tmux("new-session", "-d", "-x", "100", "-y", "30", "-c", str(tmp_path), "sh")
    yield tmux
    tmux("kill-server")


def shown(tmux, pane, *words):
    """Wait until a pane shows words; return all that it shows."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        screen = tmux("capture-pane", "-p", "-J", "-t", pane)
        if all(word in screen for word in words):
            return screen
        time.sleep(0.05)
    raise AssertionError(f"{words} were not shown:\n{screen}")


def test_listen_shows_what_trigger_posts(tmux):
    """Each event a line, without colour codes in its way; Ctrl-C ends it quietly."""
    tmux("split-window", "-v", "sh")
    tmux("send-keys", "-t", ":.0", f"{COMMAND} listen --port 0; echo status $?", "Enter")
    screen = shown(tmux, ":.0", "Ready! http://127.0.0.1:", "OUTBOUND_TEXT_FINISHED")
    base = screen.partition("Ready! ")[2].partition("/***")[0]

    tmux("send-keys", "-t", ":.1", f"{COMMAND} trigger CallFinished --set call.id=42 --to '{base}/{{token}}'", "Enter")

    shown(tmux, ":.1", "CallFinished call:42:LA: 204 in")
    shown(tmux, ":.0", "--> CallFinished call:42:LA")
    tmux("send-keys", "-t", ":.0", "C-c", "")
    assert "Traceback" not in shown(tmux, ":.0", "status 130")
