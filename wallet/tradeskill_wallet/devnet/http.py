"""The JSON-RPC server: one POST a connection, the node's headers, bounded in size and time. h11 does the protocol."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

import h11

from tradeskill.errors import StorageError
from tradeskill_wallet.devnet.rpc import Rpc, error_text

__all__ = ["MAX_BODY", "HttpServer"]

MAX_BODY: Final = 4 * 1024 * 1024
_MAX_SECONDS: Final = 30.0  # for a request to arrive whole
_HEADERS: Final = (
    (b"Allow", b"POST, OPTIONS"),
    (b"Content-Type", b"application/json"),
    (b"Access-Control-Allow-Origin", b"*"),
    (b"Access-Control-Allow-Methods", b"POST, OPTIONS"),
    (b"Access-Control-Allow-Headers", b"Accept, Accept-Language, Content-Language, Content-Type"),
    (b"Connection", b"close"),
)


class HttpServer:
    """Serves one Rpc. `failed` is called once, with the error, when an answer could not be made durable: nothing is acknowledged then."""

    def __init__(self, rpc: Rpc, failed: Callable[[StorageError], None]) -> None:
        self.rpc = rpc
        self.failed = failed
        self.connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port. Raises OSError if it is taken."""
        self._server = await asyncio.get_running_loop().create_server(lambda: _Connection(self), host, port, backlog=1024)
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def stop(self) -> None:
        """Stop listening and drop what is open. Twice is safe."""
        if self._server:
            self._server.close()
            for connection in list(self.connections):
                connection.abort()
            await self._server.wait_closed()
            self._server = None


class _Connection(asyncio.Protocol):
    """One request and its answer."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._h11 = h11.Connection(h11.SERVER)
        self._body = bytearray()
        self._method: bytes | None = None
        self._task: asyncio.Task[None] | None = None
        self._answered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._timer = asyncio.get_running_loop().call_later(_MAX_SECONDS, self.abort)
        self._server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self._server.connections.discard(self)
        if self._task:
            self._task.cancel()  # only a search for work can still be running

    def abort(self) -> None:
        self._transport.abort()

    def eof_received(self) -> bool:
        return self._task is not None  # a client that closed its side may still read the answer

    def data_received(self, data: bytes) -> None:
        if self._answered or self._task:
            return None
        try:
            self._h11.receive_data(data)
            while (event := self._h11.next_event()) is not h11.NEED_DATA:
                if isinstance(event, h11.Request):
                    self._method = bytes(event.method)
                    if (b"expect", b"100-continue") in event.headers:
                        self._write(self._h11.send(h11.InformationalResponse(status_code=100, headers=[])))
                elif isinstance(event, h11.Data):
                    self._body += event.data
                    if len(self._body) > MAX_BODY:
                        return self._reply(413, error_text(f"Request is larger than {MAX_BODY} bytes"))
                elif isinstance(event, h11.EndOfMessage):
                    return self._complete()
                else:
                    return self.abort()
        except h11.RemoteProtocolError as error:
            self._reply(error.error_status_hint, error_text("Invalid HTTP request"))
        return None

    def _complete(self) -> None:
        self._timer.cancel()
        if self._method == b"OPTIONS":
            self._reply(200, "")
        elif self._method == b"POST":
            self._task = asyncio.get_running_loop().create_task(self._answer())
        else:
            self._reply(200, error_text("Can only POST requests"))

    async def _answer(self) -> None:
        try:
            text = await self._server.rpc.answer(bytes(self._body))
        except StorageError as error:
            self._server.failed(error)
            self.abort()
        else:
            self._reply(200, text)

    def _reply(self, status: int, text: str) -> None:
        if self._answered or self._transport.is_closing():
            return
        self._answered = True
        body = text.encode(errors="replace")
        headers = [*_HEADERS, (b"Content-Length", str(len(body)).encode())]
        with contextlib.suppress(h11.LocalProtocolError):  # a request so broken that h11 will not speak any more: just close
            out = self._h11.send(h11.Response(status_code=status, reason=b"OK" if status == 200 else b"Error", headers=headers)) or b""
            if self._method != b"HEAD":
                out += self._h11.send(h11.Data(data=body)) or b""
            self._transport.write(out + (self._h11.send(h11.EndOfMessage()) or b""))
        self._transport.close()

    def _write(self, data: bytes | None) -> None:
        if data:
            self._transport.write(data)
