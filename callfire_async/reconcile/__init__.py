"""Functions that need both the client and the receiver: broadcast results, backfill of missed events, and an audit."""

from callfire_async.reconcile._audit import AuditReport, audit
from callfire_async.reconcile._reconcile import Progress, ReconcileResult, reconcile
from callfire_async.reconcile._results import broadcast_results

__all__ = ["AuditReport", "Progress", "ReconcileResult", "audit", "broadcast_results", "reconcile"]

for _public in (AuditReport, Progress, ReconcileResult):
    _public.__module__ = __name__
