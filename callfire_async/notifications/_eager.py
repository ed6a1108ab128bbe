"""
Going on with a coroutine that has taken its first step; what ends with that step needs no task, timer or lock.

It imports nothing of the package.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from functools import partial
from types import coroutine
from typing import Any, TypeVar

T = TypeVar("T")


@coroutine
def going_on(begun: Coroutine[Any, Any, T], waits_for: object) -> Generator[Any, Any, T]:
    """Wait for what a coroutine that has begun waits for, and go on with it."""
    while True:
        try:
            sent = yield waits_for
        except BaseException as error:  # noqa: BLE001  # whatever is thrown in is the coroutine's
            go_on = partial(begun.throw, error)
        else:
            go_on = partial(begun.send, sent)
        try:
            waits_for = go_on()
        except StopIteration as end:
            content: T = end.value
            return content
