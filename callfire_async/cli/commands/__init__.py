"""One module for each command or group: its options and its implementation."""
