"""The options of the inspector's page."""

from typing import Annotated

import typer

from callfire_async.inspector import BindAddress

__all__ = ["INSPECTOR_PANEL", "INSPECTOR_PORT", "InspectorHost", "InspectorPort", "bind_address"]

INSPECTOR_PORT = 8485
#: The group of the options of the inspector.
INSPECTOR_PANEL = "Inspector"

InspectorHost = Annotated[
    str,
    typer.Option(
        rich_help_panel=INSPECTOR_PANEL,
        metavar="HOST",
        help="Address of the inspector's page. Use a non-loopback address with care.",
    ),
]
InspectorPort = Annotated[
    int,
    typer.Option(
        rich_help_panel=INSPECTOR_PANEL, min=0, max=65535, help="Port of the inspector's page; 0 for any free port."
    ),
]


def bind_address(host: str, port: int) -> BindAddress:
    """Return an address; print a warning if other machines can connect."""
    address = BindAddress(host, port)
    if address.is_open:
        typer.echo(
            f"warning: other machines may be able to connect to {host}; they need the key, but the traffic, including"
            " the key, is not encrypted",
            err=True,
        )
    return address
