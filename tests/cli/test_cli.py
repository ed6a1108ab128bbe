"""The command line as a script calls it."""

import sys

import pytest
from typer.testing import CliRunner

from callfire_async.cli import main
from callfire_async.cli.app import app


def test_without_its_extra_it_says_how_to_install_it(monkeypatch, capsys):
    """Status 2, and the line that helps."""
    monkeypatch.setitem(sys.modules, "typer", None)
    for name in [name for name in sys.modules if name.startswith("callfire_async.cli.")]:
        monkeypatch.delitem(sys.modules, name)

    with pytest.raises(SystemExit) as exited:
        main()

    assert (exited.value.code, "pip install 'callfire-async[cli]'" in capsys.readouterr().err) == (2, True)


def test_without_a_command_it_shows_what_there_is(monkeypatch, capsys):
    """The help, through the installed command's own entry."""
    monkeypatch.setattr(sys, "argv", ["callfire-async"])

    with pytest.raises(SystemExit):
        main()

    assert "demo" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["demo", "--events", "0"],
        ["demo", "--events", "many"],
        ["dance"],
        ["demo", "--drop", "100%"],
        ["demo", "--drop", "some"],
    ],
)
def test_wrong_use_is_status_2(arguments):
    """As every command line says it."""
    assert CliRunner().invoke(app, arguments).exit_code == 2


@pytest.mark.parametrize("share", ["5%", "0.05"])
@pytest.mark.parametrize(("lost", "status"), [(0, 0), (3, 1)])
def test_the_demo_s_status_tells_the_truth(monkeypatch, lost, status, share):
    """0 only if nothing that was acknowledged was lost."""

    async def run(events: int, console: object, *, crashes: int, drop: float, inspect: bool) -> int:
        assert (events, crashes, drop, inspect) == (7, 2, 0.05, False)
        return lost

    monkeypatch.setattr("callfire_async.cli.commands.demo.run", run)

    assert CliRunner().invoke(app, ["demo", "--events", "7", "--crash", "2", "--drop", share]).exit_code == status
