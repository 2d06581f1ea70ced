"""What may go wrong, where, and how often in one schedule; counts what really struck."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from tradeskill.world import LABELS

__all__ = ["CRASHES", "KINDS", "ONCE", "Faults"]

# Struck inside a call, whenever one is made that could suffer it.
CALLS: Final = (
    "wallet.unavailable",
    "wallet.unreached",  # signed and stored, never left
    "wallet.answer-lost",  # arrived, the answer says "unknown"
    "wallet.answer-raised",  # arrived, the call raises
    "wallet.dropped",  # said to have arrived, and did not
    "wallet.hidden",  # shows no payment where there is one
    "wallet.unsure",
    "wallet.unbacked",  # says paid without a payment to show
    "wallet.repeated",
    "wallet.hint-lost",
    "wallet.hint-doubled",
    "market.unavailable",  # nothing happened
    "market.answer-lost",  # it happened, and the call raises
    "market.repeated",
    "market.late",
    "market.stale",  # shows a job as it was a while ago
    "market.forged",  # changes what is signed
    "market.hint-lost",
    "backend.unavailable",
    "backend.answer-lost",  # started, and the call raises
    "backend.refused",
    "backend.failed",
    "backend.lost",  # dead without an outcome
    "backend.never",  # runs into its limit
    "ledger.rolled-back",  # a pending transfer vanishes
    "disk.cut-before",  # the process dies at a commit, which did not happen
    "disk.cut-after",  # ... which happened
    "disk.full",
    "disk.busy",
)
# Done by the schedule, at a moment it draws.
DEEDS: Final = (
    "ledger.held",  # nothing becomes final for a while
    "market.rolled-back",  # restored from an older copy
    "third.under",  # a stranger pays part of an invoice
    "third.over",
    "third.split",
    "third.double",
    "third.late",
    "buyer.canceled",
    "buyer.parallel",  # two processes drive the same purchases
    "buyer.gone",  # walks away after accepting
    "process.paused",  # sleeps past its lease, then wakes
    "process.drained",  # SIGTERM, then started again
    "process.killed",  # at no label in particular
    "clock.jumped",
)
KINDS: Final = (*CALLS, *DEEDS)
ONCE: Final = (  # of the calls, those that a job makes once or twice
    "wallet.unreached",
    "wallet.answer-lost",
    "wallet.answer-raised",
    "wallet.dropped",
    "wallet.repeated",
    "wallet.hint-lost",
    "wallet.hint-doubled",
    "backend.answer-lost",
    "backend.refused",
    "backend.failed",
    "backend.lost",
    "backend.never",
    "ledger.rolled-back",
)
CRASHES: Final = tuple((when, label) for label in LABELS for when in ("before", "after"))
STRIKES: Final = 3  # of one kind in one schedule


class Faults:
    """Which kinds are about in this schedule. `stop` ends all of them for good."""

    def __init__(self, rng: random.Random, chances: Mapping[str, float], tell: Callable[[str], None]) -> None:
        """`chances`: kind -> how likely it strikes where it can."""
        self._rng, self._chances, self._tell = rng, chances, tell
        self.counts: Counter[str] = Counter()
        self.stopped = False

    def strikes(self, kind: str) -> bool:
        """Whether it happens now; told and counted."""
        chance = self._chances.get(kind)
        if chance is None or self.stopped or self._rng.random() >= chance:
            return False
        if self.counts[kind] >= STRIKES:
            return False
        self.count(kind)
        return True

    def count(self, kind: str) -> None:
        self.counts[kind] += 1
        self._tell(f"fault {kind}")

    def any_of(self, prefix: str, kinds: tuple[str, ...]) -> str:
        """The first of these that strikes, without its prefix; "" for none."""
        if self.stopped:
            return ""
        return next((kind for kind in kinds if f"{prefix}{kind}" in self._chances and self.strikes(f"{prefix}{kind}")), "")

    def stop(self) -> None:
        self.stopped = True
