"""SQLite, done one way for every store: private files, IMMEDIATE transactions, FULL sync, migrations, group commit, errors translated at one seam."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from tradeskill.errors import StateError, StorageError, UnavailableError
from tradeskill.world import World

__all__ = ["Connect", "GroupCommit", "Layout", "SqliteFile", "Transaction", "connector", "memory"]

T = TypeVar("T")
Connect = Callable[[], sqlite3.Connection]
Transaction = sqlite3.Connection  # inside BEGIN IMMEDIATE

PATIENCE: Final = 10.0  # seconds to wait for other writers
ATTEMPTS: Final = 4  # each waits a quarter of the patience
BATCH: Final = 64  # steps in one commit
DAMAGE: Final = ("SQLITE_IOERR", "SQLITE_CORRUPT", "SQLITE_NOTADB")


class Layout:
    """What a database of one kind looks like: its mark in the file, and its migrations in order (each a tuple of statements)."""

    def __init__(self, application_id: int, migrations: Sequence[tuple[str, ...]]) -> None:
        self.application_id, self.migrations = application_id, migrations


def connector(path: Path, where: str) -> Connect:
    """Makes the file (mode 0600) and its folders (0700) if need be, durably, and returns how to connect. StorageError when that fails."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise StorageError(f"{where} cannot be opened: {error.strerror}; check the path and its rights") from error
    return partial(sqlite3.connect, path, isolation_level=None, check_same_thread=False)


class _Shared(sqlite3.Connection):
    """A connection that several `SqliteFile`s may hold: its lock is everybody's, since a second thread inside one connection ends the process."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.lock = threading.RLock()


def memory() -> Connect:
    """One database in memory, the same connection each time; more than one `SqliteFile` may be made on it, for any threads."""
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False, factory=_Shared)
    return lambda: connection


class SqliteFile:
    """One database, readable and writable from any thread; every call is one whole transaction and blocks until it is done."""

    def __init__(
        self,
        connect: Connect,
        layout: Layout,
        *,
        where: str,
        readers: int = 1,
        patience: float = PATIENCE,
        prepare: Callable[[Transaction], None] = lambda connection: None,
    ) -> None:
        """`connect` is called for a writer and each reader and may give the same connection each time, as `memory` does.

        Connections must be in autocommit mode and usable from other threads. `prepare` runs in the transaction of the migrations.
        """
        self.where = where
        self._commits = 0
        self._listeners: dict[int, Callable[[], None]] = {}
        self._broken: StorageError | None = None
        self._closed = False
        self._writer = connect()
        self._readers = [connect() for _ in range(readers)]
        self._connections = (self._writer, *self._readers)
        self.alone = self._readers[0] is self._writer  # nobody else can write here
        self._locks = {id(one): one.lock if isinstance(one, _Shared) else threading.RLock() for one in self._connections}
        try:
            with self._locks[id(self._writer)], self._translated():
                for connection in self._connections:
                    connection.row_factory = sqlite3.Row
                    connection.execute(f"PRAGMA busy_timeout = {int(patience * 1000 / ATTEMPTS)}")
                self._set_up(layout, prepare)
                for connection in () if self.alone else self._readers:
                    connection.execute("PRAGMA query_only = ON")
        except BaseException:
            if not isinstance(self._writer, _Shared):  # others may be at work on it
                self.close()
            raise

    def close(self) -> None:
        """Safe to call twice; waits for what runs."""
        self._closed = True
        for connection in self._connections:
            with self._locks[id(connection)]:
                connection.close()

    def read(self, function: Callable[[sqlite3.Connection], T], reader: int = 0) -> T:
        """`function` on one consistent view. Readers do not hold each other up."""
        connection = self._readers[reader]
        with self._locks[id(connection)], self._translated():
            if self.alone:  # the lock alone keeps the view
                return function(connection)
            connection.execute("BEGIN")
            try:
                return function(connection)
            finally:
                if connection.in_transaction:  # SQLite ends it by itself after some errors
                    connection.execute("END")

    def run(self, functions: Sequence[Callable[[Transaction], Any]], before: Callable[[Transaction], None] = lambda connection: None) -> list[Any]:
        """All `functions` in one durable commit, each with its own savepoint; an element is a value, or the exception of that one alone.

        A storage error is everybody's: raised, nothing acknowledged, and (unless the disk was only full) nothing is written any more
        through this object: after a failed fsync nobody knows what the disk holds.
        """
        with self._locks[id(self._writer)], self._translated():
            if self._broken is not None:
                raise StorageError(str(self._broken)) from self._broken
            self._begin()
            try:
                before(self._writer)
                outcomes = [self._one(function) for function in functions]
                self._writer.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise
            self._commits += 1
        for listener in list(self._listeners.values()):
            listener()
        return outcomes

    def version(self, reader: int = 0) -> tuple[int, int]:
        """Differs from its last value once anybody committed, in this process or another. Costs no read of the file."""
        connection = self._readers[reader]
        with self._locks[id(connection)], self._translated():
            return connection.execute("PRAGMA data_version").fetchone()[0], self._commits

    @contextmanager
    def listening(self, listener: Callable[[], None]) -> Iterator[None]:
        """Calls `listener` after every commit through this object, in the thread that committed."""
        self._listeners[id(listener)] = listener
        try:
            yield
        finally:
            del self._listeners[id(listener)]

    def _one(self, function: Callable[[Transaction], Any]) -> Any:
        self._writer.execute("SAVEPOINT step")
        try:
            outcome = function(self._writer)
        except sqlite3.IntegrityError as error:
            self._writer.execute("ROLLBACK TO step")
            outcome = StateError(f"{self.where} refused a step that contradicts what it holds: {error}")
        except sqlite3.Error:
            raise
        except Exception as error:  # noqa: BLE001  # whatever it is, it is its caller's alone
            self._writer.execute("ROLLBACK TO step")
            outcome = error
        self._writer.execute("RELEASE step")
        return outcome

    def _begin(self) -> None:
        """IMMEDIATE, so that a step that reads before it writes cannot lose its place to another process half-way."""
        for attempt in range(ATTEMPTS):
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if attempt == ATTEMPTS - 1 or not _is_busy(error):
                    raise

    def _roll_back(self) -> None:
        if self._writer.in_transaction:
            self._writer.execute("ROLLBACK")

    def _set_up(self, layout: Layout, prepare: Callable[[Transaction], None]) -> None:
        for attempt in range(ATTEMPTS):  # changing to WAL does not always wait for others
            try:
                self._writer.execute("PRAGMA journal_mode = WAL")
                break
            except sqlite3.OperationalError as error:
                if attempt == ATTEMPTS - 1 or not _is_busy(error):
                    raise
        self._writer.execute("PRAGMA synchronous = FULL")
        self._begin()
        try:
            self._migrate(layout)
            prepare(self._writer)
            self._writer.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise

    def _migrate(self, layout: Layout) -> None:
        """Inside the transaction that holds the file: what another process did meanwhile is seen here and not done again."""
        found = self._writer.execute("PRAGMA application_id").fetchone()[0]
        version = self._writer.execute("PRAGMA user_version").fetchone()[0]
        empty = self._writer.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
        if found != layout.application_id and not (found == version == 0 and empty):
            raise StorageError(f"{self.where} is another program's database: give another path")
        newest = len(layout.migrations)
        if version > newest:
            raise StorageError(f"{self.where} has version {version}, this program knows {newest}: upgrade tradeskill")
        if version == newest:
            return
        for statements in layout.migrations[version:]:
            for statement in statements:
                self._writer.execute(statement)
        self._writer.execute(f"PRAGMA application_id = {layout.application_id}")
        self._writer.execute(f"PRAGMA user_version = {newest}")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        if self._closed:
            raise UnavailableError(f"{self.where} is closed: open it again")
        try:
            yield
        except sqlite3.Error as error:
            name = getattr(error, "sqlite_errorname", None) or type(error).__name__
            if _is_busy(error):
                raise UnavailableError(f"{self.where} is kept locked by another process: try again") from error
            if name == "SQLITE_FULL":
                raise StorageError(f"{self.where} cannot grow, the disk is full: free space and try again; nothing was changed") from error
            broken = StorageError(f"{self.where} failed ({name}: {error}): check the disk and the file, then start again; nothing was acknowledged")
            if name.startswith(DAMAGE):
                self._broken = self._broken or broken
            raise broken from error


class GroupCommit:
    """Steps that arrive while one commit is under way share the next one, so waiting for the disk is shared too."""

    def __init__(self, run: Callable[[list[Callable[[Any], Any]]], list[Any]], world: World) -> None:
        """`run` commits a list of steps and answers as `SqliteFile.run` does."""
        self._run, self._world = run, world
        self._waiting: list[tuple[Callable[[Any], Any], asyncio.Future[Any]]] = []
        self._task: asyncio.Task[None] | None = None

    async def write(self, function: Callable[[Any], T]) -> T:
        """The value once it is on disk. Canceled before its commit began, a step is not taken; later its outcome is unknown."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((function, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._drain())
        return await future

    async def finish(self) -> None:
        """Returns once nothing is under way."""
        while self._task is not None and not self._task.done():
            await asyncio.wait([self._task])

    async def _drain(self) -> None:
        while self._waiting:
            batch = [entry for entry in self._waiting[:BATCH] if not entry[1].done()]
            del self._waiting[:BATCH]
            try:
                outcomes = await self._world.offload(partial(self._run, [function for function, _ in batch]))
            except BaseException as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error) if not isinstance(error, asyncio.CancelledError) else future.cancel()
                if not isinstance(error, Exception):
                    raise
                continue
            for (_, future), outcome in zip(batch, outcomes, strict=True):
                if future.done():
                    continue
                if isinstance(outcome, BaseException):
                    future.set_exception(outcome)
                else:
                    future.set_result(outcome)


def _is_busy(error: sqlite3.Error) -> bool:
    name = getattr(error, "sqlite_errorname", None) or ""
    return name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))
