"""Which rate limit a call counts in, and where its tokens are: in this process, or lent by a database that several processes share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from tradeskill.world import World
from tradeskill_plugins.market.book import Statements
from tradeskill_plugins.relay.server import tables
from tradeskill_plugins.relay.server.leases import Back, Leases, Row, grant
from tradeskill_plugins.relay.server.limits import Rates, Refused, TokenBuckets
from tradeskill_plugins.relay.server.rejections import Rejection

__all__ = ["Charging"]


class Charging:
    def __init__(
        self, rates: Rates, world: World, commit: Callable[[Callable[[Statements], Any]], Any] | None = None, moment: Callable[[], int] | None = None
    ) -> None:
        """`commit(step)` runs a step in a durable transaction of the database that is shared; None: this process is alone. `moment`: that commit's time."""
        self._rates, self._commit, self._moment = rates, commit, moment or world.now_ms
        self._own = TokenBuckets(world.now_ms, window_ms=rates.window_ms)
        self._lent = None if commit is None else Leases(world.now_ms, self._lease, window_ms=rates.window_ms)

    async def ip(self, ip: str, bucket: str) -> Rejection | None:
        """A Rejection when this address has no more to take."""
        return await self._charge("ip", *self._rates.of_ip(ip, strict=bucket == "strict"))

    async def key(self, key: str, bucket: str) -> Rejection | None:
        """A Rejection when this key has no more to take."""
        return await self._charge("pubkey", *self._rates.of_key(key, strict=bucket == "strict"))

    async def _charge(self, scope: str, name: str, limit: int | None) -> Rejection | None:
        if limit is None:
            return None
        refused: Refused | None = self._own.take(name, limit) if self._lent is None else await self._lent.take(name, limit)
        if refused is None:
            return None
        details = {"scope": scope, "limit": limit, "window_ms": refused.window_ms}
        wait = str(refused.retry_after_s)
        return Rejection("rate_limited", f"too many requests: {limit} in {refused.window_ms // 1000} s; wait {wait} s", details, headers={"Retry-After": wait})

    async def _lease(self, name: str, want: int, limit: int, back: Back | None) -> tuple[int, Row]:
        assert self._commit is not None
        granted: tuple[int, Row] = await self._commit(partial(self._grant, name, want, limit, back))
        return granted

    def _grant(self, name: str, want: int, limit: int, back: Back | None, db: Statements) -> tuple[int, Row]:
        found = db.execute(tables.BUCKET, (name,)).fetchone()
        row = None if found is None else Row(*(found[column] for column in Row._fields))
        granted, row = grant(row, want, self._moment(), limit, self._rates.window_ms, back=back)
        db.execute(tables.BUCKET_PUT, (name, *row))
        return granted, row
