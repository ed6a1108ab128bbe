"""
A local web page that shows deliveries as they arrive, and what happened to them.

`serve_inspector` serves the page for a source: a `ReceiverSource` observes a running receiver, a `FileSource` polls the
file of an inbox.
"""

from callfire_async.inspector._asgi_app import BindAddress, InspectorApp, serve_inspector
from callfire_async.inspector.sources import FileSource, ReceiverSource

__all__ = ["BindAddress", "FileSource", "InspectorApp", "ReceiverSource", "serve_inspector"]

for _public in (FileSource, InspectorApp, BindAddress, ReceiverSource):
    _public.__module__ = __name__
