"""A seeded event loop whose time jumps to the next timer, and a world on it: flows run unpatched, on one thread, without waiting."""

from __future__ import annotations

import asyncio
import math
import random
import selectors
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

from tradeskill.world import LABELS, World

__all__ = ["Crashed", "Deadlock", "VirtualLoop", "VirtualWorld", "run_virtual"]

T = TypeVar("T")
EPOCH_MS = 1_700_000_000_000


class Deadlock(RuntimeError):  # noqa: N818  # it names what happened
    """Every task waits and no timer is left."""


class Crashed(BaseException):  # it names what happened; not an Exception, so that no handler of the flows survives it
    """The process died here. Whatever was not committed is gone."""


class _NoSelector(selectors.BaseSelector):
    """Nothing outside the loop ever becomes ready; waiting moves the clock instead."""

    def __init__(self) -> None:
        self.loop: VirtualLoop | None = None
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = selectors.SelectorKey(fileobj, 0, events, data)
        self._keys[fileobj] = key
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert self.loop is not None
        if timeout is None:
            raise Deadlock("every task waits and no timer is left")
        self.loop.advance(timeout)
        return []

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys


class VirtualLoop(asyncio.SelectorEventLoop):
    """`time()` starts at 0 and moves only when everybody waits. Raises Deadlock when nobody ever would wake."""

    def __init__(self) -> None:
        self._now = 0.0
        selector = _NoSelector()
        super().__init__(selector)
        selector.loop = self
        self._clock_resolution = 0.0  # no timer fires early: who waits for a moment finds it come

    def time(self) -> float:
        return self._now

    def _make_self_pipe(self) -> None:
        """Nothing wakes this loop from outside, so it needs no sockets."""

    def _close_self_pipe(self) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def advance(self, seconds: float) -> None:
        """Always by something, so that a timer that is due now is due, and nothing can wait for a rounding error for ever."""
        self._now = math.nextafter(self._now + max(0.0, seconds), math.inf)


class VirtualWorld(World):
    """Time of the running virtual loop, seeded randomness, work in place. `at_label(when, label)` may raise `Crashed`.

    `skew_ms` shifts the wall clock (never `monotonic`); `jitter` draws the order of equal moments from the seed.
    """

    def __init__(self, seed: int = 0, at_label: Callable[[str, str], None] | None = None) -> None:
        super().__init__()
        self.random = random.Random(seed)  # noqa: S311  # a simulation must replay
        self.skew_ms = 0
        self._at_label = at_label

    def now_ms(self) -> int:
        return EPOCH_MS + round(asyncio.get_running_loop().time() * 1000) + self.skew_ms

    def random_bytes(self, count: int) -> bytes:
        return self.random.randbytes(count)

    async def offload(self, function: Callable[[], T]) -> T:
        return function()

    def crash(self, when: str, label: str) -> None:
        assert label in LABELS, label
        if self._at_label is not None:
            self._at_label(when, label)


def run_virtual(main: Coroutine[Any, Any, T], seconds: float = 86_400.0, loop: VirtualLoop | None = None) -> T:
    """Run `main` on a fresh virtual loop, bounded in virtual time; leaves no task behind. `loop`: of one's own kind, fresh too."""
    loop = loop or VirtualLoop()
    try:
        return loop.run_until_complete(asyncio.wait_for(main, seconds))
    finally:
        pending = asyncio.all_tasks(loop)
        for task in pending:
            task.cancel()
        if pending:
            loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
