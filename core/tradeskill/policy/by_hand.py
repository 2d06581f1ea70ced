"""Money sent without a purchase: `wallet send`, `sweep` to a foreign address, refunds by hand. The same gate, around the act that signs.

A seller's worker that returns what came in excess, late or for a failed job to the address the buyer signed is not spending: it gives back what is not
the seller's, and no cap may keep it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from tradeskill.policy.gate import AskOwner, Guard, check, commit, release, reserve, settle_approval
from tradeskill.policy.rules import Intended

if TYPE_CHECKING:
    from tradeskill.journal import Database, Transaction
    from tradeskill.world import World

__all__ = ["approved", "spend_now", "spending"]


async def approved(journal: Database, wish: Intended, guard: Guard, title: str, ask_owner: AskOwner | None, now: int) -> bool:
    """Whether the owner was asked and agreed; PolicyError where a rule or the owner says no. Reserves nothing."""
    return await settle_approval(journal.read(lambda c: check(c, wish, guard, (), now)), wish, title, ask_owner)


def spend_now(tx: Transaction, wish: Intended, guard: Guard, now: int, *, approved: bool) -> None:
    """Reserved and committed at once: from here on it may be signed, and unknown counts as spent."""
    reserve(tx, wish, guard, (), now, approved=approved)
    commit(tx, wish.spend_id, now)


@asynccontextmanager
async def spending(
    journal: Database, world: World, wish: Intended, guard: Guard, title: str, ask_owner: AskOwner | None, signed: Callable[[], bool]
) -> AsyncIterator[None]:
    """Around the act that signs. Afterwards, if `signed` says that nothing was, the money counts as unspent again. Repeatable under one spend id."""
    agreed = await approved(journal, wish, guard, title, ask_owner, world.now_ms())
    await journal.write(lambda tx: spend_now(tx, wish, guard, world.now_ms(), approved=agreed))
    try:
        yield
    finally:
        if not signed():
            await journal.write(lambda tx: release(tx, wish.spend_id, world.now_ms()))
