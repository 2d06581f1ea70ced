"""Money at its edges, through the whole flow: too little, too much, in pieces, late, twice, to ended jobs, claimed by others (FAULTS 38, 39, 50-61, 64, 65)."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Literal

import pytest

from tests.rig import PRICE, Rig, at_work
from tradeskill.agreement import read_receipt
from tradeskill.allocation import Terms
from tradeskill.model import Job
from tradeskill.money import MAX_RAW
from tradeskill.seller import SellerSettings
from tradeskill.testing.fake_backend import Plan
from tradeskill.testing.virtual_time import run_virtual

DUE = PRICE.value


def settings(late: Literal["run", "refund"] = "run", surplus: Literal["keep", "refund"] = "refund", refund_minimum: int = 1) -> SellerSettings:
    return SellerSettings(quote_ttl_ms=300_000, poll_seconds=1.0, terms=Terms(late=late, surplus=surplus, refund_minimum={"raw": refund_minimum}))


def play(main: Coroutine[Any, Any, None]) -> None:
    run_virtual(main)


async def result(rig: Rig, job: Job) -> Job:
    return await (await rig.market("buyer")).get(job.job_id)


async def ended(rig: Rig, job: Job, state: str, seconds: float = 30.0) -> None:
    await rig.until(lambda: rig.row(job).state == state and not any(p.state in ("refund_due", "refunding", "found") for p in rig.payments(job.job_id)), seconds)


def test_too_little_is_topped_up_and_runs_once() -> None:
    async def main() -> None:
        rig = Rig(settings=settings())
        async with at_work(await rig.seller()):
            job = await rig.order()
            first = rig.pay(rig.invoice(job).address, DUE - 1)
            await rig.claim(job, first)
            await rig.until(lambda: rig.money(job) == [("found", DUE - 1)])
            assert rig.row(job).state == "quoted"
            second = rig.pay(rig.invoice(job).address, 1)
            await ended(rig, job, "delivered")
            assert rig.money(job) == [("allocated", DUE - 1), ("allocated", 1)]
            receipt = (await result(rig, job)).receipt
            assert receipt is not None
            assert set(read_receipt(receipt, rig.seller_identity.key).payment_ids) == {first, second}

    play(main())


def test_too_little_until_the_end_goes_back_to_the_signed_address() -> None:
    async def main() -> None:
        rig = Rig(settings=settings())
        async with at_work(await rig.seller()):
            job = await rig.order()
            await rig.claim(job, rig.pay(rig.invoice(job).address, DUE - 1))
            await ended(rig, job, "expired", seconds=500.0)
            assert rig.money(job) == [("refunded", DUE - 1)]
            assert rig.ledger.received(rig.refund_address) == DUE - 1
            assert rig.machine.started == {}
            await rig.until(lambda: rig.store.read(lambda book: book.get(rig.seller_identity.key, job.job_id))["state"] == "failed")

    play(main())


@pytest.mark.parametrize(("surplus", "kept", "back"), [("refund", "refunded", 7), ("keep", "surplus", 0)])
def test_too_much_runs_once_and_the_rest_goes_by_the_sellers_terms(surplus: Literal["keep", "refund"], kept: str, back: int) -> None:
    async def main() -> None:
        rig = Rig(settings=settings(surplus=surplus))
        async with at_work(await rig.seller()):
            job = await rig.order()
            await rig.claim(job, rig.pay(rig.invoice(job).address, DUE + 7))
            await ended(rig, job, "delivered")
            assert rig.money(job) == [("allocated", DUE), (kept, 7)]
            assert rig.ledger.received(rig.refund_address) == back
            assert list(rig.machine.started.values()) == [1]

    play(main())


def test_payments_in_pieces_add_up_to_the_unit() -> None:
    async def main() -> None:
        rig = Rig(settings=settings())
        async with at_work(await rig.seller()):
            job = await rig.order()
            pieces = [rig.pay(rig.invoice(job).address, amount) for amount in (1, 2, 3, DUE - 6)]
            await rig.claim(job, pieces[0])
            await ended(rig, job, "delivered")
            assert rig.money(job) == [("allocated", 1), ("allocated", 2), ("allocated", 3), ("allocated", DUE - 6)]

    play(main())


def test_a_payment_behind_much_dust_is_found_and_every_unit_counted() -> None:
    async def main() -> None:
        rig = Rig(settings=settings(refund_minimum=50))
        async with at_work(await rig.seller()):
            job = await rig.order()
            for _ in range(300):
                rig.pay(rig.invoice(job).address, 1)
            await rig.claim(job, rig.pay(rig.invoice(job).address, DUE))
            await ended(rig, job, "delivered")
            money = rig.money(job)
            assert sum(amount for _, amount in money) == DUE + 300
            assert sum(amount for state, amount in money if state == "allocated") == DUE

    play(main())


@pytest.mark.parametrize(("late", "state", "money"), [("run", "delivered", "allocated"), ("refund", "failed", "refunded")])
def test_late_money_runs_once_or_goes_back_by_the_sellers_terms(late: Literal["run", "refund"], state: str, money: str) -> None:
    async def main() -> None:
        rig = Rig(settings=settings(late=late))
        async with at_work(await rig.seller()):
            job = await rig.order()
            await rig.world.sleep(301.0)
            await rig.claim(job, rig.pay(rig.invoice(job).address, DUE))
            await ended(rig, job, state, seconds=60.0)
            assert rig.money(job) == [(money, DUE)]
            assert len(rig.machine.started) == (1 if state == "delivered" else 0)

    play(main())


def test_money_after_everything_is_over_goes_back() -> None:
    async def main() -> None:
        rig = Rig(settings=settings())
        async with at_work(await rig.seller()):
            job = await rig.order()
            await rig.until(lambda: rig.row(job).state == "expired", seconds=3000.0)
            rig.pay(rig.invoice(job).address, DUE)
            await rig.until(lambda: bool(rig.money(job)))
            await ended(rig, job, "expired", seconds=60.0)
            assert rig.money(job) == [("refunded", DUE)]

    play(main())


def test_a_second_payment_to_a_delivered_job_goes_back() -> None:
    async def main() -> None:
        rig = Rig(settings=settings())
        async with at_work(await rig.seller()):
            job = await rig.order()
            await rig.claim(job, rig.pay(rig.invoice(job).address, DUE))
            await ended(rig, job, "delivered")
            rig.pay(rig.invoice(job).address, DUE)
            await rig.until(lambda: len(rig.money(job)) == 2)
            await ended(rig, job, "delivered")
            assert rig.money(job) == [("allocated", DUE), ("refunded", DUE)]
            assert list(rig.machine.started.values()) == [1]

    play(main())


def test_money_after_a_cancel_goes_back_and_nothing_runs() -> None:
    async def main() -> None:
        rig = Rig(settings=settings())
        async with at_work(await rig.seller()):
            job = await rig.order()
            await (await rig.market("buyer")).cancel(job.job_id)
            rig.pay(rig.invoice(job).address, DUE)
            await rig.until(lambda: bool(rig.money(job)))
            await ended(rig, job, "canceled")
            assert rig.money(job) == [("refunded", DUE)]
            assert rig.machine.started == {}

    play(main())


def test_somebody_elses_payment_does_not_pay_however_it_is_claimed() -> None:
    async def main() -> None:
        rig = Rig(settings=settings())
        async with at_work(await rig.seller()):
            job = await rig.order()
            await rig.claim(job, rig.pay("fake_dev_0123456789abcdef_0000", DUE))
            await rig.world.sleep(200.0)
            assert rig.row(job).state == "quoted"
            assert rig.money(job) == []
            assert rig.machine.started == {}

    play(main())


def test_one_payment_claimed_for_two_jobs_pays_the_one_it_was_sent_to() -> None:
    async def main() -> None:
        rig = Rig(settings=settings())
        async with at_work(await rig.seller()):
            job, other = await rig.order("http://a/"), await rig.order("http://b/")
            payment = rig.pay(rig.invoice(job).address, DUE)
            await rig.claim(other, payment)
            await ended(rig, job, "paid", seconds=60.0)  # nobody claimed anything for it yet
            assert rig.row(other).state == "quoted"
            assert rig.money(other) == []
            assert rig.machine.started == {}

    play(main())


def test_pending_money_starts_nothing_and_a_rolled_back_payment_never_existed() -> None:
    async def main() -> None:
        rig = Rig(settings=settings(), confirm_after=None)
        async with at_work(await rig.seller()):
            job = await rig.order()
            payment = rig.pay(rig.invoice(job).address, DUE)
            await rig.claim(job, payment)
            await rig.world.sleep(30.0)
            assert rig.row(job).state == "quoted"
            assert rig.money(job) == []
            rig.ledger.roll_back(payment)
            await rig.world.sleep(30.0)
            assert rig.money(job) == []
            again = rig.pay(rig.invoice(job).address, DUE)
            rig.ledger.confirm(again)
            await ended(rig, job, "delivered")
            assert [p.payment_id for p in rig.payments(job.job_id)] == [again]

    play(main())


def test_the_largest_amounts_there_are_stay_exact() -> None:
    async def main() -> None:
        rig = Rig(settings=settings())
        async with at_work(await rig.seller()):
            job = await rig.order()
            await rig.claim(job, rig.pay(rig.invoice(job).address, MAX_RAW, source="a"))
            rig.pay(rig.invoice(job).address, MAX_RAW, source="b")
            await ended(rig, job, "delivered")
            await rig.until(lambda: len(rig.money(job)) == 3)
            await ended(rig, job, "delivered")
            assert sorted(rig.money(job)) == [("allocated", DUE), ("refunded", MAX_RAW - DUE), ("refunded", MAX_RAW)]
            assert rig.ledger.received(rig.refund_address) == 2 * MAX_RAW - DUE

    play(main())


def test_without_a_signed_address_money_waits_for_the_owner_and_never_goes_to_its_sender() -> None:
    async def main() -> None:
        rig = Rig(settings=settings(), plan=lambda execution_id, task: Plan(end="failed"))
        async with at_work(await rig.seller()):
            job = await rig.order(refund=False)
            await rig.claim(job, rig.pay(rig.invoice(job).address, DUE + 9))
            await ended(rig, job, "failed")
            assert rig.money(job) == [("review", DUE), ("review", 9)]
            assert not any(purpose.startswith("refund:") for purpose in rig.ledger.stores["seller"].sends)

    play(main())


def test_a_failed_job_gives_back_all_of_it_to_the_unit() -> None:
    async def main() -> None:
        rig = Rig(settings=settings(surplus="keep"), plan=lambda execution_id, task: Plan(seconds=1.0, end="failed"))
        async with at_work(await rig.seller()):
            job = await rig.order()
            await rig.claim(job, rig.pay(rig.invoice(job).address, DUE + 9))
            await ended(rig, job, "failed")
            assert rig.money(job) == [("refunded", DUE), ("refunded", 9)]
            assert rig.ledger.received(rig.refund_address) == DUE + 9
            shown = await result(rig, job)
            assert (shown.state, shown.error and shown.error.code) == ("failed", "exit")

    play(main())


def test_a_refund_whose_answers_get_lost_is_sent_once() -> None:
    async def main() -> None:
        rig = Rig(settings=settings(), plan=lambda execution_id, task: Plan(end="failed"))
        troubles = iter(("unreached", "answer-raised", "answer-lost"))
        wallet = await rig.open_wallet("seller", fault=lambda place: next(troubles, "") if place == "publish" else "")
        async with at_work(await rig.seller(wallet=wallet)):
            job = await rig.order()
            await rig.claim(job, rig.pay(rig.invoice(job).address, DUE))
            await ended(rig, job, "failed", seconds=120.0)
            assert rig.money(job) == [("refunded", DUE)]
            assert rig.ledger.received(rig.refund_address) == DUE
            assert [purpose for purpose in wallet.store.sends if purpose.startswith("refund:")] == [f"refund:{rig.payments(job.job_id)[0].key}"]

    play(main())


def test_a_refund_that_cannot_be_made_waits_for_the_owner() -> None:
    async def main() -> None:
        rig = Rig(settings=settings(), plan=lambda execution_id, task: Plan(seconds=5.0, end="failed"))
        async with at_work(await rig.seller()):
            job = await rig.order()
            await rig.claim(job, rig.pay(rig.invoice(job).address, DUE))
            await rig.until(lambda: rig.row(job).state == "started")
            rig.ledger.fund("fake_dev_0123456789abcdef_0000", 1)
            rig.ledger.transfers["spent elsewhere"] = rig.ledger.transfers[next(iter(rig.ledger.transfers))].__class__(
                "spent elsewhere", rig.invoice(job).address, "fake_dev_0123456789abcdef_0000", DUE, 0, True
            )
            await ended(rig, job, "failed")
            assert rig.money(job) == [("review", DUE)]
            assert "nothing was signed" in rig.payments(job.job_id)[0].note

    play(main())
