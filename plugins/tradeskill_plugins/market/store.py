"""Where a book lies: SQLite connections, migrations, transactions, group commit, and the one place that translates SQLite's errors."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from tradeskill.errors import NetworkMismatchError, StorageError, TradeskillError, UnavailableError
from tradeskill.model import Network
from tradeskill.world import World
from tradeskill_plugins.market import schema
from tradeskill_plugins.market.book import Book

__all__ = ["Committer", "Store", "open_file", "open_memory"]

T = TypeVar("T")
Connect = Callable[[], sqlite3.Connection]
ATTEMPTS: Final = 4  # each waits a quarter of the patience
BATCH: Final = 64  # steps in one commit
DAMAGE: Final = ("SQLITE_IOERR", "SQLITE_CORRUPT", "SQLITE_NOTADB")


def open_file(path: Path, world: World, network: Network | None = None, patience: float = 10.0) -> Store:
    """The market in `path`, made on first use (file mode 0600, new folders 0700); any number of processes may have it open.

    `network` binds a new file and must fit an old one. `patience`: seconds to wait for other writers before UnavailableError.
    """
    where = f"market file {path}"
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
    return Store(lambda: sqlite3.connect(path, isolation_level=None, check_same_thread=False), world, network, where, patience)


def open_memory(world: World, network: Network | None = None) -> Store:
    """A market that lives as long as its store: for tests and simulations, where several identities share it in one process."""
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    return Store(lambda: connection, world, network, "market in memory", 1.0)


class Store:
    """One book, readable and writable from any thread; every call runs one whole transaction and blocks until it is done."""

    def __init__(self, connect: Connect, world: World, network: Network | None = None, where: str = "market", patience: float = 10.0) -> None:
        """`connect` is called three times (writer, long reads, quick reads) and may give the same connection each time, as in memory.

        Connections must be in autocommit mode (`isolation_level=None`) and usable from other threads.
        """
        self.where = where
        self._commits = 0
        self._listeners: dict[int, Callable[[], None]] = {}
        self._broken: StorageError | None = None
        self._closed = False
        self._writer, self._reader, self._quick = self._connections = (connect(), connect(), connect())
        self.alone = self._quick is self._writer  # nobody else can write here
        self._locks = {id(connection): threading.RLock() for connection in self._connections}
        try:
            with self._translated():
                for connection in self._connections:
                    connection.row_factory = sqlite3.Row
                    connection.execute(f"PRAGMA busy_timeout = {int(patience * 1000 / ATTEMPTS)}")
                self._prepare(world, network)
                for connection in self._connections[1:] if not self.alone else ():
                    connection.execute("PRAGMA query_only = ON")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Safe to call twice; waits for what runs."""
        self._closed = True
        for connection in self._connections:
            with self._locks[id(connection)]:
                connection.close()

    def read(self, function: Callable[[Book], T], *, quick: bool = False) -> T:
        """`function` on one consistent view. `quick`: for a few rows at most, on a connection that long reads do not hold up."""
        connection = self._quick if quick else self._reader
        with self._locks[id(connection)], self._translated():
            connection.execute("BEGIN")
            try:
                return function(Book(connection))
            finally:
                if connection.in_transaction:  # SQLite ends it by itself after some errors
                    connection.execute("COMMIT")

    def run(self, functions: list[Callable[[Book], Any]], now_ms: int) -> list[Any]:
        """All `functions` in one durable commit, each with its own savepoint; an element is a value, or the exception of that one alone.

        What expired is swept first. A storage error is everybody's: raised, nothing acknowledged, and (unless the disk was only full)
        nothing is written any more through this store: after a failed fsync nobody knows what the disk holds.
        """
        with self._locks[id(self._writer)], self._translated():
            if self._broken is not None:
                raise StorageError(str(self._broken)) from self._broken
            self._begin()
            try:
                book = Book(self._writer)
                book.sweep(now_ms)
                outcomes = [self._one(book, function) for function in functions]
                self._writer.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise
            self._commits += 1
        for listener in list(self._listeners.values()):
            listener()
        return outcomes

    def write(self, function: Callable[[Book], T], now_ms: int) -> T:
        """One step in one durable commit."""
        outcome = self.run([function], now_ms)[0]
        if isinstance(outcome, TradeskillError):
            raise outcome
        return outcome  # type: ignore[no-any-return]  # the list holds what the function returned

    def version(self) -> tuple[int, int]:
        """Differs from its last value once anybody committed, in this process or another. Costs no read of the file."""
        with self._locks[id(self._quick)], self._translated():
            return self._quick.execute("PRAGMA data_version").fetchone()[0], self._commits

    @contextmanager
    def listening(self, listener: Callable[[], None]) -> Iterator[None]:
        """Calls `listener` after every commit through this store, in the thread that committed."""
        self._listeners[id(listener)] = listener
        try:
            yield
        finally:
            del self._listeners[id(listener)]

    def _one(self, book: Book, function: Callable[[Book], Any]) -> Any:
        self._writer.execute("SAVEPOINT step")
        try:
            outcome = function(book)
        except TradeskillError as error:
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

    def _prepare(self, world: World, network: Network | None) -> None:
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
            self._migrate()
            self._writer.execute(schema.FACT_ADD, ("market_id", world.random_bytes(8).hex()))
            if network is not None:
                self._writer.execute(schema.FACT_ADD, ("network", network))
                bound = self._writer.execute(schema.FACT, ("network",)).fetchone()[0]
                if bound != network:
                    raise NetworkMismatchError(f"{self.where} is for network {bound!r}, not {network!r}: give another path")
            self._writer.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise

    def _migrate(self) -> None:
        """Inside the transaction that holds the file: what another process did meanwhile is seen here and not done again."""
        found = self._writer.execute("PRAGMA application_id").fetchone()[0]
        version = self._writer.execute("PRAGMA user_version").fetchone()[0]
        empty = self._writer.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
        if found != schema.APPLICATION_ID and not (found == version == 0 and empty):
            raise StorageError(f"{self.where} is another program's database: give another path")
        if version > len(schema.MIGRATIONS):
            raise StorageError(f"{self.where} has version {version}, this program knows {len(schema.MIGRATIONS)}: upgrade tradeskill")
        if version == len(schema.MIGRATIONS):
            return
        for statements in schema.MIGRATIONS[version:]:
            for statement in statements:
                self._writer.execute(statement)
        self._writer.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        self._writer.execute(f"PRAGMA user_version = {len(schema.MIGRATIONS)}")

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


class Committer:
    """Group commit: steps that arrive while one commit is under way share the next one, so waiting for the disk is shared too."""

    def __init__(self, store: Store, world: World) -> None:
        self._store, self._world = store, world
        self._waiting: list[tuple[Callable[[Book], Any], asyncio.Future[Any]]] = []
        self._task: asyncio.Task[None] | None = None

    async def write(self, function: Callable[[Book], T]) -> T:
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
            functions = [function for function, _ in batch]
            try:
                outcomes = await self._world.offload(lambda functions=functions: self._store.run(functions, self._world.now_ms()))  # type: ignore[misc]  # a defaulted lambda cannot be inferred
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
                if isinstance(outcome, TradeskillError):
                    future.set_exception(outcome)
                else:
                    future.set_result(outcome)


def _is_busy(error: sqlite3.Error) -> bool:
    name = getattr(error, "sqlite_errorname", None) or ""
    return name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))
