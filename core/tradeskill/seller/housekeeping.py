"""What a seller does every hour and no job waits for: dropping old results, removing executions nobody needs, reminding the market."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial

from tradeskill.contracts import Backend
from tradeskill.errors import NotFoundError, PluginError, RefusedError, StateError, UnavailableError, UsageError
from tradeskill.journal import selling
from tradeskill.seller.shop import ACTIVE, Shop, execution_id

__all__ = ["Housekeeping"]

log = logging.getLogger("tradeskill.seller")

EVERY = 3600.0
SLEEP_MS = 86_400_000  # longer than anybody sleeps
REMIND_MS, REMIND_AT_MOST = 86_400_000, 200


class Housekeeping:
    def __init__(self, shop: Shop, look_again: Callable[[str], Awaitable[None]]) -> None:
        """`look_again`: compares one job, by id, with what the market shows of it."""
        self._shop, self._look_again = shop, look_again

    async def run(self) -> None:
        """A chore that fails is logged and done again an hour later; UnavailableError leaves it to the caller's loop."""
        while True:
            for chore in (self._drop_old_results, self._remove_leftovers, self._remind):
                try:
                    await chore()
                except (StateError, NotFoundError, RefusedError, UsageError, PluginError) as error:
                    log.error("housekeeping: %s", error)
            await self._shop.world.sleep(EVERY)

    async def _drop_old_results(self) -> None:
        """Delivered results are kept for a limited time (30 days unless configured)."""
        now = self._shop.world.now_ms()
        for sha256 in self._shop.journal.read(partial(selling.old_results, now=now)):
            if await self._shop.journal.write(partial(selling.forget_result, sha256=sha256, now=now)):
                await self._shop.world.offload(partial(self._shop.blobs.drop, sha256))

    async def _remove_leftovers(self) -> None:
        """Executions of ended jobs that nobody removed, as when a worker slept while another took its job over; but not before it had time to wake."""
        for name, backend in self._shop.backends.items():
            try:
                await self._remove_leftovers_of(backend)
            except UnavailableError as error:  # in an hour again; the other chores do not wait for it
                log.warning("housekeeping: backend %s: %s", name, error)

    async def _remove_leftovers_of(self, backend: Backend) -> None:
        listed = await backend.list(self._shop.identity.key)
        rows = self._shop.journal.read(partial(selling.fulfilments, states=ACTIVE, limit=100_000))  # read after the list: a start is committed first
        rows += self._shop.journal.read(partial(selling.contested_since, at=self._shop.world.now_ms() - SLEEP_MS))
        live = {execution_id(row.job_id, attempt) for row in rows for attempt in range(1, row.attempt + 1)}
        for execution in listed:
            if execution not in live:
                await backend.stop(execution)
                await backend.remove(execution)

    async def _remind(self) -> None:
        """Look again at the newest jobs that ended here: their end must stand at the market, also when no cursor shows that it was lost there."""
        since = self._shop.world.now_ms() - REMIND_MS
        for row in self._shop.journal.read(lambda c: selling.fulfilments(c, ("delivered", "failed"), REMIND_AT_MOST)):
            if row.updated_at >= since:
                await self._look_again(row.job_id)
