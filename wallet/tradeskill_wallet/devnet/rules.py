"""The rules of the block lattice: may this block follow what is in the ledger? Pure judgement, no change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from tradeskill_wallet.devnet.genesis import EPOCH_LINKS, GENESIS_ACCOUNT
from tradeskill_wallet.primitives import BURN, ZERO, StateBlock, Thresholds, verify, work_value

__all__ = ["AccountView", "EntryView", "LedgerView", "Outcome", "ReceivableView", "Verdict", "judge"]


class Outcome(Enum):
    """What the ledger makes of a block; the value is the node's own message."""

    PROGRESS = "progress"
    OLD = "Old block"
    FORK = "Fork"
    GAP_PREVIOUS = "Gap previous block"
    GAP_SOURCE = "Gap source block"
    GAP_EPOCH_OPEN = "Gap pending for open epoch block"
    BAD_SIGNATURE = "Bad signature"
    UNRECEIVABLE = "Unreceivable"
    BALANCE_MISMATCH = "Balance and amount delta do not match"
    BLOCK_POSITION = "This block cannot follow the previous block"
    OPENED_BURN = "Block attempts to open the burn account"
    INSUFFICIENT_WORK = "Block work is insufficient"
    OTHER = "Error processing block"  # an epoch block that would change the representative


class AccountView(Protocol):
    head: bytes
    balance: int
    representative: bytes
    epoch: int


class EntryView(Protocol):
    balance: int


class ReceivableView(Protocol):
    @property
    def amount(self) -> int: ...
    @property
    def epoch(self) -> int: ...


class LedgerView(Protocol):
    """What judging needs to see."""

    @property
    def thresholds(self) -> Thresholds: ...
    @property
    def accounts(self) -> Mapping[bytes, AccountView]: ...
    @property
    def entries(self) -> Mapping[bytes, EntryView]: ...
    def receivable(self, account: bytes, send: bytes) -> ReceivableView | None: ...
    def has_receivables(self, account: bytes) -> bool: ...


@dataclass(frozen=True)
class Verdict:
    """`outcome`, and for a block that may enter: what it does. `missing` is the hash a gap waits for."""

    outcome: Outcome
    kind: str = ""  # send, receive, change, epoch
    amount: int = 0
    epoch: int = 0
    missing: bytes = ZERO


def judge(ledger: LedgerView, block: StateBlock, *, trusted: bool = False) -> Verdict:
    """The verdict, in the node's order of checks. `trusted` skips signature and work: for blocks this ledger judged before."""
    epoch = EPOCH_LINKS.get(block.link)
    if epoch is not None:
        known = ledger.entries.get(block.previous) if block.previous != ZERO else None
        if block.previous != ZERO and known is None:
            # nobody can tell yet whether it is an epoch block or a send to that odd key: one of the two must have signed it
            signed = trusted or block.verified() or verify(GENESIS_ACCOUNT, block.hash, block.signature)
            return Verdict(Outcome.GAP_PREVIOUS if signed else Outcome.BAD_SIGNATURE, missing=block.previous)
        if block.balance == (known.balance if known is not None else 0):
            return _judge_epoch(ledger, block, epoch, trusted)
    return _judge_state(ledger, block, trusted)


def _judge_state(ledger: LedgerView, block: StateBlock, trusted: bool) -> Verdict:
    if block.hash in ledger.entries:
        return Verdict(Outcome.OLD)
    if not trusted and not block.verified():
        return Verdict(Outcome.BAD_SIGNATURE)
    if block.account == BURN:
        return Verdict(Outcome.OPENED_BURN)
    account = ledger.accounts.get(block.account)
    if account is None:
        if block.previous != ZERO:
            return Verdict(Outcome.GAP_PREVIOUS, missing=block.previous)
        if block.link == ZERO:
            return Verdict(Outcome.GAP_SOURCE)
        held, epoch = 0, 0
    else:
        if block.previous == ZERO:
            return Verdict(Outcome.FORK)
        if block.previous not in ledger.entries:
            return Verdict(Outcome.GAP_PREVIOUS, missing=block.previous)
        if block.previous != account.head:
            return Verdict(Outcome.FORK)
        held, epoch = account.balance, account.epoch
    if block.balance < held:
        return _worked(ledger, block, Verdict(Outcome.PROGRESS, "send", held - block.balance, epoch), trusted)
    amount = block.balance - held
    if block.link == ZERO:
        if amount:
            return Verdict(Outcome.BALANCE_MISMATCH)
        return _worked(ledger, block, Verdict(Outcome.PROGRESS, "change", 0, epoch), trusted)
    if block.link not in ledger.entries:
        return Verdict(Outcome.GAP_SOURCE, missing=block.link)
    receivable = ledger.receivable(block.account, block.link)
    if receivable is None:
        return Verdict(Outcome.UNRECEIVABLE)
    if receivable.amount != amount:
        return Verdict(Outcome.BALANCE_MISMATCH)
    return _worked(ledger, block, Verdict(Outcome.PROGRESS, "receive", amount, max(epoch, receivable.epoch)), trusted)


def _judge_epoch(ledger: LedgerView, block: StateBlock, epoch: int, trusted: bool) -> Verdict:
    if block.hash in ledger.entries:
        return Verdict(Outcome.OLD)
    if not trusted and not verify(GENESIS_ACCOUNT, block.hash, block.signature):
        return Verdict(Outcome.BAD_SIGNATURE)
    if block.account == BURN:
        return Verdict(Outcome.OPENED_BURN)
    account = ledger.accounts.get(block.account)
    if account is not None:
        if block.previous != account.head:
            return Verdict(Outcome.FORK)
        if block.representative != account.representative:
            return Verdict(Outcome.OTHER)
        if epoch != account.epoch + 1:
            return Verdict(Outcome.BLOCK_POSITION)
        held = account.balance
    else:
        if block.representative != ZERO:
            return Verdict(Outcome.OTHER)
        if not ledger.has_receivables(block.account):
            return Verdict(Outcome.GAP_EPOCH_OPEN, missing=block.account)
        held = 0
    if block.balance != held:
        return Verdict(Outcome.BALANCE_MISMATCH)
    return _worked(ledger, block, Verdict(Outcome.PROGRESS, "epoch", 0, epoch), trusted)


def _worked(ledger: LedgerView, block: StateBlock, verdict: Verdict, trusted: bool) -> Verdict:
    threshold = ledger.thresholds.needed(verdict.epoch, receive=verdict.kind in ("receive", "epoch"))
    if not trusted and work_value(block.root, block.work) < threshold:
        return Verdict(Outcome.INSUFFICIENT_WORK)
    return verdict
