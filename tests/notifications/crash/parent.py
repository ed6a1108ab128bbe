"""How a process of a test communicates with the test, its parent process."""

import os
import threading


def print_line(text: str) -> None:
    """Write a line that the parent waits for."""
    os.write(1, f"{text}\n".encode())


def exit_at_end_of_input() -> None:
    """Exit as soon as the standard input is closed, because the parent process is gone then."""
    threading.Thread(target=_wait_and_exit, daemon=True).start()


def _wait_and_exit() -> None:
    os.read(0, 1)
    os._exit(1)
