"""
The ``callfire-async`` command.

What it needs beyond the library comes with the extra ``cli``. This room may import everything.
"""

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; without what it needs, say how to install that, and exit with status 2."""
    try:
        from callfire_async.cli.app import app
    except ModuleNotFoundError as error:
        sys.stderr.write(f"callfire-async needs {error.name}:\n    pip install 'callfire-async[cli]'\n")
        sys.exit(2)
    app()
