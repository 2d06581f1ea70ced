"""Raises what Ctrl-C raises, though nobody pressed it."""

raise KeyboardInterrupt
