"""A block lattice that behaves like a real Nano node, for development and tests."""
