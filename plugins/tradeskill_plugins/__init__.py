"""One folder a plugin: markets and compute backends."""
