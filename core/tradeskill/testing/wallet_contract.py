"""What every wallet promises, as tests: subclass `WalletContract`, override the `bench` fixture, and pytest does the rest.

    class TestMyRail(WalletContract):
        @pytest.fixture
        def bench(self, tmp_path):
            return MyBench(tmp_path)          # a WalletBench

A rail that cannot do something says so as data: `lacks = {"pending": "tokens are final once swapped"}` on the bench; its tests then check what holds instead.

Past 400 lines because one contract is one class.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from typing import ClassVar, Literal

import pytest

from tradeskill.contracts import Wallet
from tradeskill.errors import RefusedError, TradeskillError, UntrustedError, UsageError
from tradeskill.model import NETWORKS, PaymentStatus
from tradeskill.money import Amount
from tradeskill.testing.clauses import clause
from tradeskill.testing.wallet_bench import HOUR, PRICE, WALLET_LACKS, WalletBench
from tradeskill.testing.wallet_faults import WalletFaultClauses

__all__ = ["WALLET_LACKS", "WalletBench", "WalletContract"]


class WalletContract(WalletFaultClauses):
    """The clauses when nothing goes wrong; those about what does are inherited."""

    yours: ClassVar[frozenset[str]] = frozenset({"bench"})

    # --- invoices

    @clause("W-01")
    def test_two_jobs_never_share_an_invoice(self, bench: WalletBench) -> None:
        async def check() -> None:
            seller = await bench.open("seller")
            invoices = [await self._invoice(bench, seller, f"job-{n}") for n in range(5)]
            assert len({i.invoice_id for i in invoices}) == 5
            if "same_address" not in bench.lacks:
                assert len({i.address for i in invoices}) == 5

        self._run(bench, check)

    @clause("W-02")
    def test_the_same_job_gets_the_same_invoice_even_in_parallel_and_after_reopening(self, bench: WalletBench) -> None:
        async def check() -> None:
            seller = await bench.open("seller")
            first, second = await asyncio.gather(self._invoice(bench, seller, "job"), self._invoice(bench, seller, "job"))
            await seller.close()
            third = await self._invoice(bench, await bench.open("seller"), "job")
            assert first == second == third

        self._run(bench, check)

    @clause("W-03")
    def test_an_invoice_says_what_was_asked_for(self, bench: WalletBench) -> None:
        async def check() -> None:
            seller = await bench.open("seller")
            expires = bench.now_ms() + HOUR
            invoice = await seller.invoice("job", Amount(PRICE, seller.unit), expires)
            assert (invoice.rail, invoice.job_id, invoice.amount, invoice.expires_at) == (seller.rail, "job", Amount(PRICE, seller.unit), expires)
            assert invoice.network in NETWORKS
            (await bench.open("buyer")).check(invoice)

        self._run(bench, check)

    # --- being paid

    @clause("W-04")
    def test_an_unpaid_invoice_is_none(self, bench: WalletBench) -> None:
        async def check() -> None:
            seller = await bench.open("seller")
            invoice = await self._invoice(bench, seller)
            assert (await seller.status(invoice)).state == "none"
            assert await seller.settle(invoice, None) == PaymentStatus("none")

        self._run(bench, check)

    @clause("W-05", unless="pending")
    def test_a_payment_on_its_way_is_not_paid(self, bench: WalletBench) -> None:
        async def check() -> None:
            seller = await bench.open("seller")
            invoice = await self._invoice(bench, seller)
            proof = await bench.send(invoice, PRICE)
            if "pending" in bench.lacks:  # then money that was not handed over yet pays nothing
                assert (await seller.settle(invoice, None)).state == "none"
                return
            status = await seller.settle(invoice, proof)
            assert (status.state, status.payments) == ("pending", ())

        self._run(bench, check)

    @clause("W-06")
    def test_the_exact_amount_is_paid_without_surplus_and_in_time(self, bench: WalletBench) -> None:
        async def check() -> None:
            seller = await bench.open("seller")
            invoice = await self._invoice(bench, seller)
            status = await self._paid_by_stranger(bench, seller, invoice, PRICE)
            assert (status.state, status.surplus, status.late) == ("paid", 0, False)
            assert self._sum(status) == PRICE

        self._run(bench, check)

    @clause("W-07")
    def test_less_is_partial_and_a_top_up_makes_it_paid(self, bench: WalletBench) -> None:
        async def check() -> None:
            seller = await bench.open("seller")
            invoice = await self._invoice(bench, seller)
            first = await self._paid_by_stranger(bench, seller, invoice, PRICE - 1)
            assert (first.state, self._sum(first)) == ("partial", PRICE - 1)
            second = await self._paid_by_stranger(bench, seller, invoice, 1)
            assert (second.state, second.surplus, self._sum(second), len(second.payments)) == ("paid", 0, PRICE, 2)
            assert first.payments[0] in second.payments

        self._run(bench, check)

    @clause("W-08")
    def test_more_is_paid_with_the_exact_surplus(self, bench: WalletBench) -> None:
        async def check() -> None:
            seller = await bench.open("seller")
            status = await self._paid_by_stranger(bench, seller, await self._invoice(bench, seller), PRICE + 7)
            assert (status.state, status.surplus, self._sum(status)) == ("paid", 7, PRICE + 7)

        self._run(bench, check)

    @clause("W-09")
    def test_a_second_payment_is_surplus_with_an_id_of_its_own(self, bench: WalletBench) -> None:
        async def check() -> None:
            seller = await bench.open("seller")
            invoice = await self._invoice(bench, seller)
            await self._paid_by_stranger(bench, seller, invoice, PRICE)
            status = await self._paid_by_stranger(bench, seller, invoice, PRICE)
            assert (status.state, status.surplus) == ("paid", PRICE)
            assert len({p.payment_id for p in status.payments}) == 2

        self._run(bench, check)

    @clause("W-10")
    def test_money_that_comes_after_the_expiry_is_flagged_late(self, bench: WalletBench) -> None:
        async def check() -> None:
            seller = await bench.open("seller")
            invoice = await seller.invoice("job", Amount(PRICE, seller.unit), bench.now_ms() - 60_000)
            status = await self._paid_by_stranger(bench, seller, invoice, PRICE)
            assert (status.state, status.late) == ("paid", True)

        self._run(bench, check)

    @clause("W-11")
    def test_settling_again_says_the_same_also_after_reopening(self, bench: WalletBench) -> None:
        async def check() -> None:
            seller = await bench.open("seller")
            invoice = await self._invoice(bench, seller)
            first = await self._paid_by_stranger(bench, seller, invoice, PRICE)
            assert await seller.settle(invoice, None) == first
            assert await seller.status(invoice) == first
            await seller.close()
            assert await (await bench.open("seller")).settle(invoice, None) == first

        self._run(bench, check)

    @clause("W-12")
    def test_a_payment_counts_for_one_invoice_only(self, bench: WalletBench) -> None:
        async def check() -> None:
            seller = await bench.open("seller")
            one, other = await self._invoice(bench, seller, "one"), await self._invoice(bench, seller, "other")
            proof = await bench.send(one, PRICE)
            await bench.settle_ledger()
            assert (await seller.settle(one, proof)).state == "paid"
            status = await seller.settle(other, proof)  # the same proof claimed for another job
            assert status.state != "paid"
            assert status.payments == ()

        self._run(bench, check)

    @clause("W-13")
    def test_a_proof_out_of_thin_air_pays_nothing(self, bench: WalletBench) -> None:
        async def check() -> None:
            seller = await bench.open("seller")
            invoice = await self._invoice(bench, seller)
            for proof in ("", "F" * 64, "not a proof", "\x00", "9" * 5000):
                status = await seller.settle(invoice, proof)
                assert (status.state, status.payments) == ("none", ()), proof

        self._run(bench, check)

    @clause("W-14")
    def test_collecting_makes_the_money_spendable_and_leaves_the_invoice_paid(self, bench: WalletBench) -> None:
        async def check() -> None:
            seller = await bench.open("seller")
            invoice = await self._invoice(bench, seller)
            before = await self._paid_by_stranger(bench, seller, invoice, PRICE)
            await self._collect(bench, seller)
            assert (await seller.balance()).available == Amount(PRICE, seller.unit)
            assert (await seller.balance()).incoming.value == 0
            assert await seller.collect() == 0
            assert await seller.settle(invoice, None) == before

        self._run(bench, check)

    @clause("W-15")
    def test_forgetting_an_invoice_keeps_its_money_visible(self, bench: WalletBench) -> None:
        async def check() -> None:
            seller = await bench.open("seller")
            invoice = await self._invoice(bench, seller)
            await seller.forget(invoice)
            await seller.forget(invoice)
            assert (await self._paid_by_stranger(bench, seller, invoice, PRICE)).state == "paid"

        self._run(bench, check)

    @clause("W-16", unless="hints")
    def test_a_payment_is_hinted_at(self, bench: WalletBench) -> None:
        async def check() -> None:
            seller = await bench.open("seller")
            early = await self._invoice(bench, seller, "early")
            if "hints" in bench.lacks:  # then looking alone finds it
                assert (await self._paid_by_stranger(bench, seller, early, PRICE)).state == "paid"
                return
            seen: list[str] = []
            both = asyncio.Event()

            async def watch() -> None:
                async with aclosing(seller.watch()) as hints:  # type: ignore[type-var]  # an async generator in practice
                    async for hint in hints:
                        seen.append(hint)
                        if {early.invoice_id, late.invoice_id} <= set(seen):
                            both.set()

            late = await self._invoice(bench, seller, "late")
            watcher = asyncio.create_task(watch())
            try:
                while not both.is_set():  # hints may be lost: pay again until one of each arrived
                    await bench.send(early, PRICE)
                    await bench.send(late, PRICE)
                    await bench.settle_ledger()
                    try:
                        await asyncio.wait_for(both.wait(), 0.5)
                    except TimeoutError:
                        assert not watcher.done(), watcher.exception()
            finally:
                watcher.cancel()
                await asyncio.gather(watcher, return_exceptions=True)
            assert set(seen) == {early.invoice_id, late.invoice_id}

        self._run(bench, check)

    @clause("W-17")
    def test_concluding_is_repeatable(self, bench: WalletBench) -> None:
        async def check() -> None:
            seller = await bench.open("seller")
            invoice = await self._invoice(bench, seller)
            status = await self._paid_by_stranger(bench, seller, invoice, PRICE)
            outcomes: tuple[Literal["delivered", "failed"], ...] = ("delivered", "delivered")
            for outcome in outcomes:
                await seller.conclude(status.payments[0], invoice, outcome)
            assert (await seller.settle(invoice, None)).state == "paid"

        self._run(bench, check)

    # --- paying

    @clause("W-18")
    def test_paying_moves_exactly_the_amount(self, bench: WalletBench) -> None:
        async def check() -> None:
            seller, buyer = await bench.open("seller"), await bench.open("buyer")
            invoice = await self._invoice(bench, seller)
            await bench.fund(buyer, PRICE * 3)
            proof = await buyer.pay(invoice, "key")
            assert proof.state in ("published", "final")
            await bench.settle_ledger()
            known = await buyer.paid("key")
            assert known is not None
            assert (known.payment_id, known.state) == (proof.payment_id, "final")
            status = await seller.settle(invoice, await bench.proof(buyer, "key"))
            assert (status.state, self._sum(status)) == ("paid", PRICE)
            assert (await buyer.balance()).available == Amount(PRICE * 2, buyer.unit)

        self._run(bench, check)

    @clause("W-19")
    def test_one_key_pays_once_however_often_and_in_parallel(self, bench: WalletBench) -> None:
        async def check() -> None:
            seller, buyer = await bench.open("seller"), await bench.open("buyer")
            invoice = await self._invoice(bench, seller)
            await bench.fund(buyer, PRICE * 10)
            proofs = await asyncio.gather(*(buyer.pay(invoice, "key") for _ in range(8)))
            await bench.settle_ledger()
            proofs.append(await buyer.pay(invoice, "key"))
            assert len({p.payment_id for p in proofs}) == 1
            status = await seller.settle(invoice, await bench.proof(buyer, "key"))
            assert (status.state, status.surplus) == ("paid", 0)

        self._run(bench, check)

    @clause("W-20")
    def test_one_key_pays_once_over_a_reopened_wallet(self, bench: WalletBench) -> None:
        async def check() -> None:
            seller, buyer = await bench.open("seller"), await bench.open("buyer")
            invoice = await self._invoice(bench, seller)
            await bench.fund(buyer, PRICE * 10)
            first = await buyer.pay(invoice, "key")
            await buyer.close()
            buyer = await bench.open("buyer")
            known = await buyer.paid("key")
            again = await buyer.pay(invoice, "key")
            assert known is not None
            assert first.payment_id == known.payment_id == again.payment_id
            await bench.settle_ledger()
            assert (await buyer.balance()).available == Amount(PRICE * 9, buyer.unit)

        self._run(bench, check)

    @clause("W-21")
    def test_many_keys_pay_many_invoices_at_once(self, bench: WalletBench) -> None:
        async def check() -> None:
            seller, buyer = await bench.open("seller"), await bench.open("buyer")
            invoices = [await self._invoice(bench, seller, f"job-{n}") for n in range(8)]
            await bench.fund(buyer, PRICE * 8)
            proofs = await asyncio.gather(*(buyer.pay(invoice, invoice.job_id) for invoice in invoices))
            assert len({p.payment_id for p in proofs}) == 8
            await bench.settle_ledger()
            for invoice in invoices:
                status = await seller.settle(invoice, await bench.proof(buyer, invoice.job_id))
                assert (status.state, status.surplus) == ("paid", 0)
            assert (await buyer.balance()).available.value == 0

        self._run(bench, check)

    @clause("W-22")
    def test_without_the_money_paying_is_refused_and_nothing_was_signed(self, bench: WalletBench) -> None:
        async def check() -> None:
            seller, buyer = await bench.open("seller"), await bench.open("buyer")
            invoice = await self._invoice(bench, seller)
            await bench.fund(buyer, PRICE - 1)
            with pytest.raises(RefusedError):
                await buyer.pay(invoice, "key")
            assert await buyer.paid("key") is None
            await bench.fund(buyer, 1)
            assert (await buyer.pay(invoice, "key")).state in ("published", "final")

        self._run(bench, check)

    @clause("W-23")
    def test_nothing_is_known_of_a_key_never_used(self, bench: WalletBench) -> None:
        async def check() -> None:
            assert await (await bench.open("buyer")).paid("never") is None

        self._run(bench, check)

    @clause("W-24")
    def test_a_key_is_never_reused_for_another_invoice(self, bench: WalletBench) -> None:
        async def check() -> None:
            seller, buyer = await bench.open("seller"), await bench.open("buyer")
            one, other = await self._invoice(bench, seller, "one"), await self._invoice(bench, seller, "other")
            await bench.fund(buyer, PRICE * 3)
            await buyer.pay(one, "key")
            with pytest.raises(TradeskillError):
                await buyer.pay(other, "key")
            await bench.settle_ledger()
            assert (await seller.status(other)).state == "none"

        self._run(bench, check)

    # --- strangers' invoices and addresses

    @clause("W-25")
    def test_a_malformed_or_foreign_invoice_is_untrusted_and_never_paid(self, bench: WalletBench) -> None:
        async def check() -> None:
            seller, buyer = await bench.open("seller"), await bench.open("buyer")
            good = await self._invoice(bench, seller)
            await bench.fund(buyer, PRICE * 3)
            networks = [n for n in NETWORKS if n != good.network]
            bad = [
                replace(good, rail="another"),
                *(replace(good, network=n) for n in networks),
                replace(good, amount=Amount(PRICE, "msat" if good.amount.unit != "msat" else "raw")),
                replace(good, amount=Amount(0, good.amount.unit)),
                replace(good, address=""),
                replace(good, address=good.address[:-1]),
                replace(good, address=good.address[:-1] + ("1" if good.address[-1] != "1" else "3")),
                replace(good, address=good.address + "\n"),
            ]
            for invoice in bad:
                with pytest.raises(UntrustedError):
                    buyer.check(invoice)
                with pytest.raises(UntrustedError):
                    await buyer.pay(invoice, "key")
            assert await buyer.paid("key") is None

        self._run(bench, check)

    @clause("W-26")
    def test_an_address_is_checked_before_money_goes_there(self, bench: WalletBench) -> None:
        async def check() -> None:
            seller = await bench.open("seller")
            own = await seller.address()
            assert seller.check_address(seller.check_address(own)) == seller.check_address(own)
            for bad in ("", " " + own, own + " ", own[:-1], own[:10], "burn", own + own):
                with pytest.raises(UsageError):
                    seller.check_address(bad)

        self._run(bench, check)

    # --- giving back

    @clause("W-27")
    def test_a_refund_is_sent_once_per_key_however_often_and_in_parallel(self, bench: WalletBench) -> None:
        async def check() -> None:
            seller, buyer, payment, invoice = await self._sold(bench)
            to = await buyer.address()
            args = (payment, invoice, to, payment.amount, "refund-key")
            proofs = await asyncio.gather(*(seller.refund(*args) for _ in range(5)))
            await bench.settle_ledger()
            await seller.close()
            proofs.append(await (await bench.open("seller")).refund(*args))
            assert len({p.payment_id for p in proofs}) == 1
            assert proofs[-1].state == "final"
            assert await bench.received(buyer) == PRICE

        self._run(bench, check)

    @clause("W-28")
    def test_a_refund_still_works_after_the_money_was_collected(self, bench: WalletBench) -> None:
        async def check() -> None:
            seller, buyer, payment, invoice = await self._sold(bench)
            await self._collect(bench, seller)
            await seller.refund(payment, invoice, await buyer.address(), Amount(PRICE - 1, seller.unit), "key")
            await bench.settle_ledger()
            assert await bench.received(buyer) == PRICE - 1

        self._run(bench, check)

    @clause("W-29")
    def test_a_refunded_payment_is_still_reported(self, bench: WalletBench) -> None:
        async def check() -> None:
            seller, buyer, payment, invoice = await self._sold(bench)
            await seller.refund(payment, invoice, await buyer.address(), payment.amount, "key")
            await bench.settle_ledger()
            assert payment in (await seller.settle(invoice, None)).payments

        self._run(bench, check)

    @clause("W-30")
    def test_a_refund_to_a_malformed_address_sends_nothing(self, bench: WalletBench) -> None:
        async def check() -> None:
            seller, _, payment, invoice = await self._sold(bench)
            with pytest.raises(UsageError):
                await seller.refund(payment, invoice, "nowhere", payment.amount, "key")
            await self._collect(bench, seller)
            assert (await seller.balance()).available.value == PRICE

        self._run(bench, check)

    # --- life

    @clause("W-31")
    def test_closing_twice_is_safe(self, bench: WalletBench) -> None:
        async def check() -> None:
            wallet = await bench.open("seller")
            assert isinstance(wallet, Wallet)
            await wallet.close()
            await wallet.close()

        self._run(bench, check)
