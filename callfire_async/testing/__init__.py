"""
Testing tools that need no CallFire account: an in-memory fake, event factories and samples, and a pytest plugin.

Names are imported on first use, because pytest loads the plugin in this package in every run.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from callfire_async.notifications.encoding import encode
    from callfire_async.testing import samples
    from callfire_async.testing._deliver import deliver
    from callfire_async.testing._recorded_completions import RecordedCompletion, record_completions
    from callfire_async.testing.factories import (
        make_account_notification,
        make_call_finished,
        make_campaign_finished,
        make_campaign_notification,
        make_campaign_started,
        make_campaign_stopped,
        make_contact_list_validation_failed,
        make_contact_list_validation_finished,
        make_delivery_report_received,
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
    "RecordedCompletion",
    "deliver",
    "encode",
    "make_account_notification",
    "make_call_finished",
    "make_campaign_finished",
    "make_campaign_notification",
    "make_campaign_started",
    "make_campaign_stopped",
    "make_contact_list_validation_failed",
    "make_contact_list_validation_finished",
    "make_delivery_report_received",
    "make_text_finished",
    "make_text_notification",
    "make_text_received",
    "make_text_sent",
    "record_completions",
    "samples",
]

_MODULES = {
    "FakeCallFire": ".fake_callfire",
    "Fault": ".faults",
    "PostbackFault": ".faults",
    "PostbackRecorder": ".recorder",
    "PostbackResult": ".fake_callfire._sender",
    "RecordedCompletion": "._recorded_completions",
    "deliver": "._deliver",
    "encode": "..notifications.encoding",
    "record_completions": "._recorded_completions",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "samples":
        return import_module(f"{__name__}.samples")
    return getattr(import_module(_MODULES.get(name, ".factories"), __name__), name)
