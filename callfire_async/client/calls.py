"""
Calls: what became of them.

It imports `actions` and what stands above it.
"""

from __future__ import annotations

from callfire_async.client.texts_and_calls import Actions
from callfire_async.models import Call

__all__ = ["Calls"]


class Calls(Actions[Call]):
    """
    The calls of an account: what became of them.

    Each method raises what `Connection.execute` does; parameters out of their range raise `ValueError` before
    anything is sent.
    """

    _kind = Call
