"""Wrong arguments of `SqliteInbox` are refused where they are given; a wrong place, when it is opened."""

import math
from pathlib import Path

import pytest

from callfire_async.errors import InboxUnavailableError
from callfire_async.notifications.inbox.sqlite import SqliteInbox

NAN = math.nan


@pytest.mark.parametrize("make", [SqliteInbox, SqliteInbox.in_directory])
@pytest.mark.parametrize("path", [":memory:", "", "file::memory:", "file:inbox.db?mode=memory", Path(":memory:")])
def test_a_database_in_memory_is_refused(make, path):
    """It would lose what was acknowledged; `MemoryInbox` says so by its name."""
    with pytest.raises(ValueError, match=r"^path must be the path of a file, not .*MemoryInbox\(\)"):
        make(path)


@pytest.mark.parametrize("path", ["sqlite:///inbox.db", "postgresql://host/database", "in\0box.db"])
def test_a_url_is_not_a_path(path):
    """An inbox on a server has another class."""
    with pytest.raises(ValueError, match=r"^path must be the path of a file, without"):
        SqliteInbox(path)


@pytest.mark.parametrize("path", [None, 3, b"inbox.db", ["inbox.db"]])
def test_a_path_of_another_type_is_refused(path):
    """The type is named."""
    with pytest.raises(TypeError, match=rf"^path must be a str or a pathlib\.Path, not {type(path).__name__}"):
        SqliteInbox(path)


@pytest.mark.parametrize("name", ["lock_timeout", "dedupe_window", "retention"])
@pytest.mark.parametrize(
    ("value", "error"), [("30", TypeError), (None, TypeError), (True, TypeError), (-1, ValueError), (NAN, ValueError)]
)
def test_seconds_are_numbers(name, value, error):
    """0 or more."""
    with pytest.raises(error, match=f"^{name} must be "):
        SqliteInbox("inbox.db", **{name: value})


@pytest.mark.parametrize("arguments", [{"read_only": 1}, {"keep_bodies": "no"}, {"clock": 12.0}])
def test_other_arguments_have_the_right_type(arguments):
    """A string is true in Python, whatever it says."""
    (name,) = arguments
    with pytest.raises(TypeError, match=f"^{name} must be "):
        SqliteInbox("inbox.db", **arguments)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"dedupe_window": "1"}, TypeError, "^dedupe_window must be"),
        ({"retention": -1}, ValueError, "^retention must be"),
        ({"lock_timeout": 1.0}, TypeError, "^lock_timeout cannot be used"),
        ({"read_only": "no"}, TypeError, "^read_only must be"),
        ({"colour": "red"}, TypeError, "colour"),
    ],
)
def test_options_of_a_directory_are_checked_at_once(options, error, match):
    """Not when the first file is opened."""
    with pytest.raises(error, match=match):
        SqliteInbox.in_directory("inboxes", **options)


@pytest.mark.parametrize("read_only", [False, True])
async def test_a_directory_in_the_place_of_the_file(tmp_path, read_only):
    """Another class method is for directories."""
    for path in (tmp_path, Path()):
        with pytest.raises(InboxUnavailableError, match=r"SqliteInbox\.in_directory\(\)"):
            await SqliteInbox(path, read_only=read_only).__aenter__()


@pytest.mark.parametrize("read_only", [False, True])
async def test_a_directory_that_does_not_exist(tmp_path, read_only):
    """It is not created, because a volume may be missing."""
    path = tmp_path / "missing" / "inbox.db"
    with pytest.raises(InboxUnavailableError, match=f"the directory {path.parent} does not exist; create it"):
        await SqliteInbox(path, read_only=read_only).__aenter__()

    assert list(tmp_path.iterdir()) == []


async def test_a_file_in_the_place_of_the_directory(tmp_path):
    """The constructor is for files."""
    (tmp_path / "inbox.db").touch()
    with pytest.raises(InboxUnavailableError, match=r"is a file, not a directory; use SqliteInbox\(\)"):
        await SqliteInbox.in_directory(tmp_path / "inbox.db").__aenter__()
