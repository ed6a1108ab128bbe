"""The isolated home directory of the command-line tests."""

from cli.conftest import home

__all__ = ["home"]
