"""Decide who may post: request checks, endpoint tokens, allow lists, and masking of secrets in logs."""
