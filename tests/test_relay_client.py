"""The plugin `relay` as a profile uses it: its settings, which relay it takes one for, and what it makes of answers of any shape."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.test_relay_transport import Patient, Stub, answer, error
from tradeskill.contracts import Market, PluginContext
from tradeskill.errors import ConfigError, NetworkMismatchError, NotFoundError, RefusedError, UnavailableError
from tradeskill.model import Json
from tradeskill.signing import Identity
from tradeskill.world import World
from tradeskill_plugins.relay.client.market import RelayMarket, tradeskill_capabilities, tradeskill_open_market
from tradeskill_plugins.relay.client.settings import Settings, read_settings

OWN = Identity(b"\1" * 32)
JOB = "0b9a6d0e-63a1-4a3c-9d7e-2f5d3c1b0a99"


def play(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await scenario()

    asyncio.run(bounded())


def context(home: Path, world: World | None = None, network: Any = "dev") -> PluginContext:
    return PluginContext("relay", network, home, world or Patient(), OWN, lambda: "")


# settings


def test_settings_say_what_is_meant() -> None:
    found = read_settings({"url": "https://relay.example/base/", "allow": ["no-fence"], "upload": {"folder": "/srv/r", "url": "https://r.example/"}})
    assert (found.url, found.allow, found.limits, found.local_results) == ("https://relay.example/base", frozenset({"no-fence"}), True, False)
    assert found.upload is not None
    assert (found.upload.folder, found.upload.url) == (Path("/srv/r"), "https://r.example")
    local = read_settings({"url": "http://127.0.0.1:8402"})
    assert local.local_results, "a market on this machine may have its results there"
    assert read_settings({"url": "http://[::1]:1"}).local_results
    assert not read_settings({"url": "http://127.0.0.1:1", "local_results": False}).local_results
    assert read_settings({"url": "http://relay.example", "insecure": True}).url == "http://relay.example"
    assert not read_settings({"url": "https://r", "limits": False}).limits


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "market.url is None"),
        ({"url": 5}, "market.url is 5"),
        ({"url": "ftp://x"}, "http:// or https://"),
        ({"url": "relay.example"}, "http:// or https://"),
        ({"url": "https://"}, "and a host"),
        ({"url": "https://x:0"}, "and a host"),
        ({"url": "https://x:99999"}, "market.url"),
        ({"url": "https://[x"}, "market.url"),
        ({"url": "https://x y"}, "ASCII"),
        ({"url": "https://ü.example"}, "ASCII"),
        ({"url": "https://u:p@x"}, "no name or password"),
        ({"url": "https://x?y"}, "no query"),
        ({"url": "https://x/#"}, "no fragment"),
        ({"url": "http://relay.example"}, "market.insecure: true"),
        ({"url": "http://127.0.0.1.evil.example"}, "market.insecure"),
        ({"url": "https://x", "insecure": "yes"}, "market.insecure is 'yes'"),
        ({"url": "https://x", "limits": None}, "market.limits"),
        ({"url": "https://x", "allow": "no-fence"}, "market.allow"),
        ({"url": "https://x", "allow": ["all"]}, "'all' is none of no-fence"),
        ({"url": "https://x", "upload": "/srv"}, "market.upload takes"),
        ({"url": "https://x", "upload": {"folder": "r", "url": "https://r"}}, "market.upload.folder"),
        ({"url": "https://x", "upload": {"folder": "/r", "url": "http://r"}}, "market.upload.url"),
        ({"url": "https://x", "upload": {"folder": "/r", "url": "https://r/" + "x" * 300}}, "256 at most"),
        ({"url": "https://x", "ulr": 1}, "market.ulr: .*did you mean url"),
        ({"url": "https://x", "zzz": 1}, "market.zzz"),
    ],
)
def test_a_wrong_setting_is_refused_naming_it(tmp_path: Path, settings: dict[str, Json], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        tradeskill_open_market(settings, context(tmp_path))


def test_the_plugin_does_nothing_until_it_is_opened(tmp_path: Path) -> None:
    market = tradeskill_open_market({"url": "http://127.0.0.1:1"}, context(tmp_path / "home"))
    assert isinstance(market, Market)
    assert list(tmp_path.iterdir()) == []
    assert {c.name for c in tradeskill_capabilities()} >= {"authoritative", "lock", "market_fence", "inline_result", "proof_bytes", "withdraw", "decline"}


def test_an_upload_folder_that_is_not_there_is_refused_at_the_opening(tmp_path: Path) -> None:
    async def scenario() -> None:
        settings: dict[str, Json] = {"url": "http://127.0.0.1:1", "upload": {"folder": str(tmp_path / "none"), "url": "http://127.0.0.1:2"}}
        with pytest.raises(ConfigError, match=r"market\.upload\.folder"):
            await tradeskill_open_market(settings, context(tmp_path)).open()

    play(scenario)


# which relay is this?


def announced(**changes: Any) -> bytes:
    value: dict[str, Any] = {"tradeskill": 1, "relay_id": "00" * 8, "network": "dev", "time_ms": 1, "capabilities": {"inline_result": 1000}}
    return answer(200, {**value, "limits": {"key": None, "ip": None, "strict": None, "window_ms": 60000}, **changes}, {"x-tradeskill": "1"})


def test_a_relay_of_other_money_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Stub([announced(network="live")]).running() as url:
            with pytest.raises(NetworkMismatchError, match="'live'"):
                await RelayMarket(Settings(url), context(tmp_path)).open()

    play(scenario)


def test_a_relay_that_is_away_at_the_opening_is_asked_again_at_the_first_call(tmp_path: Path) -> None:
    async def scenario() -> None:
        stub = Stub([None])
        async with stub.running() as url:
            market = RelayMarket(Settings(url), context(tmp_path))
            await market.open()
            with pytest.raises(UnavailableError):
                await market.search()
            stub.replies = [announced(), answer(200, {"offers": [], "limit": 20, "offset": 0, "total": 0})]
            assert await market.search() == []
            stub.replies = [error(404, "not_found")]
            with pytest.raises(NotFoundError):
                await market.get(JOB)
            await market.close()
            await market.close()
            with pytest.raises(UnavailableError, match="open"):
                await market.get(JOB)
            with pytest.raises(UnavailableError, match="open"):
                async for _ in market.events():
                    pass

    play(scenario)


def test_a_relay_in_trouble_is_not_taken_for_an_old_one(tmp_path: Path) -> None:
    async def scenario() -> None:
        for trouble in (answer(503), answer(429), None, answer(302, headers={"location": "/x"})):
            async with Stub([trouble]).running() as url:
                market = RelayMarket(Settings(url), context(tmp_path))
                await market.open()
                with pytest.raises(UnavailableError):
                    await market.search()
                await market.close()

    play(scenario)


@pytest.mark.parametrize(
    "reply",
    [
        answer(200, {}),
        answer(200, {"offers": {}}),
        answer(200, {"offers": [5, None, {"document": 5}, {"document": {"kind": "offer"}}], "limit": 20}),
        answer(200, {"offers": [{"offer_id": "x"}] * 101}),
    ],
)
def test_a_list_of_anything_breaks_no_search(tmp_path: Path, reply: bytes) -> None:
    async def scenario() -> None:
        for capabilities in (announced(), error(404, "not_found")):
            async with Stub([capabilities, reply]).running() as url:
                market = RelayMarket(Settings(url), context(tmp_path))
                await market.open()
                with suppress(RefusedError):  # an answer that is no list
                    assert await market.search() == []
                await market.close()

    play(scenario)


@pytest.mark.parametrize("job", [None, 5, {}, {"job_id": JOB}, {"job_id": JOB, "status": "requested", "request": None, "buyer_pubkey": OWN.key}])
def test_a_job_of_any_shape_is_not_found(tmp_path: Path, job: Json) -> None:
    async def scenario() -> None:
        for capabilities in (announced(), error(404, "not_found")):
            async with Stub([capabilities, answer(200, {"job": job})]).running() as url:
                market = RelayMarket(Settings(url), context(tmp_path))
                await market.open()
                with pytest.raises((NotFoundError, RefusedError)):
                    await market.get(JOB)
                with pytest.raises(NotFoundError):
                    await market.get("../../offers")
                await market.close()

    play(scenario)


def test_the_clients_pace_follows_what_the_relay_announces(tmp_path: Path) -> None:
    async def scenario() -> None:
        empty = answer(200, {"offers": [], "limit": 20})
        for limits, waits in (({"ip": 10, "key": 5, "strict": 2, "window_ms": 60000}, True), ({"ip": None, "key": None, "strict": None}, False)):
            world = Patient()
            async with Stub([announced(limits=limits), empty]).running() as url:
                market = RelayMarket(Settings(url), context(tmp_path, world))
                await market.open()
                for _ in range(12):
                    await market.search()
                await market.close()
            assert (sum(world.slept) > 50) == waits
        world = Patient()
        async with Stub([announced(limits={"ip": 1}), empty]).running() as url:
            market = RelayMarket(Settings(url, limits=False), context(tmp_path, world))
            await market.open()
            for _ in range(12):
                await market.search()
            await market.close()
        assert world.slept == []

    play(scenario)
