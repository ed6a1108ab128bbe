"""
For tests without an account: a CallFire in memory, samples and factories of its events, and a pytest plugin.

The plugin is in here, so nothing is imported before it is asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from callfire_async.notifications.encoding import encode
    from callfire_async.testing import samples
    from callfire_async.testing._deliver import deliver
    from callfire_async.testing.factories import (
        make_call_finished,
        make_campaign_finished,
        make_campaign_notification,
        make_campaign_started,
        make_campaign_stopped,
        make_text_finished,
        make_text_notification,
        make_text_received,
        make_text_sent,
    )
    from callfire_async.testing.fake_callfire import FakeCallFire
    from callfire_async.testing.fake_callfire._sender import PostbackResult
    from callfire_async.testing.faults import Fault, PostbackFault
    from callfire_async.testing.recorder import PostbackRecorder

__all__ = [
    "FakeCallFire",
    "Fault",
    "PostbackFault",
    "PostbackRecorder",
    "PostbackResult",
    "deliver",
    "encode",
    "make_call_finished",
    "make_campaign_finished",
    "make_campaign_notification",
    "make_campaign_started",
    "make_campaign_stopped",
    "make_text_finished",
    "make_text_notification",
    "make_text_received",
    "make_text_sent",
    "samples",
]

_HOMES = {
    "FakeCallFire": ".fake_callfire",
    "Fault": ".faults",
    "PostbackFault": ".faults",
    "PostbackRecorder": ".recorder",
    "PostbackResult": ".fake_callfire._sender",
    "deliver": "._deliver",
    "encode": "..notifications.encoding",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "samples":
        return import_module(f"{__name__}.samples")
    return getattr(import_module(_HOMES.get(name, ".factories"), __name__), name)
