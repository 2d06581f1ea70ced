"""The plugin `relay`: a market over HTTP, seen from a buyer or a seller. `market` answers the contract; no module here listens on a port."""
