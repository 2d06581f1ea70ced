"""What the owner sees: one log line a request, metrics with bounded labels, and how many streams are open."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from tradeskill.world import World
from tradeskill_plugins.relay.server import tables
from tradeskill_plugins.relay.server.desk import Desk
from tradeskill_plugins.relay.server.endpoints import ENDPOINTS, Endpoint
from tradeskill_plugins.relay.server.metrics import Market, Metrics
from tradeskill_plugins.relay.server.rejections import Rejection

__all__ = ["StreamLimits", "Watching"]

log = logging.getLogger("tradeskill.relay.requests")

COUNTED_MS: Final = 15_000  # how old the count of jobs by state may be: it reads every row, and anybody may ask for it


class StreamLimits(Protocol):
    @property
    def streams(self) -> int: ...

    @property
    def streams_per_key(self) -> int: ...


class Watching:
    """`metrics` is also the door's observer."""

    def __init__(self, desk: Desk, world: World) -> None:
        self.metrics = Metrics(endpoint.name for endpoint in ENDPOINTS)
        self._desk, self._world = desk, world
        self._streams: dict[str, int] = {}
        self._market: Market | None = None
        self._counted = 0
        self.metrics.watch(lambda: self._market)

    def answered(self, endpoint: Endpoint | None, method: str, status: int, seconds: float, request_id: str, job: str) -> None:
        name = "other" if endpoint is None else endpoint.name
        self.metrics.request(name, method, status, seconds)
        if log.isEnabledFor(logging.INFO):
            fields = {"request_id": request_id, "endpoint": name, "method": method, "status": status, "ms": seconds * 1000}
            log.info("request", extra={**fields, "job_id": job} if job else fields)

    def refused(self, code: str) -> None:
        self.metrics.rejected(code)

    def moved(self, before: str | None, after: str) -> None:
        self.metrics.transition(before, after)

    async def rendered(self) -> tuple[bytes, bytes]:
        """The metrics' page and its content type."""
        now = self._world.now_ms()
        if not self._counted <= now < self._counted + COUNTED_MS:
            self._counted = now
            self._market = await self._desk.read(
                lambda book: Market({row["state"]: row["size"] for row in book.rows(tables.JOBS_BY_STATE, ())}, book.count())
            )
        return self.metrics.render(), self.metrics.content_type.encode()

    @contextmanager
    def stream(self, key: str, limits: StreamLimits) -> Iterator[None]:
        """Counts one open stream; a Rejection where there are too many already."""
        mine = self._streams.get(key, 0)
        if mine >= limits.streams_per_key or sum(self._streams.values()) >= limits.streams:
            details = {"scope": "streams", "limit": limits.streams_per_key, "window_ms": 0}
            raise Rejection("rate_limited", "too many event streams are open: close one, or poll", details, headers={"Retry-After": "30"})
        self._streams[key] = mine + 1
        self.metrics.streams(sum(self._streams.values()))
        try:
            yield
        finally:
            self._streams[key] -= 1
            if not self._streams[key]:
                del self._streams[key]
            self.metrics.streams(sum(self._streams.values()))
