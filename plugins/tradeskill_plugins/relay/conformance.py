"""How the conformance kit tries the market `relay`: through its hook, over real sockets, at a relay of ours that lives for one test."""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tradeskill.contracts import Market, PluginContext
from tradeskill.signing import Identity
from tradeskill.testing.market_contract import MarketContract, MarketFor, SteppedClock
from tradeskill.world import World
from tradeskill_plugins.relay.client.market import tradeskill_open_market
from tradeskill_plugins.relay.server.imports import missing

__all__ = ["OverRelay", "TestRelay", "served_folder"]

if lacking := missing():
    pytest.skip(f"its tests start a relay, which needs {lacking}: pip install 'tradeskill[relay]'", allow_module_level=True)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


@contextmanager
def served_folder(folder: Path) -> Iterator[str]:
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


@contextmanager
def _own_relay(data: Path | str, world: World) -> Iterator[str]:
    """A relay on that file or DSN, on a port that the system chooses, without rate limits: a whole contract is more calls than a minute allows."""
    from tradeskill_plugins.relay.server.aside import relay_aside  # these need what `missing` looks for
    from tradeskill_plugins.relay.server.door import DoorSettings
    from tradeskill_plugins.relay.server.serving import RelaySettings

    with relay_aside(RelaySettings(str(data), DoorSettings(port=0), per_ip=None, per_key=None, strict=None), world) as url:
        yield url


class OverRelay(MarketContract):
    """Each identity has a profile of its own there, and a folder on the web for results that the relay does not carry."""

    @pytest.fixture
    def place(self) -> Path | str:
        raise NotImplementedError("give a fixture `place`: the file or DSN that the relay keeps its data in")

    @pytest.fixture
    def market_for(self, clock: SteppedClock, place: Path | str, tmp_path: Path) -> Iterator[MarketFor]:
        numbers = itertools.count(1)
        uploads = tmp_path / "uploads"
        with _own_relay(place, clock) as url, served_folder(uploads) as base:

            def market(identity: Identity) -> Market:
                context = PluginContext("relay", "dev", tmp_path / f"profile-{next(numbers)}", clock, identity, lambda: "password")
                return tradeskill_open_market({"url": url, "local_results": True, "upload": {"folder": str(uploads), "url": base}}, context)

            yield market


class TestRelay(OverRelay):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        return tmp_path / "relay.db"
