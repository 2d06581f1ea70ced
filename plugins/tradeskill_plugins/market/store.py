"""Where a book lies: a file, memory or PostgreSQL, bound to one network, with its reads and its swept, grouped writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from tradeskill.errors import ConfigError, NetworkMismatchError
from tradeskill.model import Network
from tradeskill.sqlite import PATIENCE, Connect, GroupCommit, Layout, SqliteFile, connector, memory
from tradeskill.world import World
from tradeskill_plugins.market import schema
from tradeskill_plugins.market.book import Book, Statements

__all__ = ["Committer", "Database", "Store", "open_file", "open_memory", "open_postgres", "open_sqlite"]

T = TypeVar("T")
LONG, QUICK = 0, 1  # readers


class Database(Protocol):
    """What a store asks of SQLite or PostgreSQL; `tradeskill.sqlite.SqliteFile` says what each call promises."""

    where: str

    @property
    def alone(self) -> bool: ...

    def read(self, function: Callable[[Any], T], reader: int = 0) -> T: ...

    def run(self, functions: Sequence[Callable[[Any], Any]], before: Callable[[Any], None] = ...) -> list[Any]: ...

    def version(self, reader: int = 0) -> tuple[int, int]: ...

    def listening(self, listener: Callable[[], None]) -> AbstractContextManager[None]: ...

    def close(self) -> None: ...


def open_file(path: Path, world: World, network: Network | None = None, patience: float = PATIENCE) -> Store:
    """The market in `path`, made on first use (file mode 0600, new folders 0700); any number of processes may have it open.

    `network` binds a new file and must fit an old one. `patience`: seconds to wait for other writers before UnavailableError.
    """
    where = f"market file {path}"
    return open_sqlite(connector(path, where), world, network, where, patience)


def open_memory(world: World, network: Network | None = None) -> Store:
    """A market that lives as long as its store: for tests and simulations, where several identities share it in one process."""
    return open_sqlite(memory(), world, network, "market in memory", 1.0)


def open_postgres(dsn: str, world: World, network: Network | None = None, *, name: str = "tradeskill_market", patience: float = PATIENCE) -> Store:
    """The market in the schema `name` of a PostgreSQL database, made on first use; any number of processes may have it open."""
    try:
        from tradeskill_plugins.market.postgres import POSTGRES, PostgresDatabase
    except ImportError as error:
        raise ConfigError("PostgreSQL needs the package psycopg: install tradeskill[postgres]") from error
    where = "market"
    prepare = _preparing(world, network, where)
    return Store(PostgresDatabase(dsn, _layout(), schema=name, where=where, patience=patience, prepare=prepare), POSTGRES)


def open_sqlite(connect: Connect, world: World, network: Network | None = None, where: str = "market", patience: float = PATIENCE) -> Store:
    """The market that `connect` leads to; it is called as `SqliteFile` says."""
    return Store(SqliteFile(connect, _layout(), where=where, readers=2, patience=patience, prepare=_preparing(world, network, where)))


class Store:
    """One book, readable and writable from any thread; every call runs one whole transaction and blocks until it is done."""

    def __init__(self, database: Database, dialect: schema.Dialect = schema.SQLITE) -> None:
        """`database` has two readers; it is closed with the store."""
        self._database, self._dialect = database, dialect

    @property
    def where(self) -> str:
        return self._database.where

    @property
    def alone(self) -> bool:
        """Nobody else can write here."""
        return self._database.alone

    def close(self) -> None:
        """Safe to call twice; waits for what runs."""
        self._database.close()

    def read(self, function: Callable[[Book], T], *, quick: bool = False) -> T:
        """`function` on one consistent view. `quick`: for a few rows at most, on a connection that long reads do not hold up."""
        return self._database.read(lambda connection: function(self._book(connection)), QUICK if quick else LONG)

    def run(self, functions: list[Callable[[Book], Any]], now_ms: int) -> list[Any]:
        """All `functions` in one durable commit (see `SqliteFile.run`); what expired is swept first."""
        steps = [lambda connection, function=function: function(self._book(connection)) for function in functions]
        return self._database.run(steps, lambda connection: self._sweep(connection, now_ms))

    def write(self, function: Callable[[Book], T], now_ms: int) -> T:
        """One step in one durable commit."""
        outcome = self.run([function], now_ms)[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome  # type: ignore[no-any-return]  # the list holds what the function returned

    def version(self) -> tuple[int, int]:
        """Differs from its last value once anybody committed, in this process or another. Costs no read of the file."""
        return self._database.version(QUICK)

    @contextmanager
    def listening(self, listener: Callable[[], None]) -> Iterator[None]:
        """Calls `listener` after every commit through this store, in the thread that committed."""
        with self._database.listening(listener):
            yield

    def _book(self, connection: Statements) -> Book:
        return Book(connection, self._dialect)

    def _sweep(self, connection: Statements, now_ms: int) -> None:
        self._book(connection).sweep(now_ms)


class Committer:
    """Group commit of a store's steps, each seeing the clock of its commit."""

    def __init__(self, store: Store, world: World) -> None:
        self._commits = GroupCommit(lambda functions: store.run(functions, world.now_ms()), world)

    async def write(self, function: Callable[[Book], T]) -> T:
        """The value once it is on disk. Canceled before its commit began, a step is not taken; later its outcome is unknown."""
        return await self._commits.write(function)

    async def finish(self) -> None:
        """Returns once nothing is under way."""
        await self._commits.finish()


def _layout() -> Layout:
    return Layout(schema.APPLICATION_ID, schema.MIGRATIONS)


def _preparing(world: World, network: Network | None, where: str) -> Callable[[Statements], None]:
    """What makes a new market and binds it to its network."""
    return partial(_prepare, market_id=world.random_bytes(8).hex(), network=network, where=where)


def _prepare(connection: Statements, market_id: str, network: Network | None, where: str) -> None:
    connection.execute(schema.FACT_ADD, ("market_id", market_id))
    if network is not None:
        connection.execute(schema.FACT_ADD, ("network", network))
        bound = connection.execute(schema.FACT, ("network",)).fetchone()["value"]
        if bound != network:
            raise NetworkMismatchError(f"{where} is for network {bound!r}, not {network!r}: give another path")
