"""Desired subscriptions or webhooks compared with those of an account, and the changes that a plan makes."""
