"""`GET /v1/events`: each change of one's own jobs, as server-sent events. Hints: what they say is read again from the book."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from tradeskill.errors import TradeskillError
from tradeskill.world import World
from tradeskill_plugins.market.book import Book
from tradeskill_plugins.relay.server import tables
from tradeskill_plugins.relay.server.desk import Desk

__all__ = ["Hub"]

log = logging.getLogger("tradeskill.relay")

HEARTBEAT: Final = 15.0  # seconds; shorter than the idle time-outs of common proxies
PAGE: Final = 500
BEHIND: Final = 2_000  # jobs waiting for one slow reader; past that its stream ends, and it resumes by its last id

Change = tuple[str, str, int, int]  # job id, status, revision, change number


class Hub:
    """Looks once after each commit and tells every stream whose job it was."""

    def __init__(self, desk: Desk, world: World) -> None:
        self._desk, self._world = desk, world
        self._streams: dict[str, set[_Stream]] = {}
        self._position = 0
        self._woken = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._home = threading.get_ident()
        self._starting = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def wake(self) -> None:
        """Something was committed. From any thread."""
        if not self._streams:
            return
        if threading.get_ident() == self._home:
            self._woken.set()
        else:
            with suppress(RuntimeError):  # the loop has ended meanwhile
                self._loop.call_soon_threadsafe(self._woken.set)

    def close(self) -> None:
        """Ends every stream."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
        for streams in self._streams.values():
            for stream in streams:
                stream.end()

    async def send(
        self,
        caller: str,
        market_id: str,
        last_id: str,
        send: Callable[[str, bool], Awaitable[None]],
        receive: Callable[[], Awaitable[Mapping[str, Any]]],
    ) -> None:
        """Send a stream from the cursor `last_id` on ("": from now), until its reader goes or the hub closes.

        `send(text, more)` waits for a slow reader; `receive` says when the reader has gone.
        """
        stream = _Stream()
        self._streams.setdefault(caller, set()).add(stream)  # before the position is read: what is committed after that wakes it
        if self._closed:
            stream.end()
        gone = asyncio.create_task(_gone(receive, stream))
        try:
            async with self._starting:
                if sum(map(len, self._streams.values())) == 1:  # nobody was told of what happened before
                    self._position = await self._desk.read(lambda book: book.position(), quick=True)
                if self._task is None:
                    self._task = asyncio.create_task(self._watch())
            await send(": connected\n\n", True)
            cursor = last_id
            while cursor and not stream.ended:
                page = await self._desk.read(lambda book, cursor=cursor: book.changes(caller, cursor, PAGE))  # type: ignore[misc]  # mypy cannot infer it
                for row in page.rows:
                    await send(_event(market_id, (row["job_id"], row["state"], row["revision"], row["change"])), True)
                cursor = page.cursor if page.more else ""
            async for text in stream.texts(market_id):
                await send(text, True)
            await send("", False)
        finally:
            gone.cancel()
            self._streams[caller].discard(stream)
            if not self._streams[caller]:
                del self._streams[caller]

    def check(self, book: Book, caller: str, last_id: str) -> None:
        """UsageError unless `last_id` is a cursor of this market or empty."""
        if last_id:
            book.changes(caller, last_id, 1)

    async def _watch(self) -> None:
        """One query a commit while anybody listens, however many they are."""
        while not self._closed:
            await self._woken.wait()
            self._woken.clear()
            try:
                await self._look()
            except TradeskillError as error:
                log.warning("streams not told; looking again in a second", extra={"reason": error.code})
                await self._world.sleep(1.0)
                self._woken.set()

    async def _look(self) -> None:
        while found := await self._desk.read(lambda book: book.rows(tables.CHANGED_SINCE, (self._position, PAGE)), quick=True):
            for row in found:
                self._position = row["change"]
                self._tell(row)

    def _tell(self, row: Any) -> None:
        change = (row["job_id"], row["state"], row["revision"], row["change"])
        for key in {row["seller"], row["buyer"]}:
            for stream in self._streams.get(key, ()):
                stream.add(change)


class _Stream:
    """What one reader has still to be told: the latest change of each job, in order."""

    def __init__(self) -> None:
        self._waiting: dict[str, Change] = {}
        self._ready = asyncio.Event()
        self.ended = False

    def add(self, change: Change) -> None:
        self._waiting.pop(change[0], None)
        self._waiting[change[0]] = change
        if len(self._waiting) > BEHIND:
            self.ended = True
        self._ready.set()

    def end(self) -> None:
        self.ended = True
        self._ready.set()

    async def texts(self, market_id: str) -> AsyncIterator[str]:
        while not self.ended:
            try:
                async with asyncio.timeout(HEARTBEAT):
                    await self._ready.wait()
            except TimeoutError:
                yield ": still here\n\n"
                continue
            self._ready.clear()
            waiting, self._waiting = self._waiting, {}
            if waiting:
                yield "".join(_event(market_id, change) for change in waiting.values())


async def _gone(receive: Callable[[], Awaitable[Mapping[str, Any]]], stream: _Stream) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    stream.end()


def _event(market_id: str, change: Change) -> str:
    job_id, status, revision, number = change
    return f'id: {market_id}-{number}\nevent: job\ndata: {{"job_id":"{job_id}","status":"{status}","revision":{revision}}}\n\n'
