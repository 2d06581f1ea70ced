"""What a seller works with: its listings, settings and parts, handed to every step of the flow."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from tradeskill.agreement import Request, read_request
from tradeskill.allocation import Terms
from tradeskill.contracts import Backend, Limits, Market, Wallet
from tradeskill.errors import UnavailableError
from tradeskill.journal import Blobs, Database, Fulfilment, PaymentRow, Transaction, selling
from tradeskill.journal.records import read_document
from tradeskill.model import Offer, Payment
from tradeskill.money import Amount
from tradeskill.signing import Identity, digest
from tradeskill.world import World

__all__ = ["ACTIVE", "GRACE_MS", "LATE_WATCH_MS", "TOGETHER_SECONDS", "Listing", "SellerSettings", "Shop", "execution_id", "fail", "payment_of", "request_of"]

ACTIVE = ("paid", "leased", "started", "executed")
GRACE_MS = 60_000  # after a deadline, before money is sent back or a job is closed
LATE_WATCH_MS = 30 * 86_400_000
TOGETHER_SECONDS = 3.0  # for all rails of a job to answer; then it goes on with those that did


@dataclass(frozen=True)
class Listing:
    """An offer with what it takes to fulfil it. No `run`: fulfilled by hand, with the seller's tools."""

    name: str
    offer: Offer
    run: tuple[str, ...] = ()
    folder: str | None = None
    backend: str = "process"
    pure: bool = False
    trusted: bool = False
    network: bool = False
    limits: Limits = field(default_factory=Limits)
    jobs: int = 4
    per_buyer: int = 2


@dataclass(frozen=True)
class SellerSettings:
    quote_ttl_ms: int = 900_000
    terms: Terms = field(default_factory=Terms)
    uncertain: Literal["refund", "review"] = "refund"  # what becomes of a non-pure execution that was lost
    poll_seconds: float = 5.0
    lease_ms: int = 60_000  # how long a job stays with a worker that is not heard of any more
    heartbeat_seconds: float = 20.0  # well below the lease
    keep_results_ms: int = 30 * 86_400_000
    max_attempts: int = 3
    workers: int = 64  # executions at once in this process


@dataclass
class Shop:
    """The parts of one seller worker. `wake` makes the effects of a commit run at once."""

    identity: Identity
    journal: Database
    blobs: Blobs
    market: Market
    wallets: Mapping[str, Wallet]
    backends: Mapping[str, Backend]
    listings: Mapping[str, Listing]
    settings: SellerSettings
    world: World
    owner: str
    is_dead: Callable[[str], bool]
    effect_added: asyncio.Event = field(default_factory=asyncio.Event)

    def wake(self) -> None:
        self.effect_added.set()

    def wallet(self, rail: str) -> Wallet:
        """UnavailableError where the configuration has it no more: it may come back, and money may wait there."""
        wallet = self.wallets.get(rail)
        if wallet is None:
            raise UnavailableError(f"the rail {rail} has no wallet in the configuration any more: put it back into `wallets`")
        return wallet

    def row(self, job_id: str) -> Fulfilment:
        return self.journal.read(lambda c: selling.fulfilment(c, job_id))


def execution_id(job_id: str, attempt: int) -> str:
    """Deterministic, never from fence or time, so that an interrupted execution is found again (I1)."""
    return digest(f"{job_id}\n{attempt}".encode())[:32]


def request_of(row: Fulfilment) -> Request:
    return _request(row.request, row.buyer)


@lru_cache(maxsize=1024)  # asked for at every step of a job
def _request(text: str, buyer: str) -> Request:
    return read_request(read_document(text), buyer)


def fail(tx: Transaction, row: Fulfilment, code: str, message: str, now: int, minimum: Mapping[str, int], *, doubt: str = "") -> None:
    """The job fails and its money becomes refund due (or review), in one transaction, under the fence of `row`.

    `doubt`: why the buyer may have the result all the same; then the owner decides about the money.
    """
    selling.move_fulfilment(tx, row.job_id, "fail", now, fence=row.fence, error_code=code, error_message=message[:200])
    if doubt:
        selling.hold_allocated(tx, row.job_id, doubt, now)
        return
    selling.return_allocated(tx, row.job_id, request_of(row).refund_to, now, minimum)


def payment_of(row: PaymentRow) -> Payment:
    return Payment(row.payment_id, Amount(row.value, row.unit), row.received_at, row.sender)
