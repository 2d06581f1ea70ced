"""The client's pace on virtual time, and hints from a real event stream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from tests.test_relay_transport import Asked, Patient, Reply, Stub, answer, error, play, transport, until
from tradeskill.testing.virtual_time import VirtualWorld, run_virtual
from tradeskill.world import World
from tradeskill_plugins.relay.client.hints import EventLines, HintStreams
from tradeskill_plugins.relay.client.pacing import Pace, Turns

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
        turns.hold(12, "strict")
        await turns.turn("urgent", "key")
        assert world.monotonic() < 1e-6
        await turns.turn("urgent", "strict")
        assert world.monotonic() == pytest.approx(12)
        turns.hold(5)
        await turns.turn("step", "key")
        assert world.monotonic() == pytest.approx(17)

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


def test_a_relay_that_gives_no_stream_holds_up_nothing_else() -> None:
    async def scenario() -> None:
        world = Patient()
        stub = Stub([error(429, "rate_limited", {"scope": "pubkey"}, {"retry-after": "60"})])
        async with transport(stub, world) as made:
            hints = HintStreams(made, world)
            listener = asyncio.create_task(anext(hints.follow("/v1/events")))
            await until(World(), lambda: len(stub.asked) >= 3)
            listener.cancel()
            with suppress(asyncio.CancelledError):
                await listener
            world.slept.clear()
            stub.replies = [answer()]
            await made.ask("/v1/jobs")
            assert world.slept == []
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
