"""The outbox and the steps on it: stored before it is sent, the same bytes again, one step however often, and no bearer token on the disk."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.test_relay_transport import IDENTITY, Asked, Patient, Reply, Stub, answer, error, transport
from tradeskill.errors import RefusedError, StateError, UnavailableError, UnknownOutcomeError
from tradeskill.model import Job, SignedDocument
from tradeskill_plugins.relay.client.outbox import KEPT_MS, Outbox, outbox_file
from tradeskill_plugins.relay.client.reading import Row, Seen
from tradeskill_plugins.relay.client.steps import Intent, Steps
from tradeskill_plugins.relay.client.transport import Transport

HOUR = 3_600_000


class Aging(Patient):
    """Its wall clock is the test's."""

    def __init__(self) -> None:
        super().__init__()
        self.later = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.later


def seen_job(state: Any = "accepted") -> Seen:
    request = SignedDocument("request", {}, "", "")
    return Seen(Job("j", "o", "s", "b", state, request, 0, 0, 1))


def opened(home: Path, world: Aging) -> Outbox:
    return Outbox(outbox_file(home, "http://relay", IDENTITY.key), world)


class Desk:
    """One step, `accept`, taken over a stub; `at_relay` is what a look at the job shows. Each call opens the outbox anew, as another process would."""

    def __init__(self, home: Path, replies: list[Any]) -> None:
        self.home, self.world, self.stub = home, Aging(), Stub(replies)
        self.transport: Transport | None = None
        self.at_relay: Seen | None = None
        self.looks = 0
        self.body = b'{"n":1}'

    async def take(self, **changes: Any) -> Seen:
        outbox = opened(self.home, self.world)
        try:
            return await self.steps(outbox).take(replace(self.intent(), **changes))
        finally:
            await outbox.close()

    def steps(self, outbox: Outbox) -> Steps:
        assert self.transport is not None
        return Steps(self.transport, outbox, IDENTITY.key, self.world)

    def intent(self) -> Intent:
        async def make() -> bytes:
            return self.body

        async def look() -> Seen | None:
            self.looks += 1
            return self.at_relay

        async def read(value: Row) -> Seen:
            return seen_job()

        return Intent("accept", "j", (), "/v1/jobs/j/accept", make, look, read)

    @property
    def keys(self) -> list[str]:
        return [asked.headers["idempotency-key"] for asked in self.stub.asked]


def files_under(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


At = Callable[..., Awaitable[Desk]]


def play(scenario: Callable[[At], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30), AsyncExitStack() as stack:

            async def at(home: Path, *replies: Any) -> Desk:
                desk = Desk(home, list(replies))
                desk.transport = await stack.enter_async_context(transport(desk.stub, desk.world))
                return desk

            await scenario(at)

    asyncio.run(bounded())


def test_bytes_are_on_disk_before_they_are_sent(tmp_path: Path) -> None:
    async def scenario(at: At) -> None:
        world = Aging()
        found: list[bytes | None] = []

        async def reply(asked: Asked, writer: asyncio.StreamWriter) -> Reply:
            other = opened(tmp_path, world)
            rows = other._file.read(lambda c: c.execute("SELECT body, state FROM steps").fetchall())
            await other.close()
            found.extend(row["body"] for row in rows if row["state"] == "open")
            return answer()

        desk = await at(tmp_path, reply)
        await desk.take()
        assert found == [desk.body] == [desk.stub.asked[0].body]

    play(scenario)


def test_a_step_whose_answer_was_lost_is_sent_again_unchanged_also_by_another_process(tmp_path: Path) -> None:
    async def scenario(at: At) -> None:
        desk = await at(tmp_path, None)
        with pytest.raises(UnknownOutcomeError):
            await desk.take()
        first = desk.keys[0]
        desk.body = b'{"n":2}'  # a newer program would write it otherwise
        desk.stub.replies = [answer()]
        await desk.take()
        assert set(desk.keys) == {first}
        assert {asked.body for asked in desk.stub.asked} == {b'{"n":1}'}
        assert desk.looks == 0

    play(scenario)


def test_a_step_that_was_taken_is_not_sent_again_unless_the_relay_forgot_it(tmp_path: Path) -> None:
    async def scenario(at: At) -> None:
        desk = await at(tmp_path, answer())
        await desk.take()
        desk.at_relay = seen_job("running")
        assert (await desk.take()).job.state == "running"
        assert len(desk.stub.asked) == 1
        desk.at_relay = None
        await desk.take()
        assert len(set(desk.keys)) == 2, "its old answer would be replayed under the old key"

    play(scenario)


def test_steps_are_told_apart_by_their_marks_wherever_a_line_breaks(tmp_path: Path) -> None:
    async def scenario(at: At) -> None:
        desk = await at(tmp_path, answer())
        for marks in (("a\nb", "c"), ("a", "b\nc"), ("a", "b", "c"), ()):
            await desk.take(marks=marks)
        assert len(set(desk.keys)) == 4

    play(scenario)


def test_a_refused_step_asks_whether_it_is_taken_and_takes_another_key_the_next_time(tmp_path: Path) -> None:
    async def scenario(at: At) -> None:
        desk = await at(tmp_path, error(409, "invalid_state"))
        with pytest.raises(StateError):
            await desk.take()
        assert desk.looks == 1
        desk.at_relay = seen_job()
        assert (await desk.take()) == desk.at_relay
        assert len(set(desk.keys)) == 2
        desk.at_relay = None
        desk.stub.replies = [error(403, "forbidden")]
        with pytest.raises(RefusedError):
            await desk.take()
        with pytest.raises(RefusedError):
            await desk.take()
        assert len(set(desk.keys)) == 4

    play(scenario)


@pytest.mark.parametrize("stuck", [error(409, "idempotency_in_progress"), error(500, "internal_error", None, {"idempotency-replayed": "true"})])
def test_a_key_that_is_stuck_is_left_after_a_look_at_the_job(tmp_path: Path, stuck: bytes) -> None:
    async def scenario(at: At) -> None:
        desk = await at(tmp_path, stuck)
        with pytest.raises(UnknownOutcomeError):
            await desk.take()
        assert desk.looks == 0
        desk.stub.replies = [answer()]
        await desk.take()
        assert desk.looks == 1
        assert len(set(desk.keys)) == 2

    play(scenario)


def test_a_replayed_answer_is_not_believed_before_the_job_shows_it(tmp_path: Path) -> None:
    async def scenario(at: At) -> None:
        desk = await at(tmp_path, answer(headers={"idempotency-replayed": "true"}))
        with pytest.raises(UnknownOutcomeError):
            await desk.take()
        desk.at_relay = seen_job("delivered")
        assert (await desk.take()).job.state == "delivered"

    play(scenario)


def test_after_a_day_less_an_hour_the_job_is_looked_at_before_anything_is_sent_again(tmp_path: Path) -> None:
    async def scenario(at: At) -> None:
        desk = await at(tmp_path, None)
        with pytest.raises(UnknownOutcomeError):
            await desk.take()
        sent = len(desk.stub.asked)
        desk.world.later = 23 * HOUR
        desk.at_relay = seen_job()
        await desk.take()
        assert (desk.looks, len(desk.stub.asked)) == (1, sent)

    play(scenario)


def test_a_look_that_fails_sends_nothing(tmp_path: Path) -> None:
    async def scenario(at: At) -> None:
        desk = await at(tmp_path, answer())
        await desk.take()

        async def broken() -> Seen | None:
            raise UnavailableError("away")

        with pytest.raises(UnavailableError):
            await desk.take(look=broken)
        assert len(desk.stub.asked) == 1

    play(scenario)


def test_a_bearer_token_is_never_written_and_the_same_bytes_go_out_again(tmp_path: Path) -> None:
    async def scenario(at: At) -> None:
        token = "cashuBmoneymoneymoney"
        desk = await at(tmp_path, None)
        desk.body = json.dumps({"payment_proof": token}).encode()
        with pytest.raises(UnknownOutcomeError):
            await desk.take(secret=True)
        assert [file for file in files_under(tmp_path) if token.encode() in file.read_bytes()] == []
        first = desk.keys[0]
        desk.stub.replies = [answer()]
        await desk.take(secret=True)
        assert set(desk.keys) == {first}
        assert {asked.body for asked in desk.stub.asked} == {desk.body}
        desk.body += b" "
        await desk.take(secret=True)
        assert len(set(desk.keys)) == 2, "other bytes under the same key would be refused for a day"

    play(scenario)


def test_what_ended_keeps_no_bytes_and_is_forgotten_after_thirty_days(tmp_path: Path) -> None:
    async def scenario(at: At) -> None:
        world = Aging()
        outbox = opened(tmp_path, world)
        step = await outbox.put("a", 1, "POST", "/x", b"body")
        assert outbox.find("a") == step
        await outbox.end(step, "done", "job-1")
        ended = outbox.find("a")
        assert ended is not None
        assert (ended.state, ended.body, ended.job_id) == ("done", None, "job-1")
        later = await outbox.put("a", 2, "POST", "/x", b"other")
        await outbox.end(step, "refused")
        assert outbox.find("a") == later, "what an older try was told changes nothing"
        await outbox.keep_offers([("hash", "id", "wire")])
        world.later = KEPT_MS - 1000
        await outbox.prune()
        assert outbox.find("a") is not None
        world.later = KEPT_MS + 60_000
        await outbox.prune()
        assert outbox.find("a") is None
        assert outbox.wire_id("hash") is None
        await outbox.put("a", 1, "POST", "/x", b"body")
        world.later += 2 * KEPT_MS
        await outbox.put("b", 1, "POST", "/x", b"b")
        assert outbox.find("a") is None
        await outbox.close()

    play(scenario)


def test_a_revision_grows_with_every_visible_change_and_only_then(tmp_path: Path) -> None:
    async def scenario(at: At) -> None:
        world = Aging()
        outbox = opened(tmp_path, world)
        seen = [(await outbox.revisions({"j": (mark, floor)}))["j"] for mark, floor in (("a", 100), ("a", 100), ("b", 100), ("a", 100), ("c", 500), ("d", 1))]
        assert seen == [100, 100, 101, 102, 500, 501]
        await outbox.close()
        again = opened(tmp_path, world)
        assert await again.revisions({"j": ("d", 1), "k": ("x", 7)}) == {"j": 501, "k": 7}
        await again.close()

    play(scenario)


def test_two_relays_and_two_identities_have_an_outbox_each(tmp_path: Path) -> None:
    for url, key in (("http://a", "k"), ("http://b", "k"), ("http://a", "l")):
        outbox_file(tmp_path, url, key)
    assert len(list(tmp_path.iterdir())) == 3


def test_the_same_step_asked_for_many_times_at_once_is_sent_once(tmp_path: Path) -> None:
    async def scenario(at: At) -> None:
        desk = await at(tmp_path, answer())
        outbox = opened(tmp_path, desk.world)
        steps, intent = desk.steps(outbox), desk.intent()
        desk.at_relay = seen_job()
        await asyncio.gather(*(steps.take(intent) for _ in range(20)))
        assert len(desk.stub.asked) == 1
        task = asyncio.create_task(steps.take(replace(intent, subject="k")))
        await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await steps.take(replace(intent, subject="k"))  # nobody holds it any more
        await outbox.close()

    play(scenario)
