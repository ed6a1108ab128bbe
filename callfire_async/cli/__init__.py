"""The ``callfire-async`` command; its dependencies are in the extra ``cli``."""

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; exit with status 2 and a hint if its dependencies are not installed."""
    try:
        from callfire_async.cli.app import app
    except ModuleNotFoundError as error:
        sys.stderr.write(f"callfire-async needs {error.name}:\n    pip install 'callfire-async[cli]'\n")
        sys.exit(2)
    app()
