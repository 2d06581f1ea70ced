"""Hints that a Lightning invoice was paid, from mints that offer subscriptions (NUT-17). Polling finds the same, later; nothing here is believed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Final

from tradeskill.errors import TradeskillError, UnavailableError
from tradeskill.world import World
from tradeskill_plugins.cashu.mints import Mints
from tradeskill_plugins.cashu.nuts import websocket
from tradeskill_plugins.cashu.store import Store

__all__ = ["Hints"]

log = logging.getLogger("tradeskill.cashu")

KIND: Final = "bolt11_mint_quote"
RETRY_SECONDS: Final = 30.0  # after a mint gave none
AT_ONCE: Final = 200  # quotes in one subscription: the newest


class Hints:
    """One listener. Subscribes anew whenever the wallet issued another invoice."""

    def __init__(self, store: Store, mints: Mints, world: World, now_watched: asyncio.Event) -> None:
        """`now_watched`: set by whoever issues an invoice that can be paid by Lightning."""
        self._store, self._mints, self._world, self._changed = store, mints, world, now_watched

    async def listen(self) -> AsyncIterator[str]:
        """Invoice ids, as they come; for ever. Doubled or lost ones are the caller's to bear."""
        queue: asyncio.Queue[str] = asyncio.Queue()
        task = asyncio.create_task(self._follow(queue))
        try:
            while True:
                yield await queue.get()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _follow(self, queue: asyncio.Queue[str]) -> None:
        while True:
            self._changed.clear()
            listeners = [asyncio.create_task(self._subscribe(mint, quotes, queue)) for mint, quotes in self._open().items()]
            try:
                await self._changed.wait()
            finally:
                for listener in listeners:
                    listener.cancel()
                await asyncio.gather(*listeners, return_exceptions=True)

    def _open(self) -> dict[str, dict[str, str]]:
        """Quotes that may still be paid: mint -> quote id -> invoice id."""
        found: dict[str, dict[str, str]] = {}
        for lock in self._store.read(lambda rows: rows.quoted(self._world.now_ms(), AT_ONCE)):
            if lock.quote is not None and lock.quote_mint is not None:
                found.setdefault(lock.quote_mint, {})[lock.quote] = lock.pubkey
        return found

    async def _subscribe(self, mint: str, quotes: dict[str, str], queue: asyncio.Queue[str]) -> None:
        while True:
            try:
                if KIND not in (await self._mints.info(mint)).subscriptions:
                    return
                async with aclosing(websocket.hints(mint, KIND, list(quotes))) as said:
                    async for quote in said:
                        queue.put_nowait(quotes[quote])
            except UnavailableError as error:
                log.info("%s; trying again in %.0f s", error, RETRY_SECONDS)
            except TradeskillError as error:
                log.warning("%s", error)
            await self._world.sleep(RETRY_SECONDS)
