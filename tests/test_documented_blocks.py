"""
Each block of the documentation runs in a test, or is checked as far as this machine can.

The examples in Python run in ``test_documented_examples.py``, the blocks ``{code-block} python`` in the tests of
logging and of error trackers; TOML, YAML and INI are read in ``test_documented_files.py``; the README's commands run in
``test_readme.py``. This module checks the rest.
"""

import ast
import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import crossplane
import pytest
import reference_tables
from engines.nats import program_and_folder
from engines.ports import reserve_port
from typer.main import get_command

import callfire_async
from callfire_async import errors, notifications
from callfire_async.cli.app import app
from callfire_async.notifications import parse_all

ROOT = Path(__file__).parent.parent
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/**/*.md"), *ROOT.glob("benchmarks/*.md")]
FENCE = re.compile(r"^( *)```([^\n`]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
TIMEOUT_SECONDS = 300

#: Languages that this module or another one tests, see above.
TESTED = {
    "python",
    "{code-block} python",
    "console",
    "sh",
    "toml",
    "yaml",
    "ini",
    "json",
    "nginx",
    "dockerfile",
    "sql",
    "text",
}
#: Directives of Sphinx, which the build of the documentation checks.
DIRECTIVES = {"{toctree}", "{eval-rst}", "{literalinclude}", "{raw}", "{include}", "{image}"}
#: Programs whose commands are only checked by the shell's parser, and why.
NOT_RUN = {
    "docker": "needs a daemon and images; the compose files are read by the tests of the examples",
    "nox": "installs environments; the sessions are looked up",
    "pip": "installs packages; extras and files are looked up",
    "pre-commit": "changes the clone's hooks",
    ".": "activates an environment",
    "kill": "a job of the shell",
    "export": "sets a variable; a command in it is checked",
}


class Block(NamedTuple):
    """One block of a page."""

    page: Path
    line: int
    language: str
    source: str


def blocks(*languages):
    """Return the blocks in some languages, or all blocks."""
    return [block for page in PAGES for block in blocks_of(page) if not languages or block.language in languages]


def blocks_of(page):
    """Yield the blocks of a page."""
    text = page.read_text(encoding="utf-8")
    for indentation, language, source in FENCE.findall(text):
        lines = [line.removeprefix(indentation) for line in source.splitlines()]
        yield Block(page, text[: text.index(source)].count("\n") + 1, language, "\n".join(lines) + "\n")


def names(values):
    """Return the ids of parameters."""
    return [f"{value.page.stem}:{value.line}" for value in values]


def each(*languages):
    """Run a test for each block in some languages."""
    found = blocks(*languages)
    return pytest.mark.parametrize("block", found, ids=names(found))


def test_each_language_is_tested():
    """A block in another language needs a test."""
    languages = {block.language for block in blocks()}

    assert {name for name in languages - TESTED if name.split(" ")[0] not in DIRECTIVES} == set()


# --- commands ---------------------------------------------------------------------------------------------


class Command(NamedTuple):
    """One command of a page."""

    page: Path
    line: int
    text: str

    @property
    def words(self):
        """The words of the command, without a comment."""
        return shlex.split(self.text, comments=True)


def commands():
    """Return the commands of all blocks: those after a prompt, or each line of a script."""
    return [
        Command(block.page, block.line, command.strip().removesuffix("&").strip())
        for block in blocks("console", "sh")
        for line in typed(block)
        for command in line.split(" && ")
    ]


def typed(block):
    """Return the lines that a reader types; a backslash continues one."""
    joined = block.source.replace("\\\n", "")
    if block.language == "sh":
        return [line for line in joined.splitlines() if line.strip()]
    return re.findall(r"^\$ (.*)$", joined, re.MULTILINE)


COMMANDS = commands()
each_command = pytest.mark.parametrize("command", COMMANDS, ids=names(COMMANDS))


def program_of(command):
    """Return the name of the program."""
    return Path(command.words[0]).name if command.words[0] != "." else "."


@each_command
def test_a_command_is_valid(command):
    """The shell can parse it, and the program's arguments are checked, or there is a reason for not doing so."""
    subprocess.run(["bash", "-n", "-c", command.text], check=True, timeout=TIMEOUT_SECONDS)

    assert program_of(command) in {*NOT_RUN, *CHECKS}, command.text


@pytest.mark.parametrize("program", NOT_RUN)
def test_each_exception_is_needed(program):
    """An exception that no command needs is removed."""
    assert program in map(program_of, COMMANDS)


def check_own_command(arguments, tmp_path):
    """Parse the arguments as the program does, without running it."""
    command = get_command(app)
    while hasattr(command, "commands"):
        name, *arguments = arguments
        command = command.commands[name]
        command = command.load() if hasattr(command, "load") else command
    for name in arguments:
        if name.endswith((".db", ".toml")) and not name.startswith("/"):
            (tmp_path / name).touch()
    with contextlib.chdir(tmp_path):
        command.make_context(command.name, arguments)


def check_python(arguments, tmp_path):
    """Run code in a new process; look up a module or a file."""
    if arguments[0] == "-c":
        assert subprocess.check_output([sys.executable, *arguments], timeout=TIMEOUT_SECONDS)
    elif arguments[:2] == ["-m", "venv"]:
        assert len(arguments) == 3
    elif arguments[:2] == ["-m", "pip"]:
        check_pip(arguments[2:], tmp_path)
    elif arguments[0] == "-m":
        check_module(arguments[1])
    else:
        assert [*ROOT.glob(f"examples/*/{arguments[0]}")]


def check_module(name):
    """Look up a module: of this environment, this project or an example."""
    path = Path(*name.split("."))
    roots = [ROOT, *ROOT.glob("examples/*")]
    assert name == "pytest" or any(
        (root / path.with_suffix(".py")).exists() or (root / path).is_dir() for root in roots
    )


def check_pip(arguments, tmp_path):
    """Look up the extras, the groups and the files of requirements."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    text = " ".join(arguments)
    extras = {extra for found in re.findall(r"\[([\w,]+)\]", text) for extra in found.split(",")}

    assert arguments[0] == "install"
    assert extras <= {*project["project"]["optional-dependencies"]}
    assert {*re.findall(r"--group (\S+)", text)} <= {*project["dependency-groups"]}
    assert all([*ROOT.glob(f"examples/*/{file}")] for file in re.findall(r"-r (\S+)", text))


def check_nox(arguments, tmp_path):
    """Look up the session."""
    functions = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8")).body
    sessions = {node.name for node in functions if isinstance(node, ast.FunctionDef) and node.decorator_list}
    assert {*re.findall(r"-s (\w+)", " ".join(arguments))} <= sessions


def check_pytest(arguments, tmp_path):
    """Look up the file, or one that the reader has written."""
    paths = [argument.partition("::")[0] for argument in arguments if argument.partition("::")[0].endswith(".py")]
    assert all((ROOT / path).exists() or path == "test_service.py" for path in paths)


def check_uvicorn(arguments, tmp_path):
    """Parse the arguments as the program does."""
    from uvicorn.main import main

    main.make_context("uvicorn", arguments)


def check_curl(arguments, tmp_path):
    """The body is an event."""
    assert parse_all(arguments[arguments.index("-d") + 1].encode())


def check_export(arguments, tmp_path):
    """Run the command whose output is the value."""
    code = re.search(r"\$\(python -c '(.*)'\)", " ".join(arguments)) or re.search(
        r"\$\(python -c (.*)\)", " ".join(arguments)
    )
    if code:
        check_python(["-c", code[1]], tmp_path)


#: How the arguments of a program are checked.
CHECKS = {
    "callfire-async": check_own_command,
    "python": check_python,
    "python3": check_python,
    "pip": check_pip,
    "nox": check_nox,
    "pytest": check_pytest,
    "uvicorn": check_uvicorn,
    "curl": check_curl,
    "export": check_export,
}


@each_command
def test_the_arguments_of_a_command_are_accepted(command, tmp_path):
    """By the program's own parser, if it can be called without an effect."""
    if check := CHECKS.get(program_of(command)):
        check(command.words[1:], tmp_path)


# --- the quickstart ---------------------------------------------------------------------------------------

QUICKSTART = ROOT / "docs" / "quickstart.md"
# Waits for what runs in the background, as a reader does.
SHELL = """
set -eu
set -m
await() {{ for _ in $(seq 1200); do if "$@"; then return 0; fi; sleep 0.1; done; echo "timeout: $*"; exit 1; }}
callfire-async() {{ python -m callfire_async "$@"; }}
is_ready() {{ (exec 3<>/dev/tcp/127.0.0.1/{port}) 2>/dev/null; }}
is_dead() {{ callfire-async inbox list callfire.db --state dead | grep -q 'no handler matches CallFinished'; }}
trap 'kill $(jobs -p); wait' EXIT
{commands}
await grep -q '^call 2 LA$' log
grep -q '^text 1 SENT$' log
"""


@pytest.mark.slow
def test_the_commands_of_the_quickstart_work_in_order(tmp_path):
    """A postback is handled, one without a handler becomes a dead letter, and is replayed on the running service."""
    service, handler = (block.source for block in blocks_of(QUICKSTART) if block.language == "python")
    _, *consoles = (block for block in blocks_of(QUICKSTART) if block.language == "console")
    port = reserve_port()
    start = f"python -m uvicorn service:app --port {port} >> log 2>&1 &\nawait is_ready"
    lines = "\n".join(line for block in consoles for line in typed(block))
    lines = lines.replace("uvicorn service:app &", start).replace(":8000", f":{port}").replace("curl -i", "curl -sS -f")
    lines = lines.replace("callfire-async inbox list", "await is_dead\ncallfire-async inbox list")
    lines = lines.replace("kill %1", "cat handler.py >> service.py; kill %1; wait %1 || true")
    (tmp_path / "service.py").write_text(service, encoding="utf-8")
    (tmp_path / "handler.py").write_text(handler, encoding="utf-8")

    result = subprocess.run(
        ["bash", "-c", SHELL.format(port=port, commands=lines)],
        cwd=tmp_path,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "no_proxy": "*"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS * 2,
        check=False,
    )
    log = (tmp_path / "log").read_text(encoding="utf-8")

    assert (result.returncode, "1 replayed" in result.stdout) == (0, True), (result, log)
    assert 'POST /callfire/*** HTTP/1.1" 204' in log
    assert "delivery 2 became a dead letter: no handler matches CallFinished" in log


# --- configuration files ----------------------------------------------------------------------------------


@each("nginx")
def test_the_configuration_of_nginx_is_valid(block, tmp_path):
    """Its directives exist, where they are and with these arguments; nginx itself would need the certificates."""
    file = tmp_path / "nginx.conf"
    # Crossplane takes the values of a map for directives.
    source = re.sub(r"^(map [^{]*\{).*?^\}$", r"\1 }", block.source, flags=re.MULTILINE | re.DOTALL)
    file.write_text(f"events {{}}\nhttp {{\n{source}}}\n", encoding="utf-8")

    result = crossplane.parse(str(file), strict=True)

    assert (result["status"], result["errors"]) == ("ok", [])


@each("json")
def test_a_body_is_a_notification(block):
    """The example of the wire format can be parsed."""
    (event,) = parse_all(json.dumps(json.loads(block.source)).encode())

    assert (type(event).__name__, event.text.message) == ("TextReceived", "hello")


@each("dockerfile")
def test_the_image_starts_the_documented_command(block):
    """Its instructions exist, and CMD is in the exec form, with a command that the tests of deployment run."""
    lines = block.source.replace("\\\n", "").splitlines()
    instructions = [line.split(" ", 1) for line in lines if line and not line.startswith("#")]
    (command,) = (json.loads(arguments) for name, arguments in instructions if name == "CMD")

    assert {name for name, _ in instructions} <= {"FROM", "RUN", "WORKDIR", "COPY", "USER", "VOLUME", "CMD"}
    check_uvicorn(command[1:], None)


def test_the_unit_of_systemd_starts_a_valid_command():
    """The arguments of ExecStart are those of uvicorn; systemd is not on this machine."""
    (command,) = re.findall(
        r"^ExecStart=\S+/uvicorn (.*)$", (ROOT / "docs" / "deployment.md").read_text(), re.MULTILINE
    )

    check_uvicorn(command.split(), None)


def test_nats_accepts_its_configuration():
    """The server itself checks it."""
    (block,) = (block for block in blocks("text") if block.source.startswith("max_payload"))
    with program_and_folder() as (program, folder):
        file = folder / "nats.conf"
        file.write_text(block.source, encoding="utf-8")
        command = [program, "-t", "-c", file]

        subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT_SECONDS)


def test_the_configuration_of_caddy_is_balanced():
    """Caddy is not on PyPI, so only its brackets and its indentation by tabs are checked."""
    (block,) = (block for block in blocks("text") if "reverse_proxy" in block.source)
    depth = 0
    for line in block.source.splitlines():
        depth -= line.strip() == "}"
        assert len(line) - len(line.lstrip("\t")) == depth or not line
        depth += line.endswith("{")
    assert depth == 0


# --- output and diagrams ----------------------------------------------------------------------------------

#: The first lines of output that the examples before it print, with values that differ in each run.
OUTPUTS = (
    "10:02:31 --> ",
    "+ INBOUND_TEXT_FINISHED",
    "DELETE /subscription/609951003 failed with",
    "GET /subscription failed with",
    "GET /subscription got no complete response",
    "INFO:     127.0.0.1",
)
LOGGED = re.compile(r"^(\d{4}-\d\d-\d\d \S+ (?P<level>[A-Z]+) (?P<logger>\S+): )?(?P<message>.*)$")


def logged_lines():
    """Return the blocks that begin with a line of the log."""
    others = ("max_payload", "{\n", *OUTPUTS)
    return [
        block for block in blocks("text") if not (re.search("[─→]", block.source) or block.source.startswith(others))
    ]


@pytest.mark.parametrize("block", logged_lines(), ids=names(logged_lines()))
def test_a_log_line_is_logged(block):
    """A message of the package has this form, at this level."""
    line = LOGGED.match(block.source.splitlines()[0])
    messages = [message for message in reference_tables.log_messages() if matches(message.template, line["message"])]

    assert messages
    assert line["level"] in {None, *(message.level for message in messages)}


def matches(template, text):
    """Return whether a text is a message with values inserted."""
    parts = re.split(r"%[.\d]*[a-z]", template)
    return re.fullmatch(".+".join(map(re.escape, parts)), text)


@pytest.mark.parametrize(("page", "module"), [("errors-and-retries", errors), ("events", notifications)])
def test_a_tree_has_the_classes_and_their_bases(page, module):
    """Each line is a class, whose base is the nearest line above with less indentation."""
    (block,) = (block for block in blocks_of(ROOT / "docs" / f"{page}.md") if "├── " in block.source)
    lines = [
        (found.start(), found[0]) for found in (re.search(r"[A-Z]\w+", line) for line in block.source.splitlines())
    ]
    stack = [lines[0]]
    for indentation, name in lines[1:]:
        while stack[-1][0] >= indentation:
            stack.pop()
        assert getattr(module, stack[-1][1]) in class_named(name, module).__bases__, name
        stack.append((indentation, name))


def class_named(name, module):
    """Return a public class."""
    return getattr(module, name, None) or getattr(callfire_async, name)
