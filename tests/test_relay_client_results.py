"""Results that lie elsewhere: what is fetched and what is not (fault 89), and how a seller puts them up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from tests.test_relay_transport import Patient, Reply, Stub, answer
from tradeskill.errors import RefusedError, UnavailableError, UsageError
from tradeskill.model import Result, SignedDocument
from tradeskill.signing import Identity, digest
from tradeskill.world import World
from tradeskill_plugins.relay.client.fetching import RESULT_MAX, fetch_result, is_public
from tradeskill_plugins.relay.client.outbox import Outbox, outbox_file
from tradeskill_plugins.relay.client.results import Results
from tradeskill_plugins.relay.client.upload import LocalFolder

OWN = Identity(b"\1" * 32)
JOB = "0b9a6d0e-63a1-4a3c-9d7e-2f5d3c1b0a99"


def play(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await scenario()

    asyncio.run(bounded())


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
