"""The plugin `relay` at a relay that knows none of our additions: offers there, what has to be allowed, its limits and its searches."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.old_relay import OldRelay
from tests.test_relay_old import STRANGER, Trade, everywhere, play
from tradeskill.errors import RefusedError
from tradeskill.world import World


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


def test_a_search_there_is_literal_all_the_same(tmp_path: Path) -> None:
    async def scenario(trade: Trade) -> None:
        market = await trade.market("seller")
        await market.publish(trade.offer().document)
        assert len(await market.search("PAGE to")) == 1
        for query in ("W%n", "W_b", "tso1", "raw"):
            assert await market.search(query) == [], query

    play(tmp_path, scenario)
