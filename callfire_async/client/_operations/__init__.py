"""What each API operation sends and how its response is read, without I/O: one module per API generation."""
