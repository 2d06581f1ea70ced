"""The market's contract over a relay of ours: real server, real sockets, the client plugin; on SQLite and on PostgreSQL."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.postgres import PostgresServer
from tests.relay_started import fresh_database, stand
from tradeskill.contracts import Market, PluginContext
from tradeskill.signing import Identity
from tradeskill.testing.market_contract import MarketContract, MarketFor, SteppedClock
from tradeskill_plugins.relay.client.market import tradeskill_open_market


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The URL of a folder, as its owner's web server shows it."""
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))  # seconds between looks whether it is over
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _OverRelay(MarketContract):
    @pytest.fixture
    def market_for(self, clock: SteppedClock, place: Path | str, tmp_path: Path) -> Iterator[MarketFor]:
        count = 0
        with stand("ours", place, clock=clock) as relay, served(tmp_path / "uploads") as uploads:

            def made(identity: Identity) -> Market:
                nonlocal count
                count += 1
                context = PluginContext("relay", "dev", tmp_path / f"profile-{count}", clock, identity, lambda: "password")
                upload = {"folder": str(tmp_path / "uploads"), "url": uploads}
                return tradeskill_open_market({"url": relay.url, "local_results": True, "upload": upload}, context)

            yield made


class TestRelayOnSqlite(_OverRelay):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        return tmp_path / "relay.db"


class TestRelayOnPostgres(_OverRelay):
    @pytest.fixture
    def place(self, postgres: PostgresServer) -> str:
        return fresh_database(postgres)
