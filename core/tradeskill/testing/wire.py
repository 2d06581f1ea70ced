"""A socket between a plugin and whatever it talks to, that fails on request: for the `fault` of a bench whose ledger is behind TCP or HTTP."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from tradeskill.testing.wallet_bench import LEDGER_FAULTS, LedgerFault

__all__ = ["FaultyWire"]

NONSENSE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 23\r\nConnection: close\r\n\r\n{\"balance\": [1e999,}\xff\n\x00"


class FaultyWire:
    """Forwards connections to `host:port` from a port of its own on loopback. `fail(kind)` holds for connections old and new, until `fail("")`.

    unreachable: connections are cut at once · answer-lost: what is sent arrives, what comes back does not, and then it is cut · hang: nothing
    arrives and nothing is answered · garbage: everything is answered with what is nearly JSON over HTTP.
    """

    def __init__(self, host: str, port: int) -> None:
        self._upstream = (host, port)
        self._kind: LedgerFault = ""
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Cuts everything; safe to call twice."""
        if self._server is not None:
            self._server.close()
        for writer in list(self._open):
            writer.transport.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def fail(self, kind: LedgerFault) -> None:
        """KeyError for a fault that there is none of. Connections that stand are cut, so that the next request meets it."""
        if kind:
            LEDGER_FAULTS[kind]
        self._kind = kind
        for writer in list(self._open):
            writer.transport.abort()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._open.add(writer)
        try:
            with suppress(OSError):
                await self._serve(reader, writer)
        except asyncio.CancelledError:
            pass  # stopped; the streams' own callback would complain of it
        finally:
            self._tasks.discard(task)
            self._open.discard(writer)
            if self._kind == "answer-lost":
                writer.transport.abort()
            else:
                writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kind = self._kind
        if kind == "unreachable":
            writer.transport.abort()
        elif kind == "hang":
            while await reader.read(65_536):
                pass
        elif kind == "garbage":
            await reader.read(65_536)
            writer.write(NONSENSE)
            await writer.drain()
        else:
            await self._forward(reader, writer, lost=kind == "answer-lost")

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, lost: bool) -> None:
        back, forth = await asyncio.open_connection(*self._upstream)
        self._open.add(forth)
        try:
            sending = asyncio.ensure_future(_pump(reader, forth))
            try:
                if lost:
                    await back.read(1)  # it has been carried out
                else:
                    await _pump(back, writer)
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
        finally:
            self._open.discard(forth)
            forth.close()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(65_536):
            sink.write(data)
            await sink.drain()
        sink.write_eof()
