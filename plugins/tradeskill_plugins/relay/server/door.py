"""Guarding the door: listens, lets requests in one whole request at a time, and closes in good order.

What is refused and when is in `connection.py`, the limits and who is connected in `admission.py`.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import cast

import uvicorn
from uvicorn._types import ASGI3Application

from tradeskill.errors import UsageError
from tradeskill.world import World
from tradeskill_plugins.relay.server.admission import Crowd, DoorObserver, DoorSettings, Streams
from tradeskill_plugins.relay.server.connection import Connection
from tradeskill_plugins.relay.server.peers import limit_key

__all__ = ["DoorObserver", "DoorSettings", "Streams", "limit_key", "serve"]


async def serve(
    app: ASGI3Application,
    settings: DoorSettings,
    world: World,
    *,
    ready: Callable[[str], None],
    stop: asyncio.Event,
    observer: DoorObserver | None = None,
) -> None:
    """Serve until `stop` is set, then close in good order. Returns with nothing left running, also when cancelled.

    `ready` is called once, with a URL that reaches this server, when connections are accepted. UsageError where host and port cannot be had.
    Closing: no new connection, idle ones end, requests in flight have `drain_seconds`; a stream's `receive()` says `http.disconnect` at once.
    The application finds in its scope `tradeskill.target` (bytes: the request target as it stood on the wire) and `tradeskill.ip` (str).
    """
    crowd = Crowd(settings, world.monotonic, observer)
    sockets = await _listen(settings)
    config = uvicorn.Config(
        app,
        http=cast("type[asyncio.Protocol]", functools.partial(Connection, crowd)),
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=True,
    )
    server = _Server(config, crowd, world, ready, stop)
    try:
        await server.serve(sockets)
    finally:
        await server.end()
        for listener in sockets:
            listener.close()


class _Server(uvicorn.Server):
    """uvicorn's server with our way of ticking and closing, and no signal handlers."""

    def __init__(self, config: uvicorn.Config, crowd: Crowd, world: World, ready: Callable[[str], None], stop: asyncio.Event) -> None:
        super().__init__(config)
        self._crowd, self._world, self._ready, self._stop = crowd, world, ready, stop
        self.servers: list[asyncio.base_events.Server] = []

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the caller's."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        assert sockets
        self._ready(_url(sockets[0]))

    async def main_loop(self) -> None:
        while not self._stop.is_set():
            await self.on_tick(0)  # renews the `Date` of all answers
            self._sweep()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), self._crowd.settings.tick)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, and wait until every connection has had its last answer, but not longer than `drain_seconds`."""
        self._crowd.closing = True
        for server in self.servers:
            server.close()
        for connection in self._connections():
            connection.shutdown()
        deadline = self._world.monotonic() + self._crowd.settings.drain_seconds
        while self._connections() and self._world.monotonic() < deadline:
            self._sweep()
            await self._world.sleep(0.02)

    async def end(self) -> None:
        """Whatever is still there ends now. Calling it again is nothing."""
        for server in self.servers:
            server.close()
        tasks = list(self.server_state.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for connection in self._connections():
            connection.transport.abort()
        for _ in range(1000):  # each is gone within the next turns of the loop
            if not self._connections():
                break
            await asyncio.sleep(0)

    def _connections(self) -> list[Connection]:
        return [connection for connection in self.server_state.connections if isinstance(connection, Connection)]

    def _sweep(self) -> None:
        now = self._world.monotonic()
        for connection in self._connections():
            connection.sweep(now)


async def _listen(settings: DoorSettings) -> list[socket.socket]:
    """Bound sockets for all addresses of the host, one where any port will do."""
    where = f"{settings.host}:{settings.port}"
    if not 0 <= settings.port <= 65_535:
        raise UsageError(f"cannot listen on {where}: a port is between 1 and 65535, or 0 for any free one")
    try:
        found = await asyncio.get_running_loop().getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise UsageError(f"cannot listen on {where}: there is no such host; use 127.0.0.1, 0.0.0.0 or an address of this machine") from error
    addresses = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
    listeners: list[socket.socket] = []
    try:
        for family, address in addresses[: 1 if settings.port == 0 else None]:
            listeners.append(_bind(family, address, settings))
    except OSError as error:
        for listener in listeners:
            listener.close()
        raise UsageError(f"cannot listen on {where}: {_way_out(error)}") from error
    return listeners


def _bind(family: int, address: object, settings: DoorSettings) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if settings.send_buffer is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, settings.send_buffer)
        with suppress(OSError, AttributeError):  # where the system has it: ends connections whose peer vanished or reads nothing
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(1, int(settings.unread_seconds * 1000)))
        listener.bind(cast("tuple[str, int]", address))
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _way_out(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the port is taken; stop what listens there, or choose another port (0: any free one)"
    if error.errno == errno.EACCES:
        return "not permitted; ports below 1024 need privileges, so choose one above"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address; use 127.0.0.1, 0.0.0.0 or an address of this machine"
    return f"{error.strerror or error}; choose another host or port"


def _url(listener: socket.socket) -> str:
    """Of a wildcard address, the loopback one: it can be connected to everywhere."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - recognised, not bound
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
