"""What the relay's door refuses and whom it shows out, over real sockets: malformed and oversized requests, smuggling, crowds, slow writers and readers."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.relay_door_stage import LARGE, open_door, post, run, until

BODY = 307_200
CHUNKED = b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# refusals

GET = "GET /x HTTP/1.1\r\nHost: x\r\n"
POST = "POST /x HTTP/1.1\r\nHost: x\r\n"
SMUGGLED = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
REFUSED = {
    "length and chunks": (f"{POST}Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n{SMUGGLED}", 400),
    "chunks and length": (f"{POST}Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n{SMUGGLED}", 400),
    "two lengths": (f"{POST}Content-Length: 0\r\nContent-Length: 6\r\n\r\n{SMUGGLED}", 400),
    "the same length twice": (f"{POST}Content-Length: 0\r\nContent-Length: 0\r\n\r\n", 400),
    "a list of lengths": (f"{POST}Content-Length: 0, 0\r\n\r\n", 400),
    "a signed length": (f"{POST}Content-Length: +3\r\n\r\nabc", 400),
    "a length beyond 64 bits": (f"{POST}Content-Length: {10**30}\r\n\r\n", 400),
    "a folded header": (f"{POST}X-A: b\r\n Content-Length: 6\r\n\r\n", 400),
    "a folded framing header": (f"{POST}Transfer-Encoding:\r\n chunked\r\n\r\n{SMUGGLED}", 400),
    "space before the colon": (f"{POST}Content-Length : 6\r\n\r\n{SMUGGLED}", 400),
    "another coding": (f"{POST}Transfer-Encoding: gzip, chunked\r\n\r\n{SMUGGLED}", 400),
    "an unknown coding": (f"{POST}Transfer-Encoding: xchunked\r\n\r\n{SMUGGLED}", 400),
    "chunked twice": (f"{POST}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n{SMUGGLED}", 400),
    "chunks in HTTP/1.0": (f"POST /x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n{SMUGGLED}", 400),
    "a bare line feed": ("GET /x HTTP/1.1\nHost: x\n\n", 400),
    "a bare line feed in chunks": (f"{POST}Transfer-Encoding: chunked\r\n\r\n3\nabc\n0\n\n", 400),
    "an endless chunk size": (f"{POST}Transfer-Encoding: chunked\r\n\r\n{'f' * 17}\r\n", 400),
    "trailers": (f"{POST}Transfer-Encoding: chunked\r\n\r\n0\r\nX-Molt-PubKey: a\r\n\r\n", 400),
    "an upgrade with a body": (f"{POST}Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 40\r\n\r\n{SMUGGLED}", 400),
    "a tunnel": ("CONNECT h:1 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "HTTP/0.9": ("GET /x\r\n\r\n", 400),
    "HTTP/2": ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "HTTP/1.2": ("GET /x HTTP/1.2\r\n\r\n", 400),
    "an unknown method": ("FROB /x HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "TLS": ("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "bytes in the target": ("GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "NUL in a header": (f"{GET}X-A: a\0b\r\n\r\n", 400),
    "CR in a header": (f"{GET}X-A: a\rb: c\r\n\r\n", 400),
    "a long target": (f"GET /{'x' * 4096} HTTP/1.1\r\nHost: x\r\n\r\n", 414),
    "a large header": (f"{GET}X-A: {'a' * 16384}\r\n\r\n", 431),
    "a header name without end": (f"{GET}{'a' * 20000}", 431),
    "a header value without end": (f"{GET}X-A: {'a' * 20000}", 431),
    "many headers": (GET + "a: b\r\n" * 64 + "\r\n", 431),
    "a large declared body": (f"{POST}Content-Length: {BODY + 1}\r\n\r\n", 413),
    "a body without end": (f"{POST}Transfer-Encoding: chunked\r\n\r\n" + f"10000\r\n{'x' * 65536}\r\n" * 6, 413),
    "crumbs of a body": (f"{POST}Transfer-Encoding: chunked\r\n\r\n" + f"1;{'x' * 250}\r\na\r\n" * 3000, 400),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_request_that_is_not_taken_is_refused_in_the_protocol_s_words_and_ends_its_connection(loop: str, name: str) -> None:
    async def main() -> None:
        text, status = REFUSED[name]
        async with open_door(linger_seconds=0.3) as door:
            caller = await door.call()
            await caller.send(text.encode("latin-1"))
            answer = await caller.answer()
            assert answer.status == status
            assert answer.error["code"] == {400: "validation_error", 413: "payload_too_large"}.get(status, "validation_error")
            assert await caller.ended() == b""
            assert door.app.scopes == []
            assert len(door.seen.refusals) == 1
            assert (await (await door.call()).get()).status == 200

    run(loop, main())


def test_a_body_that_is_too_large_is_told_its_size_and_the_limit_while_it_is_still_sent(loop: str) -> None:
    async def main() -> None:
        async with open_door() as door:
            caller = await door.call()
            await caller.send(post(b"x" * (BODY + 1)))
            assert (await caller.answer()).error["details"] == {"bytes": BODY + 1, "maxBytes": BODY}
            caller = await door.call()
            await caller.send(CHUNKED)
            for _ in range(8):
                await caller.send(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
            details = (await caller.answer()).error["details"]
            assert BODY < details["bytes"] <= BODY + 65_536
            assert details["maxBytes"] == BODY

    run(loop, main())


def test_the_largest_head_that_is_allowed_passes(loop: str) -> None:
    async def main() -> None:
        async with open_door() as door:
            caller = await door.call()
            assert (await caller.get("/" + "x" * 4095)).status == 200
            assert (await caller.get("/x", "a: b\r\n" * 63)).status == 200
            assert (await caller.get("/x", f"X-A: {'a' * 15_000}\r\n")).status == 200
            await caller.send(post(b"x" * 300_000)[:-40_000])
            await (await door.call()).get()
            await caller.send(b"x" * 40_000 + GET.encode())  # what follows a body is not counted into a head
            assert (await caller.answer()).status == 200
            await caller.send(b"\r\n")
            assert (await caller.answer()).status == 200

    run(loop, main())


def test_after_a_refusal_the_client_may_send_on_for_a_while_and_nothing_is_torn_from_its_hands(loop: str) -> None:
    async def main() -> None:
        async with open_door(linger_seconds=0.3) as door:
            caller = await door.call()
            await caller.send(f"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: {BODY + 1}\r\n\r\n".encode())
            await until(lambda: door.seen.refusals)
            for _ in range(5):
                await caller.send(b"x" * 1000)
                await asyncio.sleep(0.01)
            assert (await caller.answer()).status == 413
            await until(lambda: door.seen.open == 0)
            flood = await door.call()
            await flood.send(f"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: {BODY + 1}\r\n\r\n".encode())
            with pytest.raises(ConnectionError):
                for _ in range(1000):
                    await flood.send(b"x" * 65_536)

    run(loop, main())


def test_a_refusal_stands_behind_the_answers_of_the_requests_before_it(loop: str) -> None:
    async def main() -> None:
        async with open_door() as door:
            caller = await door.call()
            await caller.send(f"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n{GET}\r\nFROB /x HTTP/1.1\r\n\r\n".encode())
            await until(lambda: door.seen.refusals == ["bad_request"])
            door.app.release.set()
            assert json.loads((await caller.answer()).body)["path"] == "/wait"
            assert json.loads((await caller.answer()).body)["path"] == "/x"
            assert (await caller.answer()).error["code"] == "validation_error"
            assert await caller.ended() == b""

    run(loop, main())


def test_large_bodies_behind_an_unanswered_request_are_left_with_the_client(loop: str) -> None:
    async def main() -> None:
        async with open_door() as door:
            caller = await door.call()
            sending = asyncio.ensure_future(caller.send(post(b"a", "/wait") + post(b"x" * BODY) * 40))
            await until(lambda: door.app.waiting)
            for _ in range(20):
                await (await door.call()).get()
            assert not sending.done()
            door.app.release.set()
            assert [(await caller.answer()).status for _ in range(41)] == [200] * 41
            await sending

    run(loop, main())


def test_only_so_many_requests_wait_behind_one(loop: str) -> None:
    async def main() -> None:
        async with open_door(pipelined=3) as door:
            caller = await door.call()
            await caller.send(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n" + f"{GET}\r\n".encode() * 5000)
            await until(lambda: door.seen.refusals)
            door.app.release.set()
            assert [(await caller.answer()).status for _ in range(5)] == [200, 200, 200, 200, 400]
            assert len(door.app.scopes) == 4

    run(loop, main())


def test_an_upgrade_that_is_not_offered_is_answered_as_if_it_had_not_been_asked_for(loop: str) -> None:
    async def main() -> None:
        async with open_door() as door:
            caller = await door.call()
            await caller.send(f"{GET}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n{GET}\r\n".encode())
            answer = await caller.answer()
            assert (answer.status, answer.get("connection")) == (200, "close")
            assert await caller.ended() == b""
            assert len(door.app.scopes) == 1

    run(loop, main())


def test_a_connection_ends_after_its_number_of_requests(loop: str) -> None:
    async def main() -> None:
        async with open_door(requests_per_connection=3) as door:
            caller = await door.call()
            await caller.send(f"{GET}\r\n".encode() * 5)
            assert [(await caller.answer()).get("connection") for _ in range(3)] == [None, None, "close"]
            assert await caller.ended() == b""
            assert len(door.app.scopes) == 3

    run(loop, main())


# how many, and for how long


def test_a_crowd_of_half_open_heads_does_not_keep_others_out(loop: str) -> None:
    async def main() -> None:
        async with open_door(head_seconds=0.3, connections=60, connections_per_ip=None, linger_seconds=0.2) as door:
            crowd = [await door.call() for _ in range(50)]
            served = await door.call()
            for caller in crowd:
                await caller.send(b"GET /x HTTP/1.1\r\nHost:")
            assert (await served.get()).status == 200
            while len(door.seen.refusals) < 50:  # each drips on, and is shown out all the same
                for caller in crowd:
                    if not caller.reader.at_eof() and not caller.writer.is_closing():
                        caller.writer.write(b"x")
                assert (await served.get()).status == 200
                await asyncio.sleep(0.01)
            assert door.seen.refusals == ["late"] * 50
            assert (await crowd[0].answer()).error["code"] == "unavailable"
            await until(lambda: door.seen.open == 1)

    run(loop, main())


def test_where_all_places_are_taken_the_one_that_waited_longest_gives_way(loop: str) -> None:
    async def main() -> None:
        async with open_door(connections=3, connections_per_ip=None, grace_seconds=0) as door:
            busy, first, second = await door.call(), await door.call(), await door.call()
            await busy.send(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
            await first.send(b"GET /x HTTP/1.1\r\nHost:")
            await until(lambda: door.app.waiting and door.seen.open == 3)
            assert (await second.get()).status == 200
            assert (await (await door.call()).get()).status == 200
            assert await first.ended() == b""
            assert (await second.get()).status == 200
            door.app.release.set()
            assert (await busy.answer()).status == 200

    run(loop, main())


def test_nobody_gives_way_who_came_just_now_or_is_owed_an_answer(loop: str) -> None:
    async def main() -> None:
        for grace, target in ((100.0, "/x"), (0.0, "/wait")):
            async with open_door(connections=2, connections_per_ip=None, grace_seconds=grace) as door:
                callers = [await door.call(), await door.call()]
                for caller in callers:
                    await caller.send(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                await until(lambda door=door: len(door.app.scopes) == 2)
                refused = await door.call()
                assert (await refused.answer()).error["details"] == {"scope": "relay", "limit": 2}
                assert await refused.ended() == b""
                door.app.release.set()
                assert [(await caller.answer()).status for caller in callers] == [200, 200]

    run(loop, main())


def test_an_address_has_only_so_many_connections(loop: str) -> None:
    async def main() -> None:
        async with open_door(connections_per_ip=2) as door:
            callers = [await door.call() for _ in range(3)]
            answer = await callers[2].answer()
            assert (answer.status, answer.get("retry-after"), answer.error["code"]) == (503, "1", "unavailable")
            assert await callers[2].ended() == b""
            await callers[0].close()
            await until(lambda: door.seen.open == 1)
            assert (await (await door.call()).get()).status == 200

    run(loop, main())


def test_a_proxy_brings_as_many_connections_as_it_likes(loop: str) -> None:
    async def main() -> None:
        async with open_door(connections_per_ip=1, proxies=("127.0.0.0/8",)) as door:
            assert [(await (await door.call()).get()).status for _ in range(4)] == [200] * 4

    run(loop, main())


def test_a_body_that_drips_is_ended_and_never_reaches_the_application(loop: str) -> None:
    async def main() -> None:
        async with open_door(body_seconds=0.2) as door:
            caller, served = await door.call(), await door.call()
            await caller.send(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
            while not door.seen.refusals:
                caller.writer.write(b"x")
                assert (await served.get()).status == 200
                await asyncio.sleep(0.01)
            answer = await caller.answer()
            assert (answer.status, answer.error["code"]) == (408, "unavailable")
            assert b"POST" not in [scope["method"] for scope in door.app.scopes]

    run(loop, main())


def test_idle_connections_end_and_blank_lines_do_not_keep_them(loop: str) -> None:
    async def main() -> None:
        async with open_door(keep_alive_seconds=0.2, head_seconds=0.2) as door:
            silent, used = await door.call(), await door.call()
            await used.get()
            for _ in range(3):
                await used.send(b"\r\n")
            assert await silent.ended() == b""
            assert await used.ended() == b""
            assert door.seen.refusals == []

    run(loop, main())


def test_a_request_that_takes_its_time_is_not_ended_by_any_limit_of_the_client(loop: str) -> None:
    async def main() -> None:
        limits = {f"{name}_seconds": 0.1 for name in ("keep_alive", "body", "unread", "behind", "linger")}
        async with open_door(head_seconds=0.4, **limits) as door:
            caller, other = await door.call(), await door.call()
            await caller.send(post(b"abc", "/wait") * 2 + GET.encode())  # reading stops with the third half read
            await until(lambda: door.app.waiting)
            assert await other.ended() == b""  # a silent one was ended meanwhile
            assert await (await door.call()).ended() == b""
            door.app.release.set()
            assert [(await caller.answer()).status for _ in range(2)] == [200, 200]
            await asyncio.sleep(0.06)  # some sweeps: the third has its time from now on
            await caller.send(b"\r\n")
            assert (await caller.answer()).status == 200

    run(loop, main())


@pytest.mark.parametrize("limits", [{"unread_seconds": 0.3}, {"behind_seconds": 0.3}])
def test_an_answer_that_is_not_read_ends_its_connection_and_hurts_nobody(loop: str, limits: dict[str, float]) -> None:
    async def main() -> None:
        async with open_door(**limits) as door:
            slow, served = await door.call(receive_buffer=4096), await door.call()
            slow.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's transport has it
            await slow.send(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
            await until(lambda: door.app.scopes)
            while door.seen.open == 2:
                assert (await served.get()).status == 200
                await asyncio.sleep(0.01)
            slow.writer.transport.resume_reading()  # type: ignore[attr-defined]  # a socket's transport has it
            assert len(await slow.ended()) < LARGE

    run(loop, main())


def test_a_client_that_reads_slowly_but_reads_gets_all_of_its_answer(loop: str) -> None:
    async def main() -> None:
        async with open_door(unread_seconds=1.0) as door:
            caller = await door.call()
            await caller.send(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
            await caller.reader.readuntil(b"\r\n\r\n")
            got = 0
            while got < LARGE:
                got += len(await caller.reader.read(1 << 16))
                await asyncio.sleep(0.004)
            assert got == LARGE

    run(loop, main())
