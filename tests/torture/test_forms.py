"""The long forms include every test that has one."""

import re

import pytest
from torture.entry import ROOT
from torture.forms import FORMS, Form

LONG = re.compile(r"^(?:async )?def \w+\(.*\btorture\b|option\.torture|hypothesis-profile", re.MULTILINE)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_the_tests_of_a_form_exist(form: Form):
    """Each of them is a folder, a file, or a function in a file."""
    for test in form.tests:
        path, _, function = test.partition("::")
        assert (ROOT / path).exists()
        assert not function or f"def {function.partition('[')[0]}(" in (ROOT / path).read_text(encoding="utf-8")


def test_each_test_with_a_long_form_is_in_a_form():
    """No long form is forgotten."""
    covered = [ROOT / test.partition("::")[0] for form in FORMS for test in form.tests]
    tests = [path for path in (ROOT / "tests").rglob("test_*.py") if path.parent.name != "torture"]
    long = [path for path in tests if LONG.search(path.read_text(encoding="utf-8"))]

    assert [path for path in long if not any(path.is_relative_to(each) for each in covered)] == []
    assert len(long) > 10


def test_names_are_unique():
    """Records are found by the name of their form."""
    assert len({form.name for form in FORMS}) == len(FORMS)
