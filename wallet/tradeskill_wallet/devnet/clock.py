"""The dev ledger's time: the wall clock and its timers, or one that a test moves by hand."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from typing import Protocol

from tradeskill.world import World

__all__ = ["Clock", "ManualClock", "WorldClock"]


class Clock(Protocol):
    def now_ms(self) -> int:
        """Milliseconds since 1970."""
        ...

    def call_at(self, when_ms: int, action: Callable[[], None]) -> Callable[[], None]:
        """Run `action` once when the clock reaches `when_ms`; returns what cancels it."""
        ...


class WorldClock:
    """Follows the world's clock; timers run on the event loop."""

    def __init__(self, world: World) -> None:
        self._world = world

    def now_ms(self) -> int:
        return self._world.now_ms()

    def call_at(self, when_ms: int, action: Callable[[], None]) -> Callable[[], None]:
        delay = max(0, when_ms - self.now_ms()) / 1000
        return asyncio.get_running_loop().call_later(delay, action).cancel


class ManualClock:
    """Stands still until `advance`; timers that fall due run inside that call, in order."""

    def __init__(self, start_ms: int = 1_800_000_000_000) -> None:
        self._now = start_ms
        self._timers: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0
        self._cancelled: set[int] = set()

    def now_ms(self) -> int:
        return self._now

    def call_at(self, when_ms: int, action: Callable[[], None]) -> Callable[[], None]:
        self._count += 1
        number = self._count
        heapq.heappush(self._timers, (when_ms, number, action))
        return lambda: self._cancelled.add(number)

    def advance(self, milliseconds: int) -> None:
        """Move on, stopping at each timer on the way."""
        end = self._now + milliseconds
        while self._timers and self._timers[0][0] <= end:
            when, number, action = heapq.heappop(self._timers)
            if number in self._cancelled:
                self._cancelled.discard(number)
                continue
            self._now = max(self._now, when)
            action()
        self._now = end
