"""Plugins that lie, each in one way: small deltas over honest ones in memory, for tests/test_kit_liars.py. pytest collects none of them by itself."""
