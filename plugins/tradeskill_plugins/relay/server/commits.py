"""Commits of a relay: steps that arrive while one commit is under way share the next one, so waiting for the disk is shared too."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from tradeskill.sqlite import GroupCommit
from tradeskill.world import World
from tradeskill_plugins.market.book import Statements
from tradeskill_plugins.market.store import Database

__all__ = ["Commits"]

T = TypeVar("T")
Step = Callable[[Any], Any]


class Commits:
    """`before` runs first in every commit. Commits have a thread to themselves, so that no crowd of slow reads can hold them up."""

    def __init__(self, database: Database, before: Callable[[Statements], None], committed: Callable[[int, float], None]) -> None:
        """`committed(steps, seconds)` is told of each, in that thread."""
        self._writer = _Writer()

        def run(steps: list[Step]) -> list[Any]:
            started = time.perf_counter()
            outcomes = database.run(steps, before)
            committed(len(steps), time.perf_counter() - started)
            return outcomes

        self._group = GroupCommit(run, self._writer)

    async def write(self, step: Callable[[Statements], T]) -> T:
        """What `step` returned, once it is on disk."""
        return await self._group.write(step)

    async def finish(self) -> None:
        """Returns once nothing is under way."""
        await self._group.finish()
        self._writer.pool.shutdown(wait=False)


class _Writer(World):
    def __init__(self) -> None:
        super().__init__()
        self.pool = ThreadPoolExecutor(1, "relay-commits")

    async def offload(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self.pool, function)
