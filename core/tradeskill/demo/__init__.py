"""The demo: real processes, real blocks, real work, in a temporary folder."""
