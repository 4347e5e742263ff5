"""From a topic of another's events to our two: `intentstream bridge`."""
