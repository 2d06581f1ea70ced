"""The journal's file: bound to one network, one commit for many callers, each caller's trouble its own, nothing acknowledged that is not on disk."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tradeskill.errors import NetworkMismatchError, StateError, StorageError, UnavailableError, UsageError
from tradeskill.journal import Database, selling
from tradeskill.journal.schema import LAYOUT
from tradeskill.sqlite import connector, memory
from tradeskill.world import World


class Watched:
    """A connection that remembers its commits and can be told to fail one."""

    def __init__(self) -> None:
        self.raw = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self.commits = 0
        self.trouble = ""

    def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
        if sql == "COMMIT":
            self.commits += 1
            if self.trouble:
                error = sqlite3.OperationalError("made by the test")
                error.sqlite_errorname, self.trouble = self.trouble, ""
                raise error
        return self.raw.execute(sql, parameters)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "row_factory":
            self.raw.row_factory = value
        else:
            super().__setattr__(name, value)


def opened(connection: Watched) -> Database:
    return Database(lambda: connection, World(), "dev")  # type: ignore[arg-type,return-value]  # as much of a connection as is used


def save(name: str) -> Callable[[sqlite3.Connection], str]:
    def step(tx: sqlite3.Connection) -> str:
        selling.save_cursor(tx, name, "1")
        return name

    return step


def saved(journal: Database) -> list[str]:
    return journal.read(lambda c: [row[0] for row in c.execute("SELECT name FROM cursors ORDER BY name").fetchall()])


def test_what_was_written_is_there_for_the_next_process(tmp_path: Path) -> None:
    async def main() -> None:
        journal = Database(connector(tmp_path / "home" / "journal.db", "the journal"), World(), "dev")
        assert await journal.write(save("a")) == "a"
        await journal.close()
        again = Database(connector(tmp_path / "home" / "journal.db", "the journal"), World(), "dev")
        assert saved(again) == ["a"]
        assert again.read(lambda c: c.execute("PRAGMA user_version").fetchone()[0]) == len(LAYOUT.migrations)
        await again.close()

    asyncio.run(main())


def test_a_journal_belongs_to_one_network(tmp_path: Path) -> None:
    async def main() -> None:
        connect = connector(tmp_path / "journal.db", "the journal")
        await Database(connect, World(), "dev").close()
        with pytest.raises(NetworkMismatchError, match=r"'dev'.*'live'"):
            Database(connect, World(), "live")
        await Database(connect, World(), "dev").close()

    asyncio.run(main())


def test_callers_at_the_same_time_share_a_commit() -> None:
    async def main() -> None:
        connection = Watched()
        journal = opened(connection)
        before = connection.commits
        names = [f"n{i}" for i in range(20)]
        assert await asyncio.gather(*[journal.write(save(name)) for name in names]) == names
        assert connection.commits - before <= 2
        assert saved(journal) == sorted(names)

    asyncio.run(main())


def test_a_callers_own_error_undoes_only_its_own_step() -> None:
    def broken(tx: sqlite3.Connection) -> None:
        selling.save_cursor(tx, "half", "1")
        raise UsageError("mine alone")

    async def main() -> None:
        journal = opened(Watched())
        outcomes = await asyncio.gather(journal.write(save("a")), journal.write(broken), journal.write(save("b")), return_exceptions=True)
        assert outcomes[0] == "a"
        assert isinstance(outcomes[1], UsageError)
        assert saved(journal) == ["a", "b"]

    asyncio.run(main())


def test_a_step_that_contradicts_the_journal_is_a_state_error_and_changes_nothing() -> None:
    def twice(tx: sqlite3.Connection) -> None:
        selling.save_cursor(tx, "half", "1")
        selling.record_start(tx, "job", 1, 1, 1)
        selling.record_start(tx, "job", 1, 2, 2)

    async def main() -> None:
        journal = opened(Watched())
        with pytest.raises(StateError, match="contradicts"):
            await journal.write(twice)
        assert saved(journal) == []

    asyncio.run(main())


@pytest.mark.parametrize(("name", "kind"), [("SQLITE_FULL", StorageError), ("SQLITE_IOERR_FSYNC", StorageError), ("SQLITE_BUSY", UnavailableError)])
def test_a_commit_that_fails_acknowledges_nothing_to_anybody(name: str, kind: type[Exception]) -> None:
    async def main() -> None:
        connection = Watched()
        journal = opened(connection)
        connection.trouble = name
        outcomes = await asyncio.gather(journal.write(save("a")), journal.write(save("b")), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [kind, kind]
        assert saved(journal) == []
        if name == "SQLITE_IOERR_FSYNC":  # nobody knows what the disk holds now
            with pytest.raises(StorageError):
                await journal.write(save("c"))
            assert saved(journal) == []
        else:
            assert await journal.write(save("c")) == "c"

    asyncio.run(main())


def test_without_an_event_loop_a_step_is_one_commit_or_its_error() -> None:
    journal = opened(Watched())
    assert journal.write_now(save("a")) == "a"
    with pytest.raises(StateError):
        journal.write_now(lambda tx: [selling.record_start(tx, "job", 1, 1, 1) for _ in range(2)])
    assert saved(journal) == ["a"]


def test_closing_waits_for_what_is_under_way() -> None:
    async def main() -> None:
        connection = Watched()
        journal = opened(connection)
        assert (await asyncio.gather(journal.write(save("a")), journal.close()))[0] == "a"
        with pytest.raises(UnavailableError, match="closed"):
            journal.read(lambda c: None)

    asyncio.run(main())


def test_two_journals_on_one_database_in_memory_never_meet_inside_its_connection() -> None:
    connect, rounds = memory(), 60
    first = Database(connect, World(), "dev")

    def use(name: str) -> int:
        async def main() -> int:
            for number in range(rounds):
                journal = Database(connect, World(), "dev")
                with pytest.raises(NetworkMismatchError):
                    Database(connect, World(), "live")  # what fails to open leaves the others theirs
                await journal.write(save(f"{name} {number}"))
            return len(saved(first))

        return asyncio.run(main())

    with ThreadPoolExecutor(4) as threads:
        seen = list(threads.map(use, "abcd"))
    assert max(seen) == len(saved(first)) == 4 * rounds
