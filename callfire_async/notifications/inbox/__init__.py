"""
Inboxes: durable queues between the HTTP response and the handlers, with one package per engine.

Each operation changes the state of a delivery as follows:

===================  =========================================  ======================================================
state                operation                                  new state
===================  =========================================  ======================================================
(none)               ``append``                                 *ready*, due now, attempt 1
ready                ``claim``                                  *leased*, with a new token
leased               ``extend``                                 *leased*, until the given number of seconds from now
leased               ``ack``                                    *done*: the body and the reason are deleted, the keys
                                                                are kept for ``retention``
leased               ``nack``                                   *delayed* until the delay is over, then *ready*;
                                                                attempt + 1, ``completed`` extended
leased               ``release``                                *ready*, due now, same attempt, ``completed`` extended
leased               ``dead_letter``                            *dead*, with a reason; ``completed`` extended
leased               (the lease expires, or the process dies)   *ready*, same attempt, crashes + 1
dead                 ``replay``                                 *ready*, due now, attempt 1, no crashes, same
                                                                ``completed``
dead                 ``append`` of the same key, in the window  *ready*, due now, attempt 1
done, dead           ``purge``, ``retention`` (*done* only)     (none)
===================  =========================================  ======================================================

``extend``, ``ack``, ``nack``, ``release`` and ``dead_letter`` do nothing and return False if the lease is no longer
valid: a late worker cannot settle a delivery that another worker holds. Deliveries are claimed in order of due time,
then of arrival. A delivery with two crashes is claimed alone, so that a third crash cannot interrupt others.
"""

from callfire_async.notifications.inbox.base import AppendResult, Clock, Delivery, Inbox, InboxEntry, InboxStats, Lease

__all__ = ["AppendResult", "Clock", "Delivery", "Inbox", "InboxEntry", "InboxStats", "Lease"]

# As for the other public classes; this one is not in `callfire_async.notifications`.
Clock.__module__ = __name__
