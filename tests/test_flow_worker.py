"""A worker in trouble: broken plugins, flat refusals and outages at the wrong moment end no worker and lose no money (FAULTS 17, 24, 36, 110, 111)."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import pytest

from tests.rig import PRICE, Rig, at_work
from tradeskill.contracts import ExecutionStatus
from tradeskill.errors import NotFoundError, PluginError, RefusedError, StorageError, TradeskillError, UnavailableError, UsageError
from tradeskill.model import Delivery, Invoice, Job, Payment, PaymentStatus
from tradeskill.money import Amount
from tradeskill.seller import SellerSettings
from tradeskill.testing.fake_backend import FakeBackend, Plan
from tradeskill.testing.fakes import FakeWallet
from tradeskill.testing.virtual_time import run_virtual
from tradeskill_plugins.market.embedded import EmbeddedMarket

DUE = PRICE.value
QUICK = SellerSettings(quote_ttl_ms=300_000, poll_seconds=1.0)


def play(main: Coroutine[Any, Any, None]) -> None:
    run_virtual(main)


async def paid_job(rig: Rig, url: str = "http://a/") -> Job:
    job = await rig.order(url)
    await rig.claim(job, rig.pay(rig.invoice(job).address, DUE))
    return job


def extra(payment: Payment) -> tuple[Payment, ...]:
    return (payment, payment)


class LyingWallet(FakeWallet):
    """Reports what no wallet may report, as long as `lie` is set."""

    lie: Any = None

    async def settle(self, invoice: Invoice, proof: str | None) -> PaymentStatus:
        status = await super().settle(invoice, proof)
        return self.lie(status) if self.lie is not None else status


LIES = {
    "a state that is none": lambda status: replace(status, state="perhaps"),
    "a payment twice": lambda status: replace(status, payments=extra(Payment("x", Amount(DUE, "raw"), 1))),
    "an id of nothing": lambda status: replace(status, payments=(Payment("", Amount(DUE, "raw"), 1),)),
    "an id without end": lambda status: replace(status, payments=(Payment("x" * 257, Amount(DUE, "raw"), 1),)),
    "another unit": lambda status: replace(status, payments=(Payment("x", Amount(DUE, "sat"), 1),)),
    "a payment of nothing": lambda status: replace(status, payments=(Payment("x", Amount(0, "raw"), 1),)),
    "paid without a payment": lambda status: replace(status, state="paid", payments=()),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_what_no_wallet_may_report_counts_for_nothing_and_ends_no_worker(lie: Any) -> None:
    async def main() -> None:
        rig = Rig(settings=QUICK)
        wallet = LyingWallet(rig.ledger, rig.world, "seller")
        await wallet.open()
        async with at_work(await rig.seller(wallet=wallet)):
            wallet.lie = lie
            job = await rig.order()
            await rig.claim(job, "f" * 64)
            await rig.world.sleep(20.0)
            assert rig.row(job).state == "quoted"
            assert rig.money(job) == []
            wallet.lie = None
            rig.pay(rig.invoice(job).address, DUE)
            await rig.until(lambda: rig.row(job).state == "delivered")

    play(main())


def test_a_wallet_that_is_away_when_the_worker_starts_is_waited_for() -> None:
    async def main() -> None:
        rig = Rig(settings=QUICK)
        async with at_work(await rig.seller()):
            job = await rig.order()
        down = {"now": True}
        wallet = FakeWallet(rig.ledger, rig.world, "seller", fault=lambda place: "unavailable" if place == "call" and down["now"] else "")
        seller = await rig.seller(wallet=wallet)
        work = asyncio.create_task(seller.run())
        other = asyncio.create_task(rig.order("http://b/"))
        await rig.world.sleep(30.0)
        assert not work.done()
        down["now"] = False
        await wallet.open()
        await rig.claim(job, rig.pay(rig.invoice(job).address, DUE))
        await rig.until(lambda: rig.row(job).state == "delivered")
        assert (await other).state == "accepted"
        seller.stop()
        await work

    play(main())


class Refusing(EmbeddedMarket):
    """Takes no result, with the error given."""

    error: TradeskillError | None = None

    async def deliver(self, job_id: str, delivery: Delivery, market_fence: int | None) -> Job:
        if self.error is not None and delivery.result is not None:
            raise self.error
        return await super().deliver(job_id, delivery, market_fence)


@pytest.mark.parametrize("error", [UsageError("too large"), RefusedError("not here")])
def test_a_result_that_the_market_flatly_refuses_fails_the_job_and_the_money_goes_back(error: TradeskillError) -> None:
    async def main() -> None:
        rig = Rig(settings=QUICK)
        market = Refusing(rig.store, rig.seller_identity, rig.world)
        await market.open()
        market.error = error
        async with at_work(await rig.seller(market=market)):
            job = await paid_job(rig)
            await rig.until(lambda: rig.money(job) == [("refunded", DUE)])
            assert rig.row(job).error_code == "not_deliverable"
            assert (await (await rig.market("buyer")).get(job.job_id)).state == "failed"

    play(main())


def test_a_result_that_may_have_been_seen_is_not_paid_back_without_its_owner() -> None:
    async def main() -> None:
        rig = Rig(settings=QUICK)
        market = Refusing(rig.store, rig.seller_identity, rig.world)
        await market.open()
        market.error = NotFoundError("no such job any more")
        async with at_work(await rig.seller(market=market)):
            job = await paid_job(rig)
            await rig.until(lambda: rig.money(job) == [("review", DUE)], seconds=3000.0)
            assert rig.row(job).state == "failed"
            assert "may have the result" in rig.payments(job.job_id)[0].note

    play(main())


def test_a_market_that_lost_a_paid_job_before_it_ran_costs_the_buyer_nothing() -> None:
    async def main() -> None:
        rig = Rig(settings=QUICK)
        async with at_work(await rig.seller()):
            copy = rig.book.dump()
            job = await rig.order()
            rig.book.restore(copy)
            rig.pay(rig.invoice(job).address, DUE)
            await rig.until(lambda: rig.money(job) == [("refunded", DUE)])
            assert rig.machine.started == {}

    play(main())


class Broken(FakeBackend):
    """A backend plugin that breaks its contract at one call, for so many times."""

    def __init__(self, rig: Rig, error: Exception, times: int) -> None:
        super().__init__(rig.machine, rig.world, rig.seller_identity.key)
        self._error, self._times = error, times

    async def wait(self, execution_id: str, seconds: float) -> ExecutionStatus:
        if self._times > 0:
            self._times -= 1
            raise self._error
        return await super().wait(execution_id, seconds)


@pytest.mark.parametrize("error", [PluginError("nonsense"), NotFoundError("nothing"), RefusedError("no"), UsageError("what")])
def test_a_backend_that_breaks_a_few_times_is_tried_again_and_for_ever_is_left_to_the_owner(error: Exception) -> None:
    async def main() -> None:
        rig = Rig(settings=QUICK)
        async with at_work(await rig.seller(backend=Broken(rig, error, 3))):
            job = await paid_job(rig)
            await rig.until(lambda: rig.row(job).state == "delivered", seconds=120.0)
        async with at_work(await rig.seller(backend=Broken(rig, error, 10**6))):
            stuck = await paid_job(rig, "http://b/")
            await rig.until(lambda: rig.money(stuck) == [("review", DUE)], seconds=300.0)
            assert (rig.row(stuck).state, str(error) in rig.payments(stuck.job_id)[0].note) == ("started", True)

    play(main())


def test_a_backend_that_is_away_is_waited_for_however_long() -> None:
    async def main() -> None:
        rig = Rig(settings=QUICK)
        async with at_work(await rig.seller(backend=Broken(rig, UnavailableError("away"), 50))):
            job = await paid_job(rig)
            await rig.until(lambda: rig.row(job).state == "delivered", seconds=1000.0)
            assert list(rig.machine.started.values()) == [1]

    play(main())


def test_a_disk_that_fails_ends_the_worker_and_acknowledges_nothing() -> None:
    async def main() -> None:
        rig = Rig(settings=QUICK)
        seller = await rig.seller(backend=Broken(rig, StorageError("the disk is full"), 1))
        await seller.publish()
        work = asyncio.create_task(seller.run())
        job = await paid_job(rig)
        with pytest.raises(StorageError):
            await work
        assert rig.row(job).state == "started"
        async with at_work(await rig.seller()):
            await rig.until(lambda: rig.row(job).state == "delivered")
            assert list(rig.machine.started.values()) == [1]

    play(main())


def test_work_that_outlives_its_limit_is_stopped_and_the_money_goes_back() -> None:
    async def main() -> None:
        rig = Rig(settings=QUICK, plan=lambda execution_id, task: Plan(end="never"))
        async with at_work(await rig.seller()):
            job = await paid_job(rig)
            await rig.until(lambda: rig.money(job) == [("refunded", DUE)], seconds=200.0)
            assert rig.row(job).error_code == "limit.time"

    play(main())


def test_when_idle_long_enough_a_worker_ends_by_itself_and_not_while_money_is_in_its_hands() -> None:
    async def main() -> None:
        rig = Rig(settings=QUICK, plan=lambda execution_id, task: Plan(seconds=30.0))
        seller = await rig.seller()
        await seller.publish()
        work = asyncio.create_task(seller.run(idle_seconds=5.0))
        job = await paid_job(rig)
        await asyncio.wait_for(work, 60.0)
        assert rig.row(job).state == "delivered"
        assert rig.world.monotonic() > 35.0

    play(main())


@pytest.mark.parametrize("full", [(1, 5), (5, 1)])
def test_beyond_its_capacity_a_seller_says_no_before_any_money(full: tuple[int, int]) -> None:
    async def main() -> None:
        rig = Rig(settings=QUICK, capacity=full)
        async with at_work(await rig.seller()):
            await rig.order("http://a/")
            market = await rig.market("buyer")
            buyer = await rig.buyer()
            purchase = await rig.hire(buyer, "http://b/")
            assert (purchase.state, purchase.error_code) == ("canceled", "no_capacity")
            assert len(rig.ledger.stores["seller"].invoices) == 1
            await buyer.close()
            await market.close()

    play(main())
