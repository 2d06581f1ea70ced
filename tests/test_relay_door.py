"""The relay's door over real sockets: what reaches the application, how it closes, where it listens."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket

import pytest

from tests.relay_door_stage import open_door, post, run, until
from tradeskill.errors import UsageError
from tradeskill.world import World
from tradeskill_plugins.relay.server.door import DoorSettings, serve

BODY = 307_200
GET = "GET /x HTTP/1.1\r\nHost: x\r\n"
CHUNKED = b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# what reaches the application


@pytest.mark.parametrize("target", ["/x?", "/x", "/a%2Fb?q=%20&q=1", "//x", "/x?a=?b", "/x?a=b#c", "http://h/x?y"])
def test_the_target_comes_as_it_stood_on_the_wire(loop: str, target: str) -> None:
    async def main() -> None:
        async with open_door() as door:
            caller = await door.call()
            for byte in f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode():
                await caller.send(bytes([byte]))
            assert (await caller.answer()).status == 200
            assert door.app.scopes[0]["tradeskill.target"] == target.encode()

    run(loop, main())


def test_path_and_query_are_taken_apart_as_usual(loop: str) -> None:
    async def main() -> None:
        async with open_door() as door:
            caller = await door.call()
            await caller.get("/a%20b?c=%20d")
            await caller.get("http://h/y?z")
            found = [(scope["path"], scope["raw_path"], scope["query_string"]) for scope in door.app.scopes]
            assert found == [("/a b", b"/a%20b", b"c=%20d"), ("/y", b"/y", b"z")]

    run(loop, main())


def test_a_header_sent_twice_is_seen_twice_and_without_the_space_around_it(loop: str) -> None:
    async def main() -> None:
        async with open_door() as door:
            await (await door.call()).get("/x", "X-Molt-PubKey: a\r\nx-molt-pubkey:\t b \t\r\n")
            headers = [pair for pair in door.app.scopes[0]["headers"] if pair[0] == b"x-molt-pubkey"]
            assert headers == [(b"x-molt-pubkey", b"a"), (b"x-molt-pubkey", b"b")]

    run(loop, main())


def test_a_body_arrives_whole_however_it_was_cut(loop: str) -> None:
    async def main() -> None:
        async with open_door() as door:
            caller = await door.call()
            await caller.send(post(b"a" * BODY))
            assert json.loads((await caller.answer()).body)["size"] == BODY
            await caller.send(CHUNKED + b"3\r\nabc\r\n" + b"2;note=1\r\nde\r\n0\r\n\r\n")
            assert json.loads((await caller.answer()).body)["size"] == 5
            for byte in post(b"abc"):
                await caller.send(bytes([byte]))
            assert json.loads((await caller.answer()).body)["size"] == 3
            assert [len(body) for body in door.app.bodies] == [BODY, 5, 3]

    run(loop, main())


def test_a_client_that_waits_to_be_told_to_go_on_is_told(loop: str) -> None:
    async def main() -> None:
        async with open_door() as door:
            caller = await door.call()
            await caller.send(b"POST /x HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
            assert (await caller.answer()).status == 100
            await caller.send(b"abc")
            assert (await caller.answer()).status == 200
            await caller.send(b"POST /x HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 307201\r\n\r\n")
            assert (await caller.answer()).status == 413  # and is not told to send that

    run(loop, main())


def test_requests_on_one_connection_are_answered_in_order_also_when_sent_at_once(loop: str) -> None:
    async def main() -> None:
        async with open_door() as door:
            caller = await door.call()
            paths = [f"/{n}" for n in range(10)]
            await caller.send(b"".join(post(b"x" * n, path) for n, path in enumerate(paths)))
            answers = [json.loads((await caller.answer()).body) for _ in paths]
            assert answers == [{"path": path, "size": n} for n, path in enumerate(paths)]
            assert (await caller.get("/again")).status == 200
            assert door.seen.open == 1

    run(loop, main())


def test_a_client_that_sends_no_more_is_answered_and_a_stream_s_client_is_let_go(loop: str) -> None:
    async def main() -> None:
        async with open_door() as door:
            caller = await door.call()
            await caller.send(f"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n{GET}\r\n".encode())
            caller.writer.write_eof()
            await until(lambda: door.app.waiting)
            door.app.release.set()
            assert [json.loads((await caller.answer()).body)["path"] for _ in range(2)] == ["/wait", "/x"]
            assert await caller.ended() == b""
            stream, idle = await door.call(), await door.call()
            await stream.send(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
            await until(lambda: door.app.streams)
            for left in (stream, idle):
                left.writer.write_eof()
            assert await idle.ended() == b""
            await until(lambda: door.app.ended == ["http.disconnect"])

    run(loop, main())


def test_what_the_application_raises_is_a_500_that_tells_nothing(loop: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with open_door() as door:
            for path in ("/fail", "/mute"):
                answer = await (await door.call()).get(path)
                assert (answer.status, answer.error["code"]) == (500, "internal")
                assert b"secret" not in answer.body
            caller = await door.call()
            await caller.send(b"GET /half HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await caller.ended()).count(b"HTTP/1.1") == 1  # cut off, not said twice
            assert door.seen.refusals == ["internal", "internal"]

    run(loop, main())
    assert "application failed" in caplog.text


def test_answers_tell_the_time_and_no_name_of_a_program(loop: str) -> None:
    async def main() -> None:
        async with open_door() as door:
            answer = await (await door.call()).get()
            assert answer.get("date")
            assert answer.get("server") is None

    run(loop, main())


# closing


def test_closing_lets_a_request_in_flight_finish_and_ends_idle_connections_and_streams(loop: str) -> None:
    async def main() -> None:
        async with open_door() as door:
            idle, busy, half, body, stream = [await door.call() for _ in range(5)]
            await idle.get()
            await busy.send(f"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n{GET}\r\n".encode())
            await half.send(GET.encode())
            await body.send(post(b"abc")[:-1])
            await stream.send(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
            await stream.reader.readuntil(b"\r\n\r\n")
            assert await stream.chunk() == b": hello\n\n"
            await until(lambda: door.app.waiting and door.app.streams and door.seen.open == 5)
            door.stop.set()
            assert await idle.ended() == b""
            assert await half.ended() == b""
            assert await stream.chunk() == b": bye\n\n"
            assert await stream.ended() == b"0\r\n\r\n"
            assert door.app.ended == ["http.disconnect"]
            with pytest.raises(OSError):
                await door.call()
            await body.send(b"c")
            assert (await body.answer()).get("connection") == "close"
            assert not door.task.done()
            door.app.release.set()
            answer = await busy.answer()
            assert (answer.status, answer.get("connection")) == (200, "close")
            assert await busy.ended() == b""  # the request behind it was never begun
            await door.task
            assert "/x" in [scope["path"] for scope in door.app.scopes]
            assert len(door.app.scopes) == 4

    run(loop, main())


def test_closing_does_not_wait_for_ever(loop: str) -> None:
    async def main() -> None:
        async with open_door(drain_seconds=0.2) as door:
            busy, slow = await door.call(), await door.call(receive_buffer=4096)
            await busy.send(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
            slow.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's transport has it
            await slow.send(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
            await until(lambda: door.app.waiting and len(door.app.scopes) == 2)
            door.stop.set()
            async with asyncio.timeout(5):
                await door.task
            assert await busy.ended() == b""
            assert door.seen.open == 0

    run(loop, main())


def test_cancelled_it_leaves_nothing_behind(loop: str) -> None:
    async def main() -> None:
        async with open_door() as door:
            busy = await door.call()
            await busy.send(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
            await until(lambda: door.app.waiting)
            task, door.task = door.task, asyncio.create_task(asyncio.sleep(0))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await busy.ended() == b""
            with pytest.raises(OSError):
                await door.call()

    run(loop, main())


def test_a_client_that_leaves_a_stream_ends_it(loop: str) -> None:
    async def main() -> None:
        async with open_door() as door:
            stream = await door.call()
            await stream.send(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
            await until(lambda: door.app.streams)
            await stream.close()
            await until(lambda: door.app.ended == ["http.disconnect"])

    run(loop, main())


# where it listens


def test_it_listens_where_it_is_told_and_leaves_the_signals_alone(loop: str) -> None:
    async def main() -> None:
        before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        async with open_door(host="localhost") as door:
            assert re.fullmatch(r"http://(127\.0\.0\.1|\[::1\]):[1-9][0-9]+", door.url)
            assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
        async with open_door(host="0.0.0.0") as door:
            assert door.url.startswith("http://127.0.0.1:")
            assert (await (await door.call()).get()).status == 200

    run(loop, main())


def test_a_port_or_host_that_cannot_be_had_is_named_with_the_way_out(loop: str) -> None:
    async def refused(**where: str | int) -> str:
        with pytest.raises(UsageError) as caught:
            async with open_door(**where):
                pass
        return str(caught.value)

    async def main() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            assert (
                await refused(port=port)
                == f"cannot listen on 127.0.0.1:{port}: the port is taken; stop what listens there, or choose another port (0: any free one)"
            )
        assert "no such host" in await refused(host="no-such-host.invalid")
        assert "no such address" in await refused(host="192.0.2.1")
        assert "between 1 and 65535" in await refused(port=70_000)
        assert "'10.0.0.0/99'" in await refused(proxies=("10.0.0.0/99",))

    run(loop, main())


def test_stopped_before_it_began_it_ends_at_once(loop: str) -> None:
    async def main() -> None:
        stop, urls = asyncio.Event(), list[str]()
        stop.set()

        async def nobody(scope: object, receive: object, send: object) -> None:
            raise AssertionError

        await serve(nobody, DoorSettings(port=0), World(), ready=urls.append, stop=stop)
        assert len(urls) == 1

    run(loop, main())


def test_the_address_is_the_peer_s_or_what_a_proxy_says(loop: str) -> None:
    async def ip(door_proxies: tuple[str, ...], headers: str) -> str:
        async with open_door(proxies=door_proxies) as door:
            await (await door.call()).get("/x", headers)
            return str(door.app.scopes[0]["tradeskill.ip"])

    async def main() -> None:
        told = "X-Forwarded-For: 198.51.100.7\r\n"
        assert await ip((), told) == "127.0.0.1"
        assert await ip(("10.0.0.1",), told) == "127.0.0.1"
        assert await ip(("127.0.0.1",), told) == "198.51.100.7"
        assert await ip(("127.0.0.1",), "X-Forwarded-For: 6.6.6.6\r\n" + told) == "198.51.100.7"
        assert await ip(("127.0.0.1",), "") == "127.0.0.1"

    run(loop, main())
