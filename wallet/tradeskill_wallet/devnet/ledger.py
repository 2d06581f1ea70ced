"""The block lattice itself: entries, accounts, receivables, gaps, cementing and rollback, all in memory. No clock, no I/O."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, field

from tradeskill.errors import StateError
from tradeskill_wallet.devnet.genesis import GENESIS, LegacyOpen
from tradeskill_wallet.devnet.rules import Outcome, Verdict, judge
from tradeskill_wallet.primitives import ZERO, StateBlock, Thresholds

__all__ = ["Account", "Entry", "Ledger", "Receivable"]

_MAX_UNCHECKED = 65_536  # the node's own bound; the oldest leaves first


@dataclass(slots=True)
class Entry:
    """A block in the ledger and what the ledger knows beside it. `kind` is empty for the legacy genesis block."""

    block: StateBlock | LegacyOpen
    kind: str
    amount: int
    balance: int
    height: int
    epoch: int
    timestamp: int  # seconds
    successor: bytes = ZERO
    confirmed: bool = False

    @property
    def hash(self) -> bytes:
        return self.block.hash

    @property
    def account(self) -> bytes:
        return self.block.account

    @property
    def previous(self) -> bytes:
        return self.block.previous


@dataclass(slots=True)
class Account:
    """The account's newest block and what follows from it."""

    head: bytes
    open_block: bytes
    balance: int
    representative: bytes
    count: int
    epoch: int
    modified: int
    confirmed_height: int = 0
    confirmed_frontier: bytes = ZERO


@dataclass(frozen=True, slots=True)
class Receivable:
    source: bytes  # account
    amount: int
    epoch: int


@dataclass(slots=True)
class _Purse:
    """What waits for one account, in the order of hashes, as the node lists it."""

    items: dict[bytes, Receivable] = field(default_factory=dict)
    order: list[bytes] = field(default_factory=list)
    total: int = 0
    confirmed: int = 0


class Ledger:
    """One dev ledger. Every call leaves it consistent; refused blocks change nothing (gaps are kept as unchecked)."""

    def __init__(self, thresholds: Thresholds, now: int) -> None:
        self.thresholds = thresholds
        self.entries: dict[bytes, Entry] = {}
        self.accounts: dict[bytes, Account] = {}
        self.weights: dict[bytes, int] = {}
        self.received_by: dict[bytes, bytes] = {}  # send -> its receive
        self.unchecked: dict[bytes, StateBlock] = {}
        self.cemented = 0
        self._purses: dict[bytes, _Purse] = {}
        self._waiting: dict[bytes, list[bytes]] = {}  # missing hash (or account) -> unchecked blocks
        self._add(GENESIS, Verdict(Outcome.PROGRESS, "", GENESIS.balance), now)
        self.confirm(GENESIS.hash)

    # --- reading

    def receivable(self, account: bytes, send: bytes) -> Receivable | None:
        purse = self._purses.get(account)
        return purse.items.get(send) if purse else None

    def receivables(self, account: bytes) -> Iterator[tuple[bytes, Receivable]]:
        """(send's hash, what it holds) in ascending order of hashes."""
        purse = self._purses.get(account)
        if purse:
            for send in purse.order:
                yield send, purse.items[send]

    def has_receivables(self, account: bytes) -> bool:
        return account in self._purses

    def balance_of(self, account: bytes, *, confirmed: bool) -> tuple[int, int]:
        """(balance, receivable) in raw; with `confirmed` only what is cemented counts."""
        info, purse = self.accounts.get(account), self._purses.get(account)
        if not confirmed:
            return (info.balance if info else 0, purse.total if purse else 0)
        held = self.entries[info.confirmed_frontier].balance if info and info.confirmed_height else 0
        return held, purse.confirmed if purse else 0

    def depends_on(self, entry: Entry) -> list[Entry]:
        """The blocks that must be cemented before this one: previous and, for a receive, its send."""
        hashes = [entry.previous, entry.block.link] if entry.kind == "receive" else [entry.previous]
        return [self.entries[item] for item in hashes if item != ZERO and item in self.entries]

    def dependents(self, entry: Entry) -> list[Entry]:
        """The blocks that rest directly on this one: its successor and, for a send, its receive."""
        hashes = [entry.successor, self.received_by.get(entry.hash, ZERO)]
        return [self.entries[item] for item in hashes if item != ZERO]

    def may_be_elected(self, entry: Entry) -> bool:
        """Unconfirmed, and everything below is cemented: the node has an election running for such a block."""
        return not entry.confirmed and all(item.confirmed for item in self.depends_on(entry))

    def competitor(self, block: StateBlock) -> bytes | None:
        """The block that stands where `block` would, if any."""
        if block.previous == ZERO:
            account = self.accounts.get(block.account)
            return account.open_block if account else None
        entry = self.entries.get(block.previous)
        return entry.successor if entry and entry.successor != ZERO else None

    def snapshot(self) -> Ledger:
        """A ledger that stays as this one is now. Blocks are shared, everything that can change is copied."""
        other = copy(self)
        vars(other).update(
            entries={key: copy(item) for key, item in self.entries.items()},
            accounts={key: copy(item) for key, item in self.accounts.items()},
            weights=dict(self.weights),
            received_by=dict(self.received_by),
            unchecked=dict(self.unchecked),
            _purses={key: _Purse(dict(item.items), list(item.order), item.total, item.confirmed) for key, item in self._purses.items()},
            _waiting={key: list(item) for key, item in self._waiting.items()},
        )
        return other

    # --- changing

    def process(self, block: StateBlock, now: int, *, trusted: bool = False) -> tuple[Outcome, list[Entry]]:
        """Judge and, if it may, add the block; then whatever waited for it. Returns the outcome and all entries added, in order.

        Processing the same block again answers OLD and changes nothing. A gap is kept and tried again when the missing block comes.
        """
        verdict = judge(self, block, trusted=trusted)
        if verdict.outcome is Outcome.PROGRESS:
            added = [self._add(block, verdict, now)]
            for entry in added:  # grows while it is walked: what entered may be what others waited for
                added.extend(self._release(entry, now))
            return verdict.outcome, added
        if verdict.missing != ZERO or verdict.outcome is Outcome.GAP_SOURCE:
            self._keep(block, verdict)
        return verdict.outcome, []

    def confirm(self, block_hash: bytes) -> list[Entry]:
        """Cement the block and all it rests on; returns what became confirmed by this call, oldest first. Twice is safe."""
        done: list[Entry] = []
        stack = [self.entries[block_hash]]
        while stack:
            entry = stack[-1]
            if entry.confirmed:
                stack.pop()
                continue
            below = [item for item in self.depends_on(entry) if not item.confirmed]
            if below:
                stack.extend(below)
                continue
            stack.pop()
            self._cement(entry)
            done.append(entry)
        return done

    def rollback(self, block_hash: bytes) -> list[Entry]:
        """Take the block and everything that rests on it out again; returns what left, newest first. Raises StateError if it is confirmed."""
        if self.entries[block_hash].confirmed:
            raise StateError(f"block {block_hash.hex().upper()} is confirmed: it cannot be rolled back")
        gone: list[Entry] = []
        stack = [block_hash]
        while stack:
            entry = self.entries.get(stack[-1])
            if entry is None:
                stack.pop()
                continue
            head = self.entries[self.accounts[entry.account].head]
            receive = self.received_by.get(head.hash)
            if receive is not None:
                stack.append(receive)
                continue
            self._remove(head)
            gone.append(head)
        return gone

    def _add(self, block: StateBlock | LegacyOpen, verdict: Verdict, now: int) -> Entry:
        account = self.accounts.get(block.account)
        height = account.count + 1 if account else 1
        entry = Entry(block, verdict.kind, verdict.amount, block.balance, height, verdict.epoch, now)
        self.entries[entry.hash] = entry
        if account is None:
            self.accounts[block.account] = Account(entry.hash, entry.hash, block.balance, block.representative, 1, verdict.epoch, now)
        else:
            self.entries[account.head].successor = entry.hash
            self._weigh(account.representative, -account.balance)
            account.head, account.balance, account.representative = entry.hash, block.balance, block.representative
            account.count, account.epoch, account.modified = height, verdict.epoch, now
        self._weigh(block.representative, block.balance)
        if entry.kind == "send":
            self._put_receivable(block.link, entry.hash, Receivable(block.account, entry.amount, entry.epoch))
        elif entry.kind == "receive":
            self._take_receivable(block.account, block.link)
            self.received_by[block.link] = entry.hash
        return entry

    def _remove(self, entry: Entry) -> None:
        block, account = entry.block, self.accounts[entry.account]
        self._weigh(account.representative, -account.balance)
        if entry.kind == "send":
            self._take_receivable(block.link, entry.hash)
        elif entry.kind == "receive":
            source = self.entries[block.link]
            del self.received_by[block.link]
            self._put_receivable(block.account, block.link, Receivable(source.account, source.amount, source.epoch))
        del self.entries[entry.hash]
        if entry.previous == ZERO:
            del self.accounts[entry.account]
            return
        below = self.entries[entry.previous]
        below.successor = ZERO
        account.head, account.balance, account.representative = below.hash, below.balance, below.block.representative
        account.count, account.epoch, account.modified = below.height, below.epoch, below.timestamp
        self._weigh(account.representative, account.balance)

    def _cement(self, entry: Entry) -> None:
        entry.confirmed = True
        self.cemented += 1
        account = self.accounts[entry.account]
        account.confirmed_height, account.confirmed_frontier = entry.height, entry.hash
        if entry.kind == "send" and self.receivable(entry.block.link, entry.hash):
            self._purses[entry.block.link].confirmed += entry.amount

    def _weigh(self, representative: bytes, change: int) -> None:
        weight = self.weights.get(representative, 0) + change
        if weight:
            self.weights[representative] = weight
        else:
            self.weights.pop(representative, None)

    def _put_receivable(self, account: bytes, send: bytes, item: Receivable) -> None:
        purse = self._purses.setdefault(account, _Purse())
        purse.items[send] = item
        insort(purse.order, send)
        purse.total += item.amount
        if self.entries[send].confirmed:
            purse.confirmed += item.amount

    def _take_receivable(self, account: bytes, send: bytes) -> None:
        purse = self._purses[account]
        item = purse.items.pop(send)
        del purse.order[bisect_left(purse.order, send)]
        purse.total -= item.amount
        if self.entries[send].confirmed:
            purse.confirmed -= item.amount
        if not purse.items:
            del self._purses[account]

    def _keep(self, block: StateBlock, verdict: Verdict) -> None:
        if verdict.outcome is Outcome.BAD_SIGNATURE or block.hash in self.unchecked:
            return
        if len(self.unchecked) >= _MAX_UNCHECKED:
            self.unchecked.pop(next(iter(self.unchecked)))
        self.unchecked[block.hash] = block
        self._waiting.setdefault(verdict.missing, []).append(block.hash)

    def _release(self, entry: Entry, now: int) -> list[Entry]:
        """Try again what waited for exactly this entry; what still lacks something else waits for that."""
        if not self._waiting:
            return []
        added: list[Entry] = []
        keys = [entry.hash, entry.block.link] if entry.kind == "send" else [entry.hash]
        for waiting in [item for key in keys for item in self._waiting.pop(key, [])]:
            block = self.unchecked.pop(waiting, None)
            if block is None:
                continue
            verdict = judge(self, block)
            if verdict.outcome is Outcome.PROGRESS:
                added.append(self._add(block, verdict, now))
            elif verdict.missing != ZERO:
                self._keep(block, verdict)
        return added
