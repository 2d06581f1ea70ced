"""One bucket for several processes: never too much, whatever is late or lost, and a client alone gets all that it may have."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.test_relay_limits import assert_bounded
from tradeskill.testing.virtual_time import run_virtual
from tradeskill_plugins.relay.server.leases import HOLD_MS, Back, Leases, Row, grant, is_full, wait_ms
from tradeskill_plugins.relay.server.limits import Refused

Delay = Callable[[], Awaitable[None]]


def now_ms() -> int:
    return int(asyncio.get_running_loop().time() * 1000)


async def at_once() -> None:
    pass


class Table:
    """The database: one row a bucket, and how long it takes to ask and to be told."""

    def __init__(self, asking: Delay = at_once, telling: Delay = at_once) -> None:
        self.rows: dict[str, Row] = {}
        self.asked = 0
        self.down = False
        self._asking, self._telling = asking, telling

    async def lease(self, name: str, want: int, limit: int, back: Back | None) -> tuple[int, Row]:
        self.asked += 1
        await self._asking()
        if self.down:
            raise ConnectionError("gone")
        granted, self.rows[name] = grant(self.rows.get(name), want, now_ms(), limit, back=back)
        row = self.rows[name]
        assert 0 <= row.level <= (limit - row.lent - row.before) * 60_000
        await self._telling()
        return granted, row

    def process(self, cap: int = 100_000) -> Leases:
        return Leases(now_ms, self.lease, cap=cap)


@dataclass(frozen=True)
class Play:
    """Steps: which process, after how many milliseconds, how many requests at once, and does it crash before. Delays: of the database, in turn."""

    limit: int
    processes: int
    steps: list[tuple[int, int, int, bool]]
    delays: list[int]


@st.composite
def plays(draw: st.DrawFn) -> Play:
    limit, processes = draw(st.sampled_from([1, 2, 5, 16, 24, 40])), draw(st.integers(1, 3))
    pauses, bursts = st.sampled_from([0, 1, 300, 2_000, 4_000, 4_999, 12_000, 60_000]), st.sampled_from([1, 1, 4, 10, 40])
    step = st.tuples(st.integers(0, processes - 1), pauses, bursts, st.sampled_from([False] * 9 + [True]))
    return Play(
        limit, processes, draw(st.lists(step, min_size=1, max_size=40)), draw(st.lists(st.sampled_from([0, 0, 0, 1, 50, 3_000, 6_000]), min_size=1, max_size=9))
    )


@settings(deadline=None)
@given(plays())
def test_however_many_processes_and_whatever_is_late_or_crashes_no_stretch_of_time_gets_too_much(play: Play) -> None:
    async def main() -> list[int]:
        turn = itertools.cycle(play.delays)

        async def late() -> None:
            await asyncio.sleep(next(turn) / 1000)

        table = Table(late, late)
        running = [table.process() for _ in range(play.processes)]
        passed: list[int] = []

        async def request(process: Leases) -> None:
            if await process.take("a", play.limit) is None:
                passed.append(now_ms())

        requests = []
        for number, pause, burst, crash in play.steps:
            await asyncio.sleep(pause / 1000)
            if crash:
                running[number] = table.process()  # what the old one held is lost
            requests += [asyncio.ensure_future(request(running[number])) for _ in range(burst)]
        await asyncio.gather(*requests)
        return passed

    assert_bounded(sorted(run_virtual(main(), 10**9)), play.limit)


@pytest.mark.parametrize("limit", [120, 60, 30, 10, 2])
def test_a_client_alone_gets_its_whole_limit_at_once_and_then_its_rate(limit: int) -> None:
    async def main() -> None:
        table = Table()
        process = table.process()
        assert [await process.take("a", limit) for _ in range(limit)] == [None] * limit
        assert table.asked < limit / 2 or limit <= 10
        told = await process.take("a", limit)
        assert isinstance(told, Refused)
        assert told.retry_after_s == max(1, -(-60 // limit))
        assert (told.limit, told.window_ms) == (limit, 60_000)
        for _ in range(300):
            await asyncio.sleep(60.001 / limit)
            assert await process.take("a", limit) is None

    run_virtual(main(), 10**9)


def test_a_client_between_two_processes_gets_its_rate_though_a_third_forgets_its_loans() -> None:
    async def main() -> None:
        table = Table()
        first, second = table.process(), table.process()
        for n in range(3000):
            await asyncio.sleep(1.2)
            process = table.process() if n % 10 == 9 else (first, second)[n % 2]
            assert await process.take("a", 60) is None

    run_virtual(main(), 10**9)


def test_two_processes_together_let_through_the_limit_and_not_twice() -> None:
    async def main() -> None:
        table = Table()
        running = [table.process(), table.process()]
        passed = [await running[n % 2].take("a", 60) is None for n in range(200)]
        assert 60 - 2 * 7 <= sum(passed) <= 60  # a batch may be unused in the other's hands
        await asyncio.sleep(70)
        assert sum([await running[0].take("a", 60) is None for n in range(200)]) == 60

    run_virtual(main(), 10**9)


def test_many_who_ask_at_once_ask_the_database_few_times() -> None:
    async def main() -> None:
        async def slow() -> None:
            await asyncio.sleep(0.01)

        table = Table(slow)
        process = table.process()
        told = await asyncio.gather(*(process.take("a", 120) for _ in range(500)))
        assert sum(each is None for each in told) == 120
        assert table.asked < 25

    run_virtual(main(), 10**9)


def test_who_was_refused_is_refused_without_asking_for_a_while() -> None:
    async def main() -> None:
        table = Table()
        process = table.process()
        for _ in range(31):
            await process.take("a", 30)
        asked = table.asked
        assert all([await process.take("a", 30) for _ in range(1000)])
        assert table.asked == asked
        await asyncio.sleep(2.001)
        assert await process.take("a", 30) is None

    run_virtual(main(), 10**9)


def test_without_the_database_nothing_passes_and_afterwards_all_goes_on() -> None:
    async def main() -> None:
        table = Table()
        process = table.process()
        table.down = True
        for told in await asyncio.gather(*(process.take("a", 60) for _ in range(5)), return_exceptions=True):
            assert isinstance(told, ConnectionError)
        table.down = False
        assert [await process.take("a", 60) for _ in range(60)] == [None] * 60

    run_virtual(main(), 10**9)


def test_a_cancelled_request_stops_nobody_else() -> None:
    async def main() -> None:
        async def slow() -> None:
            await asyncio.sleep(1)

        process = Table(slow).process()
        first = asyncio.ensure_future(process.take("a", 60))
        await asyncio.sleep(0.5)
        second = asyncio.ensure_future(process.take("a", 60))
        await asyncio.sleep(0.1)
        first.cancel()
        assert await second is None

    run_virtual(main(), 10**9)


def test_memory_is_bounded_and_a_limit_that_is_off_asks_nobody() -> None:
    async def main() -> None:
        table = Table()
        process = table.process(cap=50)
        for n in range(1000):
            assert await process.take(f"{n}", 60) is None
            assert len(process) <= 50
        asked = table.asked
        assert await process.take("a", None) is None
        assert table.asked == asked

    run_virtual(main(), 10**9)


def test_the_row_of_a_bucket() -> None:
    granted, row = grant(None, 4, 1_000_000, 30)
    assert (granted, row) == (4, Row(26 * 60_000, 1_000_000, 200, 4, 0))
    granted, row = grant(row, 2, 1_002_000, 30, back=Back(4, 1, 200))  # three spent: a token flowed in only after they were known to be
    assert (granted, row) == (2, Row(25 * 60_000, 1_002_000, 200, 2, 0))
    assert grant(row, 2, 1_002_000, 30, back=Back(2, 0, 199))[1].lent == 4  # of another span: not ours to take off
    assert grant(row, 2, 1_002_000, 30, back=Back(3, 0, 200))[1].lent == 4  # more than is out
    assert not is_full(row, 1_002_000, 30)
    assert not is_full(row, 1_009_999, 30)
    assert is_full(row, 1_100_000, 30)
    assert grant(row, 99, 1_100_000, 30)[0] == 30
    assert grant(row, 99, 0, 30)[0] == 25  # a clock that goes back


@given(limit=st.integers(1, 20), steps=st.lists(st.tuples(st.integers(0, 9_000), st.integers(0, 9)), min_size=1, max_size=40))
def test_when_it_says_there_is_a_token_there_is_and_not_before(limit: int, steps: list[tuple[int, int]]) -> None:
    row, now = None, 0
    for pause, want in steps:
        now += pause
        _, row = grant(row, want, now, limit)
        wait = wait_ms(row, limit)
        assert 0 <= wait <= 60_000 + 2 * HOLD_MS
        assert grant(row, 1, now + wait, limit)[0] == 1
        if wait:
            assert grant(row, 1, now + wait - 1, limit)[0] == 0
