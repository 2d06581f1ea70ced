"""Staying below a relay's limits: how long a request has to wait, and who goes first. Pure; time is handed in.

A window that slides: in any `window` seconds at most `limit` requests, of which `reserve` are kept for what must not wait
(lock renewals, payments, deliveries). That keeps below a relay's own count however it is kept (fixed windows, sliding ones, buckets).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, Literal

__all__ = ["Lane", "Pace", "Turns"]

Lane = Literal["urgent", "step", "usual"]  # what must not wait · other steps · looking
SHARE: Final = 0.9  # of the relay's limit: other processes of this key, and clocks, differ
RESERVE: Final = 6  # one of so many is kept back


class Pace:
    """One bucket. `limit`: the relay's own number for `window` seconds."""

    def __init__(self, limit: int, window: float) -> None:
        self._most = max(1, int(limit * SHARE))
        self._usual = max(1, self._most - max(1, self._most // RESERVE)) if self._most > 1 else 1
        self._window = window
        self._sent: deque[float] = deque()

    def wait(self, now: float, lane: Lane) -> float:
        """Seconds until one more may go out; 0.0: now."""
        while self._sent and self._sent[0] <= now - self._window:
            self._sent.popleft()
        most = self._most if lane == "urgent" else self._usual
        if len(self._sent) < most:
            return 0.0
        return max(0.0, self._sent[len(self._sent) - most] + self._window - now)

    def count(self, now: float) -> None:
        """One goes out."""
        self._sent.append(now)


class Turns:
    """Who waits for a request's turn: a line for each lane, so that a step does not stand behind a hundred looks. Only the urgent use the reserve.

    Without buckets nobody waits, but for what a relay asked for.
    """

    def __init__(self, now: Callable[[], float], sleep: Callable[[float], Awaitable[None]]) -> None:
        self._now, self._sleep = now, sleep
        self._paces: dict[str, Pace] = {}
        self._not_before: dict[str, float] = {}  # by bucket; "" is all of them
        self._gates: dict[Lane, asyncio.Lock] = {"urgent": asyncio.Lock(), "step": asyncio.Lock(), "usual": asyncio.Lock()}

    def limit(self, bucket: str, limit: int | None, window: float) -> None:
        """From now on `bucket` is counted so; None: it is not counted any more."""
        if limit is None:
            self._paces.pop(bucket, None)
        else:
            self._paces[bucket] = Pace(limit, window)

    def hold(self, seconds: float, bucket: str = "") -> None:
        """The relay asked to wait so long, with what is counted in `bucket` or with everything."""
        self._not_before[bucket] = max(self._not_before.get(bucket, 0.0), self._now() + seconds)

    async def turn(self, lane: Lane, bucket: str = "key") -> None:
        """Returns when one more may go out, and counts it."""
        async with self._gates[lane]:
            while (seconds := self._wait(lane, bucket)) > 0:
                await self._sleep(seconds)
            pace = self._paces.get(bucket)
            if pace is not None:
                pace.count(self._now())

    def _wait(self, lane: Lane, bucket: str) -> float:
        now, pace = self._now(), self._paces.get(bucket)
        asked = max(self._not_before.get("", 0.0), self._not_before.get(bucket, 0.0))
        return max(asked - now, 0.0 if pace is None else pace.wait(now, lane))
