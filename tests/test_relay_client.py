"""The plugin `relay` as a profile uses it: its settings, which relay it takes one for, what it fetches and uploads, and how it follows changes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.test_relay_transport import Patient, Reply, Stub, answer, error
from tradeskill.contracts import Market, PluginContext
from tradeskill.errors import ConfigError, NetworkMismatchError, NotFoundError, RefusedError, UnavailableError, UsageError
from tradeskill.model import Json, Result, SignedDocument
from tradeskill.signing import Identity, digest
from tradeskill.world import World
from tradeskill_plugins.relay.client.fetching import RESULT_MAX, fetch_result, is_public
from tradeskill_plugins.relay.client.market import RelayMarket, tradeskill_capabilities, tradeskill_open_market
from tradeskill_plugins.relay.client.outbox import Outbox, outbox_file
from tradeskill_plugins.relay.client.reading import Row
from tradeskill_plugins.relay.client.results import Results
from tradeskill_plugins.relay.client.settings import Settings, read_settings
from tradeskill_plugins.relay.client.upload import LocalFolder
from tradeskill_plugins.relay.client.walk import OVERLAP_MS, Walk
from tradeskill_plugins.relay.wire import show_time

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


# results elsewhere


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.0.0.1", "192.168.1.1", "172.16.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "255.255.255.255", "224.0.0.1", "240.0.0.1"),
        *("198.18.0.1", "192.0.0.8", "192.0.2.1", "203.0.113.1", "192.88.99.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "ff02::1"),
        *("::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "::ffff:0:7f00:1", "64:ff9b::7f00:1", "64:ff9b:1::a00:1", "2002:7f00:1::", "2001::1"),
        *("2001:db8::1", "fec0::1", "", "localhost", "0177.0.0.1", "2130706433", "8.8.8.8.", "8.8.8.8%1"),
    ],
)
def test_an_address_that_is_not_of_the_open_internet_is_none(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "2a00:1450:4001::1"])
def test_an_address_of_the_open_internet_is_one(address: str) -> None:
    assert is_public(address)


def resolving(*addresses: str) -> Callable[[str, int], Coroutine[Any, Any, list[str]]]:
    async def resolve(host: str, port: int) -> list[str]:
        return list(addresses)

    return resolve


@pytest.mark.parametrize(
    "url",
    [
        *("", "x", "ftp://a/", "file:///etc/passwd", "//a/b", "http:///x", "http://u:p@a/", "http://u@a/", "http://a b/", "http://ü/", "http://a/\n"),
        *("data:text/plain,x", "http://[fe80::1%25eth0]/", "http://a\\@b/", "http://a:99999/", "gopher://a/"),
    ],
)
def test_a_url_that_is_none_for_a_result_is_not_asked_for(url: str) -> None:
    async def scenario() -> None:
        async def resolve(host: str, port: int) -> list[str]:
            raise AssertionError("nothing is looked up")

        with pytest.raises(RefusedError):
            await fetch_result(url, local=True, resolve=resolve)

    play(scenario)


def test_a_private_address_is_not_fetched_unless_the_market_is_local() -> None:
    async def scenario() -> None:
        stub = Stub([answer(200, body=b"result", headers={"content-type": "text/plain"})])
        async with stub.running() as url:
            for shown in (url, url.replace("127.0.0.1", "localhost")):
                with pytest.raises(RefusedError, match="open internet"):
                    await fetch_result(f"{shown}/x", local=False)
            with pytest.raises(RefusedError, match="open internet"):
                await fetch_result("http://results.example/x", local=False, resolve=resolving("8.8.8.8", "127.0.0.1"))
            assert stub.asked == []
            assert await fetch_result(f"{url}/x", local=True) == Result(b"result", "text/plain")

    play(scenario)


def test_the_connection_goes_to_the_address_that_was_looked_at() -> None:
    """The name is looked up once; a second answer (rebinding) is never asked for."""

    async def scenario() -> None:
        stub = Stub([answer(200, body=b"result")])
        looked: list[str] = []

        async def resolve(host: str, port: int) -> list[str]:
            looked.append(host)
            return ["127.0.0.1"]

        async with stub.running() as url:
            port = url.rpartition(":")[2]
            await fetch_result(f"http://results.example:{port}/a%2Fb?c=d#top", local=True, resolve=resolve)
        assert looked == ["results.example"]
        (asked,) = stub.asked
        assert (asked.target, asked.headers["host"]) == ("/a%2Fb?c=d", f"results.example:{port}")
        assert not {"authorization", "cookie", "x-molt-pubkey"} & set(asked.headers)

    play(scenario)


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (answer(302, headers={"location": "/y"}), RefusedError),
        (answer(404), RefusedError),
        (answer(200, body=b"x", headers={"content-encoding": "gzip"}), RefusedError),
        (answer(200, body=b"x" * (RESULT_MAX + 1)), RefusedError),
        (answer(500), UnavailableError),
        (answer(429), UnavailableError),
        (None, UnavailableError),
        (b"garbage\r\n\r\n", UnavailableError),
    ],
    ids=["redirect", "gone", "gzip", "too much", "500", "429", "nothing", "garbage"],
)
def test_what_does_not_lie_there_is_told_from_what_may_come(reply: Reply, kind: type[Exception]) -> None:
    async def scenario() -> None:
        stub = Stub([reply])
        async with stub.running() as url:
            with pytest.raises(kind):
                await fetch_result(f"{url}/x", local=True)
        assert len(stub.asked) == 1

    play(scenario)


def receipt_for(data: bytes, media_type: str = "text/markdown") -> SignedDocument:
    return OWN.sign("receipt", {"result": {"sha256": digest(data), "size": str(len(data)), "media_type": media_type}})


def test_a_fetched_result_is_the_one_that_the_receipt_names(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = Patient()
        outbox = Outbox(outbox_file(tmp_path, "u", "k"), world)
        results = Results(None, outbox, world, local=True)
        stub = Stub([answer(200, body=b"result")])
        async with stub.running() as url:
            assert await results.get(f"{url}/x", receipt_for(b"result")) == Result(b"result", "text/markdown")
            assert await results.get(f"{url}/x", receipt_for(b"result")) == Result(b"result", "text/markdown")
            assert len(stub.asked) == 1
            assert await results.get(f"{url}/x", receipt_for(b"other")) is None
        with pytest.raises(UnavailableError):
            await results.get(f"{url}/y", receipt_for(b"x"))
        await world.sleep(3_600)
        assert await results.get(f"{url}/y", receipt_for(b"x")) is None, "after an hour it is not waited for"
        await outbox.close()

    play(scenario)


def test_an_upload_is_whole_private_in_name_and_made_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        world, folder = World(), tmp_path / "served"
        folder.mkdir()
        outbox = Outbox(outbox_file(tmp_path / "home", "u", "k"), world)
        results = Results(LocalFolder(folder, "https://r.example", world), outbox, world, local=False)
        result = Result(b"<script>" * 1000, "text/html")
        url = await results.put("job", result, digest(result.data))
        assert await results.put("job", result, digest(result.data)) == url
        (file,) = folder.iterdir()
        assert url == f"https://r.example/{file.name}"
        assert file.read_bytes() == result.data
        assert file.suffix == ".bin"
        assert len(file.stem) == 32
        other = await results.put("another job", result, digest(result.data))
        assert other != url
        file.unlink()
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        with pytest.raises(UnavailableError, match=r"market\.upload\.folder"):
            await results.put("third", result, digest(result.data))
        with pytest.raises(UsageError, match=r"market\.upload"):
            await Results(None, outbox, world, local=False).put("job", result, "x")
        await outbox.close()

    play(scenario)


# changes on a relay without a cursor


class Table:
    """Jobs as such a relay lists them: microseconds inside, milliseconds shown, `updated_after` strict, late commits."""

    def __init__(self) -> None:
        self.rows: dict[str, tuple[int, dict[str, Json]]] = {}
        self.calls = 0

    def put(self, job_id: str, milliseconds: int, version: int = 0) -> None:
        self.rows[job_id] = (milliseconds * 1000 + 500, {"job_id": job_id, "v": version, "updated_at": show_time(milliseconds)})

    async def page(self, after: int, offset: int, limit: int) -> list[Row]:
        self.calls += 1
        found = sorted((at, job_id) for job_id, (at, _) in self.rows.items() if at > after * 1000)
        return [self.rows[job_id][1] for _, job_id in found][offset : offset + limit]

    def versions(self) -> Mapping[str, Json]:
        return {job_id: row["v"] for job_id, (_, row) in self.rows.items()}


async def all_of(walk: Walk, cursor: str, limit: int = 100) -> tuple[list[Row], str]:
    found: list[Row] = []
    more = True
    while more:
        rows, cursor, more = await walk.next(cursor, limit)
        found += rows
    return found, cursor


def test_a_walk_shows_each_change_once_and_late_commits_too() -> None:
    async def scenario() -> None:
        table = Table()
        walk = Walk(table.page, 1)
        for n in range(250):
            table.put(f"j{n}", 1_000_000 + n)
        found, cursor = await all_of(walk, "")
        assert sorted(str(row["job_id"]) for row in found) == sorted(table.rows)
        assert (await all_of(walk, cursor))[0] == []
        table.put("late", 1_000_000 - OVERLAP_MS + 500)  # committed now, dated earlier
        table.put("j3", 1_000_400, 1)
        rows, cursor = await all_of(walk, cursor)
        assert {row["job_id"] for row in rows} == {"late", "j3"}
        assert (await all_of(walk, cursor)) == ([], cursor)

    play(scenario)


def test_whoever_lost_a_page_is_shown_it_again() -> None:
    async def scenario() -> None:
        table = Table()
        walk = Walk(table.page, 1)
        table.put("a", 1_000_000)
        _, cursor = await all_of(walk, "")
        table.put("b", 1_000_000)
        first, following = await all_of(walk, cursor)
        assert [row["job_id"] for row in first] == ["b"]
        assert following != cursor
        again, _ = await all_of(walk, cursor)
        assert "b" in {row["job_id"] for row in again}
        after_restart, _ = await all_of(Walk(table.page, 2), cursor)
        assert {row["job_id"] for row in after_restart} == {"a", "b"}

    play(scenario)


def test_thousands_of_changes_in_one_millisecond_or_one_minute_are_all_shown() -> None:
    async def scenario() -> None:
        for step in (0, 1):
            table = Table()
            walk = Walk(table.page, 1)
            for n in range(700):
                table.put(f"j{n:04}", 1_000_000 + n * step)
            found, cursor = await all_of(walk, "")
            assert {row["job_id"] for row in found} == set(table.rows)
            assert len(found) == 700
            assert (await all_of(walk, cursor))[0] == []
            restarted, _ = await all_of(Walk(table.page, 9), cursor)
            assert len({str(row["job_id"]) for row in restarted}) >= 1

    play(scenario)


@pytest.mark.parametrize("seed", range(20))
def test_a_walker_among_writers_ends_up_with_what_is_there(seed: int) -> None:
    async def scenario() -> None:
        draw = random.Random(seed)
        table = Table()
        walk, cursor, seen = Walk(table.page, 0), "", dict[str, Json]()
        now = 5_000_000
        for _ in range(200):
            now += draw.choice([0, 0, 1, 500, 20_000])
            for _ in range(draw.randrange(4)):
                job_id = f"j{draw.randrange(60)}"
                version = int(str(table.versions().get(job_id, 0))) + 1
                table.put(job_id, now - draw.choice([0, 0, 3, 40_000]), version)  # committed late
            if draw.random() < 0.1:
                walk = Walk(table.page, now)  # a new process with the stored cursor
            rows, following, _ = await walk.next(cursor, draw.choice([1, 3, 100]))
            if draw.random() < 0.2:
                continue  # it crashed before it took note
            seen |= {str(row["job_id"]): row["v"] for row in rows}
            cursor = following
        rows, _ = await all_of(walk, cursor)
        seen |= {str(row["job_id"]): row["v"] for row in rows}
        assert seen == table.versions()

    play(scenario)


@pytest.mark.parametrize("cursor", ["x", "0", "t1-5", "t1-05-1", "t1-5-1x", "t1--1-1", "t1-" + "9" * 30 + "-1", "0000000000000000-0"])
def test_a_cursor_of_another_market_is_refused(cursor: str) -> None:
    async def scenario() -> None:
        with pytest.raises(UsageError, match="start again"):
            await Walk(Table().page, 0).next(cursor, 100)

    play(scenario)
