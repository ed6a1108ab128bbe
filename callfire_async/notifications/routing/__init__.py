"""Match events to handlers and call them; wait for one event; match events to subscriptions."""
