"""Find the handlers of an event and call them; wait for one event; match events to subscriptions."""
