"""Several workers on one journal: one holds a job at a time, a sleeper that wakes changes nothing, and clocks may jump (FAULTS 28, 29, 31, 34)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from tests.rig import PRICE, Rig, at_work
from tradeskill.agreement import read_receipt
from tradeskill.errors import RefusedError, StaleFenceError, StateError, UnavailableError
from tradeskill.model import Job, Lock
from tradeskill.seller import Seller, SellerSettings
from tradeskill.testing.fake_backend import FakeBackend, Plan
from tradeskill.testing.virtual_time import run_virtual
from tradeskill_plugins.market.embedded import EmbeddedMarket

LEASE = 60.0
SETTINGS = SellerSettings(quote_ttl_ms=300_000, poll_seconds=1.0, lease_ms=int(LEASE * 1000), heartbeat_seconds=20.0)


def play(main: Coroutine[Any, Any, None]) -> None:
    run_virtual(main)


class Sleepy(FakeBackend):
    """A worker that falls asleep right before or after a call to its backend, and sleeps until it is woken."""

    def __init__(self, rig: Rig, before: str = "", after: str = "") -> None:
        super().__init__(rig.machine, rig.world, rig.seller_identity.key)
        self.asleep, self.awake = asyncio.Event(), asyncio.Event()
        self._before, self._after = before, after

    async def _nap(self, name: str, place: str) -> None:
        if name == place and not self.asleep.is_set():
            self.asleep.set()
            await self.awake.wait()

    async def start(self, *arguments: Any) -> Any:
        await self._nap("start", self._before)
        answer = await super().start(*arguments)
        await self._nap("start", self._after)
        return answer

    async def result(self, *arguments: Any) -> Any:
        await self._nap("result", self._before)
        answer = await super().result(*arguments)
        await self._nap("result", self._after)
        return answer


async def two(rig: Rig, first: FakeBackend) -> tuple[Seller, Seller]:
    rig.living |= {"one", "two"}
    return await rig.seller(owner="one", backend=first), await rig.seller(owner="two")


async def paid_job(rig: Rig) -> Job:
    job = await rig.order()
    await rig.claim(job, rig.pay(rig.invoice(job).address, PRICE.value))
    return job


async def delivered_once(rig: Rig, job: Job) -> Job:
    await rig.until(lambda: rig.row(job).state == "delivered", seconds=400.0)
    shown = await (await rig.market("buyer")).get(job.job_id)
    assert shown.state == "delivered"
    assert shown.receipt is not None
    assert read_receipt(shown.receipt, rig.seller_identity.key).fence == rig.row(job).fence
    assert rig.money(job) == [("allocated", PRICE.value)]
    assert list(rig.machine.started.values()) == [1]
    return shown


@pytest.mark.parametrize(("before", "after"), [("start", ""), ("", "start"), ("result", ""), ("", "result")])
def test_a_worker_that_slept_past_its_lease_changes_nothing_when_it_wakes(before: str, after: str) -> None:
    async def main() -> None:
        rig = Rig(settings=SETTINGS, plan=lambda execution_id, task: Plan(seconds=2.0))
        sleeper = Sleepy(rig, before, after)
        one, two_ = await two(rig, sleeper)
        async with at_work(one):
            job = await paid_job(rig)
            await rig.until(sleeper.asleep.is_set)
            assert rig.row(job).lease_owner == "one"
            async with at_work(two_):
                began = rig.world.monotonic()
                done = await delivered_once(rig, job)
                assert rig.row(job).lease_owner == "two"
                assert rig.world.monotonic() - began < LEASE + 10
                fence = rig.row(job).fence
                sleeper.awake.set()
                await rig.world.sleep(30.0)
                assert rig.row(job).fence == fence
                assert await (await rig.market("buyer")).get(job.job_id) == done
                assert list(rig.machine.started.values()) == [1]

    play(main())


def test_a_living_worker_keeps_its_job_however_long_the_work_takes() -> None:
    async def main() -> None:
        rig = Rig(settings=SETTINGS, plan=lambda execution_id, task: Plan(seconds=55.0))
        one, two_ = await two(rig, FakeBackend(rig.machine, rig.world, rig.seller_identity.key))
        async with at_work(one):
            job = await paid_job(rig)
            await rig.until(lambda: rig.row(job).state == "started")
            async with at_work(two_):
                await delivered_once(rig, job)
                assert (rig.row(job).lease_owner, rig.row(job).fence, rig.row(job).contested) == ("one", 1, 0)

    play(main())


def test_of_two_workers_that_see_a_job_at_once_one_takes_it() -> None:
    async def main() -> None:
        rig = Rig(settings=SETTINGS, plan=lambda execution_id, task: Plan(seconds=5.0))
        one, two_ = await two(rig, FakeBackend(rig.machine, rig.world, rig.seller_identity.key))
        async with at_work(one, two_):
            jobs = [await rig.order(f"http://{i}/") for i in range(10)]
            for job in jobs:
                await rig.claim(job, rig.pay(rig.invoice(job).address, PRICE.value))
            await rig.until(lambda: all(rig.row(job).state == "delivered" for job in jobs), seconds=200.0)
            assert sorted(rig.machine.started.values()) == [1] * 10
            assert len({rig.row(job).fence for job in jobs}) == 10
            assert all(rig.row(job).contested == 0 for job in jobs)

    play(main())


def test_a_dead_workers_job_is_taken_at_once() -> None:
    async def main() -> None:
        rig = Rig(settings=SETTINGS, plan=lambda execution_id, task: Plan(seconds=30.0))
        async with at_work(await rig.seller(owner="one")):
            job = await paid_job(rig)
            await rig.until(lambda: rig.row(job).state == "started")
        async with at_work(await rig.seller(owner="two")):
            began = rig.world.monotonic()
            await rig.until(lambda: rig.row(job).lease_owner == "two", seconds=5.0)
            assert rig.world.monotonic() - began < 5.0
            await delivered_once(rig, job)

    play(main())


def test_an_older_fence_neither_starts_nor_finishes_nor_fails_a_job() -> None:
    async def main() -> None:
        rig = Rig(settings=SETTINGS, plan=lambda execution_id, task: Plan(seconds=5.0))
        one, two_ = await two(rig, FakeBackend(rig.machine, rig.world, rig.seller_identity.key))
        async with at_work(one):
            job = await rig.order()
            rig.pay(rig.invoice(job).address, PRICE.value)
            await rig.until(lambda: rig.row(job).state == "paid")  # no claim yet: no lock, no lease
        await rig.claim(job, rig.payments(job.job_id)[0].payment_id)
        old = await one.executing.lease(job.job_id)
        await rig.world.sleep(LEASE + 1)
        new = await two_.executing.lease(job.job_id)
        assert not isinstance(old, (float, type(None)))
        assert not isinstance(new, (float, type(None)))
        assert new.fence > old.fence
        executing = one.executing
        attempts: list[Callable[[], Awaitable[object]]] = [
            lambda: executing._start(old),
            lambda: executing._fail_now(old, "x", "y"),
            lambda: executing._renew(old, None),
        ]
        for attempt in attempts:
            with pytest.raises(StaleFenceError):
                await attempt()
        started = await two_.executing._start(new)
        with pytest.raises(StateError):
            await executing._start(old)
        with pytest.raises(StaleFenceError):
            executing._check_mine(old)
        assert rig.row(job) == started

    play(main())


@pytest.mark.parametrize("jump", [-300_000, 300_000])
def test_a_clock_that_jumps_while_work_runs_changes_nothing(jump: int) -> None:
    async def main() -> None:
        rig = Rig(settings=SETTINGS, plan=lambda execution_id, task: Plan(seconds=45.0))
        one, two_ = await two(rig, FakeBackend(rig.machine, rig.world, rig.seller_identity.key))
        async with at_work(one, two_):
            job = await paid_job(rig)
            await rig.until(lambda: rig.row(job).state == "started")
            rig.world.skew_ms = jump
            await delivered_once(rig, job)

    play(main())


class SlowMarket(EmbeddedMarket):
    """Locks are renewed after much more time than a lease has."""

    slow = False

    async def lock(self, job_id: str) -> Lock:
        if self.slow:
            await self._world.sleep(10 * LEASE)
            raise UnavailableError("too slow")
        return await super().lock(job_id)


def test_a_market_that_hangs_does_not_make_the_lease_lapse() -> None:
    async def main() -> None:
        rig = Rig(settings=SETTINGS, plan=lambda execution_id, task: Plan(seconds=58.0))
        rig.living |= {"one", "two"}
        market = SlowMarket(rig.store, rig.seller_identity, rig.world)
        await market.open()
        async with at_work(await rig.seller(owner="one", market=market), await rig.seller(owner="two")):
            job = await paid_job(rig)
            await rig.until(lambda: rig.row(job).state == "started")
            holder = rig.row(job).lease_owner
            market.slow = True
            await delivered_once(rig, job)
            assert rig.row(job).lease_owner == holder
            assert rig.row(job).contested == 0

    play(main())


@pytest.mark.parametrize(("pure", "outcome"), [(True, "delivered"), (False, "failed")])
def test_work_that_died_is_done_again_only_where_the_offer_says_it_may(pure: bool, outcome: str) -> None:
    async def main() -> None:
        plans = iter([Plan(seconds=1.0, end="lost")])
        rig = Rig(settings=SETTINGS, pure=pure, plan=lambda execution_id, task: next(plans, Plan()))
        async with at_work(await rig.seller()):
            job = await paid_job(rig)
            await rig.until(lambda: rig.row(job).state == outcome)
            await rig.until(lambda: rig.money(job) == [("allocated" if pure else "refunded", PRICE.value)])
            assert list(rig.machine.started.values()) == ([1, 1] if pure else [1])
            assert rig.row(job).attempt == (2 if pure else 1)

    play(main())


def test_work_with_effects_that_died_waits_for_its_owner_where_it_is_told_to() -> None:
    async def main() -> None:
        settings = SellerSettings(quote_ttl_ms=300_000, poll_seconds=1.0, uncertain="review")
        rig = Rig(settings=settings, pure=False, plan=lambda execution_id, task: Plan(seconds=1.0, end="lost"))
        seller = await rig.seller()
        work = asyncio.create_task(seller.run())
        await seller.publish()
        job = await paid_job(rig)
        await rig.until(lambda: rig.money(job) == [("review", PRICE.value)])
        seller.drain()
        await asyncio.wait_for(work, 30.0)  # what waits for its owner does not keep a worker
        assert rig.row(job).state == "started"
        assert list(rig.machine.started.values()) == [1]

    play(main())


def test_work_that_dies_every_time_ends_and_the_money_goes_back() -> None:
    async def main() -> None:
        rig = Rig(settings=SETTINGS, plan=lambda execution_id, task: Plan(seconds=1.0, end="lost"))
        async with at_work(await rig.seller()):
            job = await paid_job(rig)
            await rig.until(lambda: rig.money(job) == [("refunded", PRICE.value)])
            assert rig.row(job).state == "failed"
            assert list(rig.machine.started.values()) == [1, 1, 1]

    play(main())


def test_a_job_that_kills_its_worker_every_time_ends_in_review() -> None:
    async def main() -> None:
        rig = Rig(settings=SETTINGS, plan=lambda execution_id, task: Plan(seconds=1000.0))
        job: Job | None = None
        for _ in range(12):
            async with at_work(await rig.seller()):
                job = job or await paid_job(rig)
                await rig.world.sleep(2.0)
        assert job is not None
        assert rig.money(job) == [("review", PRICE.value)]

    play(main())


def test_a_job_whose_offer_is_gone_neither_stops_a_drain_nor_is_forgotten() -> None:
    async def main() -> None:
        rig = Rig(settings=SETTINGS, plan=lambda execution_id, task: Plan(seconds=5.0))
        async with at_work(await rig.seller()):
            job = await rig.order()
            rig.pay(rig.invoice(job).address, PRICE.value)
            await rig.until(lambda: rig.row(job).state == "paid")
        shop = await rig.shop()
        shop.listings = {}
        await asyncio.wait_for(Seller(shop).run(drain=True), 30.0)
        assert rig.row(job).state == "paid"
        await rig.claim(job, rig.payments(job.job_id)[0].payment_id)
        async with at_work(await rig.seller()):
            await delivered_once(rig, job)

    play(main())


def test_a_drain_finishes_what_is_paid_and_quotes_nothing_new() -> None:
    async def main() -> None:
        rig = Rig(settings=SETTINGS, plan=lambda execution_id, task: Plan(seconds=30.0))
        seller = await rig.seller()
        await seller.publish()
        work = asyncio.create_task(seller.run())
        job = await paid_job(rig)
        await rig.until(lambda: rig.row(job).state == "started")
        seller.drain()
        late = asyncio.create_task(rig.order("http://late/"))
        await asyncio.wait_for(work, 120.0)
        assert rig.row(job).state == "delivered"
        assert [row.job_id for row in rig.fulfilments()] == [job.job_id]
        async with at_work(await rig.seller()):  # the request was not lost
            assert (await late).state == "accepted"

    play(main())




def test_what_a_sleeper_may_still_ask_for_is_not_forgotten_when_the_other_worker_starts_anew() -> None:
    async def main() -> None:
        rig = Rig(settings=SETTINGS)
        sleeper = Sleepy(rig, before="start")
        one, two_ = await two(rig, sleeper)
        async with at_work(one):
            job = await paid_job(rig)
            await rig.until(sleeper.asleep.is_set)
            async with at_work(two_):
                await delivered_once(rig, job)
            async with at_work(await rig.seller(owner="two")):
                await rig.world.sleep(5.0)
                sleeper.awake.set()
                await rig.world.sleep(30.0)
            assert list(rig.machine.started.values()) == [1]
        rig.world.skew_ms = 2 * 86_400_000
        async with at_work(await rig.seller(owner="three")):
            await rig.until(lambda: not rig.machine.executions)

    play(main())


def test_housekeeping_that_fails_ends_no_worker() -> None:
    async def main() -> None:
        rig = Rig(settings=SETTINGS)
        backend = FakeBackend(rig.machine, rig.world, rig.seller_identity.key)

        async def refuse(owner: str) -> list[str]:
            raise RefusedError("not today")

        backend.list = refuse  # type: ignore[method-assign]  # a backend that breaks its contract
        async with at_work(await rig.seller(backend=backend)):
            await delivered_once(rig, await paid_job(rig))

    play(main())
