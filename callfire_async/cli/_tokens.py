"""
The token of `listen`: the environment's, or one of its own that is kept from one run to the next.

It is never shown. It stands in a file that only its owner may read, so that what was subscribed, or is triggered in
another terminal, finds the same one.
"""

import os
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

import typer

from callfire_async.cli._exit import CliError
from callfire_async.cli._own_tokens import tokens_from_environment
from callfire_async.notifications.security.tokens import EndpointTokens

__all__ = ["listen_tokens", "token_file"]


def token_file() -> Path:
    """Tell where it is kept."""
    return Path(typer.get_app_dir("callfire-async"), "token")


def listen_tokens() -> EndpointTokens:
    """Return the environment's tokens, or that of the file; it is made where it is missing."""
    tokens = tokens_from_environment()
    if tokens is not None:
        return tokens
    path = token_file()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            _keep(path, EndpointTokens.generate())
        return EndpointTokens(path.read_text(encoding="ascii").strip())
    except (OSError, ValueError) as error:
        raise CliError(f"no token can be kept in {path} ({error}): set CALLFIRE_TOKEN in the environment") from None


def _keep(path: Path, token: str) -> None:
    """Keep a token that is on the disk, whole, before it has its name; where another process was faster, keep that."""
    with NamedTemporaryFile("w", dir=path.parent, prefix="token.") as file:
        file.write(token + "\n")
        file.flush()
        os.fsync(file.fileno())
        # To replace the other's would leave that with a token that nobody finds.
        with suppress(FileExistsError):
            os.link(file.name, path)
