"""A door over a tiny application on a free port, and a client that chooses every byte: what the tests of the door share."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import uvloop
from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, Scope

from tradeskill.world import World
from tradeskill_plugins.relay.server.door import DoorSettings, serve

PATIENCE = 20.0
LARGE = 24 * 1024 * 1024  # more than all buffers on the way
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def run(loop: str, main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(asyncio.wait_for(main, 60))


class Tiny:
    """The application. It keeps what reached it."""

    def __init__(self) -> None:
        self.scopes: list[dict[str, Any]] = []
        self.bodies: list[bytes] = []
        self.release = asyncio.Event()
        self.waiting = 0
        self.streams = 0
        self.ended: list[str] = []

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        assert scope["type"] == "http"
        message = await receive()
        assert message["type"] == "http.request"
        assert not message["more_body"]
        self.scopes.append(dict(scope))
        self.bodies.append(message["body"])
        path = scope["path"]
        if path == "/stream":
            await self._stream(receive, send)
            return
        if path == "/wait":
            self.waiting += 1
            await self.release.wait()
        if path == "/fail":
            raise ValueError("a secret of the inside")
        if path == "/mute":
            return
        answer = b"x" * LARGE if path == "/large" else json.dumps({"path": path, "size": len(message["body"])}).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(answer))]})
        if path == "/half":
            raise ValueError("a secret of the inside")
        await send({"type": "http.response.body", "body": answer, "more_body": False})

    async def _stream(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        self.streams += 1
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": b": hello\n\n", "more_body": True})
        self.ended.append((await receive())["type"])
        await send({"type": "http.response.body", "body": b": bye\n\n", "more_body": False})


@dataclass
class Seen:
    """What the door tells its observer."""

    refusals: list[str] = field(default_factory=list)
    open: int = 0

    def connections(self, count: int) -> None:
        self.open = count

    def refused(self, kind: str) -> None:
        self.refusals.append(kind)


@dataclass
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def get(self, name: str) -> str | None:
        values = [value for key, value in self.headers if key == name]
        assert len(values) < 2, self.headers
        return values[0] if values else None

    @property
    def error(self) -> dict[str, Any]:
        """The error's members; the answer is one of the door's refusals in every respect."""
        assert (self.get("x-tradeskill"), self.get("connection"), self.get("content-type")) == ("1", "close", "application/json"), self
        assert self.get("date") is not None
        told: dict[str, Any] = json.loads(self.body)
        assert list(told) == ["error"]
        assert list(told["error"]) == ["code", "message", "details"]
        error: dict[str, Any] = told["error"]
        return error


class Caller:
    """One connection of a client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> Answer:
        """The next answer, whole. IncompleteReadError where the connection ends before."""
        async with asyncio.timeout(PATIENCE):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = [(name.lower(), value) for name, _, value in (line.partition(": ") for line in head[1:] if line)]
            answer = Answer(int(head[0].split(" ")[1]), headers, b"")
            if answer.status == 100:
                return answer
            if length := answer.get("content-length"):
                answer.body = await self.reader.readexactly(int(length))
            else:
                while chunk := await self.chunk():
                    answer.body += chunk
            return answer

    async def chunk(self) -> bytes:
        async with asyncio.timeout(PATIENCE):
            size = int(await self.reader.readline(), 16)
            return (await self.reader.readexactly(size + 2))[:-2]

    async def get(self, target: str = "/x", headers: str = "") -> Answer:
        await self.send(f"GET {target} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
        return await self.answer()

    async def ended(self) -> bytes:
        """What was still to be read until the server ended the connection, in whichever way."""
        rest = b""
        async with asyncio.timeout(PATIENCE):
            try:
                while data := await self.reader.read(1 << 20):
                    rest += data
            except ConnectionError:
                pass
        return rest

    async def close(self) -> None:
        self.writer.transport.abort()
        with suppress(ConnectionError):
            await self.writer.wait_closed()


@dataclass
class Stage:
    app: Tiny
    seen: Seen
    url: str
    stop: asyncio.Event
    task: asyncio.Task[None]
    callers: list[Caller] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    async def call(self, *, receive_buffer: int | None = None) -> Caller:
        client = socket.socket()
        if receive_buffer is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", self.port))
        except OSError:
            client.close()
            raise
        self.callers.append(Caller(*await asyncio.open_connection(sock=client, limit=1 << 16)))
        return self.callers[-1]


def post(body: bytes, target: str = "/x", headers: str = "") -> bytes:
    return f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


@asynccontextmanager
async def open_door(**limits: Any) -> AsyncIterator[Stage]:
    """Limits as of `DoorSettings`; seconds are looked at every 20 ms."""
    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    app, seen, stop = Tiny(), Seen(), asyncio.Event()
    settings = DoorSettings(**{"port": 0, "tick": 0.02, "drain_seconds": 5.0, **limits})
    task = asyncio.create_task(serve(app, settings, World(), ready=listening.set_result, stop=stop, observer=seen))
    await asyncio.wait({task, listening}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        await task
    stage = Stage(app, seen, await listening, stop, task)
    try:
        yield stage
    finally:
        stop.set()
        app.release.set()
        await asyncio.gather(*(caller.close() for caller in stage.callers))
        await stage.task
    assert seen.open == 0, "every connection is counted out again"


async def until(condition: Callable[[], object]) -> None:
    """Polls, up to a deadline."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what is waited for happens inside the server, which tells nobody
            await asyncio.sleep(0.005)
