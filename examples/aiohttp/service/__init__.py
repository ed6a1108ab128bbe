"""What each broadcast costs: a service that books every finished text and call, once."""
