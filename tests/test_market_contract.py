"""The embedded market keeps the market's contract, on a file and in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tradeskill.testing.market_contract import MarketContract, MarketFor, SteppedClock
from tradeskill_plugins.market.embedded import EmbeddedMarket
from tradeskill_plugins.market.store import open_file, open_memory


class TestEmbeddedMarketOnAFile(MarketContract):
    @pytest.fixture
    def market_for(self, clock: SteppedClock, tmp_path: Path) -> MarketFor:
        return lambda identity: EmbeddedMarket(lambda: open_file(tmp_path / "market.db", clock), identity, clock)


class TestEmbeddedMarketInMemory(MarketContract):
    @pytest.fixture
    def market_for(self, clock: SteppedClock) -> Iterator[MarketFor]:
        store = open_memory(clock)
        yield lambda identity: EmbeddedMarket(store, identity, clock)
        store.close()
