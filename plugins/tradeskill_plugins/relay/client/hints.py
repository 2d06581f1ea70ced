"""Hints that jobs may have changed: server-sent events where a relay has them, else looking now and then. They may be late, doubled or lost.

One task a listener reads on, however slow its consumer is; waiting hints are kept once a job. A lost stream is opened again, after a pause with
jitter, where it stopped (Last-Event-ID).
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from typing import Final

from tradeskill.errors import TradeskillError, UnavailableError
from tradeskill.world import World
from tradeskill_plugins.relay.client.transport import Transport

__all__ = ["EventLines", "HintStreams"]

log = logging.getLogger("tradeskill.relay")
LINE_MAX: Final = 65_536  # bytes of a line, and of an event
FIRST_PAUSE, LAST_PAUSE = 0.2, 30.0


class EventLines:
    """The event stream's format, byte by byte: `feed` answers the events that are whole. ValueError on a line without end."""

    def __init__(self) -> None:
        self.last_id = ""
        self._rest = b""
        self._data: list[str] = []
        self._id: str | None = None

    def feed(self, data: bytes) -> Iterator[str]:
        """The `data` of each event that ended. `last_id` is then its id."""
        whole, self._rest = self._rest + data, b""
        lines = whole.replace(b"\r\n", b"\n").split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > LINE_MAX:
            raise ValueError("a line of the event stream has no end")
        for line in lines:
            text = line.rstrip(b"\r").decode("utf-8", "replace")
            if not text:
                yield from self._end()
                continue
            name, _, value = text.partition(":")
            value = value.removeprefix(" ")
            if name == "data":
                self._data.append(value)
                if sum(map(len, self._data)) > LINE_MAX:
                    raise ValueError("an event of the stream has no end")
            elif name == "id" and "\0" not in value and len(value) <= 256:
                self._id = value

    def _end(self) -> Iterator[str]:
        found, self._data = "\n".join(self._data), []
        if self._id is not None:
            self.last_id, self._id = self._id, None
        if found:
            yield found


class _Waiting:
    """Hints not taken yet, each job once."""

    def __init__(self) -> None:
        self._jobs: dict[str, None] = {}
        self._ended = False
        self._woken = asyncio.Event()

    def put(self, job_id: str) -> None:
        self._jobs[job_id] = None
        self._woken.set()

    def end(self) -> None:
        self._ended = True
        self._woken.set()

    async def take(self) -> str | None:
        while not self._jobs:
            if self._ended:
                return None
            self._woken.clear()
            await self._woken.wait()
        job_id = next(iter(self._jobs))
        del self._jobs[job_id]
        return job_id


class HintStreams:
    """All listeners of one market. They end when it is closed."""

    def __init__(self, transport: Transport, world: World) -> None:
        self._transport, self._world = transport, world
        self._listeners: dict[_Waiting, asyncio.Task[None]] = {}

    async def close(self) -> None:
        listeners = dict(self._listeners)
        for waiting, task in listeners.items():
            waiting.end()
            task.cancel()
        await asyncio.gather(*listeners.values(), return_exceptions=True)

    def follow(self, target: str) -> AsyncGenerator[str, None]:
        """Job ids out of the event stream at `target`."""
        return self._listen(lambda waiting: self._read_on(target, waiting))

    def poll(self, look: Callable[[], Awaitable[list[str]]], seconds: float) -> AsyncGenerator[str, None]:
        """Job ids that `look` found, asked about every so many seconds."""
        return self._listen(lambda waiting: self._look_again(look, seconds, waiting))

    async def _listen(self, start: Callable[[_Waiting], Awaitable[None]]) -> AsyncGenerator[str, None]:
        waiting = _Waiting()
        task = asyncio.ensure_future(start(waiting))
        self._listeners[waiting] = task
        task.add_done_callback(lambda _: waiting.end())
        try:
            while (job_id := await waiting.take()) is not None:
                yield job_id
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise error
        finally:
            del self._listeners[waiting]
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _read_on(self, target: str, waiting: _Waiting) -> None:
        pause, lines = FIRST_PAUSE, EventLines()
        while True:
            began = self._world.monotonic()
            try:
                await self._read_stream(target, lines, waiting)
            except (UnavailableError, ValueError) as error:
                log.info("hints: %s", error)
            lines, last_id = EventLines(), lines.last_id
            lines.last_id = last_id
            if self._world.monotonic() - began > LAST_PAUSE:
                pause = FIRST_PAUSE
            await self._world.sleep(pause / 2 + pause / 2 * self._world.random_bytes(1)[0] / 255)
            pause = min(2 * pause, LAST_PAUSE)

    async def _read_stream(self, target: str, lines: EventLines, waiting: _Waiting) -> None:
        headers = {"last-event-id": lines.last_id} if lines.last_id.isascii() and lines.last_id.isprintable() and lines.last_id else {}
        async with self._transport.stream(target, headers) as chunks:
            async for chunk in chunks:
                for data in lines.feed(chunk):
                    job_id = _job_id(data)
                    if job_id is not None:
                        waiting.put(job_id)

    async def _look_again(self, look: Callable[[], Awaitable[list[str]]], seconds: float, waiting: _Waiting) -> None:
        while True:
            try:
                for job_id in await look():
                    waiting.put(job_id)
            except UnavailableError as error:
                log.info("hints: %s", error)
            except TradeskillError as error:
                log.warning("hints: %s", error)
            await self._world.sleep(seconds)


def _job_id(data: str) -> str | None:
    try:
        value = json.loads(data)
    except ValueError:
        return None
    job_id = value.get("job_id") if isinstance(value, dict) else None
    return job_id if isinstance(job_id, str) and 0 < len(job_id) <= 64 else None
