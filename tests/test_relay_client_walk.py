"""Changes at a relay without a cursor: whatever is committed when, however pages are lost, the walker ends up with what is there."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import pytest

from tradeskill.errors import UsageError
from tradeskill.model import Json
from tradeskill.signing import Identity
from tradeskill_plugins.relay.client.reading import Row
from tradeskill_plugins.relay.client.walk import OVERLAP_MS, Walk
from tradeskill_plugins.relay.wire import show_time

OWN = Identity(b"\1" * 32)
JOB = "0b9a6d0e-63a1-4a3c-9d7e-2f5d3c1b0a99"


def play(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await scenario()

    asyncio.run(bounded())


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
