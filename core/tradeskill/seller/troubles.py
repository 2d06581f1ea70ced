"""What a seller does about strangers' plugins that raise, hang or lie: how long it puts up with that, and that its owner gets to see it."""

from __future__ import annotations

import logging
from collections.abc import Hashable
from functools import partial
from typing import Final

from tradeskill.errors import BrokenPluginError
from tradeskill.journal import troubles
from tradeskill.seller.shop import Shop

__all__ = ["PATIENCE", "Troubles"]

log = logging.getLogger("tradeskill.seller")

PATIENCE: Final = 3600.0  # seconds, unless configured
_WRITTEN_EVERY: Final = 5.0  # seconds; a thousand jobs of one plugin make one entry


class Troubles:
    """In memory, but for what the owner sees: a restart gives each plugin another chance, and restarts are counted by the job."""

    def __init__(self, shop: Shop, patience: float) -> None:
        self._shop, self.patience = shop, patience
        self._since: dict[Hashable, float] = {}
        self._unwritten: dict[str, int] = {}
        self._written: dict[str, float] = {}

    async def note(self, error: BrokenPluginError) -> None:
        plugin, now = str(error.details.get("plugin", "a plugin")), self._shop.world.monotonic()
        times = self._unwritten.get(plugin, 0) + 1
        if plugin in self._written and now - self._written[plugin] < _WRITTEN_EVERY:
            self._unwritten[plugin] = times
            return
        self._written[plugin] = now
        self._unwritten.pop(plugin, None)
        await self._shop.journal.write(
            partial(troubles.note, plugin=plugin, said=str(error), times=times, now=self._shop.world.now_ms())
        )

    def begin(self, what: Hashable, at: float) -> None:
        """Trouble with it, which began at that moment unless there was some already."""
        self._since.setdefault(what, at)

    def over(self, *what: Hashable) -> None:
        """It has worked."""
        for each in what:
            self._since.pop(each, None)

    def too_long(self, *what: Hashable) -> bool:
        """Whether one of these has been in trouble, without working in between, for longer than the owner wants to wait."""
        now = self._shop.world.monotonic()
        return any(now - self._since[each] >= self.patience for each in what if each in self._since)
