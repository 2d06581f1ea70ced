"""The book on a real PostgreSQL server."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.postgres import PostgresServer
from tradeskill.testing.market_contract import MarketContract, MarketFor, SteppedClock
from tradeskill_plugins.market.embedded import EmbeddedMarket
from tradeskill_plugins.market.store import open_postgres

NAMES = (f"s{n}" for n in itertools.count())


@pytest.fixture
def name() -> str:
    """A schema of the test's own, made when it opens a database there."""
    return next(NAMES)


class TestMarketOnPostgres(MarketContract):
    @pytest.fixture
    def market_for(self, clock: SteppedClock, postgres: PostgresServer, name: str) -> Iterator[MarketFor]:
        store = open_postgres(postgres.dsn(), clock, name=name)
        yield lambda identity: EmbeddedMarket(store, identity, clock)
        store.close()
