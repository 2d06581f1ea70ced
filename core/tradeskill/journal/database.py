"""The journal's file: bound to one network, durable before acknowledged, commits shared by concurrent callers."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from tradeskill.journal.schema import LAYOUT, bind_network
from tradeskill.journal.spendlog import carry_over
from tradeskill.sqlite import Connect, GroupCommit, SqliteFile, Transaction
from tradeskill.world import World

__all__ = ["Database", "Transaction"]

T = TypeVar("T")


class Database:
    """One profile's journal. What acts on it are the functions of selling.py and buying.py."""

    def __init__(self, connect: Connect, world: World, network: str) -> None:
        """NetworkMismatchError when the journal belongs to another network. `connect` as `tradeskill.sqlite.connector` gives it."""
        self._file = SqliteFile(connect, LAYOUT, where="the journal", prepare=partial(_prepare, network=network))
        self._commits = GroupCommit(self._file.run, world)

    def read(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """What is committed now. `function` only selects."""
        return self._file.read(function)

    async def write(self, function: Callable[[Transaction], T]) -> T:
        """Run `function` in a transaction; return its value once it is on disk. An exception of its own undoes only itself.

        `function` may run in another thread and must be pure but for its connection. After a failed fsync nothing is written any more.
        """
        return await self._commits.write(function)

    def write_now(self, function: Callable[[Transaction], T]) -> T:
        """`write` for callers without an event loop."""
        outcome = self._file.run([function])[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome  # type: ignore[no-any-return]  # the list holds what the function returned

    async def close(self) -> None:
        await self._commits.finish()
        self._file.close()


def _prepare(tx: Transaction, network: str) -> None:
    bind_network(tx, network)
    carry_over(tx)
