"""A bearer rail, shaped quite unlike Nano, keeps the same wallet contract; and a contract fed with a lying rail notices."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, ClassVar

import pytest

from tests.bearer_rail import BearerWallet, Mint
from tests.test_wallet_contract_fake import FakeBench
from tradeskill.contracts import Wallet
from tradeskill.errors import TradeskillError
from tradeskill.model import Invoice, PaymentStatus, Proof
from tradeskill.money import Amount
from tradeskill.testing.fakes import FakeWallet
from tradeskill.testing.wallet_bench import LedgerFault
from tradeskill.testing.wallet_contract import WalletBench, WalletContract
from tradeskill.world import World

FAR = 10**15


class BearerBench(WalletBench):
    lacks: ClassVar[Mapping[str, str]] = {
        "pending": "a token is worth nothing until it is swapped, then it is final",
        "hints": "nobody tells a payee that a token was made",
        "same_address": "the address names the wallet; a lock in the details tells jobs apart",
        "secrets": "its coins are their own names, in a mint that lives in memory",
    }

    def __init__(self) -> None:
        self.mint, self._count = Mint(), 0

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def open(self, name: str) -> Wallet:
        wallet = BearerWallet(self.mint, World(), name)
        await wallet.open()
        return wallet

    async def fund(self, wallet: Wallet, amount: int) -> None:
        self._count += 1
        assert isinstance(wallet, BearerWallet)
        self.mint.issue(f"fund-{self._count}", amount)
        wallet.store.coins[f"fund-{self._count}"] = amount

    async def send(self, invoice: Invoice, amount: int) -> str | None:
        self._count += 1
        stranger = BearerWallet(self.mint, World(), f"stranger-{self._count}")
        await self.fund(stranger, amount)
        part = Invoice(invoice.rail, invoice.network, invoice.invoice_id, "part", invoice.address, Amount(amount, "sat"), 0)
        return (await stranger.pay(part, "key")).token

    async def settle_ledger(self) -> None: ...

    async def received(self, wallet: Wallet) -> int:
        return (await wallet.balance()).available.value

    def now_ms(self) -> int:
        return World().now_ms()

    async def fault(self, kind: LedgerFault) -> None:
        self.mint.fault = lambda: {"": "", "answer-lost": "answer-lost"}.get(kind, "unavailable")


class TestBearerWallet(WalletContract):
    @pytest.fixture
    def bench(self) -> WalletBench:
        return BearerBench()


def run(body: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(body(), 10))


async def deal() -> tuple[BearerBench, Wallet, Wallet, Invoice, str]:
    bench = BearerBench()
    seller, buyer = await bench.open("seller"), await bench.open("buyer")
    invoice = await seller.invoice("job", Amount(5, "sat"), FAR)
    await bench.fund(buyer, 9)
    return bench, seller, buyer, invoice, (await buyer.pay(invoice, "key")).token


def test_a_swap_whose_answer_was_lost_is_replayed_and_counts_once() -> None:
    async def body() -> None:
        bench, seller, _, invoice, token = await deal()
        faults = ["unavailable", "answer-lost", "answer-lost"]
        bench.mint.fault = lambda: faults.pop(0) if faults else ""
        assert [(await seller.settle(invoice, token)).state for _ in range(3)] == ["unknown"] * 3
        assert (await seller.settle(invoice, None)).state == "paid"
        assert (await seller.balance()).available.value == 5

    run(body)


def test_a_token_that_its_payer_spent_first_pays_nothing() -> None:
    async def body() -> None:
        bench, seller, _, invoice, token = await deal()
        thief = await bench.open("thief")
        stolen = Invoice("bearer", "dev", invoice.invoice_id, "job", await thief.address(), Amount(5, "sat"), FAR)
        assert (await thief.settle(stolen, token)).state == "paid"
        assert (await seller.settle(invoice, token)).state == "none"

    run(body)


def test_a_token_that_claims_more_than_it_is_worth_pays_nothing() -> None:
    async def body() -> None:
        _, seller, _, invoice, token = await deal()
        assert (await seller.settle(invoice, token.rpartition(":")[0] + ":6")).state == "none"
        assert (await seller.settle(invoice, token)).state == "paid"

    run(body)


# --- the contract must catch a rail that breaks it


class Resigning(FakeWallet):
    """Pays again under a key that was paid before."""

    async def pay(self, invoice: Invoice, key: str) -> Proof:
        return await super().pay(invoice, f"{key}-{len(self.store.sends)}")


class Trusting(FakeWallet):
    """Calls money on its way paid."""

    async def settle(self, invoice: Invoice, proof: str | None) -> PaymentStatus:
        self.ledger.confirm_all()
        return await super().settle(invoice, proof)


class Reusing(FakeWallet):
    """Hands one address to two jobs."""

    async def invoice(self, job_id: str, amount: Amount, expires_at: int) -> Invoice:
        return await super().invoice("always the same", amount, expires_at)


class Gullible(FakeWallet):
    """Believes any invoice."""

    def check(self, invoice: Invoice) -> None: ...


class Forgetful(FakeWallet):
    """Refunds under a key of its own each time."""

    async def refund(self, *args: Any) -> Proof:
        return await super().refund(*args[:4], f"{args[4]}-{len(self.store.sends)}")


LIARS = [
    (Resigning, "test_one_key_pays_once_however_often_and_in_parallel"),
    (Resigning, "test_one_key_pays_once_over_a_reopened_wallet"),
    (Trusting, "test_a_payment_on_its_way_is_not_paid"),
    (Reusing, "test_two_jobs_never_share_an_invoice"),
    (Gullible, "test_a_malformed_or_foreign_invoice_is_untrusted_and_never_paid"),
    (Forgetful, "test_a_refund_is_sent_once_per_key_however_often_and_in_parallel"),
]


@pytest.mark.parametrize(("liar", "clause"), LIARS, ids=lambda value: getattr(value, "__name__", value))
def test_the_contract_catches_a_rail_that_breaks_it(liar: type[FakeWallet], clause: str) -> None:
    class Bench(FakeBench):
        async def open(self, name: str) -> Wallet:
            wallet = liar(self.ledger, World(), name)
            await wallet.open()
            return wallet

    for bench, fails in ((FakeBench(), False), (Bench(), True)):
        try:
            getattr(WalletContract(), clause)(bench)
        except (AssertionError, TradeskillError, pytest.fail.Exception):
            assert fails, f"{clause} fails for an honest rail"
        else:
            assert not fails, f"{clause} let {liar.__name__} pass"
