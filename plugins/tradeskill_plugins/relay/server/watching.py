"""What the owner sees: one log line a request, metrics with bounded labels, and how many streams are open."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from tradeskill_plugins.relay.server.endpoints import Endpoint
from tradeskill_plugins.relay.server.rejections import Rejection

__all__ = ["StreamLimits", "Watching"]

log = logging.getLogger("tradeskill.relay.requests")


class StreamLimits(Protocol):
    @property
    def streams(self) -> int: ...

    @property
    def streams_per_key(self) -> int: ...


class Watching:
    def __init__(self) -> None:
        self._streams: dict[str, int] = {}

    def answered(self, endpoint: Endpoint | None, method: str, status: int, seconds: float, request_id: str, job: str) -> None:
        if log.isEnabledFor(logging.INFO):
            name = "other" if endpoint is None else endpoint.name
            fields = {"request_id": request_id, "endpoint": name, "status": status, "ms": round(seconds * 1000, 1)}
            log.info("request", extra={**fields, "job_id": job} if job else fields)

    def refused(self, code: str) -> None: ...

    def moved(self, endpoint: str, state: str) -> None: ...

    def rendered(self) -> tuple[bytes, bytes]:
        return b"", b"text/plain; version=0.0.4; charset=utf-8"

    @contextmanager
    def stream(self, key: str, limits: StreamLimits) -> Iterator[None]:
        """Counts one open stream; a Rejection where there are too many already."""
        mine = self._streams.get(key, 0)
        if mine >= limits.streams_per_key or sum(self._streams.values()) >= limits.streams:
            details = {"scope": "streams", "limit": limits.streams_per_key, "window_ms": 0}
            raise Rejection("rate_limited", "too many event streams are open: close one, or poll", details, headers={"Retry-After": "30"})
        self._streams[key] = mine + 1
        try:
            yield
        finally:
            self._streams[key] -= 1
            if not self._streams[key]:
                del self._streams[key]
