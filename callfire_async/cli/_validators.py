"""Validate URLs given on the command line."""

from urllib.parse import urlsplit

from callfire_async.cli._exit import WRONG_USE, CliError

__all__ = ["check_url"]


def check_url(option: str, url: str) -> None:
    """Raise an error that does not quote *url*, which may contain a token, unless it is an http or https URL."""
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_valid = False
    if not (is_valid and url.isprintable()):
        raise CliError(f"{option} must be an http or https URL", WRONG_USE)
