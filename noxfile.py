"""The project's checks: ``nox --list`` lists the sessions, ``nox -s lint types`` runs two of them."""

import json
import os
import shutil
import tarfile
from pathlib import Path

import nox

PYPROJECT = nox.project.load_toml("pyproject.toml")
# 3.14 gets its classifier when its tests pass.
PYTHONS = [*nox.project.python_versions(PYPROJECT), "3.14"]
EXTRAS = ",".join(PYPROJECT["project"]["optional-dependencies"])

# The simulation needs 3.12, and atheris has no wheels for 3.14.
SIMULATED = "3.13"

# Tests that wait for servers and processes take long, so idle workers take tests from busy ones.
PYTEST = ("pytest", "--numprocesses=auto", "--dist=worksteal")

# Files that only GitHub, Read the Docs and citation tools read, by the schema that describes them.
SCHEMAS = {
    "vendor.citation-file-format": "CITATION.cff",
    "vendor.github-issue-config": ".github/ISSUE_TEMPLATE/config.yml",
    "vendor.github-issue-forms": ".github/ISSUE_TEMPLATE/[0-9]-*.yml",
    "vendor.github-workflows": ".github/workflows/*.yml",
    "vendor.readthedocs": ".readthedocs.yaml",
}

# In percent; pyright counts all public names, with and without complete types.
MIN_TYPE_COMPLETENESS = 99

nox.needs_version = ">=2025.10.14"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = "CI" in os.environ


def group(name: str) -> list[str]:
    """Return the requirements of a dependency group, for installers without support for groups."""
    return nox.project.dependency_groups(PYPROJECT, name)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, formatting, the layers of the architecture, the words and the configuration of other services."""
    session.install(*group("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("lint-imports", env={"PYTHONPATH": "."})
    session.run("python", "tests/words.py")
    for schema, pattern in SCHEMAS.items():
        files = sorted(str(path) for path in Path().glob(pattern))
        session.run("check-jsonschema", "--default-filetype=yaml", f"--builtin-schema={schema}", *files)


@nox.session
def types(session: nox.Session) -> None:
    """Check the package and its typed uses with mypy and pyright, and that its public types are complete."""
    session.install("--editable", ".", *group("types"))
    session.run("mypy")
    session.run("pyright")
    verify = ("pyright", "--verifytypes", "callfire_async", "--ignoreexternal")
    # The status is 1 below 100 %.
    report = session.run(*verify, "--outputjson", silent=True, success_codes=[0, 1])
    if json.loads(report)["typeCompleteness"]["completenessScore"] * 100 < MIN_TYPE_COMPLETENESS:
        session.run(*verify)  # fails, and lists the names


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests."""
    session.install("--editable", ".", *group("tests"))
    session.run(*PYTEST, *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """
    Run the tests and require full branch coverage.

    coverage starts pytest, because pytest loads the package's plugin before pytest-cov could start measuring.
    """
    session.install("--editable", ".", *group("tests"), *group("torture"))
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", *PYTEST, *session.posargs)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")


@nox.session(python=SIMULATED)
def torture(session: nox.Session) -> None:
    """Run the long forms of the randomized tests, and store their figures; ``-- --hours 6`` limits the time."""
    session.install("--editable", ".", *group("tests"), *group("servers"), *group("torture"))
    session.run("python", "-m", "torture", *session.posargs, env={"PYTHONPATH": "tests"})


@nox.session
def mutation(session: nox.Session) -> None:
    """List changes of the code that no test detects: ``-- worker``, ``-- intake --sample 150``; this takes an hour."""
    session.install("--editable", ".", *group("tests"), *group("mutation"))
    session.run("python", "-m", "mutation", *session.posargs, env={"PYTHONPATH": "tests"})


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; a warning is an error."""
    session.install("--editable", f".[{EXTRAS}]", *group("docs"))
    session.run("sphinx-build", "-W", "--keep-going", "docs", "docs/_build/html", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Run the benchmarks; ``-- --quick`` takes a few minutes, ``-- --docs`` stores the figures."""
    session.install("--editable", f".[{EXTRAS}]", *group("bench"))
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session
def bench_installed(session: nox.Session) -> None:
    """Run the benchmarks that depend on the installed packages, with only those that the extras install."""
    session.install("--editable", ".[cli,httpx2]")
    session.run("python", "-m", "benchmarks", "--module", "client", "--module", "posting", *session.posargs)


@nox.session
@nox.parametrize(
    ("python", "peer"),
    [(None, "line-bot-sdk"), (None, "aiogram"), (None, "slack-bolt[async]"), ("3.13", "knockerlite")],
)
def bench_peers(session: nox.Session, peer: str) -> None:
    """Compare with another library in its own environment, and store the figures; knockerlite needs Python 3.12."""
    session.install("--editable", ".[testing]", "aiohttp", peer)
    session.run("python", "-m", "benchmarks.peers", peer.partition("[")[0])


@nox.session
def package(session: nox.Session) -> None:
    """
    Build ``dist/``, then run the sdist's tests against the installed wheel, outside the checkout.

    The wheel is built from the sdist, so the sdist builds and tests itself.
    """
    dist = Path("dist")
    shutil.rmtree(dist, ignore_errors=True)
    session.install(*group("package"))
    session.run("python", "-m", "build", "--outdir", str(dist))
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    session.run("twine", "check", "--strict", str(wheel), str(sdist))
    session.install(f"{wheel}[{EXTRAS}]", *group("tests"))
    session.chdir(unpack_without_package(sdist, Path(session.create_tmp()) / "sdist"))
    session.run("python", "-c", "import callfire_async as c; assert 'site-packages' in c.__file__, c.__file__")
    session.run(*PYTEST, *session.posargs)


def unpack_without_package(sdist: Path, target: Path) -> Path:
    """Unpack *sdist* into *target*, and remove the package, so that the installed one is imported."""
    shutil.rmtree(target, ignore_errors=True)
    with tarfile.open(sdist) as archive:
        archive.extractall(target, filter="data")
    (folder,) = target.iterdir()
    shutil.rmtree(folder / "callfire_async")
    return folder
