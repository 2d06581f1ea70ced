"""Named tasks that a worker keeps going: loops through outages, effects until done, one task a name; the first bug or storage error ends them all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from tradeskill.errors import UnavailableError
from tradeskill.world import World

__all__ = ["FIRST_DELAY", "LAST_DELAY", "Tasks", "under_way"]

T = TypeVar("T")
FIRST_DELAY, LAST_DELAY = 0.1, 10.0


@asynccontextmanager
async def under_way(calls: Iterable[Coroutine[Any, Any, T]]) -> AsyncIterator[list[asyncio.Task[T]]]:
    """These calls as tasks, side by side, in their order; what is not done at the end of the block is broken off."""
    tasks = [asyncio.create_task(call) for call in calls]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Tasks:
    def __init__(self, world: World, log: logging.Logger) -> None:
        self._world, self._log = world, log
        self._running: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()
        self._fatal: BaseException | None = None
        self._ended = False
        self._nudged = asyncio.Event()

    def spawn(self, name: str, start: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """One task a name; asked again while it runs, it runs once more afterwards. Ignored once all are being stopped."""
        if self._ended:
            return
        if name in self._running:
            self._again.add(name)
            return
        task = asyncio.create_task(start())
        self._running[name] = task
        task.add_done_callback(lambda done: self._finished(name, start, done))

    def spawn_once(self, name: str, start: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """As `spawn`, ignored while it runs."""
        if name not in self._running:
            self.spawn(name, start)

    def loop(self, name: str, body: Callable[[], Awaitable[None]]) -> None:
        """Run `body` again and again; outages are waited out with growing pauses."""

        async def forever() -> None:
            delay = FIRST_DELAY
            while True:
                began = self._world.monotonic()
                try:
                    await body()
                except UnavailableError as error:
                    self._log.warning("%s: %s; trying again in %.1f s", name, error, delay)
                if self._world.monotonic() - began > LAST_DELAY:
                    delay = FIRST_DELAY
                await self._world.sleep(delay)
                delay = min(delay * 2, LAST_DELAY)

        self.spawn(name, forever)

    async def patiently(self, what: str, call: Callable[[], Awaitable[T]]) -> T:
        """The call's value, however long its other side is away."""
        delay = FIRST_DELAY
        while True:
            try:
                return await call()
            except UnavailableError as error:
                self._log.warning("%s: %s; trying again in %.1f s", what, error, delay)
            await self._world.sleep(delay)
            delay = min(delay * 2, LAST_DELAY)

    async def wait(self, event: asyncio.Event, seconds: float) -> None:
        """Until the event (then cleared) or so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            pass
        event.clear()

    async def until(self, ask_again: Callable[[], float | None]) -> None:
        """Until `ask_again()` answers None, or `end()`; raises what ended a task. Then stops all tasks.

        It answers in how many seconds it wants to be asked again; `nudge()` asks at once.
        """
        try:
            while self._fatal is None and not self._ended and (seconds := ask_again()) is not None:
                await self.wait(self._nudged, seconds)
        finally:
            self._ended = True
            tasks = list(self._running.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if self._fatal is not None:
            raise self._fatal

    def nudge(self) -> None:
        self._nudged.set()

    def end(self) -> None:
        self._ended = True
        self._nudged.set()

    def _finished(self, name: str, start: Callable[[], Coroutine[Any, Any, None]], task: asyncio.Task[None]) -> None:
        del self._running[name]
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            self._fatal = self._fatal or error
            self._nudged.set()
        elif name in self._again:
            self._again.discard(name)
            self.spawn(name, start)
