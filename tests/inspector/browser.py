"""Headless Chromium, driven over WebDriver."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService


def find_program(name: str) -> str:
    """Return the path of a program; skip the test without it, but fail in CI."""
    path = shutil.which(name)
    if path is None:
        message = f"{name} is not installed"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return path


@contextmanager
def run_browser(directory: Path) -> Iterator[Chrome]:
    """Run a browser with its profile in a directory."""
    options = ChromeOptions()
    options.binary_location = find_program("chromium")
    for argument in (
        "headless=new",
        "no-sandbox",  # not available to root and in most containers
        "disable-dev-shm-usage",
        "disable-gpu",
        "disable-background-networking",
        "disable-component-update",
        "no-first-run",
        "force-prefers-reduced-motion",
        f"user-data-dir={directory}",
        "window-size=1440,900",
    ):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = Chrome(options, ChromeService(find_program("chromedriver")))
    try:
        yield browser
    finally:
        browser.quit()
