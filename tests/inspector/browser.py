"""A real browser without a window: Chromium, driven over WebDriver."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService


def wanted(name: str) -> str:
    """Find a program; without it the tests are skipped, but never in CI."""
    path = shutil.which(name)
    if path is None:
        words = f"{name} is not installed"
        if os.environ.get("CI"):
            pytest.fail(words)
        pytest.skip(words)
    return path


@contextmanager
def browsing(folder: Path) -> Iterator[Chrome]:
    """Start a browser that keeps what it has in a folder, and end it."""
    options = ChromeOptions()
    options.binary_location = wanted("chromium")
    for argument in (
        "headless=new",
        "no-sandbox",  # which cannot be had by root, nor in most containers
        "disable-dev-shm-usage",
        "disable-gpu",
        "disable-background-networking",
        "disable-component-update",
        "no-first-run",
        "force-prefers-reduced-motion",
        f"user-data-dir={folder}",
        "window-size=1440,900",
    ):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = Chrome(options, ChromeService(wanted("chromedriver")))
    try:
        yield browser
    finally:
        browser.quit()
