"""The client's transport, pacing, failures and hints against a real HTTP server that does what a test tells it, and on virtual time."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from tradeskill.errors import (
    InputError,
    NetworkMismatchError,
    NotFoundError,
    RefusedError,
    StaleFenceError,
    StateError,
    TradeskillError,
    UnavailableError,
    UnknownOutcomeError,
    UntrustedError,
    UsageError,
)
from tradeskill.signing import Identity
from tradeskill.testing.virtual_time import VirtualWorld, run_virtual
from tradeskill.world import World
from tradeskill_plugins.relay.client.failures import error_of, read_failure
from tradeskill_plugins.relay.client.hints import EventLines, HintStreams
from tradeskill_plugins.relay.client.pacing import Pace, Turns
from tradeskill_plugins.relay.client.transport import Question, Transport
from tradeskill_plugins.relay.signed_http import claimed, verify

IDENTITY = Identity(b"\1" * 32)


@dataclass
class Asked:
    """One request as it stood on the wire."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    def check_signature(self) -> None:
        names = {name.encode(): value.encode() for name, value in self.headers.items()}
        claim = claimed(names)
        verify(claim, self.method, self.target.encode(), names[b"x-molt-timestamp"], self.body)
        assert abs(claim.timestamp - time.time()) < 60


Reply = bytes | None  # None: the connection ends


def answer(status: int = 200, value: Any = None, headers: Mapping[str, str] | None = None, body: bytes | None = None) -> bytes:
    data = json.dumps({} if value is None else value).encode() if body is None else body
    lines = [f"HTTP/1.1 {status} X", f"content-length: {len(data)}", *(f"{name}: {text}" for name, text in (headers or {}).items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


def error(status: int, code: str, details: Any = None, headers: Mapping[str, str] | None = None) -> bytes:
    return answer(status, {"error": {"code": code, "message": f"said: {code}", "details": details}}, headers)


@dataclass
class Stub:
    """Answers each request with the next of `replies`, the last one for ever; a reply may be a function that is awaited."""

    replies: list[Reply | Callable[[Asked, asyncio.StreamWriter], Awaitable[Reply]]]
    asked: list[Asked] = field(default_factory=list)
    url: str = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        tasks: set[asyncio.Task[None]] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            try:
                with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                    await self._serve(reader, writer)
            finally:
                tasks.discard(task)
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        try:
            self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            yield self.url
        finally:
            server.close()
            for task in list(tasks):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            method, target, _ = first.split(" ")
            asked = Asked(method, target, headers, body)
            self.asked.append(asked)
            reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
            given = reply if isinstance(reply, bytes) or reply is None else await reply(asked, writer)
            if given is None:
                return
            writer.write(given)
            await writer.drain()


class Patient(World):
    """The real world, whose pauses are noted and not waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []
        self._skipped = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self._skipped

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._skipped += seconds
        await asyncio.sleep(0)


@asynccontextmanager
async def transport(stub: Stub, world: World | None = None) -> AsyncIterator[Transport]:
    world = world or Patient()
    async with stub.running() as url:
        made = Transport(url, IDENTITY, world, Turns(world.monotonic, world.sleep))
        await made.open()
        try:
            yield made
        finally:
            await made.close()


def play(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await scenario()

    asyncio.run(bounded())


async def until(world: World, ready: Callable[[], object]) -> None:
    while not ready():
        await world.sleep(0.002)


POST = Question("POST", "/v1/jobs/x/accept", b'{"a":1}', key="k")


# requests


def test_each_try_is_signed_anew_over_the_same_bytes_and_key() -> None:
    async def scenario() -> None:
        stub = Stub([None, answer(502, body=b"<html>"), error(409, "idempotency_in_progress"), error(401, "auth.nonce_replay"), answer(200, {"job": {}})])
        async with transport(stub) as made:
            assert (await made.exchange(POST)).value == {"job": {}}
        assert len(stub.asked) == 5
        for asked in stub.asked:
            asked.check_signature()
        assert {(a.method, a.target, a.body, a.headers["idempotency-key"]) for a in stub.asked} == {("POST", POST.target, POST.body, "k")}
        assert len({asked.headers["x-molt-nonce"] for asked in stub.asked}) == 5

    play(scenario)


@pytest.mark.parametrize("target", ["/v1/jobs?cursor=%C3%A9%00&limit=1", "/v1/offers?q=a%2Fb%20c+d&tags=x,y", "/v1/jobs?", "/v1/a%7Eb"])
def test_what_is_signed_is_the_target_as_it_stands_on_the_wire(target: str) -> None:
    async def scenario() -> None:
        stub = Stub([answer()])
        async with transport(stub) as made:
            await made.ask(target)
        stub.asked[0].check_signature()

    play(scenario)


def test_an_unsigned_question_shows_no_key() -> None:
    async def scenario() -> None:
        stub = Stub([answer()])
        async with transport(stub) as made:
            await made.ask("/v1/offers", signed=False)
        assert not [name for name in stub.asked[0].headers if name.startswith("x-molt")]
        assert stub.asked[0].headers["accept-encoding"] == "identity"

    play(scenario)


@pytest.mark.parametrize("reply", [None, answer(500), answer(503), answer(200, body=b"{"), answer(200, body=b"[]"), answer(200, body=b'{"a":1,"a":2}')])
def test_an_answer_that_stays_away_is_unknown_for_a_step_and_unavailable_for_a_question(reply: Reply) -> None:
    async def scenario() -> None:
        world = Patient()
        stub = Stub([reply])
        async with transport(stub, world) as made:
            with pytest.raises(UnknownOutcomeError):
                await made.exchange(POST)
            assert 2 <= len(stub.asked) <= 6
            assert sum(world.slept) <= 20
            with pytest.raises(UnavailableError) as caught:
                await made.ask("/v1/jobs/x")
            assert not isinstance(caught.value, UnknownOutcomeError)

    play(scenario)


def test_a_relay_that_is_not_there_has_done_nothing() -> None:
    async def scenario() -> None:
        stub = Stub([answer()])
        async with stub.running() as url:
            pass
        world = Patient()
        made = Transport(url, IDENTITY, world, Turns(world.monotonic, world.sleep))
        await made.open()
        with pytest.raises(UnavailableError) as caught:
            await made.exchange(POST)
        assert not isinstance(caught.value, UnknownOutcomeError)
        await made.close()
        with pytest.raises(UnavailableError, match="open"):
            await made.exchange(POST)
        await made.close()

    play(scenario)


def test_a_busy_relay_is_asked_again_when_it_says() -> None:
    async def scenario() -> None:
        world = Patient()
        stub = Stub([error(429, "rate_limited", {"scope": "pubkey"}, {"retry-after": "7"}), answer()])
        async with transport(stub, world) as made:
            await made.exchange(POST)
        assert 7 <= sum(world.slept) < 8
        stub = Stub([error(429, "rate_limited", None, {"retry-after": "3600"})])
        async with transport(stub, world) as made:
            with pytest.raises(UnavailableError) as caught:
                await made.exchange(POST)
            assert not isinstance(caught.value, UnknownOutcomeError)
            assert len(stub.asked) == 1

    play(scenario)


def test_a_redirect_is_not_followed() -> None:
    async def scenario() -> None:
        stub = Stub([answer(307, headers={"location": "/v1/elsewhere"})])
        async with transport(stub) as made:
            with pytest.raises(UnavailableError, match="not followed"):
                await made.exchange(POST)
        assert len(stub.asked) == 1

    play(scenario)


def test_an_answer_beyond_its_bound_or_compressed_is_not_read() -> None:
    async def scenario() -> None:
        stub = Stub([answer(200, {"x": "y" * 100_000})])
        async with transport(stub) as made:
            with pytest.raises(UnavailableError, match="more than 50000 bytes"):
                await made.ask("/v1/jobs", most=50_000)
        import gzip

        stub = Stub([answer(200, headers={"content-encoding": "gzip"}, body=gzip.compress(b"{}"))])
        async with transport(stub) as made:
            with pytest.raises(UnavailableError):
                await made.ask("/v1/jobs")

    play(scenario)


def test_an_accident_that_an_old_relay_repeats_is_said_to_be_stuck() -> None:
    async def scenario() -> None:
        stub = Stub([error(500, "internal_error", None, {"idempotency-replayed": "true"})])
        async with transport(stub) as made:
            with pytest.raises(UnknownOutcomeError) as caught:
                await made.exchange(POST)
            assert caught.value.details["stuck"]
            assert len(stub.asked) == 1
        stub = Stub([error(409, "idempotency_in_progress")])
        async with transport(stub) as made:
            with pytest.raises(UnknownOutcomeError) as caught:
                await made.exchange(POST)
            assert caught.value.details["stuck"]

    play(scenario)


# errors


@pytest.mark.parametrize(
    ("status", "code", "details", "kind"),
    [
        (400, "validation_error", None, UsageError),
        (400, "validation_error", {"reason": "usage.input"}, InputError),
        (400, "validation_error", {"reason": "network_mismatch"}, NetworkMismatchError),
        (400, "validation_error", {"reason": "state"}, StateError),
        (401, "auth.invalid_signature", None, RefusedError),
        (403, "forbidden", None, RefusedError),
        (403, "forbidden", {"reason": "refused.untrusted"}, UntrustedError),
        (404, "not_found", None, NotFoundError),
        (409, "invalid_state", None, StateError),
        (409, "invalid_state", {"reason": "state.stale_fence"}, StaleFenceError),
        (413, "payload_too_large", {"bytes": 5, "maxBytes": 4}, UsageError),
        (415, "validation_error", None, UsageError),
        (418, "teapot", None, RefusedError),
        (409, "invalid_state", {"reason": "storage"}, StateError),
        (404, "not_found", {"reason": "secret"}, NotFoundError),
        (404, "not_found", {"reason": 5}, NotFoundError),
    ],
)
def test_a_refusal_is_raised_as_what_it_means(status: int, code: str, details: Any, kind: type[TradeskillError]) -> None:
    value = {"error": {"code": code, "message": "no\x1b[31m\nway" + "x" * 5000, "details": details}}
    found = error_of(read_failure(status, value, {}), "POST /x", 0)
    assert type(found) is kind
    assert len(str(found)) < 300
    assert str(found).isprintable()
    assert found.details["wire"] == code


@pytest.mark.parametrize("value", [None, [], {}, {"error": 5}, {"error": {"code": 5, "message": [], "details": "x"}}])
def test_an_error_of_any_shape_is_one(value: Any) -> None:
    assert type(error_of(read_failure(404, value, {"date": "no"}), "GET /x", 0)) is NotFoundError


def test_a_wrong_clock_is_explained_in_seconds() -> None:
    def said(details: Any, headers: dict[str, str], now_ms: int) -> str:
        failure = read_failure(401, {"error": {"code": "auth.timestamp_skew", "message": "x", "details": details}}, headers)
        found = error_of(failure, "GET /x", now_ms)
        assert type(found) is UnavailableError
        return str(found)

    assert "90 s ahead of the relay's" in said({"server_time": 1_000}, {}, 1_090_000)
    assert "90 s behind the relay's" in said({"server_time": 1_000}, {}, 910_000)
    assert "100 s ahead" in said(None, {"date": "Thu, 01 Jan 1970 00:16:40 GMT"}, 1_100_000)
    assert "more than 60 s" in said({"server_time": "x"}, {}, 5)


# pace


def test_the_pace_keeps_below_the_limit_in_every_window_and_keeps_a_reserve() -> None:
    async def main() -> None:
        world = VirtualWorld()
        turns = Turns(world.monotonic, world.sleep)
        turns.limit("key", 60, 60.0)
        usual: list[float] = []

        async def work() -> None:
            while world.monotonic() < 300:
                await turns.turn("usual")
                usual.append(world.monotonic())

        workers = [asyncio.create_task(work()) for _ in range(5)]
        await world.sleep(30)
        urgent = []
        for _ in range(8):  # nothing usual has room any more: these still go at once
            await turns.turn("urgent")
            urgent.append(world.monotonic())
        assert urgent[-1] == pytest.approx(30)
        await asyncio.gather(*workers)
        everything = sorted(usual + urgent)
        for start in everything:
            assert sum(start <= moment < start + 60 for moment in everything) <= 54
        assert len(usual) >= 5 * 45, "what is allowed is used"

    run_virtual(main())


def test_without_limits_nobody_waits_and_a_relay_may_still_ask_for_a_pause() -> None:
    async def main() -> None:
        world = VirtualWorld()
        turns = Turns(world.monotonic, world.sleep)
        turns.limit("key", 60, 60.0)
        turns.limit("key", None, 60.0)
        for _ in range(1000):
            await turns.turn("usual")
        assert world.monotonic() < 1e-6
        turns.hold(12)
        await turns.turn("urgent")
        assert world.monotonic() == pytest.approx(12)

    run_virtual(main())


def test_a_limit_of_one_lets_one_through_at_a_time() -> None:
    pace = Pace(1, 10.0)
    assert pace.wait(0.0, "usual") == 0
    pace.count(0.0)
    assert pace.wait(4.0, "usual") == pace.wait(4.0, "urgent") == 6.0
    assert pace.wait(10.0, "usual") == 0


# hints


def test_events_are_read_however_they_are_cut() -> None:
    text = b': hello\n\nid: c1\nevent: job\ndata: {"job_id":\ndata: "a"}\n\nretry: 5\nid: c2\r\ndata:{"job_id":"b"}\r\n\r\nid: c3\n\ndata: x'
    for size in range(1, len(text)):
        lines, found = EventLines(), []
        for start in range(0, len(text), size):
            found += list(lines.feed(text[start : start + size]))
        assert [json.loads(data)["job_id"] for data in found] == ["a", "b"]
        assert lines.last_id == "c3"


def test_a_line_or_an_event_without_end_is_refused() -> None:
    with pytest.raises(ValueError, match="line"):
        list(EventLines().feed(b"x" * 70_000))
    lines = EventLines()
    with pytest.raises(ValueError, match="event"):
        for _ in range(100):
            list(lines.feed(b"data: " + b"x" * 1_000 + b"\n"))


def stream(*parts: bytes | None) -> Callable[[Asked, asyncio.StreamWriter], Awaitable[Reply]]:
    """An event stream of these chunks; None: it stays open."""

    async def reply(asked: Asked, writer: asyncio.StreamWriter) -> Reply:
        writer.write(b"HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\n\r\n")
        for part in parts:
            if part is None:
                await asyncio.Event().wait()
            else:
                writer.write(part)
                await writer.drain()
        return None

    return reply


def event(job_id: str, cursor: str) -> bytes:
    return f'id: {cursor}\nevent: job\ndata: {{"job_id":"{job_id}","status":"x","revision":1}}\n\n'.encode()


def test_a_lost_stream_goes_on_where_it_stopped() -> None:
    async def scenario() -> None:
        stub = Stub([stream(event("a", "c1"), event("b", "c2")), error(503, "unavailable"), None, stream(b"data: junk\n\n", event("c", "c3"), None)])
        world = Patient()
        async with transport(stub, world) as made:
            hints = HintStreams(made, world)
            found = [await anext(listener) for listener in [hints.follow("/v1/events")] for _ in range(3)]
            assert found == ["a", "b", "c"]
            assert [asked.headers.get("last-event-id") for asked in stub.asked] == [None, "c2", "c2", "c2"]
            for asked in stub.asked:
                asked.check_signature()
            await hints.close()

    play(scenario)


def test_listeners_end_when_the_market_is_closed() -> None:
    async def scenario() -> None:
        stub = Stub([stream(b": hello\n\n", None)])
        world = World()
        async with transport(stub, world) as made:
            hints = HintStreams(made, world)

            async def listen() -> list[str]:
                return [job_id async for job_id in hints.follow("/v1/events")]

            listener = asyncio.create_task(listen())
            await until(world, lambda: stub.asked)
            await hints.close()
            assert await listener == []

    play(scenario)


def test_a_slow_consumer_keeps_one_hint_a_job() -> None:
    async def scenario() -> None:
        stub = Stub([stream(*(event("a" if n % 2 else "b", str(n)) for n in range(1000)), event("end", "x"), None)])
        world = World()
        async with transport(stub, world) as made:
            hints = HintStreams(made, world)
            found = []
            async for job_id in hints.follow("/v1/events"):
                found.append(job_id)
                if job_id == "end":
                    break
                await until(world, lambda: "end" in next(iter(hints._listeners))._jobs)
            assert set(found) == {"a", "b", "end"}
            assert len(found) <= 4
            await hints.close()

    play(scenario)
