"""Validate values given on the command line: URLs, and names of routers."""

import sys
from importlib import import_module
from urllib.parse import urlsplit

import httpx

from callfire_async.cli._exit import WRONG_USE, CliError
from callfire_async.notifications import Router

__all__ = ["check_url", "load_router"]


def check_url(option: str, url: str) -> None:
    """Raise an error that does not quote *url*, which may contain a token, unless it is an http or https URL."""
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        # Raise what a request to this host would raise: ValueErrors, too.
        httpx.URL(url).raw_host.decode("ascii").encode("idna")
    except (ValueError, httpx.InvalidURL):
        is_valid = False
    if not (is_valid and url.isprintable()):
        raise CliError(f"{option} must be an http or https URL", WRONG_USE)


def load_router(name: str) -> Router:
    """Import a router named as ``module:router``, also from the working directory."""
    module_name, _, attribute = name.partition(":")
    # A relative name has no package to which it could be relative.
    if not (module_name and attribute) or module_name.startswith("."):
        raise CliError("--router must have the form MODULE:ROUTER, for example service:router", WRONG_USE)
    sys.path.insert(0, "")
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        raise CliError(f"--router {name}: module {error.name} does not exist", WRONG_USE) from None
    router = getattr(module, attribute, None)
    if not isinstance(router, Router):
        raise CliError(f"--router {name}: {attribute} is not a Router", WRONG_USE)
    if router.is_empty:
        raise CliError(f"--router {name}: the router has no handlers", WRONG_USE)
    return router
