"""When a block gets confirmed: a queue by due time over the ledger's elections. Decides only; the node acts."""

from __future__ import annotations

import heapq

from tradeskill_wallet.devnet.ledger import Entry, Ledger

__all__ = ["Confirmation"]


class Confirmation:
    """Every block becomes due `delay_ms` after it entered (never by itself with None).

    An election runs for a block whose dependencies are cemented, or that somebody asked to confirm. Cost is one heap
    operation a block, whatever the number waiting.
    """

    def __init__(self, ledger: Ledger, delay_ms: int | None) -> None:
        self._ledger = ledger
        self.delay_ms = delay_ms
        self._due: list[tuple[int, int, bytes]] = []
        self._count = 0
        self._asked: set[bytes] = set()
        self._blocked: set[bytes] = set()  # due, but resting on something that is not cemented

    def entered(self, entry: Entry, now_ms: int) -> None:
        """A block came into the ledger."""
        if self.delay_ms is not None:
            self._push(now_ms + self.delay_ms, entry.hash)

    def left(self, entry: Entry) -> None:
        """A block was rolled back."""
        self._asked.discard(entry.hash)
        self._blocked.discard(entry.hash)

    def ask(self, entry: Entry, now_ms: int) -> None:
        """Somebody wants this block confirmed: an election starts now, whatever lies below it. Asking again changes nothing."""
        if entry.hash not in self._asked:
            self._asked.add(entry.hash)
            self.entered(entry, now_ms)

    def active(self, entry: Entry) -> bool:
        """Whether an election is running for the block."""
        return not entry.confirmed and (entry.hash in self._asked or self._ledger.may_be_elected(entry))

    def next_due(self) -> int | None:
        return self._due[0][0] if self._due else None

    def pop_due(self, now_ms: int) -> Entry | None:
        """The next block that is due, unconfirmed and rests on cemented ones only; handed out once. None when there is none."""
        while self._due and self._due[0][0] <= now_ms:
            _, _, block_hash = heapq.heappop(self._due)
            entry = self._ledger.entries.get(block_hash)
            if entry is None or entry.confirmed:
                continue
            if self._ledger.may_be_elected(entry):
                return entry
            self._blocked.add(block_hash)
        return None

    def confirmed(self, entry: Entry, now_ms: int) -> None:
        """A block was cemented: what was due and rested on it becomes due now."""
        self._asked.discard(entry.hash)
        self._blocked.discard(entry.hash)
        for above in self._ledger.dependents(entry):
            if above.hash in self._blocked:
                self._blocked.discard(above.hash)
                self._push(now_ms, above.hash)

    def again(self, block_hash: bytes, now_ms: int) -> None:
        """A block that was handed out and held back is due again."""
        self._push(now_ms, block_hash)

    def _push(self, when_ms: int, block_hash: bytes) -> None:
        self._count += 1
        heapq.heappush(self._due, (when_ms, self._count, block_hash))
