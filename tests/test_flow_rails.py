"""One offer, several rails, through the whole flow: the quote lists its invoices, the buyer's policy picks, one is paid, what comes on the others goes back.

Past 400 lines because each case is one situation at one of the two sides.
"""

from __future__ import annotations

import json
from collections.abc import Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from tests.rig import PRICE, Rig, at_work, under_policy
from tradeskill.agreement import read_quote, read_receipt, read_request, sign_quote, sign_request
from tradeskill.allocation import Terms
from tradeskill.buyer import Buyer, BuyerSettings
from tradeskill.errors import ConfigError, PluginError, RefusedError, UnavailableError
from tradeskill.journal import Purchase
from tradeskill.journal.records import read_document
from tradeskill.model import Invoice, Job, PaymentStatus
from tradeskill.money import Amount
from tradeskill.policy import Question
from tradeskill.seller import SellerSettings
from tradeskill.testing.fake_backend import Plan
from tradeskill.testing.fakes import FakeLedger, FakeWallet, Transfer
from tradeskill.testing.fakes import _address as fake_address
from tradeskill.testing.virtual_time import run_virtual

SATS = Amount(21, "sat")
FUNDS = 10**6
BOTH = ("fake", "coin")
TERMS = Terms(surplus="refund", refund_minimum={"raw": 10**24})  # as a seller starts with
LONG = SellerSettings(quote_ttl_ms=300_000, poll_seconds=1.0, terms=TERMS)
ALL_BACK = SellerSettings(quote_ttl_ms=300_000, poll_seconds=1.0)


def play(main: Coroutine[Any, Any, None]) -> None:
    run_virtual(main)


class Rails(Rig):
    """The rig with a second rail, `coin`, in sat, on a ledger of its own."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"prices": (PRICE, SATS), "settings": LONG, **options})
        self.coins = FakeLedger(self.world.now_ms, "dev", 0.15)
        self.down: set[tuple[str, str]] = set()  # (side, rail) that cannot be reached

    async def wallets(self, side: str, rails: Sequence[str] = BOTH, fund: Sequence[str] = BOTH) -> list[FakeWallet]:
        found = []
        for rail in rails:
            ledger, unit, name = (self.ledger, "raw", side) if rail == "fake" else (self.coins, "sat", f"{side}'s coins")
            wallet = FakeWallet(ledger, self.world, name, rail=rail, unit=unit, fault=partial(self._fault, side, rail))
            await wallet.open()
            if side == "buyer" and rail in fund:
                ledger.fund(await wallet.address(), FUNDS)
                await wallet.collect()
            found.append(wallet)
        return found

    def _fault(self, side: str, rail: str, place: str) -> str:
        return "unavailable" if place == "call" and (side, rail) in self.down else ""

    async def hiring(self, rails: Sequence[str] = BOTH, fund: Sequence[str] = BOTH, **parts: Any) -> Buyer:
        return await self.buyer(wallets=await self.wallets("buyer", rails, fund), **parts)

    @asynccontextmanager
    async def selling(self, rails: Sequence[str] = BOTH) -> Any:
        async with at_work(await self.seller(wallets=await self.wallets("seller", rails))):
            yield

    def paid(self) -> list[tuple[str, int]]:
        """What the buyer signed away, by rail."""
        stores = {"fake": self.ledger.stores.get("buyer"), "coin": self.coins.stores.get("buyer's coins")}
        sends = [(rail, store.sends) for rail, store in stores.items() if store is not None]
        return [(rail, transfer.amount) for rail, sent in sends for purpose, transfer in sent.items() if purpose.startswith("pay:")]

    def quoted(self, purchase: Purchase) -> list[str]:
        return [invoice.rail for invoice in read_quote(read_document(purchase.quote or ""), purchase.seller).invoices]

    def of(self, job: Job, rail: str) -> Invoice:
        store = self.ledger.stores["seller"] if rail == "fake" else self.coins.stores["seller's coins"]
        return store.invoices[job.job_id]

    def send(self, rail: str, address: str, amount: int) -> str:
        """Somebody sends money there, on that rail."""
        if rail == "fake":
            return self.pay(address, amount)
        self._sent += 1
        source = fake_address("dev", "stranger", "main")
        self.coins.fund(source, amount)
        self.coins.publish(Transfer(f"{self._sent:064x}", source, address, amount))
        return f"{self._sent:064x}"

    async def ordered(self, url: str = "http://a/") -> Job:
        """By a buyer that does everything by hand and can be refunded on both rails."""
        market = await self.market("buyer")
        refund_to = {"fake": self.refund_address, "coin": self.refund_address}
        document = sign_request(self.buyer_identity, self.offer(), input_value={"url": url}, refund_to=refund_to, nonce=url, created_at=self.world.now_ms())
        job = await market.request(document)
        while (job := await market.get(job.job_id)).state == "requested":
            await self.world.sleep(0.05)
        return await market.accept(job.job_id)

    async def claim_on(self, job: Job, rail: str, payment_id: str) -> None:
        await (await self.market("buyer")).submit_payment(job.job_id, rail, payment_id)

    def parts(self, job: Job) -> set[tuple[str, str, int]]:
        return {(payment.rail, payment.state, payment.value) for payment in self.payments(job.job_id)}

    async def settled(self, job: Job, state: str, seconds: float = 30.0) -> None:
        open_states = ("refund_due", "refunding", "found")
        await self.until(lambda: self.row(job).state == state and not any(p.state in open_states for p in self.payments(job.job_id)), seconds)


@pytest.mark.parametrize(
    ("rails", "quoted", "paid"), [(("fake",), ["fake"], ("fake", 1000)), (("coin",), ["coin"], ("coin", 21)), (BOTH, [*BOTH], ("fake", 1000))]
)
def test_each_buyer_is_quoted_what_it_can_pay_and_be_refunded_by(rails: Sequence[str], quoted: list[str], paid: tuple[str, int]) -> None:
    async def main() -> None:
        rig = Rails()
        async with rig.selling():
            purchase = await rig.hire(await rig.hiring(rails))
            assert (purchase.state, purchase.rail, rig.quoted(purchase)) == ("received", paid[0], quoted)
            assert rig.paid() == [paid]
            receipt = read_receipt(read_document(purchase.receipt or ""), purchase.seller)
            assert (receipt.rail, receipt.amount.value) == paid

    play(main())


@pytest.mark.parametrize(
    ("content", "picked"),
    [
        ({"rails": ["coin", "fake"]}, "coin"),
        ({"rails": ["fake", "coin"]}, "fake"),
        ({"rails": ["coin"]}, "coin"),
        ({"caps": {"payment": ["21 sat"]}}, "coin"),
        ({"caps": {"payment": ["999 raw", "21 sat"]}}, "coin"),
        ({"rails": ["coin", "fake"], "caps": {"day": ["20 sat", "1000 raw"]}}, "fake"),
        ({"ask_above": ["999 raw", "21 sat"]}, "coin"),  # rather what needs no question
    ],
)
def test_the_policy_picks_the_rail(content: dict[str, Any], picked: str) -> None:
    async def main() -> None:
        rig = Rails()
        rig.buyer_settings = await under_policy(rig, content)
        async with rig.selling():
            purchase = await rig.hire(await rig.hiring())
            assert (purchase.state, purchase.rail) == ("received", picked)
            assert [rail for rail, _ in rig.paid()] == [picked]

    play(main())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"rails": ["bank"]}, "money may leave by bank only, not by fake"),
        ({"caps": {"payment": ["999 raw", "20 sat"]}}, "cap per payment"),
        ({"frozen": True}, "frozen"),
    ],
)
def test_where_every_rail_is_refused_nothing_is_signed_and_the_rule_is_named(content: dict[str, Any], says: str) -> None:
    async def main() -> None:
        rig = Rails()
        rig.buyer_settings = await under_policy(rig, content)
        async with rig.selling():
            purchase = await rig.hire(await rig.hiring())
            assert (purchase.state, purchase.error_code) == ("abandoned", "refused.policy")
            assert says in (purchase.error_message or "")
            assert rig.paid() == []

    play(main())


def test_the_owner_is_asked_where_every_rail_asks() -> None:
    async def main() -> None:
        rig, asked = Rails(), []

        async def ask(question: Question) -> bool:
            asked.append(question.text)
            return True

        rig.buyer_settings = await under_policy(rig, {"ask_above": ["1 raw", "1 sat"], "rails": ["coin", "fake"]})
        async with rig.selling():
            assert (await rig.hire(await rig.hiring(ask_owner=ask))).rail == "coin"
        assert len(asked) == 1
        assert "21 sat" in asked[0]

    play(main())


@pytest.mark.parametrize(("caps", "picked"), [((SATS,), "coin"), ((PRICE,), "fake"), ((Amount(999, "raw"), SATS), "coin"), ((Amount(5, "msat"),), None)])
def test_the_caps_of_one_purchase_pick_too(caps: tuple[Amount, ...], picked: str | None) -> None:
    async def main() -> None:
        rig = Rails()
        async with rig.selling():
            buyer = await rig.hiring()
            purchase = await buyer.drive((await buyer.intend(rig.offer(), {"url": "http://a/"}, caps=caps)).purchase_id)
            assert (purchase.rail if purchase.state == "received" else None) == picked
            assert [rail for rail, _ in rig.paid()] == ([picked] if picked else [])

    play(main())


@pytest.mark.parametrize(
    ("first_use", "caps", "picked"),
    [((SATS,), (), "coin"), ((SATS,), (PRICE, SATS), "coin"), ((Amount(20, "sat"), PRICE), (SATS, PRICE), "fake"), ((PRICE,), (SATS,), None)],
)
def test_a_first_purchase_is_bound_by_both_caps_unit_by_unit(first_use: tuple[Amount, ...], caps: tuple[Amount, ...], picked: str | None) -> None:
    async def main() -> None:
        rig = Rails(buyer_settings=BuyerSettings(first_use_cap=first_use))
        async with rig.selling():
            buyer = await rig.hiring()
            purchase = await buyer.drive((await buyer.intend(rig.offer(), {"url": "http://a/"}, caps=caps)).purchase_id)
            assert (purchase.rail if purchase.state == "received" else None) == picked
            assert [rail for rail, _ in rig.paid()] == ([picked] if picked else [])

    play(main())


@pytest.mark.parametrize(("funded", "picked"), [(("coin",), "coin"), (("fake",), "fake"), (BOTH, "coin")])
def test_an_empty_wallet_is_passed_over(funded: Sequence[str], picked: str) -> None:
    async def main() -> None:
        rig = Rails()
        rig.buyer_settings = await under_policy(rig, {"rails": ["coin", "fake"]})
        async with rig.selling():
            purchase = await rig.hire(await rig.hiring(fund=funded))
            assert (purchase.state, purchase.rail) == ("received", picked)

    play(main())


class Choosy(FakeWallet):
    """Well-formed invoices that it cannot pay, as those of a mint that it does not use; or whose balance cannot be asked."""

    cannot = True

    def check(self, invoice: Invoice) -> None:
        super().check(invoice)
        if self.cannot:
            raise RefusedError("no mint in common")

    async def balance(self) -> Any:
        raise UnavailableError("the mint is down")


@pytest.mark.parametrize(("cannot", "picked"), [(True, "fake"), (False, "coin")])
def test_a_rail_that_cannot_pay_this_invoice_is_passed_over_and_an_unknown_balance_is_not(cannot: bool, picked: str) -> None:
    async def main() -> None:
        rig = Rails()
        rig.buyer_settings = await under_policy(rig, {"rails": ["coin", "fake"]})
        fake, _ = await rig.wallets("buyer")
        coin = Choosy(rig.coins, rig.world, "buyer's coins", rail="coin", unit="sat")
        coin.cannot = cannot
        async with rig.selling():
            purchase = await rig.hire(await rig.buyer(wallets=[fake, coin]))
            assert (purchase.state, purchase.rail) == ("received", picked)

    play(main())


def test_where_no_rail_can_pay_the_reason_is_the_wallets() -> None:
    async def main() -> None:
        rig = Rails(prices=(SATS,))
        async with rig.selling():
            await rig.wallets("buyer")
            purchase = await rig.hire(await rig.buyer(wallets=[Choosy(rig.coins, rig.world, "buyer's coins", rail="coin", unit="sat")]))
            assert (purchase.state, purchase.error_message) == ("abandoned", "no mint in common")

    play(main())


def test_a_quote_for_other_rails_than_ours_is_refused_by_their_names() -> None:
    async def main() -> None:
        rig = Rails(prices=(PRICE,))
        async with rig.selling():
            purchase = await rig.hire(await rig.hiring(("coin",)))
            assert (purchase.state, purchase.error_code) == ("abandoned", "refused")
            assert (purchase.error_message or "").endswith("payable by fake, this profile has coin")

    play(main())


def test_one_malformed_invoice_of_several_and_nothing_is_paid() -> None:
    async def main() -> None:
        rig = Rails()
        buyer, market = await rig.hiring(), await rig.market("seller")
        await market.publish(rig.offer().document)
        purchase = await rig.hire(buyer, until=["requested"])
        request = (await market.get(purchase.job_id or "")).request
        fake, coin = await rig.wallets("seller")
        until = rig.world.now_ms() + 300_000
        good, bad = await fake.invoice("j", PRICE, until), replace(await coin.invoice("j", SATS, until), address="nowhere")
        job_id, wish = purchase.job_id or "", read_request(request, rig.buyer_identity.key)
        await market.quote(job_id, sign_quote(rig.seller_identity, wish, job_id=job_id, invoices=[good, bad], expires_at=until, nonce="0" * 32))
        ended = await buyer.drive(purchase.purchase_id)
        assert (ended.state, ended.error_code) == ("abandoned", "refused.untrusted")
        assert rig.paid() == []

    play(main())


def test_a_rail_without_a_refund_address_is_not_paid_by() -> None:
    async def main() -> None:
        rig = Rails()
        rig.buyer_settings = await under_policy(rig, {"rails": ["coin", "fake"]})
        async with rig.selling():
            buyer = await rig.hiring()
            rig.down.add(("buyer", "coin"))
            purchase = await buyer.intend(rig.offer(), {"url": "http://a/"})
            assert set(json.loads(purchase.refund_invoices)) == {"fake"}
            rig.down.clear()
            purchase = await buyer.drive(purchase.purchase_id)
            assert (purchase.state, purchase.rail, rig.quoted(purchase)) == ("received", "fake", ["fake"])

    play(main())


def test_with_every_rail_down_nothing_is_asked_for() -> None:
    async def main() -> None:
        rig = Rails()
        buyer = await rig.hiring()
        rig.down |= {("buyer", "fake"), ("buyer", "coin")}
        with pytest.raises(UnavailableError):
            await buyer.intend(rig.offer(), {"url": "http://a/"})
        assert rig.purchases() == []

    play(main())


# the seller's side


def test_a_rail_in_trouble_is_left_out_of_the_quote() -> None:
    async def main() -> None:
        rig = Rails()
        async with rig.selling():
            rig.down.add(("seller", "fake"))
            job = await rig.ordered()
            assert [invoice.rail for invoice in read_quote(job.quote, job.seller).invoices] == ["coin"] if job.quote else False
            await rig.claim_on(job, "coin", rig.send("coin", rig.of(job, "coin").address, 21))
            await rig.settled(job, "delivered")

    play(main())


class Slow(FakeWallet):
    seconds = 50.0

    async def invoice(self, job_id: str, amount: Amount, expires_at: int) -> Invoice:
        await self._world.sleep(self.seconds)
        return await super().invoice(job_id, amount, expires_at)


@pytest.mark.parametrize(("seconds", "quoted", "took"), [((50.0, 0.0), ["coin"], 4.0), ((50.0, 9.0), ["coin"], 10.0), ((2.0, 1.0), ["fake", "coin"], 4.0)])
def test_a_slow_wallet_holds_up_no_quote_that_another_can_give(seconds: tuple[float, float], quoted: list[str], took: float) -> None:
    async def main() -> None:
        rig = Rails()
        wallets = [Slow(rig.ledger, rig.world, "seller"), Slow(rig.coins, rig.world, "seller's coins", rail="coin", unit="sat")]
        for wallet, its in zip(wallets, seconds, strict=True):
            wallet.seconds = its
            await wallet.open()
        async with at_work(await rig.seller(wallets=wallets)):
            began = rig.world.monotonic()
            job = await rig.ordered()
            assert job.quote is not None
            assert [invoice.rail for invoice in read_quote(job.quote, job.seller).invoices] == quoted
            assert rig.world.monotonic() - began < took

    play(main())


@pytest.mark.parametrize("error", [RefusedError("too small"), PluginError("it broke")])
def test_a_wallet_that_refuses_or_breaks_leaves_the_sale_to_the_other(error: Exception) -> None:
    class Unwilling(FakeWallet):
        async def invoice(self, job_id: str, amount: Amount, expires_at: int) -> Invoice:
            raise error

    async def main() -> None:
        rig = Rails()
        unwilling, (coin,) = Unwilling(rig.ledger, rig.world, "seller"), await rig.wallets("seller", ["coin"])
        await unwilling.open()
        async with at_work(await rig.seller(wallets=[unwilling, coin])):
            purchase = await rig.hire(await rig.hiring())
            assert (purchase.state, purchase.rail) == ("received", "coin")

    play(main())


def test_with_every_rail_in_trouble_the_quote_waits() -> None:
    async def main() -> None:
        rig = Rails()
        async with rig.selling():
            rig.down |= {("seller", "fake"), ("seller", "coin")}
            buyer = await rig.hiring()
            purchase = await rig.hire(buyer, until=["requested"])
            await rig.world.sleep(20.0)
            assert [row.state for row in rig.fulfilments()] == ["seen"]
            rig.down.clear()
            assert (await buyer.drive(purchase.purchase_id)).state == "received"

    play(main())


def test_both_invoices_paid_and_one_goes_back_on_its_own_rail() -> None:
    async def main() -> None:
        rig = Rails(settings=ALL_BACK)
        async with rig.selling():
            job = await rig.ordered()
            rig.send("fake", rig.of(job, "fake").address, 1000)
            rig.send("coin", rig.of(job, "coin").address, 21)
            await rig.world.sleep(5.0)
            await rig.claim_on(job, "coin", "whichever")
            await rig.settled(job, "delivered")
            parts = rig.parts(job)
            assert parts in ({("fake", "allocated", 1000), ("coin", "refunded", 21)}, {("coin", "allocated", 21), ("fake", "refunded", 1000)}), parts
            back = {"coin": rig.coins.received(rig.refund_address), "fake": rig.ledger.received(rig.refund_address)}
            assert back == ({"coin": 21, "fake": 0} if ("coin", "refunded", 21) in parts else {"coin": 0, "fake": 1000})
            assert len(rig.machine.started) == 1

    play(main())


def test_of_two_invoices_paid_at_once_the_claimed_one_counts() -> None:
    async def main() -> None:
        rig = Rails(settings=ALL_BACK)
        async with rig.selling():
            job = await rig.ordered()
            rig.down |= {("seller", "fake"), ("seller", "coin")}
            rig.send("fake", rig.of(job, "fake").address, 1000)
            await rig.claim_on(job, "coin", rig.send("coin", rig.of(job, "coin").address, 21))
            await rig.until(lambda: rig.row(job).claim is not None)
            rig.down.clear()
            await rig.settled(job, "delivered")
            assert rig.parts(job) == {("coin", "allocated", 21), ("fake", "refunded", 1000)}

    play(main())


def test_too_little_on_one_rail_goes_back_when_the_other_pays() -> None:
    async def main() -> None:
        rig = Rails()
        async with rig.selling():
            job = await rig.ordered()
            rig.send("coin", rig.of(job, "coin").address, 20)
            await rig.until(lambda: rig.parts(job) == {("coin", "found", 20)})
            await rig.claim_on(job, "fake", rig.send("fake", rig.of(job, "fake").address, 1000))
            await rig.settled(job, "delivered")
            assert rig.parts(job) == {("fake", "allocated", 1000), ("coin", "refunded", 20)}

    play(main())


def test_a_minimum_for_refunds_in_one_unit_keeps_nothing_in_another() -> None:
    async def main() -> None:
        rig = Rails()
        async with rig.selling():
            job, other = await rig.ordered(), await rig.ordered("http://b/")
            rig.send("coin", rig.of(job, "coin").address, 20)
            rig.send("fake", rig.of(job, "fake").address, 999)
            await rig.claim_on(job, "coin", "x")
            await rig.claim_on(other, "coin", rig.send("coin", rig.of(other, "coin").address, 25))
            await rig.settled(other, "delivered")
            assert rig.parts(other) == {("coin", "allocated", 21), ("coin", "refunded", 4)}
            await rig.settled(job, "expired", seconds=500.0)
            assert rig.parts(job) == {("coin", "refunded", 20), ("fake", "surplus", 999)}  # 999 raw are under 10^24 raw

    play(main())


def test_one_rail_down_hides_no_payment_on_the_other() -> None:
    async def main() -> None:
        rig = Rails()
        async with rig.selling():
            job = await rig.ordered()
            rig.down.add(("seller", "coin"))  # the first that is looked at
            await rig.claim_on(job, "fake", rig.send("fake", rig.of(job, "fake").address, 1000))
            await rig.settled(job, "delivered")
            assert rig.parts(job) == {("fake", "allocated", 1000)}

    play(main())


class Hanging(FakeWallet):
    """Its looks take that long."""

    seconds = 10_000.0

    async def settle(self, invoice: Invoice, proof: str | None) -> PaymentStatus:
        await self._world.sleep(self.seconds)
        return await super().settle(invoice, proof)


@pytest.mark.parametrize("at_first", [True, False])
def test_a_hanging_rail_holds_up_no_payment_on_the_other_by_more_than_half_a_minute(at_first: bool) -> None:
    async def main() -> None:
        rig = Rails()
        (fake,), coin = await rig.wallets("seller", ["fake"]), Hanging(rig.coins, rig.world, "seller's coins", rail="coin", unit="sat")
        await coin.open()
        async with at_work(await rig.seller(wallets=[fake, coin])):
            job = await rig.ordered()
            if not at_first:
                await rig.world.sleep(100.0)  # it is being looked at already
            await rig.claim_on(job, "fake", rig.send("fake", rig.of(job, "fake").address, 1000))
            await rig.settled(job, "delivered", seconds=45.0)

    play(main())


def test_a_slow_rail_that_the_buyer_paid_by_is_waited_for() -> None:
    async def main() -> None:
        rig = Rails()
        (fake,), coin = await rig.wallets("seller", ["fake"]), Hanging(rig.coins, rig.world, "seller's coins", rail="coin", unit="sat")
        coin.seconds = 100.0
        await coin.open()
        async with at_work(await rig.seller(wallets=[fake, coin])):
            job = await rig.ordered()
            await rig.claim_on(job, "coin", rig.send("coin", rig.of(job, "coin").address, 21))
            await rig.settled(job, "delivered", seconds=400.0)

    play(main())


def test_a_job_does_not_expire_while_one_of_its_rails_cannot_be_asked() -> None:
    async def main() -> None:
        rig = Rails()
        async with rig.selling():
            job = await rig.ordered()
            rig.down.add(("seller", "coin"))
            rig.send("coin", rig.of(job, "coin").address, 21)
            await rig.claim_on(job, "coin", "x")
            await rig.world.sleep(4000.0)
            assert rig.row(job).state == "quoted"
            rig.down.clear()
            await rig.settled(job, "delivered", seconds=200.0)

    play(main())


def test_a_payment_on_the_last_invoice_counts_though_the_first_has_nothing_at_the_end() -> None:
    async def main() -> None:
        rig = Rails()
        seller = await rig.seller(wallets=await rig.wallets("seller"))
        async with at_work(seller):
            job = await rig.ordered()
        rig.send("fake", rig.of(job, "fake").address, 1000)  # `coin` comes first
        await rig.world.sleep(5.0)
        row = await seller.settling.settle(job.job_id, closing=True)
        assert row.state == "paid"

    play(main())


def test_a_failed_job_is_refunded_on_the_rail_it_was_paid_by() -> None:
    async def main() -> None:
        rig = Rails(plan=lambda execution_id, task: Plan(end="failed"))
        rig.buyer_settings = await under_policy(rig, {"rails": ["coin"]})
        async with rig.selling():
            purchase = await rig.hire(await rig.hiring())
            assert (purchase.state, purchase.rail) == ("refunded", "coin")
            assert rig.paid() == [("coin", 21)]

    play(main())


def test_a_wallet_taken_out_of_the_configuration_loses_no_money() -> None:
    async def main() -> None:
        rig = Rails()
        wallets = await rig.wallets("seller")
        async with at_work(await rig.seller(wallets=wallets)):
            job = await rig.ordered()
        rig.send("coin", rig.of(job, "coin").address, 21)
        async with at_work(await rig.seller(wallets=wallets[:1])):
            await rig.claim_on(job, "coin", "x")
            await rig.world.sleep(4000.0)
            assert rig.row(job).state == "quoted"
        async with at_work(await rig.seller(wallets=wallets)):
            await rig.settled(job, "delivered", seconds=200.0)

    play(main())


def test_a_buyer_whose_wallet_is_gone_is_told_which() -> None:
    async def main() -> None:
        rig = Rails()
        async with rig.selling():
            wallets = await rig.wallets("buyer")
            purchase = await rig.hire(await rig.buyer(wallets=wallets), until=["accepted"])
            with pytest.raises(ConfigError, match="pays by the rail fake, which has no wallet"):
                await (await rig.buyer(wallets=wallets[1:])).drive(purchase.purchase_id)
            assert (await (await rig.buyer(wallets=wallets)).drive(purchase.purchase_id)).state == "received"

    play(main())


class Forgetful(FakeWallet):
    """Gives every job the first job's address."""

    async def invoice(self, job_id: str, amount: Amount, expires_at: int) -> Invoice:
        return replace(await super().invoice("the first", amount, expires_at), job_id=job_id)


def test_an_invoice_given_out_before_is_not_quoted_for_another_job(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        rig = Rig()
        wallet = Forgetful(rig.ledger, rig.world, "seller")
        async with at_work(await rig.seller(wallet=wallet)):
            buyer = await rig.buyer()
            first, second = await rig.hire(buyer, until=["verified"]), await rig.hire(buyer, "http://b/")
            assert (first.state, second.state, second.error_code) == ("verified", "canceled", "not_payable")
            assert (first.job_id or "?") not in (second.error_message or "")
        assert f"twice: on the rail fake for job {first.job_id}" in caplog.text

    play(main())
