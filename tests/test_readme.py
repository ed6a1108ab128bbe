"""The README's service: its commands are run one after the other, as a reader types them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from engines.ports import reserve_port

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
SERVICE, AIOHTTP, TEST, _ = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
_, START, FAIL = (
    "\n".join(re.findall(r"^\$ (.*)$", block, re.MULTILINE))
    for block in re.findall(r"^```console\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
)
TIMEOUT_SECONDS = 600
PORT = "8484"
# Waits for the output of programs in the background, because a reader does so too.
SHELL = """
set -eu
await() {{ for _ in $(seq 1200); do if "$@"; then return 0; fi; sleep 0.1; done; echo "timeout: $*"; exit 1; }}
callfire-async() {{
    if [ "$1" = trigger ]; then set -- "$@" --to 'http://127.0.0.1:{port}/callfire/{{token}}'; fi
    python -m callfire_async "$@"
}}
is_ready() {{ (exec 3<>/dev/tcp/127.0.0.1/{port}) 2>/dev/null; }}
is_dead() {{ callfire-async inbox list callfire.db --state dead | grep -q 'ValueError'; }}
trap 'kill $(jobs -p); wait' EXIT
{start}
await grep -q '^12135550142 answers yes$' log
{fail}
await grep -q 'answers maybe' log
"""


def shell_script(start_server, port):
    """Return the README's commands, with pauses between them and the repair of the handler."""
    server = f"{start_server.replace(PORT, str(port))} >> log 2>&1 &\nawait is_ready"
    trigger, listing, replay = FAIL.splitlines()
    repair = ['sed -i \'s/not in ("yes", "no")/is None/\' service.py', "kill $!; wait $! || true", server]
    return SHELL.format(
        port=port,
        start=START.replace("uvicorn service:app --port 8484 &", server),
        fail="\n".join([trigger, "await is_dead", listing, *repair, replay]),
    )


def aiohttp_service():
    """Replace the imports for FastAPI and the last two lines, as the README says."""
    lines = [line for line in SERVICE.splitlines() if "fastapi" not in line][:-2]
    return "\n".join(lines) + "\n" + AIOHTTP


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["FastAPI", "aiohttp"])
def test_the_commands_work_in_order(framework, tmp_path):
    """An event is handled, a failing handler is logged, and its dead letter is replayed on the running service."""
    port = reserve_port()
    service = (SERVICE if framework == "FastAPI" else aiohttp_service()).replace(PORT, str(port))
    (tmp_path / "service.py").write_text(service, encoding="utf-8")
    start = f"python -m uvicorn service:app --port {PORT}" if framework == "FastAPI" else "python service.py"

    result = run(["bash", "-c", shell_script(start, port)], tmp_path)
    log = (tmp_path / "log").read_text(encoding="utf-8")

    assert (result.returncode, "1 replayed" in result.stdout) == (0, True), (result.stdout, log)
    assert "save_answer failed: ValueError (delivery 2, attempt 1 of 3, next attempt in" in log
    assert "ValueError: the answer is neither yes nor no" in log
    assert "delivery 2 became a dead letter: 3 attempts failed" in log


def test_the_test_of_the_service_passes(tmp_path):
    """The README's test passes without configuration or plugins for asyncio."""
    (tmp_path / "service.py").write_text(SERVICE, encoding="utf-8")
    (tmp_path / "test_service.py").write_text(TEST, encoding="utf-8")
    secrets = {"CALLFIRE_TOKEN": "a-token-that-is-long-enough", "CALLFIRE_SIGNING_SECRET": "a-secret-that-is-long"}

    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-c", os.devnull]
    result = run([*command, "test_service.py"], tmp_path, **secrets)

    assert "1 passed" in result.stdout, result.stdout


def run(command, folder, **variables):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"PATH": path} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )


def test_the_readme_is_short():
    """Longer explanations belong in the documentation."""
    assert len(README.splitlines()) < 150
