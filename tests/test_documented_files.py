"""The configuration files and the servers' commands of the documentation."""

import configparser
import importlib.util
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import httpx
import pytest
import yaml
from engines.ports import reserve_port

from callfire_async.cli._subscriptions_file import read_specs
from callfire_async.cli._webhooks_file import read_webhook_specs
from callfire_async.notifications import EndpointTokens
from callfire_async.testing import samples

DOCS = Path(__file__).parent.parent / "docs"
DEPLOYMENT = (DOCS / "deployment.md").read_text(encoding="utf-8")
TOKEN = "a-token-that-is-long-enough"
TIMEOUT_SECONDS = 180
COMMANDS = re.findall(r"^\| \w+ \| `(\S+ .*service:app .*)` \|$", DEPLOYMENT, re.MULTILINE)
SERVICE = """
import os

from fastapi import FastAPI

from callfire_async.notifications import Receiver, Router, SqliteInbox, TextSent
from callfire_async.notifications.fastapi import health_routes, notification_routes

router = Router()


@router.on(TextSent)
async def text_sent(event):
    print("handled", flush=True)


inbox = SqliteInbox.in_directory("inboxes")
receiver = Receiver(router, tokens=os.environ["CALLFIRE_TOKEN"], inbox=inbox)
app = FastAPI()
app.include_router(notification_routes(receiver), prefix="/callfire")
app.include_router(health_routes(receiver))
"""


def blocks(text, language):
    """Return the code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.stem)
def test_configuration_files_can_be_parsed(page):
    """Each block in TOML, YAML and INI is valid."""
    text = page.read_text(encoding="utf-8")
    for block in blocks(text, "toml"):
        assert tomllib.loads(block)
    for block in blocks(text, "yaml"):
        assert list(yaml.safe_load_all(block))
    for block in blocks(text, "ini"):
        parser = configparser.ConfigParser()
        parser.read_string(block)
        assert parser.sections()


def test_the_version_is_the_same_everywhere():
    """The changelog's first release and the citation have the version and the date of the release."""
    root = DOCS.parent
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")

    version, date = re.search(r"^## \[([\d.]+)\] - (\S+)$", changelog, re.MULTILINE).groups()
    assert (version, citation["version"]) == (project["version"], project["version"])
    assert date == citation["date-released"]


def test_the_files_of_subscriptions_and_webhooks_are_accepted(tmp_path, monkeypatch):
    """The command line reads the examples of its page."""
    monkeypatch.delenv("CALLFIRE_SIGNING_SECRET", raising=False)
    subscriptions, webhooks = blocks((DOCS / "command-line.md").read_text(encoding="utf-8"), "toml")
    (tmp_path / "subscriptions.toml").write_text(subscriptions, encoding="utf-8")
    (tmp_path / "webhooks.toml").write_text(webhooks, encoding="utf-8")

    tokens = EndpointTokens(TOKEN)

    assert len(read_specs(tmp_path / "subscriptions.toml", tokens)) == 2
    assert len(read_webhook_specs(tmp_path / "webhooks.toml", tokens)) == 2


def test_probes_use_the_paths_for_probes():
    """The path for alerts restarts no process and stops no traffic."""
    (manifest,) = (block for block in blocks(DEPLOYMENT, "yaml") if "StatefulSet" in block)
    (container,) = yaml.safe_load(manifest)["spec"]["template"]["spec"]["containers"]

    assert container["livenessProbe"]["httpGet"]["path"] == "/health/live"
    assert container["readinessProbe"]["httpGet"]["path"] == "/health/ready"


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.partition(" ")[0])
def test_a_server_runs_the_receiver(command, tmp_path):
    """The server sends lifespan events, postbacks are handled, and SIGTERM stops it."""
    server, *arguments = shlex.split(command)
    if importlib.util.find_spec(server) is None:
        pytest.skip(f"needs {server}: install the dependency group servers")
    (tmp_path / "service.py").write_text(SERVICE, encoding="utf-8")
    port = reserve_port()
    bind = ["--port", str(port)] if server in ("uvicorn", "granian") else ["--bind", f"127.0.0.1:{port}"]
    with (tmp_path / "output").open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", server, *arguments, *bind],
            cwd=tmp_path,
            env=os.environ | {"CALLFIRE_TOKEN": TOKEN},
            stdout=output,
            stderr=output,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: is_ready(url), process)
        body = samples.body("TextSent")
        response = httpx.post(f"{url}/callfire/{TOKEN}", content=body, trust_env=False, timeout=TIMEOUT_SECONDS)
        assert response.status_code == 204
        wait_until(lambda: "handled" in (tmp_path / "output").read_text(), process)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(TIMEOUT_SECONDS)
    assert process.returncode in (0, -signal.SIGTERM)


def is_ready(url):
    """Return whether the service accepts postbacks."""
    try:
        return httpx.get(f"{url}/health/ready", trust_env=False, timeout=TIMEOUT_SECONDS).status_code == 200
    except httpx.TransportError:
        return False


def wait_until(is_true, process):
    """Wait until a condition is true."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not is_true():
        assert process.poll() is None, "the server exited"
        assert time.monotonic() < deadline
        time.sleep(0.05)
