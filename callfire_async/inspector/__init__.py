"""
The inspector: a page on this machine that shows deliveries as they come, and what became of them.

`recent` keeps the last of them, `sources` says where they come from (a receiver that is watched, or an inbox's file
that is read), `showing` words them without what is private, `pages` answers the browser.
"""

from callfire_async.inspector._asgi_app import BindAddress, InspectorApp, serve_inspector
from callfire_async.inspector.sources import FileSource, ReceiverSource

__all__ = ["BindAddress", "FileSource", "InspectorApp", "ReceiverSource", "serve_inspector"]

for _public in (FileSource, InspectorApp, BindAddress, ReceiverSource):
    _public.__module__ = __name__
