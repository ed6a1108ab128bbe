"""The simulation needs simloom, which needs Python 3.12."""

import gc
import logging
import os
import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def _simloom() -> None:
    if sys.version_info < (3, 12):
        pytest.skip("simloom needs Python 3.12 or newer")
    # In CI, the tests fail without it.
    if "CI" not in os.environ:
        pytest.importorskip("simloom", reason="simloom is not installed")


@pytest.fixture(autouse=True)
def _fast() -> Iterator[None]:
    """Leave out what takes longer than the runs: logging planned failures, and collecting what other tests use."""
    logging.disable(logging.CRITICAL)
    gc.freeze()
    yield
    gc.unfreeze()
    logging.disable(logging.NOTSET)
