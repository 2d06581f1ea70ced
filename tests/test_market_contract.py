"""The embedded market keeps the market's contract in memory; on a file it is kept by `tradeskill plugins check embedded` (tests/test_kit_ours.py)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tradeskill.testing.market_contract import MarketContract, MarketFor, SteppedClock
from tradeskill_plugins.market.embedded import EmbeddedMarket
from tradeskill_plugins.market.store import open_memory


class TestEmbeddedMarketInMemory(MarketContract):
    @pytest.fixture
    def market_for(self, clock: SteppedClock) -> Iterator[MarketFor]:
        store = open_memory(clock)
        yield lambda identity: EmbeddedMarket(store, identity, clock)
        store.close()
