"""How the conformance kit tries the market `embedded`: opened as a user would, through its hook, on a file of its own for every test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tradeskill.contracts import Market, PluginContext
from tradeskill.signing import Identity
from tradeskill.testing.market_contract import MarketContract, MarketFor, SteppedClock
from tradeskill_plugins.market.embedded import tradeskill_open_market

__all__ = ["TestEmbedded"]


class TestEmbedded(MarketContract):
    @pytest.fixture
    def market_for(self, clock: SteppedClock, tmp_path: Path) -> MarketFor:
        def market(identity: Identity) -> Market:
            context = PluginContext("embedded", "dev", tmp_path / identity.key, clock, identity, lambda: "")
            return tradeskill_open_market({"path": str(tmp_path / "market.db")}, context)

        return market
