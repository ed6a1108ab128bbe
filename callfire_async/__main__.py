"""Run the command line: ``python -m callfire_async`` is the same as ``callfire-async``."""

from callfire_async.cli import main

if __name__ == "__main__":
    main()
