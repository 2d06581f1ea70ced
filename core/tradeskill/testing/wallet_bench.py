"""What the author of a rail gives the wallet contract, and the steps that its clauses are built from."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import ClassVar, Final, Literal, TypeVar

import pytest

from tradeskill.contracts import Wallet
from tradeskill.model import Invoice, Payment, PaymentStatus, Proof
from tradeskill.money import Amount

__all__ = ["HOUR", "LEDGER_FAULTS", "PRICE", "WALLET_LACKS", "LedgerFault", "WalletBench", "WalletSteps"]

A = TypeVar("A", PaymentStatus, Proof)
HOUR: Final = 3_600_000
TRIES, BREATH = 100, 0.05  # how often, and after how many seconds, what is unknown is asked for again
PRICE: Final = 1_000

# What a rail or its bench may lack -> what is then not tried.
WALLET_LACKS: Final[Mapping[str, str]] = {
    "pending": "money that was sent and is not final yet",
    "hints": "being told that a payment came",
    "same_address": "an address of its own for every invoice (say how jobs are told apart)",
    "faults": "a ledger that fails on request (override `fault`)",
    "secrets": "a secret that could leak (override `secrets`)",
}
LedgerFault = Literal["", "unreachable", "answer-lost", "hang", "garbage"]
# What `WalletBench.fault` may be told -> what then becomes of every request to the ledger, until it is told "".
LEDGER_FAULTS: Final[Mapping[LedgerFault, str]] = {
    "unreachable": "it never arrives",
    "answer-lost": "it is carried out, its answer never arrives",
    "hang": "it is not answered and the connection stays open",
    "garbage": "it is answered with something else than the protocol",
}


class WalletBench(ABC):
    """What the author of a rail provides: a ledger or mint to test on, wallets on it, and time that passes when told."""

    # What this rail or this bench cannot do (see WALLET_LACKS) -> why, for whoever chooses the plugin.
    lacks: ClassVar[Mapping[str, str]] = {}
    # Seconds a test may wait for something that must come by itself; longer than any deadline of the wallet's own.
    patience: ClassVar[float] = 20.0

    @abstractmethod
    async def start(self) -> None:
        """Called once, inside the test's event loop, before anything else."""

    @abstractmethod
    async def stop(self) -> None:
        """Close everything `open` returned and the ledger itself."""

    @abstractmethod
    async def open(self, name: str) -> Wallet:
        """Make and open the wallet called `name`. The same name has the same store and keys again, also after `close`."""

    @abstractmethod
    async def fund(self, wallet: Wallet, amount: int) -> None:
        """Give an open wallet final money that it can spend now."""

    @abstractmethod
    async def send(self, invoice: Invoice, amount: int) -> str | None:
        """Somebody else pays `amount` to the invoice, not yet final. Returns what that payer would submit as proof."""

    @abstractmethod
    async def settle_ledger(self) -> None:
        """Everything on its way becomes final before this returns."""

    @abstractmethod
    async def received(self, wallet: Wallet) -> int:
        """All final money that ever came in at `wallet.address()`, collected or not."""

    @abstractmethod
    def now_ms(self) -> int:
        """The clock of this bench."""

    async def proof(self, wallet: Wallet, key: str) -> str | None:
        """What the payer submits for a payment it made under `key`."""
        paid = await wallet.paid(key)
        assert paid is not None
        return paid.token or paid.payment_id

    async def fault(self, kind: LedgerFault) -> None:
        """From now on every request of a wallet to the ledger ends so; "" heals it. `testing.wire.FaultyWire` does it for any ledger behind a socket."""
        raise NotImplementedError("override `fault` (tradeskill.testing.wire helps), or say in lacks['faults'] why the ledger cannot be made to fail")

    def secrets(self, wallet: Wallet) -> Sequence[str]:
        """What nobody may ever read in a log: the wallet's seed, keys, password, as text."""
        raise NotImplementedError("override `secrets`, or say in lacks['secrets'] why this wallet has none")


class WalletSteps:
    """What the clauses share. Amounts are small integers of the wallet's own unit; every test runs in an event loop of its own."""

    @pytest.fixture
    def bench(self) -> WalletBench:
        raise NotImplementedError("override the fixture `bench` and return a WalletBench")

    def _run(self, bench: WalletBench, check: Callable[[], Awaitable[None]]) -> None:
        async def whole() -> None:
            await bench.start()
            try:
                await asyncio.wait_for(check(), bench.patience)
            finally:
                await bench.stop()

        asyncio.run(whole())

    async def _invoice(self, bench: WalletBench, wallet: Wallet, job_id: str = "job", price: int = PRICE) -> Invoice:
        return await wallet.invoice(job_id, Amount(price, wallet.unit), self._deadline(bench))

    def _deadline(self, bench: WalletBench) -> int:
        return bench.now_ms() + HOUR

    async def _paid_by_stranger(self, bench: WalletBench, seller: Wallet, invoice: Invoice, amount: int) -> PaymentStatus:
        proof = await bench.send(invoice, amount)
        await bench.settle_ledger()
        return await seller.settle(invoice, proof)

    async def _sold(self, bench: WalletBench) -> tuple[Wallet, Wallet, Payment, Invoice]:
        """A seller with one paid invoice, and an empty wallet to refund to."""
        seller, refund_to = await bench.open("seller"), await bench.open("refund")
        invoice = await self._invoice(bench, seller)
        status = await self._paid_by_stranger(bench, seller, invoice, PRICE)
        assert status.state == "paid"
        return seller, refund_to, status.payments[0], invoice

    async def _until_known(self, ask: Callable[[], Awaitable[A]]) -> A:
        """The answer, asked for again while it is unknown: what was broken off may be under way at the other side for a moment."""
        for _ in range(TRIES):
            answer = await ask()
            if answer.state != "unknown":
                return answer
            await asyncio.sleep(BREATH)
        return answer

    async def _collect(self, bench: WalletBench, wallet: Wallet) -> None:
        """Until there is nothing left to collect; a transfer between own places becomes final in between."""
        await bench.settle_ledger()
        while await wallet.collect():
            await bench.settle_ledger()

    @staticmethod
    def _sum(status: PaymentStatus) -> int:
        return sum(p.amount.value for p in status.payments)
