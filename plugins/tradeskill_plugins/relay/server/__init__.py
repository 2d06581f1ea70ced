"""The relay's server: one ASGI application over the market's book."""
