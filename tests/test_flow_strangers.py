"""Strangers' plugins that never work: their jobs come to an end or are shown, what is not known of money is asked for ever, and all else is sold as before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.rig import PRICE, SCHEMA, Rig, at_work
from tests.test_guard import STRANGE
from tradeskill.agreement import read_offer, sign_offer, sign_request
from tradeskill.contracts import ExecutionStatus, Limits, Task
from tradeskill.errors import NotFoundError, PluginError, RefusedError, SecretError, StateError, StorageError, UsageError
from tradeskill.guard import Deadlines, guarded
from tradeskill.journal import selling
from tradeskill.journal.troubles import Trouble, troubles
from tradeskill.model import Invoice, Job, Offer, Payment, PaymentStatus, Proof
from tradeskill.money import Amount
from tradeskill.seller import Seller, SellerSettings
from tradeskill.testing.fake_backend import FakeBackend, FakeMachine, Plan
from tradeskill.testing.fakes import FakeWallet
from tradeskill.testing.virtual_time import run_virtual

DUE = PRICE.value
SETTINGS = SellerSettings(quote_ttl_ms=300_000, poll_seconds=1.0, workers=2)
PATIENCE = 300.0
QUICKLY = Deadlines(20.0, 40.0)
NAME = "plugin strange (strange-package)"


def play(main: Coroutine[Any, Any, None]) -> None:
    run_virtual(main)


class Ill:
    """What a broken plugin does at the calls named, as long as it is `broken`."""

    def __init__(self, calls: Sequence[str], how: str | Exception) -> None:
        self.calls, self.how, self.broken = calls, how, True

    async def at(self, call: str) -> Any:
        if call not in self.calls or not self.broken:
            return None
        if isinstance(self.how, Exception):
            raise self.how
        if self.how == "raises":
            raise RuntimeError("trouble")
        while self.how == "hangs":
            await asyncio.Event().wait()
        return "anything"


class StrangeBackend(FakeBackend):
    def __init__(self, rig: Rig, trouble: Ill) -> None:
        super().__init__(rig.machine, rig.world, rig.seller_identity.key)
        self._trouble = trouble

    async def start(self, execution_id: str, task: Task, limits: Limits) -> Any:
        return await self._trouble.at("start") or await super().start(execution_id, task, limits)

    async def status(self, execution_id: str) -> Any:
        return await self._trouble.at("status") or await super().status(execution_id)

    async def wait(self, execution_id: str, seconds: float) -> Any:
        return await self._trouble.at("wait") or await super().wait(execution_id, seconds)

    async def result(self, execution_id: str) -> Any:
        return await self._trouble.at("result") or await super().result(execution_id)

    async def remove(self, execution_id: str) -> None:
        await self._trouble.at("remove")
        await super().remove(execution_id)

    async def list(self, owner: str) -> Any:
        return await self._trouble.at("list") or await super().list(owner)


class StrangeWallet(FakeWallet):
    trouble = Ill((), "raises")
    only: str | None = None  # trouble with the invoice of this job alone

    async def invoice(self, job_id: str, amount: Amount, expires_at: int) -> Invoice:
        if self.only in (None, job_id):
            await self.trouble.at("invoice")
        return await super().invoice(job_id, amount, expires_at)

    async def settle(self, invoice: Invoice, proof: str | None) -> PaymentStatus:
        return await self.trouble.at("settle") or await super().settle(invoice, proof)

    async def refund(self, payment: Payment, invoice: Invoice, to: str, amount: Amount, key: str) -> Proof:
        return await self.trouble.at("refund") or await super().refund(payment, invoice, to, amount, key)


async def seller_with(rig: Rig, *, backend: Ill | None = None, wallet: StrangeWallet | None = None, deadlines: Deadlines = QUICKLY) -> Seller:
    strange = None if backend is None else guarded(STRANGE, StrangeBackend(rig, backend), "Backend", QUICKLY)
    shop = await rig.shop(backend=strange, wallet=None if wallet is None else guarded(STRANGE, wallet, "Wallet", deadlines))
    return Seller(shop, PATIENCE)


async def strange_wallet(rig: Rig, *calls: str, how: str = "raises") -> StrangeWallet:
    wallet = StrangeWallet(rig.ledger, rig.world, "seller")
    await wallet.open()
    wallet.trouble = Ill(calls, how)
    return wallet


async def paid_job(rig: Rig, url: str = "http://a/") -> Job:
    job = await rig.order(url)
    await rig.claim(job, rig.pay(rig.invoice(job).address, DUE))
    return job


def shown(rig: Rig) -> list[Trouble]:
    return rig.journal("seller").read(troubles)


# Backends


@pytest.mark.parametrize("how", ["raises", "lies", "hangs"])
@pytest.mark.parametrize("call", ["status", "start", "wait", "result"])
def test_a_backend_that_never_works_leaves_its_job_to_the_owner_or_gives_the_money_back_where_nothing_was_run(call: str, how: str) -> None:
    async def main() -> None:
        rig = Rig(settings=SETTINGS)
        async with at_work(await seller_with(rig, backend=Ill([call], how))):
            began = rig.world.monotonic()
            job = await paid_job(rig)
            end = "refunded" if call == "status" else "review"
            await rig.until(lambda: rig.money(job) == [(end, DUE)], seconds=PATIENCE + 600)
            assert rig.world.monotonic() - began >= PATIENCE
            assert sum(rig.machine.started.values()) == (0 if call in ("status", "start") else 1)
            if call == "status":
                assert (rig.row(job).state, rig.row(job).error_code) == ("failed", "backend")
                told = await (await rig.market("buyer")).get(job.job_id)
                assert told.error is not None
                assert "strange" not in told.error.message
            else:
                assert rig.row(job).state == "started"
                assert f"{NAME}: {call}()" in rig.payments(job.job_id)[0].note
            (entry,) = shown(rig)
            assert entry.plugin == NAME
            assert entry.times > 3
            assert entry.said.startswith(f"{NAME}: {call}()")

    play(main())


def test_what_a_former_worker_may_have_started_is_never_given_back_without_the_owner() -> None:
    async def main() -> None:
        rig = Rig(settings=SETTINGS)
        trouble = Ill(["status"], "raises")
        async with at_work(await seller_with(rig, backend=trouble)):
            job = await paid_job(rig)
            await rig.until(lambda: rig.row(job).state == "started")
        async with at_work(await seller_with(rig, backend=trouble)):
            await rig.until(lambda: rig.money(job) == [("review", DUE)], seconds=PATIENCE + 600)

    play(main())


def test_a_backend_that_works_again_in_time_is_forgiven() -> None:
    async def main() -> None:
        rig = Rig(settings=SETTINGS)
        trouble = Ill(["status"], "raises")
        async with at_work(await seller_with(rig, backend=trouble)):
            for url in ("http://a/", "http://b/"):
                trouble.broken = True
                job = await paid_job(rig, url)
                await rig.world.sleep(PATIENCE * 0.7)
                assert rig.row(job).state == "started"
                trouble.broken = False
                await rig.until(lambda job=job: rig.row(job).state == "delivered", seconds=200.0)  # type: ignore[misc]  # mypy knows no such default

    play(main())


def second_offer(rig: Rig) -> Offer:
    made = sign_offer(
        rig.seller_identity,
        offer_id="11111111-3d0a-4b53-9a54-0c7a6a2b9a11",
        network="dev",
        title="Sound",
        description="test",
        tags=[],
        prices=(PRICE,),
        input_schema=SCHEMA,
        pure=True,
        trusted=True,
        created_at=1,
    )
    return read_offer(made)


@pytest.mark.parametrize("how", ["raises", "hangs"])
def test_other_offers_are_sold_while_a_strangers_backend_is_in_trouble(how: str) -> None:
    async def main() -> None:
        rig = Rig(settings=SETTINGS)
        strange = guarded(STRANGE, StrangeBackend(rig, Ill(["status"], how)), "Backend", QUICKLY)
        shop = await rig.shop(backend=strange)
        sound = FakeMachine()
        listing = replace(shop.listings["extract"], name="sound", offer=second_offer(rig), backend="sound")
        shop.backends = {**shop.backends, "sound": FakeBackend(sound, rig.world, rig.seller_identity.key)}
        shop.listings = {**shop.listings, "sound": listing}
        async with at_work(Seller(shop, PATIENCE)):
            stuck = [await paid_job(rig, f"http://{number}/") for number in range(6)]
            await rig.world.sleep(QUICKLY.call + 10)
            buyer = await rig.buyer()
            for number in range(5):
                began = rig.world.monotonic()
                purchase = await buyer.intend(listing.offer, {"url": f"http://sound/{number}"}, label=str(number))
                assert (await buyer.drive(purchase.purchase_id)).state == "received"
                assert rig.world.monotonic() - began < 30
            await rig.until(lambda: all(rig.money(job) == [("refunded", DUE)] for job in stuck), seconds=5 * PATIENCE)
            assert sum(sound.started.values()) == 5
            assert rig.machine.started == {}

    play(main())


@pytest.mark.parametrize("lie", ["absent", "running"])
def test_an_execution_that_never_is_what_it_should_be_is_left_to_the_owner(lie: Any) -> None:
    class Lying(FakeBackend):
        async def wait(self, execution_id: str, seconds: float) -> ExecutionStatus:
            await asyncio.sleep(0 if lie == "absent" else seconds)
            return ExecutionStatus(lie)

    async def main() -> None:
        rig = Rig(settings=SETTINGS, plan=lambda execution_id, task: Plan(end="never"))
        backend = guarded(STRANGE, Lying(rig.machine, rig.world, rig.seller_identity.key), "Backend")
        async with at_work(await rig.seller(backend=backend)):
            job = await paid_job(rig)
            await rig.until(lambda: rig.money(job) == [("review", DUE)], seconds=5000.0)
            assert ("is absent right after" if lie == "absent" else "runs on after it was stopped") in rig.payments(job.job_id)[0].note
            assert list(rig.machine.started.values()) == [1]

    play(main())


@pytest.mark.parametrize("how", ["raises", "hangs"])
def test_a_job_is_delivered_though_nothing_of_it_can_be_removed_and_the_chores_go_on(how: str) -> None:
    async def main() -> None:
        rig = Rig(settings=SETTINGS)
        async with at_work(await seller_with(rig, backend=Ill(["remove", "list"], how))):
            job = await paid_job(rig)
            await rig.until(lambda: rig.row(job).state == "delivered")
            await rig.until(lambda: not rig.journal("seller").read(selling.pending_effects), seconds=PATIENCE + 300)
            assert rig.money(job) == [("allocated", DUE)]

    play(main())


# Wallets


@pytest.mark.parametrize("how", ["raises", "lies", "hangs"])
def test_money_of_which_a_wallet_tells_nothing_is_asked_for_ever_and_shown(how: str) -> None:
    async def main() -> None:
        rig = Rig(settings=SETTINGS)
        wallet = await strange_wallet(rig, "settle", how=how)
        async with at_work(await seller_with(rig, wallet=wallet)):
            job = await paid_job(rig)
            await rig.world.sleep(1.5 * PATIENCE)
            assert rig.row(job).state == "quoted"
            (entry,) = shown(rig)
            assert (entry.plugin, "settle()" in entry.said) == (NAME, True)
            wallet.trouble.broken = False
            await rig.until(lambda: rig.row(job).state in ("delivered", "failed"), seconds=3700.0)
            assert rig.money(job)[0][0] in ("allocated", "refunded", "refund_due", "refunding")

    play(main())


OURS = [NotFoundError("no"), StateError("no"), RefusedError("no"), UsageError("no"), PluginError("no"), StorageError("its disk"), SecretError("its password")]


@pytest.mark.parametrize("error", OURS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("call", ["invoice", "settle", "watch"])
def test_whichever_error_of_ours_a_strangers_wallet_raises_the_worker_goes_on(call: str, error: Exception) -> None:
    class Watched(StrangeWallet):
        async def watch(self) -> AsyncIterator[str]:
            await self.trouble.at("watch")
            async for hint in super().watch():
                yield hint

    async def main() -> None:
        rig = Rig(settings=SETTINGS)
        wallet = Watched(rig.ledger, rig.world, "seller")
        await wallet.open()
        wallet.trouble = Ill([call], error)
        async with at_work(await seller_with(rig, wallet=wallet)):
            market = await rig.market("buyer")
            wish = sign_request(rig.buyer_identity, rig.offer(), input_value={"url": "http://x/"}, refund_to={}, nonce="x", created_at=rig.world.now_ms())
            first = await market.request(wish)
            await rig.world.sleep(30)
            if call == "settle":
                await market.accept(first.job_id)
                await rig.claim(first, rig.pay(rig.invoice(first).address, DUE))
                await rig.world.sleep(30)
                assert rig.row(first).state == "quoted"
            wallet.trouble.broken = False
            job = await paid_job(rig)
            await rig.until(lambda: rig.row(job).state == "delivered")

    play(main())


@pytest.mark.parametrize("how", ["raises", "lies", "hangs"])
def test_a_refund_of_which_a_wallet_tells_nothing_is_never_given_up(how: str) -> None:
    async def main() -> None:
        rig = Rig(settings=SETTINGS, plan=lambda execution_id, task: Plan(end="failed"))
        wallet = await strange_wallet(rig, "refund", how=how)
        async with at_work(await seller_with(rig, wallet=wallet)):
            job = await paid_job(rig)
            await rig.world.sleep(1.5 * PATIENCE)
            assert rig.money(job) == [("refunding", DUE)]
            (entry,) = shown(rig)
            assert "refund()" in entry.said
            wallet.trouble.broken = False
            await rig.until(lambda: rig.money(job) == [("refunded", DUE)], seconds=300.0)

    play(main())


@pytest.mark.parametrize("how", ["raises", "lies", "hangs"])
def test_a_job_for_which_a_wallet_makes_no_invoice_is_refused_after_a_while_and_the_others_are_sold(how: str) -> None:
    class Half(StrangeWallet):
        async def invoice(self, job_id: str, amount: Amount, expires_at: int) -> Invoice:
            if self.only in (None, job_id):
                return await self.trouble.at("invoice") or await super().invoice(job_id, amount, expires_at)
            return await super().invoice(job_id, amount, expires_at)

    async def main() -> None:
        rig = Rig(settings=SETTINGS)
        wallet = Half(rig.ledger, rig.world, "seller")
        await wallet.open()
        wallet.trouble = Ill(["invoice"], how)
        async with at_work(await seller_with(rig, wallet=wallet, deadlines=Deadlines(200.0, 200.0))):
            market = await rig.market("buyer")
            wish = sign_request(rig.buyer_identity, rig.offer(), input_value={"url": "http://x/"}, refund_to={}, nonce="x", created_at=rig.world.now_ms())
            stuck = await market.request(wish)
            wallet.only = stuck.job_id
            await rig.world.sleep(15)
            assert rig.row(stuck).state == "seen"
            for number in range(3):
                began = rig.world.monotonic()
                job = await paid_job(rig, f"http://{number}/")
                await rig.until(lambda job=job: rig.row(job).state == "delivered", seconds=30.0)  # type: ignore[misc]  # mypy knows no such default
                assert rig.world.monotonic() - began < 30
        async with at_work(await seller_with(rig, wallet=wallet)):  # after a restart too
            job = await paid_job(rig, "http://after/")
            await rig.until(lambda: rig.row(job).state == "delivered", seconds=60.0)
            await rig.until(lambda: rig.row(stuck).state == "refused", seconds=PATIENCE + 300)
            await rig.until(lambda: rig.fulfilments() and not rig.journal("seller").read(selling.pending_effects))
            told = await market.get(stuck.job_id)
            assert (told.state, rig.row(stuck).error_code) == ("canceled", "not_payable")

    play(main())
