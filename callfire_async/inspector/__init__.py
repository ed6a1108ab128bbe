"""
The inspector: a page on this machine that shows deliveries as they come, and what became of them.

`recent` keeps the last of them, `sources` says where they come from (a receiver that is watched, or an inbox's file
that is read), `showing` words them without what is private, `pages` answers the browser.
"""

from callfire_async.inspector._asgi_app import Inspector, Place, inspecting
from callfire_async.inspector.sources import FileSource, ReceiverSource

__all__ = ["FileSource", "Inspector", "Place", "ReceiverSource", "inspecting"]

for _public in (FileSource, Inspector, Place, ReceiverSource):
    _public.__module__ = __name__
