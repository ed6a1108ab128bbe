"""Functions that need both the client and the receiver: broadcast results, missed events, and an audit."""

from callfire_async.reconcile._audit import Findings, check
from callfire_async.reconcile._reconcile import Progress, Reconciled, reconcile
from callfire_async.reconcile._results import outcomes

__all__ = ["Findings", "Progress", "Reconciled", "check", "outcomes", "reconcile"]

for _public in (Findings, Progress, Reconciled):
    _public.__module__ = __name__
