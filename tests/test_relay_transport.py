"""The client's transport and its errors, against a real HTTP server that does what a test tells it."""

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
from tradeskill.world import World
from tradeskill_plugins.relay.client.failures import error_of, read_failure
from tradeskill_plugins.relay.client.pacing import Turns
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


def test_a_relay_cannot_make_a_client_carry_cookies() -> None:
    async def scenario() -> None:
        stub = Stub([answer(headers={"set-cookie": "who=you; path=/"})])
        async with transport(stub) as made:
            await made.ask("/v1/jobs")
            await made.ask("/v1/jobs")
        assert ["cookie" in asked.headers for asked in stub.asked] == [False, False]

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
