"""Websocket hints: which of our accounts a confirmed block touches. Late, doubled or lost is fine; polling reconciles, so nobody notices silence."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Final

from tradeskill.errors import InputError, UsageError
from tradeskill.model import Json
from tradeskill.signing import parse_json
from tradeskill.world import World
from tradeskill_wallet.primitives import encode_address, parse_hash

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

__all__ = ["Hints"]

log = logging.getLogger("tradeskill.nano")

CHUNK: Final = 500  # accounts in one message
MAX_MESSAGE: Final = 2**20
PAUSES: Final = (0.5, 1.0, 2.0, 5.0, 15.0)  # seconds between tries to reconnect


class Hints:
    """One subscription, shared by nobody. `accounts()` are those wanted now; `added`/`removed` tell of changes while connected."""

    def __init__(self, url: str | None, world: World, accounts: Callable[[], set[bytes]]) -> None:
        self._url, self._world, self._accounts = url, world, accounts
        self._changed = asyncio.Event()
        self._closed = asyncio.Event()

    def changed(self) -> None:
        """The set of wanted accounts is another one now."""
        self._changed.set()

    def close(self) -> None:
        self._closed.set()
        self._changed.set()

    async def listen(self) -> AsyncIterator[bytes]:
        """Public keys of wanted accounts that a confirmed block names, for ever, until `close`. Without a URL it only waits."""
        failures = 0
        while not self._closed.is_set():
            if self._url is None:
                await self._closed.wait()
                return
            try:
                async for account in self._session(self._url):
                    failures = 0
                    yield account
            except OSError as error:
                log.info("websocket %s: %s; polling goes on", self._url, error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closed.wait(), PAUSES[min(failures, len(PAUSES) - 1)])
            failures += 1

    async def _session(self, url: str) -> AsyncIterator[bytes]:
        from websockets.asyncio.client import connect
        from websockets.exceptions import WebSocketException

        try:
            async with connect(url, open_timeout=10, max_size=MAX_MESSAGE, ping_interval=30, ping_timeout=30, proxy=None) as socket:
                updater = asyncio.create_task(self._subscribe(socket))
                closer = asyncio.create_task(self._hang_up(socket))
                try:
                    async for message in socket:
                        account = _destination(message)
                        if account is not None and account in self._accounts():
                            yield account
                finally:
                    for task in (updater, closer):
                        task.cancel()
                    await asyncio.gather(updater, closer, return_exceptions=True)
        except WebSocketException as error:
            raise OSError(str(error)) from error

    async def _subscribe(self, socket: ClientConnection) -> None:
        """Tell the node the wanted accounts, then every change. The filter needs the block included, or it delivers nothing."""
        told: set[bytes] = set()
        first = True
        while True:
            self._changed.clear()
            wanted = set(self._accounts())
            new, gone = sorted(wanted - told), sorted(told - wanted)
            if first:
                options: dict[str, Json] = {"include_block": "true", "accounts": _addresses(new[:CHUNK])}
                await socket.send(json.dumps({"action": "subscribe", "topic": "confirmation", "options": options}))
                new, first = new[CHUNK:], False
            for start in range(0, len(new), CHUNK):
                await self._update(socket, "accounts_add", new[start : start + CHUNK])
            for start in range(0, len(gone), CHUNK):
                await self._update(socket, "accounts_del", gone[start : start + CHUNK])
            told = wanted
            await self._changed.wait()

    async def _update(self, socket: ClientConnection, what: str, accounts: list[bytes]) -> None:
        await socket.send(json.dumps({"action": "update", "topic": "confirmation", "options": {what: _addresses(accounts)}}))

    async def _hang_up(self, socket: ClientConnection) -> None:
        await self._closed.wait()
        await socket.close()


def _addresses(accounts: list[bytes]) -> list[Json]:
    return [encode_address(account) for account in accounts]


def _destination(message: str | bytes) -> bytes | None:
    """Where the send of a confirmation message goes; None for anything else. A hint needs no proof: the look at the ledger that follows does."""
    try:
        value = parse_json(message)
        if not isinstance(value, dict) or value.get("topic") != "confirmation":
            return None
        body = value.get("message")
        block = body.get("block") if isinstance(body, dict) else None
        return parse_hash(block.get("link")) if isinstance(block, dict) else None
    except (InputError, UsageError):
        return None
