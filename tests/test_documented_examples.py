"""Every Python example of the README and the documentation runs, against a CallFire in memory."""

import ast
import asyncio
import inspect
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import CodeType, ModuleType
from typing import NamedTuple

import httpx
import pytest
import respx

from callfire_async.testing import FakeCallFire

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CALLFIRE = "https://www.callfire.com/api/1.1/rest"
ENVIRONMENT = {
    "CALLFIRE_API_LOGIN": "login",
    "CALLFIRE_API_PASSWORD": "password",
    "CALLFIRE_TOKEN": "a-token-that-is-long-enough",
}


class Example(NamedTuple):
    """One block of a page."""

    page: Path
    line: int
    source: str

    def __str__(self) -> str:
        """Say where it stands."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def compile(self) -> CodeType:
        """Compile with the line numbers of the page, and `await` allowed outside functions."""
        padded = "\n" * (self.line - 1) + self.source
        return compile(padded, self.page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)


def examples(page: Path) -> Iterator[Example]:
    """Find the Python blocks of *page*."""
    text = page.read_text(encoding="utf-8")
    for block in BLOCK.finditer(text):
        yield Example(page, text.count("\n", 0, block.start(1)) + 1, block[1])


class Reader:
    """Somebody who types a page's examples one after the other, in one event loop, with one account."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self.runner = runner
        self.module = ModuleType("documented")
        self.fake = FakeCallFire()

    def run(self, example: Example) -> None:
        """Run *example* with what those before it have defined."""
        code = example.compile()
        result = eval(code, vars(self.module))
        if code.co_flags & inspect.CO_COROUTINE:
            self.runner.run(result)


@pytest.fixture(scope="module")
def readers():
    """One reader a page."""
    with ExitStack() as stack:
        yield {page: Reader(stack.enter_context(asyncio.Runner())) for page in PAGES}


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    """Credentials in the environment, and a folder that may be written to."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("example", [example for page in PAGES for example in examples(page)], ids=str)
def test_a_documented_example_runs(example, readers, monkeypatch):
    """An example can be pasted as it stands."""
    reader = readers[example.page]
    # Some libraries look for the module of a function.
    monkeypatch.setitem(sys.modules, "documented", reader.module)
    callfire = httpx.ASGITransport(reader.fake)

    with respx.mock(assert_all_called=False) as network:
        network.route(host="127.0.0.1").pass_through()
        network.route(url__startswith=CALLFIRE).mock(side_effect=callfire.handle_async_request)
        reader.run(example)
