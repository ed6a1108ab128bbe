"""
The secrets of the user's endpoints: the signing secrets, from the environment, and the tokens.

The tokens are from the environment or from the file of `listen`.

The token of `listen` is never printed. The file, which only its owner can read, lets `trigger` and later runs use the
same token.
"""

import os
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

import typer

from callfire_async.cli._exit import WRONG_USE, CliError, usage_errors
from callfire_async.notifications.security.signatures import SigningSecrets
from callfire_async.notifications.security.tokens import EndpointTokens

__all__ = [
    "PLACEHOLDER",
    "fill_in_token",
    "listen_tokens",
    "signing_secret",
    "signing_secrets_from_environment",
    "token_file",
    "tokens_from_environment",
]

#: The placeholder for the current token at the end of an endpoint.
PLACEHOLDER = "/{token}"


def tokens_from_environment() -> EndpointTokens | None:
    """Return the tokens in ``CALLFIRE_TOKEN``: the current one, followed by previous ones."""
    tokens = os.environ.get("CALLFIRE_TOKEN", "").split()
    with usage_errors():
        return EndpointTokens(*tokens) if tokens else None


def signing_secrets_from_environment() -> SigningSecrets | None:
    """Return the secrets in ``CALLFIRE_SIGNING_SECRET``: the current one, followed by previous ones."""
    secrets = _signing_secrets()
    return SigningSecrets(*secrets) if secrets else None


def signing_secret() -> str | None:
    """Return the current signing secret in the environment."""
    return next(iter(_signing_secrets()), None)


def _signing_secrets() -> list[str]:
    return os.environ.get("CALLFIRE_SIGNING_SECRET", "").split()


def fill_in_token(endpoint: str, tokens: EndpointTokens | None) -> str:
    """Replace the placeholder at the end of an endpoint with the current token."""
    if not endpoint.endswith(PLACEHOLDER):
        return endpoint
    if tokens is None:
        raise CliError("endpoint contains {token}: set CALLFIRE_TOKEN in the environment", WRONG_USE)
    with usage_errors():
        return tokens.url(endpoint.removesuffix(PLACEHOLDER))


def token_file() -> Path:
    """Return the path of the file with the token of `listen`."""
    return Path(typer.get_app_dir("callfire-async"), "token")


def listen_tokens() -> EndpointTokens:
    """Return the environment's tokens, or that of the file, which is created if necessary."""
    tokens = tokens_from_environment()
    if tokens is not None:
        return tokens
    path = token_file()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            _create_token_file(path, EndpointTokens.generate())
        return EndpointTokens(path.read_text(encoding="ascii").strip())
    except (OSError, ValueError) as error:
        raise CliError(f"cannot store a token in {path} ({error}): set CALLFIRE_TOKEN in the environment") from None


def _create_token_file(path: Path, token: str) -> None:
    """Write a file completely before it gets its name; keep the file of a process that was faster."""
    with NamedTemporaryFile("w", dir=path.parent, prefix="token.") as file:
        file.write(token + "\n")
        file.flush()
        os.fsync(file.fileno())
        # The other process may be using its token already.
        with suppress(FileExistsError):
            os.link(file.name, path)
