"""The market's contract over a relay of ours on PostgreSQL; on a file it is kept by `tradeskill plugins check relay` (tests/test_kit_ours.py)."""

from __future__ import annotations

import pytest

from tests.postgres import PostgresServer
from tests.relay_started import fresh_database
from tradeskill_plugins.relay.conformance import OverRelay


class TestRelayOnPostgres(OverRelay):
    @pytest.fixture
    def place(self, postgres: PostgresServer) -> str:
        return fresh_database(postgres)
