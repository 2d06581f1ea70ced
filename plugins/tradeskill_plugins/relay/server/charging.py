"""Which rate limit a call counts in: per IP address and per key, new offers and jobs apart from all else."""

from __future__ import annotations

from tradeskill.world import World
from tradeskill_plugins.market.book import Statements
from tradeskill_plugins.relay.server.rejections import Rejection

__all__ = ["Charging"]


class Charging:
    def __init__(self, per_ip: int | None, per_key: int | None, strict: int | None, world: World) -> None:
        """Requests in 60 s; None: no limit."""
        self._limits = {("ip", "default"): per_ip, ("ip", "strict"): strict, ("pubkey", "default"): per_key, ("pubkey", "strict"): strict}

    def charge(self, scope: str, name: str, bucket: str, now_ms: int, db: Statements | None = None) -> Rejection | None:
        """A Rejection when there is no more to take."""
        return None
