"""The plugin `relay` against a relay of ours: whole trades with hints, large results and bearer tokens, and what a v1 client leaves there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.relay_started import Stand, relay_process, stand
from tests.relay_wire import Party
from tests.test_relay_old import PRICE, Trade, selling_on
from tradeskill.agreement import read_request, sign_quote, sign_request
from tradeskill.errors import NotFoundError, StateError, UnavailableError, UsageError
from tradeskill.journal import selling
from tradeskill.model import Delivery, Invoice, Job, JobError, Result
from tradeskill.testing.fake_backend import Plan
from tradeskill.testing.market_contract import SteppedClock
from tradeskill.world import World
from tradeskill_plugins.relay.client.settings import UploadSettings
from tradeskill_plugins.relay.conformance import served_folder


class Now(SteppedClock):
    """The real clock, where a test's own is asked for."""

    def now_ms(self) -> int:
        return World.now_ms(self)


@asynccontextmanager
async def trading(home: Path, relay: Stand) -> AsyncIterator[Trade]:
    trade = Trade(relay, home, allow=frozenset())  # type: ignore[arg-type]  # of the relay only its URL is asked
    try:
        yield trade
    finally:
        for market in trade.markets:
            await market.close()


def play(home: Path, scenario: Callable[[Trade], Coroutine[Any, Any, None]]) -> None:
    with stand("ours", home / "relay.db", clock=Now()) as relay:

        async def run() -> None:
            async with asyncio.timeout(60), trading(home, relay) as trade:
                await scenario(trade)

        asyncio.run(run())


async def requested(trade: Trade, nonce: str = "n") -> Job:
    """A job with a signed request; the seller's offer is up."""
    seller, buyer = await trade.market("seller"), await trade.market("buyer")
    offer = await seller.publish(trade.offer().document)
    return await buyer.request(
        sign_request(trade.identities["buyer"], offer, input_value={"url": "x"}, refund_to={}, nonce=nonce, created_at=trade.world.now_ms())
    )


async def accepted(trade: Trade, nonce: str = "n") -> Job:
    job = await requested(trade, nonce)
    invoice = Invoice("nano", "dev", "i", job.job_id, "nano_3", PRICE, 0)
    quote = sign_quote(
        trade.identities["seller"],
        read_request(job.request, job.buyer),
        job_id=job.job_id,
        invoices=[invoice],
        expires_at=trade.world.now_ms() + 600_000,
        nonce=nonce,
    )
    await trade.markets[0].quote(job.job_id, quote)
    return await trade.markets[1].accept(job.job_id)


def test_trades_run_on_hints(tmp_path: Path) -> None:
    async def scenario(trade: Trade) -> None:
        trade.settings = {"poll_seconds": 10.0}
        async with selling_on(trade):
            buyer = await trade.buyer()
            purchases = await asyncio.gather(*(trade.hire(buyer, f"http://a/{n}") for n in range(20)))
            assert {purchase.state for purchase in purchases} == {"received"}
            assert trade.paid() == 20 * PRICE.value
            await buyer.close()

    play(tmp_path, scenario)


def test_a_result_beyond_the_relay_goes_by_the_upload_folder(tmp_path: Path) -> None:
    data = bytes(range(256)) * 4 * 1024

    async def scenario(trade: Trade) -> None:
        trade.machine.plan = lambda execution, task: Plan(result=Result(data, "application/x-large"))
        with served_folder(tmp_path / "served") as url:
            trade.upload = UploadSettings(tmp_path / "served", url)
            async with selling_on(trade):
                buyer = await trade.buyer()
                purchase = await trade.hire(buyer, "http://a/")
                assert (purchase.state, purchase.result_type) == ("received", "application/x-large")
                assert buyer.result(purchase) == data
                await buyer.close()

    play(tmp_path, scenario)


def test_a_result_beyond_the_relay_without_an_upload_folder_is_paid_back(tmp_path: Path) -> None:
    async def scenario(trade: Trade) -> None:
        trade.machine.plan = lambda execution, task: Plan(result=Result(bytes(300_000)))
        async with selling_on(trade):
            buyer = await trade.buyer()
            purchase = await trade.hire(buyer, "http://a/")
            assert purchase.state == "refunded"
            (row,) = trade.journal("seller").read(lambda c: selling.fulfilments(c))
            assert row.state == "failed"
            assert "market.upload" in (row.error_message or "")
            await buyer.close()

    play(tmp_path, scenario)


def test_a_bearer_token_travels_and_lies_in_no_file_of_the_client(tmp_path: Path) -> None:
    token = "cashuB" + "money" * 50

    async def scenario(trade: Trade) -> None:
        job = await accepted(trade)
        paid = await trade.markets[1].submit_payment(job.job_id, "cashu", "P", token)
        assert paid.payment_token == token
        assert (await trade.markets[0].get(job.job_id)).payment_token == token
        assert await trade.markets[1].submit_payment(job.job_id, "cashu", "P", token) == paid

    play(tmp_path, scenario)
    files = [path for side in ("buyer", "seller") for path in (tmp_path / side).rglob("*") if path.is_file()]
    assert files
    assert [path for path in files if token[:40].encode() in path.read_bytes()] == []


def test_a_job_that_a_v1_client_asked_for_is_declined_once_and_shown_to_nobody(tmp_path: Path) -> None:
    async def scenario(trade: Trade) -> None:
        seller = await trade.market("seller")
        offer = await seller.publish(trade.offer().document)
        wire, stranger = trade.relay.wire(), Party()  # type: ignore[attr-defined]  # a stand has one
        body = {"offer_id": offer.offer_id, "request_payload": {"url": "http://a/"}}
        unsigned = (await asyncio.to_thread(wire.post, stranger, "/v1/jobs", body)).job
        changes = await seller.changes("")
        assert changes.jobs == ()
        with pytest.raises(NotFoundError):
            await seller.get(unsigned["job_id"])
        shown = await asyncio.to_thread(wire.get, stranger, f"/v1/jobs/{unsigned['job_id']}")
        assert (shown.job["status"], shown.job["error"]["code"]) == ("canceled", "unsigned")
        again = await seller.changes(changes.cursor)
        assert again.jobs == ()
        wire.close()

    play(tmp_path, scenario)


def test_another_process_goes_on_with_what_the_first_one_sent(tmp_path: Path) -> None:
    async def scenario(trade: Trade) -> None:
        job = await accepted(trade)
        await trade.markets[1].close()
        buyer = await trade.market("buyer")
        assert await buyer.accept(job.job_id) == job
        assert (await buyer.request(job.request)).job_id == job.job_id
        assert await buyer.find_request("n") == job
        with pytest.raises(StateError):
            await trade.markets[0].decline(job.job_id, "busy", "later")
        canceled = await buyer.cancel(job.job_id, "enough")
        assert canceled.error == JobError("canceled", "enough")
        assert await buyer.cancel(job.job_id, "enough") == canceled

    play(tmp_path, scenario)


def test_a_wrong_clock_is_told_in_seconds_and_nothing_is_given_up_for_it(tmp_path: Path) -> None:
    class Fast(World):
        def now_ms(self) -> int:
            return super().now_ms() + 120_000

    async def scenario(trade: Trade) -> None:
        trade.world = Fast()
        market = await trade.market("seller")
        with pytest.raises(UnavailableError, match=r"this machine's clock is 1(19|20|21) s ahead of the relay's"):
            await market.changes("")

    play(tmp_path, scenario)


def test_a_search_counts_signed_offers_only(tmp_path: Path) -> None:
    async def scenario(trade: Trade) -> None:
        seller = await trade.market("seller")
        offer = await seller.publish(trade.offer().document)
        wire, stranger = trade.relay.wire(), Party()  # type: ignore[attr-defined]  # a stand has one
        for n in range(3):
            await asyncio.to_thread(wire.post, stranger, "/v1/offers", {"title": f"plain {n}", "description": "x", "pricing_mode": "quote"})
        wire.close()
        assert await seller.search() == [offer]
        assert await seller.search(limit=1) == [offer]
        assert await seller.search(limit=1, offset=1) == []
        with pytest.raises(UsageError, match="comma"):
            await seller.search(tags=["a,b"])

    play(tmp_path, scenario)


def test_a_failure_is_delivered_once_and_again_as_the_same(tmp_path: Path) -> None:
    async def scenario(trade: Trade) -> None:
        job = await accepted(trade)
        seller, buyer = trade.markets[0], trade.markets[1]
        await buyer.submit_payment(job.job_id, "nano", "P")
        lock = await seller.lock(job.job_id)
        failed = await seller.deliver(job.job_id, Delivery(error=JobError("exit", "1")), lock.market_fence)
        assert (failed.state, failed.error) == ("failed", JobError("exit", "1"))
        assert await seller.deliver(job.job_id, Delivery(error=JobError("exit", "1")), 0) == failed
        with pytest.raises(StateError):
            await seller.deliver(job.job_id, Delivery(error=JobError("exit", "2")), lock.market_fence)
        assert (await buyer.changes("")).jobs[-1] == failed

    play(tmp_path, scenario)


def test_hints_and_trades_go_on_after_the_relay_was_killed_and_started_again(tmp_path: Path) -> None:
    with relay_process(tmp_path / "relay.db", "--network", "dev", "--no-limits") as relay:

        async def run() -> None:
            trade = Trade(relay, tmp_path, allow=frozenset())  # type: ignore[arg-type]  # of the relay only its URL is asked
            async with asyncio.timeout(120):
                async with selling_on(trade):
                    buyer = await trade.buyer()
                    begun = [asyncio.create_task(trade.hire(buyer, f"http://a/{n}")) for n in range(10)]
                    await asyncio.wait(begun, return_when=asyncio.FIRST_COMPLETED)
                    relay.kill()
                    begun += [asyncio.create_task(trade.hire(buyer, f"http://b/{n}")) for n in range(5)]
                    await asyncio.to_thread(relay.start)
                    purchases = await asyncio.gather(*begun)
                    assert {purchase.state for purchase in purchases} == {"received"}
                    assert trade.paid() == 15 * PRICE.value
                    assert set(trade.machine.started.values()) == {1}
                    hints = trade.markets[0].events()
                    heard = asyncio.create_task(anext(hints))
                    number = 0
                    while not heard.done():  # until it listens a hint may be lost
                        number += 1
                        asked = await requested(trade, f"h{number}")
                        await asyncio.wait([heard], timeout=0.5)
                    assert (await trade.markets[0].get(heard.result())).job_id == heard.result()
                    assert asked.state == "requested"
                    await hints.aclose()  # type: ignore[attr-defined]  # it is a generator
                    await buyer.close()
                for market in trade.markets:
                    await market.close()

        asyncio.run(run())
