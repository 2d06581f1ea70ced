"""Seller and buyer flows together, unpatched, on virtual time."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from tests.rig import PRICE, Rig, running
from tradeskill.contracts import Limits, Task
from tradeskill.errors import NotFoundError
from tradeskill.seller import SellerSettings
from tradeskill.signing import digest
from tradeskill.testing.fake_backend import FakeBackend, Plan
from tradeskill.testing.virtual_time import run_virtual


async def _stop(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def test_a_job_goes_the_whole_way_and_money_moves_exactly() -> None:
    async def main() -> None:
        rig = Rig()
        work = await running(await rig.seller())
        buyer = await rig.buyer()
        purchase = await rig.hire(buyer)
        assert purchase.state == "received", purchase
        assert digest(buyer.result(purchase)) == purchase.result_sha256
        (row,) = rig.fulfilments()
        assert row.job_id == purchase.job_id
        payments = rig.payments(row.job_id)
        assert [(p.state, p.value) for p in payments] == [("allocated", PRICE.value)]
        assert payments[0].payment_id == purchase.payment_id
        assert row.fence == 1
        await buyer.close()
        await _stop(work)

    run_virtual(main())


def test_a_delivered_result_is_kept_for_its_time_and_then_dropped() -> None:
    async def main() -> None:
        rig = Rig(settings=SellerSettings(poll_seconds=1.0, keep_results_ms=2 * 3_600_000))
        work = await running(await rig.seller())
        buyer = await rig.buyer()
        purchase = await rig.hire(buyer)
        sha256 = purchase.result_sha256 or ""
        await rig.world.sleep(3_600)
        assert rig.seller_disk.blobs.get(sha256) == buyer.result(purchase)
        await rig.world.sleep(2 * 3_600)
        with pytest.raises(NotFoundError):
            rig.seller_disk.blobs.get(sha256)
        assert digest(buyer.result(purchase)) == sha256
        await buyer.close()
        await _stop(work)

    run_virtual(main())


def test_an_execution_that_was_left_behind_is_removed_and_one_that_works_is_not() -> None:
    async def main() -> None:
        rig = Rig(plan=lambda execution, task: Plan(seconds=30))
        backend = FakeBackend(rig.machine, rig.world, rig.seller_identity.key)
        await backend.open()
        work = await running(await rig.seller())
        buyer = await rig.buyer()
        purchase = await rig.hire(buyer, until=("waiting",))
        await rig.world.sleep(5)
        await backend.start("left-behind", Task(("x",), b"{}", trusted=True, details={"owner": rig.seller_identity.key}), Limits())
        await _stop(work)
        work = await running(await rig.seller())
        await rig.world.sleep(5)
        assert list(await backend.list(rig.seller_identity.key)) == [row.execution_id for row in rig.fulfilments()]
        assert (await buyer.drive(purchase.purchase_id)).state == "received"
        await buyer.close()
        await _stop(work)

    run_virtual(main())
