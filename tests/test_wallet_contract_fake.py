"""The in-memory rail keeps the wallet contract, and its faults do what they say."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, ClassVar

import pytest

from tradeskill.contracts import Wallet
from tradeskill.errors import StateError, UnavailableError, UnknownOutcomeError
from tradeskill.model import Invoice
from tradeskill.money import Amount
from tradeskill.testing.fakes import WALLET_FAULTS, FakeLedger, FakeWallet
from tradeskill.testing.wallet_bench import LedgerFault
from tradeskill.testing.wallet_contract import WalletBench, WalletContract
from tradeskill.world import LABELS, World

NOW = 1_700_000_000_000


class FakeBench(WalletBench):
    """Wallets on a ledger in memory. What `fault` names happens at every wallet's next visit of the place where it can."""

    lacks: ClassVar[Mapping[str, str]] = {"secrets": "it signs with nothing: who has the object has the money"}
    kind: LedgerFault = ""

    def __init__(self) -> None:
        self.ledger = FakeLedger(self.now_ms)
        self._opened: list[FakeWallet] = []
        self._strangers = 0

    async def start(self) -> None: ...

    async def stop(self) -> None:
        for wallet in self._opened:
            await wallet.close()

    async def open(self, name: str) -> Wallet:
        wallet = self.make(name)
        await wallet.open()
        self._opened.append(wallet)
        return wallet

    def make(self, name: str) -> FakeWallet:
        return FakeWallet(self.ledger, World(), name, fault=self._fault)

    async def fault(self, kind: LedgerFault) -> None:
        self.kind = kind

    def _fault(self, place: str) -> str:
        """How a wallet in memory meets the ledger's faults: what its deadlines and checks would make of them has happened already."""
        return {
            ("unreachable", "call"): "unavailable",
            ("hang", "call"): "unavailable",
            ("answer-lost", "publish"): "answer-lost",
            ("answer-lost", "look"): "unsure",
            ("garbage", "publish"): "unreached",
            ("garbage", "look"): "unsure",
        }.get((self.kind, place), "")

    async def fund(self, wallet: Wallet, amount: int) -> None:
        self.ledger.fund(await wallet.address(), amount)

    async def send(self, invoice: Invoice, amount: int) -> str | None:
        self._strangers += 1
        stranger = FakeWallet(self.ledger, World(), f"stranger-{self._strangers}")
        await self.fund(stranger, amount)
        part = Invoice(invoice.rail, invoice.network, "part", "part", invoice.address, Amount(amount, "raw"), 0)
        return (await stranger.pay(part, "key")).payment_id

    async def settle_ledger(self) -> None:
        self.ledger.confirm_all()

    async def received(self, wallet: Wallet) -> int:
        return self.ledger.received(await wallet.address())

    def now_ms(self) -> int:
        return NOW


class TestFakeWallet(WalletContract):
    @pytest.fixture
    def bench(self) -> WalletBench:
        return FakeBench()


class Labels(World):
    """Remembers which crash points were passed."""

    def __init__(self) -> None:
        super().__init__()
        self.passed: list[str] = []

    def crash(self, when: str, label: str) -> None:
        self.passed.append(f"{when}:{label}")


def run(body: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(body(), 10))


def once(place: str, kind: str) -> Callable[[str], str]:
    """A fault of that kind at the first visit of the place."""
    left = [kind]
    return lambda where: left.pop() if where == place and left else ""


async def pair(ledger: FakeLedger, fault: Callable[[str], str]) -> tuple[FakeWallet, FakeWallet, Invoice]:
    seller, buyer = FakeWallet(ledger, World(), "seller"), FakeWallet(ledger, World(), "buyer", fault=fault)
    ledger.fund(await buyer.address(), 100)
    return seller, buyer, await seller.invoice("job", Amount(40, "raw"), NOW)


@pytest.mark.parametrize("kind", WALLET_FAULTS["publish"])
def test_after_any_fault_at_publishing_the_same_key_pays_exactly_once(kind: str) -> None:
    async def body() -> None:
        ledger = FakeLedger(lambda: NOW)
        seller, buyer, invoice = await pair(ledger, once("publish", kind))
        try:
            first = (await buyer.pay(invoice, "key")).state
        except UnknownOutcomeError:
            first = "unknown"
        assert first == ("published" if kind == "dropped" else "unknown")
        await buyer.pay(invoice, "key")
        ledger.confirm_all()
        proof = await buyer.paid("key")
        assert proof is not None
        assert proof.state == "final"
        assert [p.amount.value for p in (await seller.settle(invoice, None)).payments] == [40]

    run(body)


def test_a_lying_look_passes_and_the_truth_comes_back() -> None:
    async def body() -> None:
        for kind, state in (("hidden", "none"), ("unsure", "unknown"), ("unbacked", "paid")):
            ledger = FakeLedger(lambda: NOW, confirm_after=0)
            _, buyer, invoice = await pair(ledger, lambda _: "")
            await buyer.pay(invoice, "key")
            liar = FakeWallet(ledger, World(), "seller", fault=once("look", kind))
            lie, truth = await liar.status(invoice), await liar.status(invoice)
            assert (lie.state, lie.payments) == (state, ())
            assert (truth.state, len(truth.payments)) == ("paid", 1)

    run(body)


def test_an_unavailable_rail_signs_nothing() -> None:
    async def body() -> None:
        _, buyer, invoice = await pair(FakeLedger(lambda: NOW), once("call", "unavailable"))
        with pytest.raises(UnavailableError):
            await buyer.pay(invoice, "key")
        assert await buyer.paid("key") is None

    run(body)


def test_a_rolled_back_payment_is_pending_no_more_and_comes_back_as_the_same_bytes() -> None:
    async def body() -> None:
        ledger = FakeLedger(lambda: NOW)
        seller, buyer, invoice = await pair(ledger, lambda _: "")
        first = await buyer.pay(invoice, "key")
        assert (await seller.status(invoice)).state == "pending"
        ledger.roll_back(first.payment_id)
        assert (await seller.status(invoice)).state == "none"
        known = await buyer.paid("key")
        assert known is not None
        assert known.state == "unknown"
        assert (await buyer.pay(invoice, "key")).payment_id == first.payment_id
        ledger.confirm_all()
        with pytest.raises(StateError):
            ledger.roll_back(first.payment_id)

    run(body)


def test_a_held_ledger_confirms_nothing_until_released() -> None:
    async def body() -> None:
        ledger = FakeLedger(lambda: NOW, confirm_after=0)
        ledger.hold = True
        seller, buyer, invoice = await pair(ledger, lambda _: "")
        await buyer.pay(invoice, "key")
        assert (await seller.status(invoice)).state == "pending"
        ledger.hold = False
        ledger.confirm_all()
        assert (await seller.status(invoice)).state == "paid"

    run(body)


def test_every_wallet_label_of_the_crash_matrix_is_passed() -> None:
    async def body() -> None:
        world, ledger = Labels(), FakeLedger(lambda: NOW, confirm_after=0)
        wallet = FakeWallet(ledger, world, "both")
        ledger.fund(await wallet.address(), 100)
        invoice = await wallet.invoice("job", Amount(40, "raw"), NOW)
        await wallet.pay(invoice, "key")
        payment = (await wallet.settle(invoice, None)).payments[0]
        await wallet.refund(payment, invoice, await wallet.address(), Amount(10, "raw"), "back")
        await wallet.collect()
        wanted = [label for label in LABELS if label.split(".")[0] in ("receive", "sweep", "refund", "pay")] + ["seller.index-reserved"]
        assert {f"{when}:{label}" for label in wanted for when in ("before", "after")} == set(world.passed)

    run(body)
