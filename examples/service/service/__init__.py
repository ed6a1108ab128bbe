"""A service that records the cost of every finished text and call, once."""
