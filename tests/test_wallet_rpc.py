"""rpc: a node that is slow, huge, broken, foreign or gone gives a bounded, typed error; a good one next to it takes over."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tradeskill.errors import NetworkMismatchError, UnavailableError
from tradeskill.world import World
from tradeskill_wallet import rpc
from tradeskill_wallet.primitives import GENESIS_HASH
from tradeskill_wallet.rpc import Nodes, RpcError

VERSION = {"network": "dev", "network_identifier": GENESIS_HASH["dev"]}
Answer = Callable[[dict[str, Any]], bytes | Awaitable[bytes]]


class Quick(World):
    """Pauses between retries take no time, and are counted."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses = 0

    async def sleep(self, seconds: float) -> None:
        self.pauses += 1


def ok(value: object, status: str = "200 OK") -> bytes:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


@asynccontextmanager
async def server(answer: Answer, version: object = VERSION) -> AsyncIterator[str]:
    """A raw HTTP server: what `answer` returns goes out as it is."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(next(line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")))
            request = json.loads(await reader.readexactly(length))
            data = ok(version) if request["action"] == "version" and version is not None else answer(request)
            writer.write(data if isinstance(data, bytes) else await data)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    finally:
        listener.close()


def run(body: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(body(), 20))


@asynccontextmanager
async def client(*urls: str) -> AsyncIterator[Nodes]:
    nodes = Nodes(urls, "dev", Quick())
    try:
        yield nodes
    finally:
        await nodes.close()


GARBAGE = {
    "not json": b"<html>",
    "empty": b"",
    "array": b"[]",
    "number": b"5",
    "not utf-8": b'{"a": "\xff"}',
    "duplicate keys": b'{"a": "1", "a": "2"}',
    "nan": b'{"a": NaN}',
    "deep": b'{"a":' * 5000 + b"1" + b"}" * 5000,
    "truncated": b'{"a": "1"',
}


@pytest.mark.parametrize("body", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_is_unavailable_and_not_an_answer(body: bytes) -> None:
    async def scenario() -> None:
        async with server(lambda _: ok(body)) as url, client(url) as nodes:
            with pytest.raises(UnavailableError) as caught:
                await nodes.call("block_count")
            assert not isinstance(caught.value, RpcError)
            assert url in str(caught.value)

    run(scenario)


@pytest.mark.parametrize("data", [ok({}, "500 Oops"), ok({}, "302 Found"), b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}", b"", b"nonsense\r\n\r\n"])
def test_a_broken_http_answer_is_unavailable(data: bytes) -> None:
    async def scenario() -> None:
        async with server(lambda _: data) as url, client(url) as nodes:
            with pytest.raises(UnavailableError):
                await nodes.call("block_count")

    run(scenario)


def test_an_error_with_http_200_is_the_nodes_own_word_and_is_not_retried() -> None:
    async def scenario() -> None:
        asked: list[str] = []

        def answer(request: dict[str, Any]) -> bytes:
            asked.append(request["action"])
            return ok({"error": "Block not found"})

        async with server(answer) as url, client(url) as nodes:
            with pytest.raises(RpcError) as caught:
                await nodes.call("block_info", hash="0" * 64)
            assert caught.value.error == "Block not found"
            assert asked == ["block_info"]

    run(scenario)


def test_an_endless_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "MAX_ANSWER", 100_000)

    async def scenario() -> None:
        body = b'{"a": "' + b"x" * 3_000_000 + b'"}'
        async with server(lambda _: ok(body)) as url, client(url) as nodes:
            with pytest.raises(UnavailableError, match="more than"):
                await nodes.call("block_count")

    run(scenario)


def test_a_node_that_never_answers_is_given_up_after_the_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "SECONDS", 0.05)

    async def scenario() -> None:
        forever = asyncio.Event()

        async def silent() -> bytes:
            await forever.wait()
            return b""

        async with server(lambda _: silent()) as url, client(url) as nodes:
            with pytest.raises(UnavailableError, match="did not answer"):
                await nodes.all[0].call("block_count")
            forever.set()

    run(scenario)


def test_nobody_listening_is_unavailable_after_three_rounds() -> None:
    async def scenario() -> None:
        async with server(lambda _: ok({})) as url:
            pass
        world = Quick()
        nodes = Nodes([url], "dev", world)
        with pytest.raises(UnavailableError, match="cannot be reached"):
            await nodes.call("block_count")
        await nodes.close()
        assert world.pauses == 2

    run(scenario)


def test_a_passing_fault_is_retried() -> None:
    async def scenario() -> None:
        answers = [b"", ok(b"<html>"), ok({"count": "5"})]
        async with server(lambda _: answers.pop(0)) as url, client(url) as nodes:
            assert await nodes.call("block_count") == {"count": "5"}

    run(scenario)


def test_the_next_node_takes_over_and_stays_preferred() -> None:
    async def scenario() -> None:
        async with server(lambda _: ok(b"broken")) as bad, server(lambda _: ok({"count": "5"})) as good, client(bad, good) as nodes:
            world = nodes._world
            assert await nodes.call("block_count") == {"count": "5"}
            assert isinstance(world, Quick)
            assert world.pauses == 0
            assert nodes.all[nodes._preferred].url == good

    run(scenario)


FOREIGN = [
    {"network": "live", "network_identifier": GENESIS_HASH["live"]},
    {"network": "test", "network_identifier": GENESIS_HASH["dev"]},
    {"network": "dev", "network_identifier": GENESIS_HASH["live"]},
    {"network": "dev"},
    {"network": None, "network_identifier": None},
    {},
]


@pytest.mark.parametrize("version", FOREIGN)
def test_a_node_of_another_network_is_never_asked_anything(version: dict[str, Any]) -> None:
    async def scenario() -> None:
        asked: list[str] = []

        def answer(request: dict[str, Any]) -> bytes:
            asked.append(request["action"])
            return ok({})

        async with server(answer, version) as url, client(url) as nodes:
            with pytest.raises(NetworkMismatchError, match=url):
                await nodes.call("process")
            with pytest.raises(NetworkMismatchError):
                await nodes.check()
            assert asked == []

    run(scenario)


def test_a_node_that_was_replaced_behind_its_url_is_checked_again() -> None:
    async def scenario() -> None:
        versions = [VERSION, FOREIGN[0]]
        answers = [ok({"count": "1"}), b""]

        def answer(request: dict[str, Any]) -> bytes:
            return ok(versions.pop(0)) if request["action"] == "version" else answers.pop(0)

        async with server(answer, None) as url, client(url) as nodes:
            assert await nodes.call("block_count") == {"count": "1"}
            with pytest.raises(NetworkMismatchError):
                await nodes.call("block_count")

    run(scenario)


def test_the_check_passes_if_one_node_answers_and_fails_if_none_does() -> None:
    async def scenario() -> None:
        async with server(lambda _: ok({})) as gone:
            pass
        async with server(lambda _: ok({})) as good, client(gone, good) as nodes:
            await nodes.check()
        async with client(gone) as nodes:
            with pytest.raises(UnavailableError):
                await nodes.check()

    run(scenario)


def test_no_nodes_is_said_in_words() -> None:
    async def scenario() -> None:
        async with client() as nodes:
            with pytest.raises(UnavailableError, match="rpc"):
                await nodes.call("version")

    run(scenario)
