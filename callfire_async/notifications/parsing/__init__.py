"""Parse a postback's body into an event, without I/O: one module per API generation."""

from callfire_async.notifications.parsing.api_1_1 import parse

__all__ = ["parse"]
