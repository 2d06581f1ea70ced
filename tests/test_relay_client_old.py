"""The plugin `relay` at a relay that knows none of our additions: offers there, what has to be allowed, its limits and its searches."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.old_relay import OldRelay
from tests.rig import PRICE
from tests.test_relay_old import STRANGER, Trade, everywhere, play
from tradeskill.agreement import read_request, sign_quote, sign_receipt, sign_request
from tradeskill.errors import RefusedError, StateError
from tradeskill.model import Delivery, Invoice, Job, Result, SignedDocument
from tradeskill.world import World
from tradeskill_plugins.relay.client.market import RelayMarket


def test_an_offer_that_was_changed_is_none_of_ours(tmp_path: Path) -> None:
    async def scenario(trade: Trade) -> None:
        market = await trade.market("seller")
        await market.publish(trade.offer().document)
        buyer = await trade.market("buyer")
        assert [offer.offer_hash for offer in await buyer.search("markdown", ["web"])] == [trade.offer().offer_hash]
        for changes in ({"title": "x"}, {"seller_pubkey": STRANGER}, {"fixed_price_raw": "1"}, {"tags": lambda tags: [*tags, "x"]}):
            trade.relay.mutate = everywhere(**changes)
            assert await buyer.search() == []

    play(tmp_path, scenario)


def test_what_is_not_protected_there_has_to_be_allowed_by_name(tmp_path: Path) -> None:
    async def scenario(trade: Trade) -> None:
        for allow, named in ((frozenset(), "no-fence"), (frozenset({"no-fence"}), "small-results-only")):
            market = await trade.market("seller", allow=allow)
            with pytest.raises(RefusedError, match=f"add {named} to market.allow"):
                await market.publish(trade.offer().document)
        assert trade.relay.offers == {}

    play(tmp_path, scenario)


def test_an_offer_is_put_up_once_however_often_it_is_published(tmp_path: Path) -> None:
    async def scenario(trade: Trade) -> None:
        lost = ["drop", 502]
        trade.relay.after = lambda method, path: lost.pop() if method == "POST" and path == "/v1/offers" and lost else None
        for _ in range(3):
            market = await trade.market("seller")
            assert (await market.publish(trade.offer().document)).offer_hash == trade.offer().offer_hash
        assert len(trade.relay.offers) == 1

    play(tmp_path, scenario)


class Skipping(World):
    """Time that pauses move at once, for both sides."""

    def __init__(self) -> None:
        super().__init__()
        self._skipped = 0.0

    def now_ms(self) -> int:
        return super().now_ms() + round(self._skipped * 1000)

    def monotonic(self) -> float:
        return super().monotonic() + self._skipped

    async def sleep(self, seconds: float) -> None:
        self._skipped += seconds
        await asyncio.sleep(0)


class Counting(OldRelay):
    """Notes how often its limits had to be named."""

    refused = 0

    def _count(self, scope: str, who: str, kind: str) -> None:
        try:
            super()._count(scope, who, kind)
        except Exception:
            self.refused += 1
            raise


def test_a_client_keeps_below_the_limits_by_itself(tmp_path: Path) -> None:
    async def run() -> None:
        world = Skipping()
        relay = Counting(world=world, limits=True)
        await relay.start()
        trade = Trade(relay, tmp_path, world)
        market = await trade.market("seller", limits=True)
        try:
            began = world.monotonic()
            await market.publish(trade.offer().document)
            for n in range(125):  # one after the other: time jumps here, and what is under way would arrive late
                await market.changes("")
                await market.find_request(str(n))
            assert relay.refused == 0
            assert 3 * 60 < world.monotonic() - began < 7 * 60, "250 requests at 45 to 54 a minute"
        finally:
            await market.close()
            await relay.stop()

    asyncio.run(run())


def test_each_step_may_be_repeated_by_anybody_and_is_taken_once(tmp_path: Path) -> None:
    async def scenario(trade: Trade) -> None:
        seller, buyer, world = await trade.market("seller"), await trade.market("buyer"), trade.world
        offer = await seller.publish(trade.offer().document)
        request = sign_request(trade.identities["buyer"], offer, input_value={"url": "x"}, refund_to={}, nonce="n" * 16, created_at=world.now_ms())

        def quote_for(job: Job, nonce: str) -> SignedDocument:
            invoice = Invoice("nano", "dev", "nano_3", job.job_id, "nano_3", PRICE, 0)
            until = job.created_at + 600_000
            asked = read_request(job.request, job.buyer)
            return sign_quote(trade.identities["seller"], asked, job_id=job.job_id, invoices=[invoice], expires_at=until, nonce=nonce)

        def delivery_of(job: Job, data: bytes) -> Delivery:
            result, asked = Result(data, "text/plain"), read_request(job.request, job.buyer)
            receipt = sign_receipt(
                trade.identities["seller"],
                asked,
                quote_for(job, "ab" * 16),
                job_id=job.job_id,
                rail="nano",
                payment_ids=["P"],
                amount=PRICE,
                result=result,
                delivered_at=0,
                fence=1,
            )
            return Delivery(result, receipt)

        async def twice(side: str, call: Callable[[RelayMarket], Awaitable[Job]], other: Callable[[RelayMarket], Awaitable[Job]] | None = None) -> Job:
            """By the same process, by another one, and by one that remembers nothing."""
            market = seller if side == "seller" else buyer
            job = await call(market)
            assert await call(market) == job
            assert await call(await trade.market(side)) == job
            home, trade.home = trade.home, tmp_path / f"fresh-{len(trade.markets)}"
            again = await call(await trade.market(side))
            trade.home = home
            assert replace(again, revision=0) == replace(job, revision=0)
            if other is not None:
                with pytest.raises(StateError):
                    await other(market)
            return job

        job = await twice("buyer", lambda m: m.request(request))
        job_id = job.job_id
        quoted = await twice("seller", lambda m: m.quote(job_id, quote_for(job, "ab" * 16)), lambda m: m.quote(job_id, quote_for(job, "cd" * 16)))
        assert quoted.quote == quote_for(job, "ab" * 16)
        assert (await twice("buyer", lambda m: m.accept(job_id))).accepted_at is not None
        paid = await twice("buyer", lambda m: m.submit_payment(job_id, "nano", "P"), lambda m: m.submit_payment(job_id, "nano", "Q"))
        assert (paid.payment_rail, paid.payment_id) == ("nano", "P")
        lock = await seller.lock(job_id)
        assert 295 <= lock.seconds_left <= 300
        assert lock.market_fence is None
        done = await twice(
            "seller", lambda m: m.deliver(job_id, delivery_of(job, b"result"), None), lambda m: m.deliver(job_id, delivery_of(job, b"other"), None)
        )
        assert (done.state, done.result, done.receipt) == ("delivered", Result(b"result", "text/plain"), delivery_of(job, b"result").receipt)
        assert replace(await buyer.get(job_id), revision=0) == replace(done, revision=0)
        for market in (seller, buyer):
            with pytest.raises((StateError, RefusedError)):
                await market.cancel(job_id, "late")
        assert len(trade.relay.jobs) == 1
        second = await buyer.request(
            sign_request(trade.identities["buyer"], offer, input_value={"url": "y"}, refund_to={}, nonce="m" * 16, created_at=world.now_ms())
        )
        assert (await twice("buyer", lambda m: m.cancel(second.job_id, "enough"))).state == "canceled"
        with pytest.raises(RefusedError, match="no way to decline"):
            await seller.decline(second.job_id, "busy", "later")

    play(tmp_path, scenario)


def test_a_search_there_is_literal_all_the_same(tmp_path: Path) -> None:
    async def scenario(trade: Trade) -> None:
        market = await trade.market("seller")
        await market.publish(trade.offer().document)
        assert len(await market.search("PAGE to")) == 1
        for query in ("W%n", "W_b", "tso1", "raw"):
            assert await market.search(query) == [], query

    play(tmp_path, scenario)
