"""What survives a process: journals and the market's book in memory, with power cuts at the commit and lost commits where sync was not FULL."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

from tradeskill.journal import Database, MemoryBlobs
from tradeskill.testing.virtual_time import Crashed, VirtualWorld
from tradeskill_plugins.market.store import open_sqlite

from .faults import Faults
from .life import Life

__all__ = ["Connection", "Disk", "Table", "journal_disk", "market_table"]

_pools: dict[str, list[Table]] = {"journal": [], "market": []}


class Table:
    """One SQLite database in memory, used again by the next schedule: emptying it is cheaper than making it."""

    def __init__(self, kind: str, connection: sqlite3.Connection) -> None:
        self.kind, self.raw = kind, connection
        names = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'offer_text_%'").fetchall()
        self._names = [row[0] for row in names]
        self._fresh = self.dump()

    def dump(self) -> dict[str, list[tuple[Any, ...]]]:
        rows = {}
        for name in self._names:
            cursor = self.raw.cursor()
            cursor.row_factory = None
            columns = "rowid, *" if name == "offer_text" else "*"
            rows[name] = cursor.execute(f"SELECT {columns} FROM {name}").fetchall()
        return rows

    def restore(self, content: dict[str, list[tuple[Any, ...]]]) -> None:
        self.raw.execute("BEGIN")
        for name in self._names:
            self.raw.execute(f"DELETE FROM {name}")
            for row in content[name]:
                columns = " (rowid, title, description)" if name == "offer_text" else ""
                self.raw.execute(f"INSERT INTO {name}{columns} VALUES ({', '.join('?' * len(row))})", row)
        self.raw.execute("COMMIT")

    def release(self) -> None:
        """Back to the pool, as new."""
        if self.raw.in_transaction:
            self.raw.execute("ROLLBACK")
        self.restore(self._fresh)
        _pools[self.kind].append(self)


def _table(kind: str, prepare: Callable[[sqlite3.Connection], object]) -> Table:
    if _pools[kind]:
        return _pools[kind].pop()
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False, cached_statements=512)
    prepare(connection)
    return Table(kind, connection)


def journal_disk(faults: Faults, changed: Callable[[Life], None]) -> Disk:
    return Disk(_table("journal", lambda raw: Database(lambda: raw, VirtualWorld(), "dev")), faults, changed)


def market_table() -> Table:
    return _table("market", lambda raw: open_sqlite(lambda: raw, VirtualWorld(), "dev"))


class Disk:
    """One profile's: its journal and its results. `changed` is called after every commit, with who made it."""

    def __init__(self, table: Table, faults: Faults, changed: Callable[[Life], None]) -> None:
        self.table, self.faults, self.changed = table, faults, changed
        self.blobs = MemoryBlobs()
        self._unsynced: list[dict[str, list[tuple[Any, ...]]]] = []  # the content before each commit that no sync has followed

    def committing(self, synced: bool) -> None:
        if synced:
            self._unsynced.clear()
        else:
            self._unsynced = [*self._unsynced[-2:], self.table.dump()]

    def lose_power(self) -> None:
        """What no sync has followed is gone; an open transaction too."""
        if self.table.raw.in_transaction:
            self.table.raw.execute("ROLLBACK")
        if self._unsynced:
            self.table.restore(self._unsynced[0])
            self._unsynced.clear()


class Connection:
    """A life's connection to its disk, as much of `sqlite3.Connection` as the journal uses."""

    def __init__(self, disk: Disk, life: Life) -> None:
        self._disk, self._life, self._raw = disk, life, disk.table.raw
        self._synced, self._writing, self._busy = True, False, 0
        life.on_death.append(disk.lose_power)

    @property
    def row_factory(self) -> Any:
        return self._raw.row_factory

    @row_factory.setter
    def row_factory(self, factory: Any) -> None:
        self._raw.row_factory = factory

    @property
    def in_transaction(self) -> bool:
        return self._life.alive and self._raw.in_transaction

    def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
        if not self._life.alive:
            raise Crashed(self._life.name)
        if self._writing and sql == "COMMIT":
            return self._commit()
        if sql == "BEGIN IMMEDIATE":
            if self._disk.faults.strikes("disk.busy"):
                self._busy = 4  # as often as the journal tries
            if self._busy:
                self._busy -= 1
                raise _error("SQLITE_BUSY")
            self._writing = True
        elif sql == "ROLLBACK":
            self._writing = False
        elif sql.startswith("PRAGMA query_only"):  # reader and writer are one connection here
            return self._raw.execute("PRAGMA query_only")
        elif sql.startswith("PRAGMA synchronous"):
            self._synced = sql.endswith("FULL")
        return self._raw.execute(sql, parameters)

    def executemany(self, sql: str, parameters: Any) -> sqlite3.Cursor:
        self._life.check()
        return self._raw.executemany(sql, parameters)

    def close(self) -> None:
        """The database stays: it is the disk's."""

    def _commit(self) -> sqlite3.Cursor:
        faults = self._disk.faults
        if faults.strikes("disk.full"):
            raise _error("SQLITE_FULL")
        if faults.strikes("disk.cut-before"):
            self._life.die()
            raise Crashed(self._life.name)
        self._disk.committing(self._synced)
        done = self._raw.execute("COMMIT")
        self._writing = False
        self._disk.changed(self._life)
        if faults.strikes("disk.cut-after"):
            self._life.die()
            raise Crashed(self._life.name)
        return done


def _error(name: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("made by the simulation")
    error.sqlite_errorname = name
    return error


