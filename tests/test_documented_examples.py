"""Every Python example of the README and the documentation runs against an in-memory CallFire."""

import ast
import asyncio
import inspect
import re
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, ModuleType
from typing import NamedTuple

import httpx
import httpx2
import pytest
import respx
from client.http_libraries import RespxTransport

from callfire_async.testing import FakeCallFire

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
# A block on the page, or a file that several pages include.
BLOCK = re.compile(
    r"^```(?:python\n(?P<source>.*?)|\{literalinclude\} (?P<file>\S+)\n:language: python\n)```$",
    re.MULTILINE | re.DOTALL,
)
CALLFIRE = r"https://(www\.callfire\.com/api/1\.1/rest|api\.callfire\.com/v2)"
ENVIRONMENT = {
    "CALLFIRE_API_LOGIN": "login",
    "CALLFIRE_API_PASSWORD": "password",
    "CALLFIRE_TOKEN": "a-token-that-is-long-enough",
    "CALLFIRE_SIGNING_SECRET": "a-secret-that-is-long-enough",
}


class Example(NamedTuple):
    """One code block of a page."""

    page: Path
    line: int
    source: str

    def compile(self) -> CodeType:
        """Compile with the line numbers of the page, and `await` allowed outside functions."""
        padded = "\n" * (self.line - 1) + self.source
        return compile(padded, self.page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)


def examples(page: Path) -> Iterator[Example]:
    """Yield the Python blocks of *page*."""
    text = page.read_text(encoding="utf-8")
    for block in BLOCK.finditer(text):
        if block["file"]:
            snippet = page.parent / block["file"]
            yield Example(snippet, 1, snippet.read_text(encoding="utf-8"))
        else:
            yield Example(page, text.count("\n", 0, block.start("source")) + 1, block["source"])


class PageSession:
    """Runs a page's examples in order, in one module, one event loop and one account."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self.runner = runner
        self.module = ModuleType("documented")
        self.fake = FakeCallFire()

    def close(self) -> None:
        """Close the databases that the page leaves open."""
        for value in vars(self.module).values():
            if isinstance(value, sqlite3.Connection):
                value.close()

    def run(self, example: Example) -> None:
        """Run *example* with the names that earlier examples have defined."""
        code = example.compile()
        result = eval(code, vars(self.module))
        if code.co_flags & inspect.CO_COROUTINE:
            self.runner.run(result)


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Set the credentials."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("page", [page for page in PAGES if any(examples(page))], ids=lambda page: page.stem)
def test_the_examples_of_a_page_run(page, monkeypatch, tmp_path_factory):
    """Each example runs unchanged after the earlier ones."""
    with asyncio.Runner() as runner, respx.mock(assert_all_called=False) as network:
        session = PageSession(runner)
        # Some libraries import the module of a function; the pages call theirs service.py.
        for name in ("documented", "service"):
            monkeypatch.setitem(sys.modules, name, session.module)
        network.route(host="127.0.0.1").pass_through()
        callfire = httpx.ASGITransport(session.fake)
        network.route(url__regex=CALLFIRE).mock(side_effect=callfire.handle_async_request)
        respx_transport = RespxTransport()
        monkeypatch.setattr(
            httpx2.AsyncHTTPTransport,
            "handle_async_request",
            lambda _, request: respx_transport.handle_async_request(request),
        )
        for example in examples(page):
            monkeypatch.chdir(tmp_path_factory.mktemp("example"))
            session.run(example)
        session.close()
