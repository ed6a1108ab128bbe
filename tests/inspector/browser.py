"""Headless Chromium, driven over WebDriver."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from selenium.common.exceptions import WebDriverException
from selenium.webdriver import Chrome, ChromeOptions, ChromeService

_ATTEMPTS = 3
_TIMEOUT_SECONDS = 120


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
    browser = _start(directory)
    browser.set_script_timeout(_TIMEOUT_SECONDS)
    try:
        yield browser
    finally:
        browser.quit()


def _start(directory: Path) -> Chrome:
    """Start a browser; again if another program takes the driver's port, which Selenium chooses before its start."""
    for attempt in range(1, _ATTEMPTS):
        with suppress(WebDriverException):
            return _start_once(directory / str(attempt))
    return _start_once(directory / str(_ATTEMPTS))


def _start_once(profile: Path) -> Chrome:
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
        f"user-data-dir={profile}",
        "window-size=1440,900",
    ):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return Chrome(options, ChromeService(find_program("chromedriver")))
