"""The relay: a market over HTTP. `server` serves it, `client` is the market plugin `relay`; what both must agree on lies here."""
