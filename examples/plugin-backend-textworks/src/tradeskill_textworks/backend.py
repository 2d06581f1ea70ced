"""The backend: executions in a SQLite file, known by their ids. They outlive every worker, since all that there is of one is its row."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, Literal, TypeVar

from tradeskill.contracts import ExecutionStatus, Limits, Task
from tradeskill.errors import NotFoundError, RefusedError, StateError, StorageError, UnavailableError
from tradeskill.model import Result
from tradeskill.world import World

from tradeskill_textworks.works import FOREVER, WORKS, BadTextError, done

T = TypeVar("T")
PAUSE: Final = 0.05  # seconds between looks at what another worker may have done
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS executions (
  id TEXT PRIMARY KEY, owner TEXT NOT NULL, ends_at INTEGER NOT NULL, state TEXT NOT NULL, code TEXT NOT NULL, detail TEXT NOT NULL,
  result BLOB NOT NULL, media_type TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS runs (id TEXT NOT NULL);
"""
_Row = tuple[str, str, str, int, bytes, str]  # state, code, detail, ends_at, result, media type


class TextworksBackend:
    """One worker's view of the executions in `home`."""

    def __init__(self, home: Path, world: World, owner: str) -> None:
        self._file, self._world, self._owner = home / "executions.db", world, owner

    async def open(self) -> None:
        await self._in_file(lambda database: None)

    async def close(self) -> None:
        return None

    async def start(self, execution_id: str, task: Task, limits: Limits) -> Literal["run", "service"]:
        if len(task.argv) != 1 or task.argv[0] not in (*WORKS, FOREVER):
            raise RefusedError(f"execution {execution_id}: {' '.join(task.argv)!r:.80} is none of {', '.join((*WORKS, FOREVER))}")
        owner = str((task.details or {}).get("owner", self._owner))

        def create(database: sqlite3.Connection) -> None:
            if database.execute("SELECT 1 FROM executions WHERE id = ?", (execution_id,)).fetchone() is None:
                now = self._world.now_ms()
                database.execute("INSERT INTO runs VALUES (?)", (execution_id,))
                database.execute("INSERT INTO executions VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (execution_id, owner, *_fate(task, limits, now)))

        await self._in_file(create)
        return "run"

    async def status(self, execution_id: str) -> ExecutionStatus:
        row = await self._row(execution_id)
        if row is None:
            return ExecutionStatus("absent")
        state, code, detail, ends_at, _, _ = row
        if self._world.now_ms() < ends_at:
            return ExecutionStatus("running")
        return ExecutionStatus("finished" if state == "finished" else "failed", detail, code)

    async def wait(self, execution_id: str, seconds: float) -> ExecutionStatus:
        try:
            async with asyncio.timeout(seconds):
                while (status := await self.status(execution_id)).state == "running":  # noqa: ASYNC110 - it may end in another process
                    await asyncio.sleep(PAUSE)
        except TimeoutError:
            return await self.status(execution_id)
        return status

    async def result(self, execution_id: str) -> Result:
        status, row = await self.status(execution_id), await self._row(execution_id)
        if row is None:
            raise NotFoundError(f"execution {execution_id} was never started here")
        if status.state != "finished":
            raise StateError(f"execution {execution_id} is {status.state}, it has no result")
        return Result(row[4], row[5])

    async def stop(self, execution_id: str) -> None:
        def end(database: sqlite3.Connection) -> None:
            now = self._world.now_ms()
            database.execute(
                "UPDATE executions SET ends_at = ?, state = 'failed', code = 'stopped', detail = 'stopped on request' WHERE id = ? AND ends_at > ?",
                (now, execution_id, now),
            )

        await self._in_file(end)

    async def remove(self, execution_id: str) -> None:
        if (await self.status(execution_id)).state == "running":
            raise StateError(f"execution {execution_id} is running: stop it before removing it")
        await self._in_file(lambda database: database.execute("DELETE FROM executions WHERE id = ?", (execution_id,)))

    async def list(self, owner: str) -> Sequence[str]:
        rows = await self._in_file(lambda database: database.execute("SELECT id FROM executions WHERE owner = ? ORDER BY id", (owner,)).fetchall())
        return [name for (name,) in rows]

    async def _row(self, execution_id: str) -> _Row | None:
        query = "SELECT state, code, detail, ends_at, result, media_type FROM executions WHERE id = ?"
        found: _Row | None = await self._in_file(lambda database: database.execute(query, (execution_id,)).fetchone())
        return found

    async def _in_file(self, step: Callable[[sqlite3.Connection], T]) -> T:
        """One transaction, off the event loop, on the disk when it returns."""

        def run() -> T:
            with _opened(self._file) as database:
                return step(database)

        return await self._world.offload(run)


def runs_in(home: Path) -> int:
    """How many executions were really begun there, removed ones too."""
    with _opened(home / "executions.db") as database:
        (count,) = database.execute("SELECT count(*) FROM runs").fetchone()
        return int(count)


def _fate(task: Task, limits: Limits, now: int) -> tuple[int, str, str, str, bytes, str]:
    """When it ends, and how: state, code, detail, result, media type."""
    if task.argv[0] == FOREVER:
        return now + round(limits.seconds * 1000), "failed", "limit.time", f"ran longer than {limits.seconds} s", b"", ""
    try:
        result, media_type = done(task.argv[0], task.stdin)
    except BadTextError as error:
        return now, "failed", "exit", str(error), b"", ""
    if len(result) > limits.output:
        return now, "failed", "limit.output", f"{len(result)} bytes of output, {limits.output} allowed", b"", ""
    return now, "finished", "", "", result, media_type


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=10, isolation_level=None)) as database:
            database.execute("PRAGMA synchronous = FULL")
            database.execute("BEGIN IMMEDIATE")
            for statement in _SCHEMA.split(";"):
                database.execute(statement)
            try:
                yield database
            except BaseException:
                database.execute("ROLLBACK")
                raise
            database.execute("COMMIT")
    except sqlite3.OperationalError as error:
        raise UnavailableError(f"the executions in {path} cannot be used now: {error}") from error
    except (sqlite3.Error, OSError) as error:
        raise StorageError(f"the executions in {path}: {error}") from error
