"""The conformance kit: one contract class for each kind of plugin, and in-memory fakes that pass them."""
