"""The request of each API operation and how its response is read, without I/O: one module per API generation."""
