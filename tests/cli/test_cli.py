"""The entry point and the exit statuses of the command line."""

import sys
from io import StringIO

import pytest
from typer.testing import CliRunner

from callfire_async.cli import main
from callfire_async.cli._exit import confirm
from callfire_async.cli.app import app


def test_missing_extra_is_reported(monkeypatch, capsys):
    """Without Typer the command exits with status 2 and prints how to install the extra."""
    monkeypatch.setitem(sys.modules, "typer", None)
    for name in [name for name in sys.modules if name.startswith("callfire_async.cli.")]:
        monkeypatch.delitem(sys.modules, name)

    with pytest.raises(SystemExit) as exited:
        main()

    assert (exited.value.code, "pip install 'callfire-async[cli]'" in capsys.readouterr().err) == (2, True)


def test_no_command_prints_the_help(monkeypatch, capsys):
    """Without a command the entry point prints the help."""
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
def test_wrong_usage_is_status_2(arguments):
    """Unknown commands and invalid option values exit with status 2."""
    assert CliRunner().invoke(app, arguments).exit_code == 2


@pytest.mark.parametrize("fraction", ["5%", "0.05"])
@pytest.mark.parametrize(("lost", "status"), [(0, 0), (3, 1)])
def test_demo_exits_with_1_if_events_were_lost(monkeypatch, lost, status, fraction):
    """The status of the demo is 0 only if no events were lost."""

    async def run(events: int, console: object, *, crashes: int, drop: float, inspect: bool) -> int:
        assert (events, crashes, drop, inspect) == (7, 2, 0.05, False)
        return lost

    monkeypatch.setattr("callfire_async.cli.commands.demo.run", run)

    assert CliRunner().invoke(app, ["demo", "--events", "7", "--crash", "2", "--drop", fraction]).exit_code == status


class InterruptedInput(StringIO):
    """A standard input at which the user presses Ctrl-C."""

    def readline(self, *_):
        raise KeyboardInterrupt


def test_ctrl_c_at_a_confirmation_is_not_an_answer(monkeypatch):
    """It interrupts the command, whose status is then 130, not that of a refusal."""
    monkeypatch.setattr(sys, "stdin", InterruptedInput())

    with pytest.raises(KeyboardInterrupt):
        confirm("Apply these changes?")
