"""Where a book lies: the market's file or memory, bound to one network, with its reads and its swept, grouped writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from tradeskill.errors import NetworkMismatchError
from tradeskill.model import Network
from tradeskill.sqlite import PATIENCE, Connect, GroupCommit, Layout, SqliteFile, Transaction, connector, memory
from tradeskill.world import World
from tradeskill_plugins.market import schema
from tradeskill_plugins.market.book import Book

__all__ = ["Committer", "Store", "open_file", "open_memory"]

T = TypeVar("T")
LONG, QUICK = 0, 1  # readers


def open_file(path: Path, world: World, network: Network | None = None, patience: float = PATIENCE) -> Store:
    """The market in `path`, made on first use (file mode 0600, new folders 0700); any number of processes may have it open.

    `network` binds a new file and must fit an old one. `patience`: seconds to wait for other writers before UnavailableError.
    """
    where = f"market file {path}"
    return Store(connector(path, where), world, network, where, patience)


def open_memory(world: World, network: Network | None = None) -> Store:
    """A market that lives as long as its store: for tests and simulations, where several identities share it in one process."""
    return Store(memory(), world, network, "market in memory", 1.0)


class Store:
    """One book, readable and writable from any thread; every call runs one whole transaction and blocks until it is done."""

    def __init__(self, connect: Connect, world: World, network: Network | None = None, where: str = "market", patience: float = PATIENCE) -> None:
        layout = Layout(schema.APPLICATION_ID, schema.MIGRATIONS)
        prepare = partial(_prepare, market_id=world.random_bytes(8).hex(), network=network, where=where)
        self._file = SqliteFile(connect, layout, where=where, readers=2, patience=patience, prepare=prepare)

    @property
    def where(self) -> str:
        return self._file.where

    @property
    def alone(self) -> bool:
        """Nobody else can write here."""
        return self._file.alone

    def close(self) -> None:
        """Safe to call twice; waits for what runs."""
        self._file.close()

    def read(self, function: Callable[[Book], T], *, quick: bool = False) -> T:
        """`function` on one consistent view. `quick`: for a few rows at most, on a connection that long reads do not hold up."""
        return self._file.read(lambda connection: function(Book(connection)), QUICK if quick else LONG)

    def run(self, functions: list[Callable[[Book], Any]], now_ms: int) -> list[Any]:
        """All `functions` in one durable commit (see `SqliteFile.run`); what expired is swept first."""
        steps = [partial(_on_book, function) for function in functions]
        return self._file.run(steps, partial(_sweep, now_ms))

    def write(self, function: Callable[[Book], T], now_ms: int) -> T:
        """One step in one durable commit."""
        outcome = self.run([function], now_ms)[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome  # type: ignore[no-any-return]  # the list holds what the function returned

    def version(self) -> tuple[int, int]:
        """Differs from its last value once anybody committed, in this process or another. Costs no read of the file."""
        return self._file.version(QUICK)

    @contextmanager
    def listening(self, listener: Callable[[], None]) -> Iterator[None]:
        """Calls `listener` after every commit through this store, in the thread that committed."""
        with self._file.listening(listener):
            yield


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


def _on_book(function: Callable[[Book], T], connection: Transaction) -> T:
    return function(Book(connection))


def _sweep(now_ms: int, connection: Transaction) -> None:
    Book(connection).sweep(now_ms)


def _prepare(connection: Transaction, market_id: str, network: Network | None, where: str) -> None:
    connection.execute(schema.FACT_ADD, ("market_id", market_id))
    if network is not None:
        connection.execute(schema.FACT_ADD, ("network", network))
        bound = connection.execute(schema.FACT, ("network",)).fetchone()[0]
        if bound != network:
            raise NetworkMismatchError(f"{where} is for network {bound!r}, not {network!r}: give another path")
