"""The journal's connection: IMMEDIATE transactions, FULL sync, group commit. Durable before acknowledged."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from tradeskill.errors import StateError, StorageError, TradeskillError, UnavailableError
from tradeskill.journal.schema import bind_network, migrate
from tradeskill.world import World

__all__ = ["Database", "Transaction", "connect_file"]

T = TypeVar("T")
Transaction = sqlite3.Connection  # inside BEGIN IMMEDIATE; handed to the functions of selling.py and buying.py

BUSY_MS = 10_000


def connect_file(path: Path) -> sqlite3.Connection:
    """A connection to a journal file, made mode 0600 in a folder of mode 0700. StorageError when it cannot be opened."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            path.touch(mode=0o600)
        connection = sqlite3.connect(path, isolation_level=None, timeout=BUSY_MS / 1000, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
    except (OSError, sqlite3.Error) as error:
        raise StorageError(f"journal {path} cannot be opened: {error}") from error
    return connection


class Database:
    """One profile's journal. `write` groups the transactions of concurrent callers into one durable commit."""

    def __init__(self, connect: Callable[[], sqlite3.Connection], world: World, network: str) -> None:
        """`connect` is called for a writer and a reader; it may return one shared connection (in memory)."""
        self._world = world
        self._broken: StorageError | None = None
        self._pending: list[tuple[Callable[[Transaction], Any], asyncio.Future[Any]]] = []
        self._committing: asyncio.Task[None] | None = None
        self._writer, self._reader = connect(), connect()
        for connection in (self._writer, self._reader):
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
        try:
            migrate(self._writer)
            bind_network(self._writer, network)
        except sqlite3.Error as error:
            raise _translated(error) from error

    def read(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """What is committed now. `function` only selects."""
        try:
            return function(self._reader)
        except sqlite3.Error as error:
            raise _translated(error) from error

    async def write(self, function: Callable[[Transaction], T]) -> T:
        """Run `function` in a transaction; return its value once it is on disk. An exception of its own undoes only itself.

        `function` may run in another thread and must be pure but for its connection. After a storage error nothing is written any more.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._pending.append((function, future))
        if self._committing is None or self._committing.done():
            self._committing = asyncio.create_task(self._commit())
        return await asyncio.shield(future)

    def write_now(self, function: Callable[[Transaction], T]) -> T:
        """`write` for callers without an event loop."""
        outcome = self._run([function])[0]
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome  # type: ignore[no-any-return]  # the list holds what the functions returned

    async def close(self) -> None:
        while self._committing is not None and not self._committing.done():
            await asyncio.shield(self._committing)
        if self._reader is not self._writer:
            self._reader.close()
        self._writer.close()

    async def _commit(self) -> None:
        while self._pending:
            batch, self._pending = self._pending, []
            functions = [function for function, _ in batch]
            try:
                outcomes = await self._world.offload(lambda functions=functions: self._run(functions))  # type: ignore[misc]  # mypy cannot infer a defaulted lambda
            except BaseException as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error) if isinstance(error, Exception) else future.cancel()
                raise
            for (_, future), outcome in zip(batch, outcomes, strict=True):
                if future.done():
                    continue
                if isinstance(outcome, BaseException):
                    future.set_exception(outcome)
                else:
                    future.set_result(outcome)

    def _run(self, functions: list[Callable[[Transaction], Any]]) -> list[Any]:
        if self._broken is not None:
            return [self._broken for _ in functions]
        connection, outcomes = self._writer, []
        try:
            connection.execute("BEGIN IMMEDIATE")
            for function in functions:
                connection.execute("SAVEPOINT one")
                try:
                    outcomes.append(function(connection))
                except sqlite3.OperationalError:
                    raise
                except sqlite3.IntegrityError as error:
                    connection.execute("ROLLBACK TO one")
                    outcomes.append(StateError(f"the journal refused a step that contradicts it: {error}"))
                except Exception as error:  # noqa: BLE001  # whatever it is, it is its caller's alone
                    connection.execute("ROLLBACK TO one")
                    outcomes.append(error)
                connection.execute("RELEASE one")
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            translated = _translated(error)
            if isinstance(translated, StorageError):
                self._broken = translated
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            return [translated for _ in functions]
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return outcomes


def _translated(error: sqlite3.Error) -> TradeskillError:
    """Busy is worth another try; anything else at this level means the disk or the file is not to be trusted."""
    name = getattr(error, "sqlite_errorname", "") or ""
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return UnavailableError(f"the journal is busy: another process kept it locked for {BUSY_MS // 1000} s")
    cause = f"{name or 'sqlite'}: {error}"
    return StorageError(f"the journal cannot be written ({cause}): free space or repair the disk, then start again; nothing was acknowledged")
