"""Commits of a relay: steps that arrive while one commit is under way share the next one, so waiting for the disk is shared too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from tradeskill.sqlite import GroupCommit
from tradeskill.world import World
from tradeskill_plugins.market.book import Statements

__all__ = ["Commits", "Database"]

T = TypeVar("T")
Step = Callable[[Any], Any]


class Database(Protocol):
    """What a relay asks of SQLite or PostgreSQL; `tradeskill.sqlite.SqliteFile` says what each call promises."""

    @property
    def alone(self) -> bool: ...

    def read(self, function: Callable[[Any], T], reader: int = 0) -> T: ...

    def run(self, functions: Sequence[Step], before: Callable[[Any], None] = ...) -> list[Any]: ...

    def version(self, reader: int = 0) -> Any: ...

    def listening(self, listener: Callable[[], None]) -> AbstractContextManager[None]: ...

    def close(self) -> None: ...


class Commits:
    """`before` runs first in every commit."""

    def __init__(self, database: Database, world: World, before: Callable[[Statements], None]) -> None:
        self._group = GroupCommit(lambda steps: database.run(steps, before), world)

    async def write(self, step: Callable[[Statements], T]) -> T:
        """What `step` returned, once it is on disk."""
        return await self._group.write(step)

    async def finish(self) -> None:
        """Returns once nothing is under way."""
        await self._group.finish()
