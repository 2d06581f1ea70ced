"""What a client must remember beyond a crash: the exact bytes of each request before it is first sent, and what became of it.

Beside that: which offers a relay without our additions holds under which id, how often a job there was seen to change, where results were uploaded.
Bodies with a bearer token are never written: only their hash is, and the caller, whose journal has the token, makes the same bytes again.
Bodies are dropped once their step ended; everything is forgotten after 30 days without use.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, cast

from tradeskill.signing import digest
from tradeskill.sqlite import Connect, GroupCommit, Layout, SqliteFile, Transaction, connector
from tradeskill.world import World

__all__ = ["KEPT_MS", "Outbox", "Step", "StepState", "outbox_file"]

T = TypeVar("T")
DAY_MS: Final = 86_400_000
KEPT_MS: Final = 30 * DAY_MS
StepState = Literal["open", "doubtful", "refused", "done"]

_MIGRATIONS: Final = (
    (
        """CREATE TABLE steps (
            name TEXT PRIMARY KEY, generation INTEGER NOT NULL, method TEXT NOT NULL, target TEXT NOT NULL,
            body BLOB, body_hash TEXT NOT NULL, state TEXT NOT NULL, job_id TEXT, first_sent INTEGER NOT NULL, touched INTEGER NOT NULL
        ) WITHOUT ROWID, STRICT""",
        "CREATE INDEX steps_touched ON steps (touched)",
        "CREATE TABLE offers (offer_hash TEXT PRIMARY KEY, offer_id TEXT NOT NULL, wire_id TEXT NOT NULL, touched INTEGER NOT NULL) WITHOUT ROWID, STRICT",
        "CREATE INDEX offers_id ON offers (offer_id)",
        "CREATE TABLE jobs (job_id TEXT PRIMARY KEY, mark TEXT NOT NULL, revision INTEGER NOT NULL, touched INTEGER NOT NULL) WITHOUT ROWID, STRICT",
        "CREATE TABLE uploads (mark TEXT PRIMARY KEY, url TEXT NOT NULL, touched INTEGER NOT NULL) WITHOUT ROWID, STRICT",
    ),
)
_FIND = "SELECT * FROM steps WHERE name = ?"
_PUT = """INSERT INTO steps (name, generation, method, target, body, body_hash, state, job_id, first_sent, touched)
    VALUES (:name, :generation, :method, :target, :body, :body_hash, 'open', NULL, :now, :now)
    ON CONFLICT (name) DO UPDATE SET generation = :generation, method = :method, target = :target, body = :body, body_hash = :body_hash,
        state = 'open', job_id = NULL, first_sent = :now, touched = :now"""
_END = """UPDATE steps SET state = :state, job_id = coalesce(:job_id, job_id), touched = :now, body = CASE WHEN :state = 'doubtful' THEN body END
    WHERE name = :name AND generation = :generation"""
_WIRE_ID = "SELECT wire_id FROM offers WHERE offer_hash = ?"
_OFFER = """INSERT INTO offers (offer_hash, offer_id, wire_id, touched) VALUES (?, ?, ?, ?)
    ON CONFLICT (offer_hash) DO UPDATE SET wire_id = excluded.wire_id, touched = excluded.touched"""
_KNOWN = "SELECT mark, revision FROM jobs WHERE job_id = ?"
_REVISION = """INSERT INTO jobs (job_id, mark, revision, touched) VALUES (?, ?, ?, ?)
    ON CONFLICT (job_id) DO UPDATE SET mark = excluded.mark, revision = excluded.revision, touched = excluded.touched"""
_UPLOADED = "SELECT url FROM uploads WHERE mark = ?"
_UPLOAD = "INSERT INTO uploads (mark, url, touched) VALUES (?, ?, ?) ON CONFLICT (mark) DO NOTHING"
_PRUNE = ("steps", "offers", "jobs", "uploads")


@dataclass(frozen=True)
class Step:
    """One mutating request. `generation` grows where a key is spent, so that an old relay's kept refusal is not heard for ever."""

    name: str
    generation: int
    method: str
    target: str
    body: bytes | None
    body_hash: str
    state: StepState
    job_id: str | None
    first_sent: int  # ms

    @property
    def key(self) -> str:
        """The Idempotency-Key."""
        return digest(f"{self.name}\n{self.generation}".encode())[:48]


def outbox_file(home: Path, url: str, key: str) -> Connect:
    """How to connect to the outbox of one identity at one relay: another relay has a file of its own."""
    mark = digest(f"{url}\n{key}".encode())[:16]
    return connector(home / f"outbox-{mark}.db", "the relay's outbox")


class Outbox:
    def __init__(self, connect: Connect, world: World) -> None:
        self._world = world
        self._file = SqliteFile(connect, Layout(0x54534F42, _MIGRATIONS), where="the relay's outbox")
        self._commits = GroupCommit(self._file.run, world)
        self._pruned = world.now_ms()

    async def close(self) -> None:
        await self._commits.finish()
        await self._world.offload(self._file.close)

    # steps

    def find(self, name: str) -> Step | None:
        row = self._file.read(lambda c: c.execute(_FIND, (name,)).fetchone())
        return None if row is None else _step(row)

    async def put(self, name: str, generation: int, method: str, target: str, body: bytes, *, secret: bool = False) -> Step:
        """On disk before this returns, and so before anything is sent. `secret`: without the bytes themselves."""
        values = {"name": name, "generation": generation, "method": method, "target": target, "now": self._world.now_ms()}
        values |= {"body": None if secret else body, "body_hash": hashlib.sha256(body).hexdigest()}

        def put(tx: Transaction) -> Step:
            self._prune_daily(tx)
            tx.execute(_PUT, values)
            return _step(tx.execute(_FIND, (name,)).fetchone())

        return await self._commits.write(put)

    async def end(self, step: Step, state: StepState, job_id: str | None = None) -> None:
        """What became of it. A doubtful one keeps its bytes: it may still be under way."""
        values = {"name": step.name, "generation": step.generation, "state": state, "job_id": job_id, "now": self._world.now_ms()}
        await self._write(lambda tx: tx.execute(_END, values))

    # what a relay without our additions does not tell

    def wire_id(self, offer_hash: str) -> str | None:
        row = self._file.read(lambda c: c.execute(_WIRE_ID, (offer_hash,)).fetchone())
        return None if row is None else str(row[0])

    async def keep_offers(self, offers: Sequence[tuple[str, str, str]]) -> None:
        """(offer hash, offer id, the relay's id) of each."""
        now = self._world.now_ms()
        fresh = [offer for offer in offers if self.wire_id(offer[0]) != offer[2]]
        if fresh:
            await self._write(lambda tx: tx.executemany(_OFFER, [(*offer, now) for offer in fresh]))

    async def revisions(self, marks: Mapping[str, tuple[str, int]]) -> dict[str, int]:
        """For each job its revision: greater than before whenever its mark is another one, and never less than the given floor then."""
        known = self._file.read(lambda c: _known(c, marks))
        if all(job_id in known and known[job_id][0] == mark for job_id, (mark, _) in marks.items()):
            return {job_id: known[job_id][1] for job_id in marks}
        now = self._world.now_ms()

        def renew(tx: Transaction) -> dict[str, int]:
            current = _known(tx, marks)
            for job_id, (mark, floor) in marks.items():
                if job_id not in current or current[job_id][0] != mark:
                    revision = floor if job_id not in current else max(floor, current[job_id][1] + 1)
                    current[job_id] = (mark, revision)
                    tx.execute(_REVISION, (job_id, mark, revision, now))
            return {job_id: current[job_id][1] for job_id in marks}

        return await self._commits.write(renew)

    # uploads

    def uploaded(self, mark: str) -> str | None:
        row = self._file.read(lambda c: c.execute(_UPLOADED, (mark,)).fetchone())
        return None if row is None else str(row[0])

    async def keep_upload(self, mark: str, url: str) -> None:
        now = self._world.now_ms()
        await self._write(lambda tx: tx.execute(_UPLOAD, (mark, url, now)))

    async def prune(self) -> None:
        """Forget what was not touched for 30 days. Done by itself once a day while steps are put down."""
        await self._write(self._prune)

    def _prune_daily(self, tx: Transaction) -> None:
        if self._world.now_ms() - self._pruned >= DAY_MS:
            self._prune(tx)

    def _prune(self, tx: Transaction) -> None:
        self._pruned = self._world.now_ms()
        for table in _PRUNE:
            tx.execute(f"DELETE FROM {table} WHERE touched < ?", (self._pruned - KEPT_MS,))  # noqa: S608  # the names stand above

    async def _write(self, function: Callable[[Transaction], object]) -> None:
        await self._commits.write(function)


def _step(row: Any) -> Step:
    state = cast("StepState", row["state"])
    body = None if row["body"] is None else bytes(row["body"])
    return Step(
        row["name"], row["generation"], row["method"], row["target"], body, row["body_hash"], state, row["job_id"], row["first_sent"]
    )


def _known(connection: Transaction, marks: Mapping[str, object]) -> dict[str, tuple[str, int]]:
    found = {}
    for job_id in marks:
        row = connection.execute(_KNOWN, (job_id,)).fetchone()
        if row is not None:
            found[job_id] = (str(row["mark"]), int(row["revision"]))
    return found
