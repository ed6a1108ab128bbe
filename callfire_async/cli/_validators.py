"""URLs that a command was given."""

from urllib.parse import urlsplit

from callfire_async.cli._exit import WRONG_USE, CliError

__all__ = ["check_url"]


def check_url(option: str, url: str) -> None:
    """End the command with status 2 where *url* is none of http or https; it is not quoted: it may have a token."""
    try:
        parts = urlsplit(url)
        is_one = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_one = False
    if not (is_one and url.isprintable()):
        raise CliError(f"{option} must be a URL of http or https", WRONG_USE)
