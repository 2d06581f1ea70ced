"""The relay's desk by itself: what it clears away, and what it never keeps a commit waiting for."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tradeskill.sqlite import SqliteFile, connector, memory
from tradeskill.testing.market_contract import SteppedClock
from tradeskill_plugins.market import schema
from tradeskill_plugins.market.book import Book
from tradeskill_plugins.relay import wire
from tradeskill_plugins.relay.server import tables
from tradeskill_plugins.relay.server.desk import TIDY_ROWS, Answer, Call, Desk

CALLER = "ab" * 32
PATIENCE = 30.0


@pytest.fixture
def database() -> Iterator[SqliteFile]:
    file = SqliteFile(memory(), tables.LAYOUT, where="a relay in memory")
    yield file
    file.close()


def call(later: Callable[[Book], str] | None = None) -> Call:
    return Call(CALLER, os.urandom(16).hex(), "GET", b"/v1/jobs", b"", None, None, lambda turn: Answer(200, "now", later=later))


def nonces(database: SqliteFile) -> int:
    return int(database.read(lambda db: db.execute("SELECT count(*) FROM nonces").fetchone()[0]))


def test_clearing_expired_nonces_keeps_up_with_any_rate_within_one_second(database: SqliteFile) -> None:
    clock = SteppedClock()
    commits = 5

    async def run() -> None:
        desk = Desk(database, schema.SQLITE, clock)
        await asyncio.gather(*(desk.turn(call()) for _ in range(commits * TIDY_ROWS)))
        assert nonces(database) == commits * TIDY_ROWS
        clock.advance(wire.NONCE_MS)
        for _ in range(commits + 1):
            await desk.turn(call())
        assert nonces(database) == commits + 1
        await desk.close()

    asyncio.run(run())


def test_a_body_that_is_made_later_reads_what_its_own_commit_left(database: SqliteFile) -> None:
    seen: list[int] = []

    def count(book: Book) -> str:
        seen.append(len(book.rows("SELECT name FROM nonces", ())))
        return "later"

    async def run() -> None:
        desk = Desk(database, schema.SQLITE, SteppedClock())
        answer = await desk.turn(call(count))
        assert (answer.status, answer.body, seen) == (200, "later", [1])
        await desk.close()

    asyncio.run(run())


def test_a_quick_read_waits_for_no_crowd_of_long_ones(tmp_path: Path) -> None:
    file = SqliteFile(connector(tmp_path / "relay.db", "a relay"), tables.LAYOUT, where="a relay", readers=2)
    held = threading.Event()

    async def run() -> None:
        desk = Desk(file, schema.SQLITE, SteppedClock())
        crowd = [asyncio.create_task(desk.read(lambda book: held.wait(PATIENCE))) for _ in range(64)]
        try:
            async with asyncio.timeout(PATIENCE):
                assert await desk.read(lambda book: book.position(), quick=True) == 0
                assert (await desk.turn(call())).status == 200
            assert not any(task.done() for task in crowd)
        finally:
            held.set()
            assert all(await asyncio.gather(*crowd))
            await desk.close()

    try:
        asyncio.run(run())
    finally:
        file.close()
