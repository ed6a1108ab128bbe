"""`listen` and `trigger` in two panes of a terminal."""

import os
import shlex
import shutil
import subprocess
import sys
import time
from uuid import uuid4

import pytest
from cli.command_runner import DEADLINE

COMMAND = f"{shlex.quote(sys.executable)} -m callfire_async"


@pytest.fixture
def tmux(tmp_path):
    """Start a terminal of 100 columns and 30 lines on a tmux server of its own."""
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


def wait_for(tmux, pane, *texts):
    """Wait until a pane shows all of the texts; return its content."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        screen = tmux("capture-pane", "-p", "-J", "-t", pane)
        if all(text in screen for text in texts):
            return screen
        time.sleep(0.05)
    raise AssertionError(f"{texts} not found:\n{screen}")


@pytest.mark.slow
def test_listen_prints_what_trigger_posts(tmux):
    """`listen` prints each event on a line of plain text, and exits with status 130 on Ctrl-C."""
    tmux("split-window", "-v", "sh")
    tmux("send-keys", "-t", ":.0", f"{COMMAND} listen --port 0; echo status $?", "Enter")
    screen = wait_for(tmux, ":.0", "Ready! http://127.0.0.1:", "OUTBOUND_TEXT_FINISHED")
    base = screen.partition("Ready! ")[2].partition("/***")[0]

    tmux("send-keys", "-t", ":.1", f"{COMMAND} trigger CallFinished --set call.id=42 --to '{base}/{{token}}'", "Enter")

    wait_for(tmux, ":.1", "CallFinished call:42:LA: 204 in")
    wait_for(tmux, ":.0", "--> CallFinished call:42:LA")
    tmux("send-keys", "-t", ":.0", "C-c", "")
    assert "Traceback" not in wait_for(tmux, ":.0", "status 130")


@pytest.mark.slow
def test_ctrl_c_ends_the_demo(tmux):
    """Ctrl-C ends the demo and its receiver with status 130, and neither prints a traceback."""
    tmux("send-keys", "-t", ":.0", f"{COMMAND} demo --events 1000000; echo status $?", "Enter")
    wait_for(tmux, ":.0", "posting")

    tmux("send-keys", "-t", ":.0", "C-c", "")

    assert "Traceback" not in wait_for(tmux, ":.0", "status 130")
