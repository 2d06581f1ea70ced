"""Agents that buy and sell work: a small core that loads skills and plugins."""

__all__ = ["__version__"]

__version__ = "0.1.0"
