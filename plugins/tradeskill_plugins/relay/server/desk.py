"""One call's turn at the database: nonce, rate limit, idempotency, the step itself, its answer kept for repetition; all in one durable commit.

A refused step leaves no trace but its nonce. Whatever the process dies of, a keyed call was either committed with its answer or never happened.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, TypeVar

from tradeskill.errors import TradeskillError
from tradeskill.sqlite import BATCH
from tradeskill.world import World
from tradeskill_plugins.market.book import Book, Statements
from tradeskill_plugins.market.schema import Dialect
from tradeskill_plugins.market.store import Database
from tradeskill_plugins.relay import wire
from tradeskill_plugins.relay.server import tables
from tradeskill_plugins.relay.server.commits import Commits
from tradeskill_plugins.relay.server.rejections import Rejection, rejection_of

__all__ = ["Answer", "Call", "Desk", "Turn"]

T = TypeVar("T")
TIDY_MS: Final = 1000
SWEEPS: Final = 10  # of a thousand jobs each, at most, in one commit
TIDY_ROWS: Final = 2 * BATCH  # of each table that one commit may clear away: more than it can add, so clearing keeps up at any rate


@dataclass(frozen=True)
class Answer:
    """What goes out. `moved`: (job id, its state before, its state now) when a job changed, for logs and metrics.

    `later` makes the body once the call's nonce is on disk, on a reader: what only looks keeps no commit waiting.
    """

    status: int
    body: str
    headers: dict[str, str] = field(default_factory=dict)
    moved: tuple[str, str | None, str] | None = None
    later: Callable[[Book], str] | None = None


@dataclass(frozen=True)
class Turn:
    """What a step may use: inside one writing transaction, at one moment."""

    book: Book
    db: Statements
    now_ms: int


@dataclass(frozen=True)
class Call:
    """One verified request. `key`: its Idempotency-Key, None where there is none. `refused`: what its rate limit said; told after the nonce is taken."""

    caller: str
    nonce: str
    method: str
    target: bytes
    body: bytes
    key: str | None
    refused: Rejection | None
    act: Callable[[Turn], Answer]


class Desk:
    def __init__(
        self,
        database: Database,
        dialect: Dialect,
        world: World,
        committed: Callable[[int, float], None] = lambda steps, seconds: None,
        clock: Callable[[Statements], int] | None = None,
    ) -> None:
        """`committed(steps, seconds)` is told of each commit, in its thread. `clock`: milliseconds, asked once a commit; None: the world's.

        Processes that share a database go by its clock: locks and quotes must not end earlier for one of them than for another.
        """
        self._clock = clock if clock is not None else lambda db: world.now_ms()
        self._moment = 0
        self._database, self._dialect, self._world = database, dialect, world
        self._commits = Commits(database, self._before, committed)
        # a thread for each of the database's readers: where long reads queue, a quick one waits for none of them
        self._long, self._quick = ThreadPoolExecutor(1, "relay-long-reads"), ThreadPoolExecutor(1, "relay-quick-reads")
        self._tidied, self._behind = 0, False
        self._waiting: dict[tuple[str, str], str] = {}  # keyed calls between their arrival and their commit -> hash of the request

    async def turn(self, call: Call) -> Answer:
        """The answer, once what it says is durable. A Rejection is an answer too; other exceptions mean that nothing was acknowledged."""
        name = None if call.key is None else (call.caller, call.key)
        hashed = _hash(call) if name is not None else ""
        others = None if name is None else self._waiting.get(name)
        if name is None or others is not None:
            outcome = await self._commits.write(partial(self._take, call, hashed, others))
        else:
            self._waiting[name] = hashed
            try:
                outcome = await self._commits.write(partial(self._take, call, hashed, None))
            finally:
                del self._waiting[name]
        if isinstance(outcome, Rejection):
            raise outcome
        return outcome if outcome.later is None else replace(outcome, body=await self.read(outcome.later))

    async def read(self, function: Callable[[Book], T], *, quick: bool = False) -> T:
        """`function` on one consistent view. `quick`: for a few rows at most."""
        pool, reader = (self._quick, 1) if quick else (self._long, 0)
        return await asyncio.get_running_loop().run_in_executor(pool, partial(self._database.read, partial(self._on_book, function), reader))

    def moment(self) -> int:
        """The time of the commit under way, for the steps in it."""
        return self._moment

    async def step(self, step: Callable[[Statements], T]) -> T:
        """A durable step that is no call's."""
        return await self._commits.write(step)

    async def sweep(self) -> None:
        """Expire what is due, also where nobody calls."""
        now = self._world.now_ms()
        if await self.read(lambda book: book.due(now), quick=True):
            await self._commits.write(lambda db: None)

    async def close(self) -> None:
        await self._commits.finish()
        for pool in (self._long, self._quick):
            pool.shutdown(wait=False)

    # inside a transaction

    def _on_book(self, function: Callable[[Book], T], db: Statements) -> T:
        return function(Book(db, self._dialect, strict=True))

    def _before(self, db: Statements) -> None:
        now = self._moment = self._clock(db)
        book = Book(db, self._dialect, strict=True)
        for _ in range(SWEEPS):
            if not book.sweep(now):
                break
        if self._behind or not self._tidied <= now < self._tidied + TIDY_MS:
            self._tidied = now
            dropped = [db.execute(drop, (now, TIDY_ROWS)).rowcount for drop in (tables.NONCES_DROP, tables.ANSWERS_DROP)]
            self._behind = TIDY_ROWS in dropped
            db.execute(tables.BUCKETS_DROP, (now - 2 * wire.WINDOW_MS,))

    def _take(self, call: Call, hashed: str, others: str | None, db: Statements) -> Answer | Rejection:
        now = self._moment
        name = bytes.fromhex(call.caller) + call.nonce.encode()
        if db.execute(tables.NONCE_ADD, (name, now + wire.NONCE_MS)).rowcount != 1:
            return Rejection("auth.nonce_replay", "this nonce was used before: send a fresh one")
        if call.refused is not None:
            return call.refused
        if call.key is not None:
            known = self._known(call, hashed, others, now, db)
            if known is not None:
                return known
        db.execute("SAVEPOINT act")
        try:
            answer = call.act(Turn(Book(db, self._dialect, strict=True), db, now))
        except Rejection as error:
            return _taken_back(db, error)
        except TradeskillError as error:
            return _taken_back(db, rejection_of(error))
        db.execute("RELEASE act")
        if call.key is not None:
            db.execute(tables.ANSWER_ADD, (call.caller, call.key, hashed, answer.status, answer.body, now + wire.IDEMPOTENCY_MS))
            return replace(answer, headers={**answer.headers, "Idempotency-Key": call.key})
        return answer

    def _known(self, call: Call, hashed: str, others: str | None, now: int, db: Statements) -> Answer | Rejection | None:
        assert call.key is not None
        if not 1 <= len(call.key) <= wire.MAX_KEY:
            return Rejection("validation_error", f"Idempotency-Key must have 1 to {wire.MAX_KEY} characters")
        row = db.execute(tables.ANSWER, (call.caller, call.key, now)).fetchone()
        first = row["request_hash"] if row is not None else others
        if first is not None and first != hashed:
            return Rejection("idempotency_conflict", "this Idempotency-Key was used for another request: take a fresh one")
        if row is not None:
            return Answer(row["status"], row["body"], {"Idempotency-Key": call.key, "Idempotency-Replayed": "true"})
        if others is not None:
            return Rejection("idempotency_in_progress", "the first request with this Idempotency-Key is under way: ask again", headers={"Retry-After": "1"})
        return None


def _taken_back(db: Statements, rejection: Rejection) -> Rejection:
    db.execute("ROLLBACK TO act")
    db.execute("RELEASE act")
    return rejection


def _hash(call: Call) -> str:
    return hashlib.sha256(b"\n".join((call.method.encode(), call.target, call.body))).hexdigest()
