"""The tally: one SQLite file that everybody who trades on it can write. Who may write it is trusted, as among friends with a slate on the wall."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from tradeskill.errors import RefusedError, StorageError, UnavailableError, UnknownOutcomeError
from tradeskill.model import Network
from tradeskill.world import World

T = TypeVar("T")
NOWHERE: Final = "nowhere"  # where money comes from that was put on the tally
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS network (name TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS transfers (
  transfer_id TEXT PRIMARY KEY, source TEXT NOT NULL, target TEXT NOT NULL, amount TEXT NOT NULL, at INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS by_target ON transfers (target);
CREATE INDEX IF NOT EXISTS by_source ON transfers (source);
"""


@dataclass(frozen=True)
class Transfer:
    """Signed once; `transfer_id` names its bytes, so that publishing it twice is publishing it once."""

    transfer_id: str
    source: str
    to: str
    amount: int
    at: int = 0  # ms since the epoch, when it was written down
    final: bool = False


class Ledger:
    """A transfer is final once it has stood there for `settles_after_ms`. What every call may raise: UnavailableError, StorageError."""

    def __init__(self, path: Path, network: Network, world: World, settles_after_ms: int = 0) -> None:
        self.network: Network = network
        self.fault = ""  # for tests: unreachable, answer-lost, hang, garbage
        self._path, self._world, self._settles = path, world, settles_after_ms

    async def publish(self, transfer: Transfer) -> None:
        """Idempotent by id. RefusedError where the source does not hold the money; UnknownOutcomeError when the answer is lost."""
        await self._reached()

        def write(database: sqlite3.Connection) -> None:
            if self._found(database, transfer.transfer_id) is None:
                if transfer.source != NOWHERE and transfer.amount > self._held(database, transfer.source):
                    raise RefusedError(f"{transfer.source} does not hold {transfer.amount}")
                row = (transfer.transfer_id, transfer.source, transfer.to, str(transfer.amount), self._world.now_ms())
                database.execute("INSERT INTO transfers VALUES (?, ?, ?, ?, ?)", row)

        await self._in_file(write)
        if self.fault == "answer-lost":
            raise UnknownOutcomeError(f"the answer to transfer {transfer.transfer_id} was lost")

    async def found(self, transfer_id: str) -> Transfer | None:
        await self._reached(reads=True)
        return await self._in_file(lambda database: self._found(database, transfer_id))

    async def incoming(self, address: str) -> list[Transfer]:
        """All that was ever sent there, pending too."""
        await self._reached(reads=True)
        return await self._in_file(lambda database: self._rows(database, "target", address))

    async def held(self, address: str) -> int:
        """Final money that came in, less all that was sent out."""
        await self._reached(reads=True)
        return await self._in_file(lambda database: self._held(database, address))

    def _found(self, database: sqlite3.Connection, transfer_id: str) -> Transfer | None:
        return next(iter(self._rows(database, "transfer_id", transfer_id)), None)

    def _held(self, database: sqlite3.Connection, address: str) -> int:
        money_in = sum(each.amount for each in self._rows(database, "target", address) if each.final)
        return money_in - sum(each.amount for each in self._rows(database, "source", address))

    def _rows(self, database: sqlite3.Connection, column: str, value: str) -> list[Transfer]:
        # amounts are text, and added here: SQLite would round them
        rows = database.execute(f"SELECT transfer_id, source, target, amount, at FROM transfers WHERE {column} = ? ORDER BY at", (value,))
        now = self._world.now_ms()
        return [Transfer(name, source, to, int(amount), at, at + self._settles <= now) for name, source, to, amount, at in rows]

    async def _in_file(self, step: Callable[[sqlite3.Connection], T]) -> T:
        """One transaction, off the event loop, on the disk when it returns."""

        def run() -> T:
            with self._opened() as database:
                return step(database)

        return await self._world.offload(run)

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._path, timeout=10, isolation_level=None)) as database:
                database.execute("PRAGMA synchronous = FULL")
                database.execute("BEGIN IMMEDIATE")
                for statement in _SCHEMA.split(";"):
                    database.execute(statement)
                kept = database.execute("SELECT name FROM network").fetchone()
                if kept is None:
                    database.execute("INSERT INTO network VALUES (?)", (self.network,))
                elif kept[0] != self.network:
                    raise RefusedError(f"{self._path} is a tally of network {kept[0]}, this profile is for {self.network}")
                try:
                    yield database
                except BaseException:
                    database.execute("ROLLBACK")
                    raise
                database.execute("COMMIT")
        except sqlite3.OperationalError as error:
            raise UnavailableError(f"the tally {self._path} cannot be used now: {error}") from error
        except (sqlite3.Error, OSError) as error:
            raise StorageError(f"the tally {self._path}: {error}") from error

    async def _reached(self, reads: bool = False) -> None:
        if self.fault == "hang":
            await asyncio.Event().wait()
        if self.fault in ("unreachable", "garbage") or (reads and self.fault):
            raise UnavailableError("the tally cannot be read: try again")
