"""Plugin `embedded`: a market in one SQLite file, shared by every process that opens it. No server, no network."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from tradeskill.contracts import Capability, Changes, Market, PluginContext
from tradeskill.errors import ConfigError, UnavailableError
from tradeskill.hookspecs import hookimpl
from tradeskill.manifest import API, Manifest
from tradeskill.model import Delivery, Job, Json, Lock, Offer, SignedDocument
from tradeskill.world import World

if TYPE_CHECKING:
    from tradeskill.signing import Identity
    from tradeskill_plugins.market.book import Book, JobRow, Page
    from tradeskill_plugins.market.store import Committer, Store

__all__ = ["EmbeddedMarket", "tradeskill_capabilities", "tradeskill_manifest", "tradeskill_open_market"]

T = TypeVar("T")
POLL: Final = 0.025  # seconds between two looks for other processes' commits; one look costs microseconds
SWEEP_EVERY: Final = 40  # looks


tradeskill_api = API


@hookimpl
def tradeskill_manifest() -> Manifest:
    return Manifest(files=("the market's file, `path`",))


@hookimpl
def tradeskill_capabilities() -> Sequence[Capability]:
    return (
        Capability("authoritative", True, "the file holds the one state of every job"),
        Capability("lock", True, "a job is locked for its seller for 5 minutes at a time"),
        Capability("market_fence", True, "each new lock takes a greater fence, and deliver checks it"),
        Capability("inline_result", 4 * 2**20, "bytes of a result kept in the file"),
        Capability("proof_bytes", 16_384, "bytes of a payment token that travel with the claim"),
        Capability("withdraw", True, "a seller can take an offer down"),
        Capability("decline", True, "a seller can say no with a reason"),
    )


@hookimpl
def tradeskill_open_market(settings: Mapping[str, Json], context: PluginContext) -> Market:
    """`path`: the market's file. From a configuration file it comes absolute; a relative one starts at the working directory, `~` at home."""
    unknown = sorted(set(settings) - {"path"})
    if unknown:
        raise ConfigError(f"market.{unknown[0]}: the embedded market has no such setting; it has: path")
    path = settings.get("path")
    if not isinstance(path, str) or not path or "\0" in path:
        raise ConfigError(f"market.path is {path!r}: give the market's file, e.g. path: ~/market.db")
    file = Path(path).expanduser().absolute()

    def open_store() -> Store:
        from tradeskill_plugins.market.store import open_file

        return open_file(file, context.world, context.network)

    return EmbeddedMarket(open_store, context.identity, context.world)


class EmbeddedMarket:
    """`Market` for one identity. Writes of concurrent tasks share commits; each is durable before its call returns."""

    def __init__(self, store: Store | Callable[[], Store], identity: Identity, world: World) -> None:
        """A store is shared and stays open at `close`; a function that opens one is called by `open`, and its store is closed."""
        self._source, self._caller, self._world = store, identity.key, world
        self._store: Store | None = None
        self._committer: Committer | None = None
        self._hints: set[asyncio.Event] = set()  # of the events() that run

    async def open(self) -> None:
        from tradeskill_plugins.market.store import Committer

        source = self._source
        self._store = await self._world.offload(source) if callable(source) else source
        self._committer = Committer(self._store, self._world)

    async def close(self) -> None:
        store, committer, self._store, self._committer = self._store, self._committer, None, None
        for woken in self._hints:
            woken.set()
        if committer is not None:
            await committer.finish()
        if store is not None and callable(self._source):
            await self._world.offload(store.close)

    # offers

    async def publish(self, document: SignedDocument) -> Offer:
        from tradeskill_plugins.market.signed import offer_entry, offer_of

        entry = offer_entry(document, self._caller)
        return offer_of(await self._write(lambda book, now: book.publish(entry, now)))

    async def withdraw(self, offer_id: str) -> None:
        await self._write(lambda book, now: book.withdraw(self._caller, offer_id, now))

    async def offer(self, offer_id: str) -> Offer:
        from tradeskill_plugins.market.signed import offer_of

        return offer_of(self._opened().read(lambda book: book.offer(offer_id), quick=True))

    async def search(self, query: str = "", tags: Sequence[str] = (), seller: str = "", limit: int = 20, offset: int = 0) -> list[Offer]:
        from tradeskill_plugins.market.book import Search
        from tradeskill_plugins.market.signed import offer_of

        asked = Search(query, tuple(tags), seller)
        return [offer_of(row) for row in await self._read(lambda book: book.search(asked, limit, offset))]

    # jobs

    async def request(self, document: SignedDocument) -> Job:
        from tradeskill_plugins.market.signed import request_entry

        entry = request_entry(document, self._caller)
        job_id = str(uuid.UUID(bytes=self._world.random_bytes(16), version=4))
        return await self._step(lambda book, now: book.request(entry, job_id, now))

    async def quote(self, job_id: str, document: SignedDocument) -> Job:
        from tradeskill_plugins.market.signed import quote_entry

        entry = quote_entry(document, self._caller, job_id)
        return await self._step(lambda book, now: book.quote(entry, now))

    async def decline(self, job_id: str, code: str, message: str) -> Job:
        from tradeskill_plugins.market.entries import error_entry

        error = error_entry(code, message)
        return await self._step(lambda book, now: book.decline(self._caller, job_id, error, now))

    async def accept(self, job_id: str) -> Job:
        return await self._step(lambda book, now: book.accept(self._caller, job_id, now))

    async def submit_payment(self, job_id: str, rail: str, payment_id: str, token: str = "") -> Job:
        from tradeskill_plugins.market.entries import claim_entry

        claim = claim_entry(rail, payment_id, token)
        return await self._step(lambda book, now: book.submit_payment(self._caller, job_id, claim, now))

    async def lock(self, job_id: str) -> Lock:
        row = await self._write(lambda book, now: {"now": now, **book.lock(self._caller, job_id, now)})
        return Lock(job_id, row["lock_expires_at"], (row["lock_expires_at"] - row["now"]) / 1000, row["market_fence"])

    async def deliver(self, job_id: str, delivery: Delivery, market_fence: int | None) -> Job:
        from tradeskill_plugins.market.signed import delivery_entry

        entry = delivery_entry(delivery, self._caller, job_id)
        return await self._step(lambda book, now: book.deliver(self._caller, job_id, entry, market_fence, now))

    async def cancel(self, job_id: str, reason: str = "") -> Job:
        return await self._step(lambda book, now: book.cancel(self._caller, job_id, reason, now))

    async def get(self, job_id: str) -> Job:
        await self._sweep()
        return _job(*self._opened().read(lambda book: _read_job(book, book.get(self._caller, job_id)), quick=True))

    async def find_request(self, nonce: str) -> Job | None:
        await self._sweep()

        def find(book: Book) -> tuple[JobRow, bytes | None] | None:
            row = book.find_request(self._caller, nonce)
            return None if row is None else _read_job(book, row)

        found = self._opened().read(find, quick=True)
        return None if found is None else _job(*found)

    async def changes(self, cursor: str, limit: int = 100) -> Changes:
        await self._sweep()

        def look(book: Book) -> tuple[Page, list[tuple[JobRow, bytes | None]]]:
            page = book.changes(self._caller, cursor, limit)
            return page, [_read_job(book, row) for row in page.rows]

        page, rows = await self._read(look)
        return Changes(tuple(_job(*row) for row in rows), page.cursor, page.more)

    async def events(self) -> AsyncIterator[str]:
        """Ids of jobs changed since the first `anext`, by anybody. Canceled while it waits, it loses nothing that `changes` would not show.

        On a file it looks for commits at short intervals, in memory it is woken by them. It ends when the market is closed.
        """
        store = self._opened()
        seen = store.read(lambda book: book.position(), quick=True)
        version, looks = store.version(), 0
        loop, woken, home = asyncio.get_running_loop(), asyncio.Event(), threading.get_ident()
        with store.listening(lambda: woken.set() if threading.get_ident() == home else _wake(loop, woken)), _kept(woken, self._hints):
            while self._store is store:
                woken.clear()
                looks += 1
                if looks % SWEEP_EVERY == 0:
                    await self._sweep()
                current = store.version()
                if current != version:
                    version = current
                    while found := store.read(lambda book, since=seen: book.changed(self._caller, since), quick=True):  # type: ignore[misc]  # as in store.py
                        for job_id, change in found:
                            seen = change
                            yield job_id
                if store.alone:
                    await woken.wait()
                else:
                    await self._world.sleep(POLL)

    # inside

    def _opened(self) -> Store:
        if self._store is None:
            raise UnavailableError("the embedded market is not open: call open() first")
        return self._store

    async def _read(self, function: Callable[[Book], T]) -> T:
        store = self._opened()
        return await self._world.offload(lambda: store.read(function))

    async def _write(self, function: Callable[[Book, int], T]) -> T:
        self._opened()
        assert self._committer is not None
        # the time is read inside the transaction: waiting for other writers may have taken seconds
        return await self._committer.write(lambda book: function(book, self._world.now_ms()))

    async def _step(self, function: Callable[[Book, int], JobRow]) -> Job:
        return _job(*await self._write(lambda book, now: _read_job(book, function(book, now))))

    async def _sweep(self) -> None:
        """Expire what is due before anything is shown; with nothing due, one look into an index."""
        now = self._world.now_ms()
        while self._opened().read(lambda book: book.due(now), quick=True):
            # by the same `now`: a clock set back meanwhile must not make this wait for it
            await self._write(lambda book, _: book.sweep(now))


def _read_job(book: Book, row: JobRow) -> tuple[JobRow, bytes | None]:
    return row, book.result(row["job_id"]) if row["result_sha256"] is not None else None


def _job(row: JobRow, data: bytes | None) -> Job:
    from tradeskill_plugins.market.signed import job_of

    return job_of(row, data)


@contextmanager
def _kept(event: asyncio.Event, events: set[asyncio.Event]) -> Iterator[None]:
    events.add(event)
    try:
        yield
    finally:
        events.discard(event)


def _wake(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    with suppress(RuntimeError):  # the listener's loop has ended meanwhile
        loop.call_soon_threadsafe(event.set)
