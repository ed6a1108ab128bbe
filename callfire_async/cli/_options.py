"""Options that several commands have."""

from typing import Annotated

import typer

__all__ = ["AsJson", "BaseUrl", "Login", "Yes"]

AsJson = Annotated[bool, typer.Option("--json", help="For scripts: one JSON document, or a JSON line an item.")]
Login = Annotated[
    str | None, typer.Option(help="The API login; else CALLFIRE_API_LOGIN. The password is CALLFIRE_API_PASSWORD.")
]
BaseUrl = Annotated[str | None, typer.Option(metavar="URL", help="Another CallFire, as `sandbox` is one.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
