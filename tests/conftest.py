"""What several test modules share: for the whole session one stage of real processes, one PostgreSQL server, one mint, one container engine; a journal."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest

from tests.cli_stage import Stage, staged
from tests.mint import Mint, minting
from tests.mint import missing as mint_missing
from tests.podman import Engine, engine
from tests.podman import missing as engine_missing
from tests.postgres import PostgresServer, missing, served
from tradeskill.journal import Database
from tradeskill.world import World


@pytest.fixture
def tx() -> Iterator[sqlite3.Connection]:
    """A new journal in memory, inside one transaction."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    Database(lambda: connection, World(), "dev")
    connection.execute("BEGIN IMMEDIATE")
    yield connection
    connection.close()


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A dev ledger and a folder for profiles that trade on it."""
    with staged(tmp_path_factory.mktemp("stage")) as made:
        yield made


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A real server; each test takes a schema of its own. `make test` builds what it needs, without that tests of it are skipped."""
    if lacking := missing():
        pytest.skip(lacking)
    with served() as server:
        yield server


@pytest.fixture(scope="session")
def mint() -> Iterator[Mint]:
    """A real mint, shared: it pays every invoice at once and takes a fee. A test that stops, kills or changes one makes its own (`minting`)."""
    if lacking := mint_missing():
        pytest.skip(lacking)
    with minting() as served_mint:
        yield served_mint


@pytest.fixture(scope="session")
def podman() -> Iterator[Engine]:
    """A real engine, shared: every test has a home of its own, and so names of its own. A test that stops the service starts it again."""
    if lacking := engine_missing():
        pytest.skip(lacking)
    with engine() as made:
        yield made
