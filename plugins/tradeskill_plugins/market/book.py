"""The market's book: every rule of offers and jobs, as steps on rows. No clock, no randomness, no transaction of its own.

Each call is to run inside one writing transaction of its caller (reads: inside any), gets who calls and what time it is, and either
takes its whole step or raises and asks for a rollback. Time limits are judged by the time handed in, also where nobody swept yet.
Order of checks: shape (entries.py), existence, right, state. Embedded market and relay stand on this same class.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tradeskill.errors import NotFoundError, RefusedError, StaleFenceError, StateError, UsageError
from tradeskill.lifecycle import JOB, advance
from tradeskill.model import PAYMENT_TTL_MS
from tradeskill_plugins.market import entries, schema
from tradeskill_plugins.market.offers import Offers, Row, Search, Statements

__all__ = ["LOCK_TTL_MS", "PAGE_BYTES", "QUOTE_TTL_MAX_MS", "QUOTE_TTL_MS", "Book", "JobRow", "Page", "Row", "Search", "Statements"]

QUOTE_TTL_MS: Final = 15 * 60_000
QUOTE_TTL_MAX_MS: Final = 60 * 60_000
LOCK_TTL_MS: Final = 5 * 60_000
PAGE_BYTES: Final = 8 * 2**20  # results come inline, so a page of changes ends early once it holds this much
_CURSOR = re.compile(r"([0-9a-f]{16})-(0|[1-9][0-9]{0,17})", re.ASCII)

JobRow = dict[str, Any]  # the columns of `jobs`, "papers": {kind: text}, and after a step the state that it "was" in


@dataclass(frozen=True)
class Page:
    rows: tuple[JobRow, ...]
    cursor: str
    more: bool


class Book(Offers):
    def __init__(self, database: Statements, dialect: schema.Dialect = schema.SQLITE, *, strict: bool = False) -> None:
        """`strict`, as the relay's protocol wants it: a step taken before is refused, not repeated, and a stranger is told that a job exists."""
        super().__init__(database, dialect)
        self._strict = strict

    # jobs

    def request(self, entry: entries.RequestEntry, job_id: str, now_ms: int) -> JobRow:
        """`job_id` names the job if it is new; a signed request's nonce decides whether it is."""
        if entry.nonce is not None:
            known = self._row(schema.JOB_OF_NONCE, (entry.buyer, entry.nonce))
            if known is not None:
                if known["request_hash"] != entry.hash:
                    raise StateError(f"nonce {entry.nonce} already opened job {known['job_id']} with another request: use a fresh nonce")
                return self.with_papers(known)
        self._check_network(entry.network)
        offer = self._offer(entry.offer_id)
        if not offer["active"]:
            raise StateError(f"offer {entry.offer_id} is withdrawn: search for another")
        if entry.seller is not None and entry.seller != offer["seller"]:
            raise UsageError(f"seller in the request is {entry.seller}, the offer is by {offer['seller']}")
        job = {"job_id": job_id, "offer_id": entry.offer_id, "seller": offer["seller"], "buyer": entry.buyer, "nonce": entry.nonce}
        self._db.execute(
            schema.JOB_ADD, {**job, "request_hash": entry.hash, "state": JOB.start, "change": self._next("change"), "now": now_ms}
        )
        for kind, text in entry.papers.items():
            self._db.execute(schema.PAPER_ADD, (job_id, kind, text))
        return self._answer(job_id)

    def quote(self, entry: entries.QuoteEntry, now_ms: int) -> JobRow:
        row = self._load(entry.job_id, entry.seller, "seller", now_ms)
        if row["quote_expires_at"] is not None and row["state"] not in ("canceled", "expired"):
            if self._strict or row["quote_hash"] != entry.hash:
                raise StateError(f"job {entry.job_id} already has another quote" if not self._strict else f"job {entry.job_id} is already quoted")
            return row
        self._check_network(entry.network)
        if entry.buyer is not None and entry.buyer != row["buyer"]:
            raise UsageError(f"buyer in the quote is {entry.buyer}, the job's is {row['buyer']}")
        wanted = now_ms + QUOTE_TTL_MS if entry.expires_at is None else entry.expires_at
        expires_at = min(wanted, now_ms + QUOTE_TTL_MAX_MS)
        if expires_at <= now_ms and row["state"] == "requested":
            raise StateError(f"the quote for job {entry.job_id} ran out at {expires_at}, it is {now_ms}: sign a new one")
        return self._move(row, "quote", now_ms, entry.papers, quote_hash=entry.hash, quote_expires_at=expires_at, due_at=expires_at)

    def decline(self, caller: str, job_id: str, error: entries.ErrorEntry, now_ms: int) -> JobRow:
        row = self._load(job_id, caller, "seller", now_ms)
        if row["canceled_by"] == "seller":
            return self._repeated(row, (row["error_code"], row["error_message"]) == (error.code, error.message), "declined")
        return self._move(
            row, "decline", now_ms, error.papers, due_at=None, canceled_by="seller", error_code=error.code, error_message=error.message
        )

    def accept(self, caller: str, job_id: str, now_ms: int) -> JobRow:
        row = self._load(job_id, caller, "buyer", now_ms)
        if row["accepted_at"] is not None and row["state"] not in ("canceled", "expired"):
            return self._repeated(row, True, "accepted")
        return self._move(row, "accept", now_ms, accepted_at=now_ms, due_at=now_ms + PAYMENT_TTL_MS)

    def submit_payment(self, caller: str, job_id: str, claim: entries.Claim, now_ms: int) -> JobRow:
        """A claim: unique among one buyer's jobs, but no stranger can take an id away by claiming it first."""
        row = self._load(job_id, caller, "buyer", now_ms)
        if row["payment_id"] is not None:
            known = (row["payment_rail"], row["payment_id"], row["papers"].get("token", ""))
            return self._repeated(row, known == (claim.rail, claim.payment_id, claim.token), "paid")
        advance(JOB, row["state"], "pay")
        other = self._row(schema.JOB_OF_CLAIM, (caller, claim.rail, claim.payment_id))
        if other is not None:
            raise StateError(f"payment {claim.payment_id} is already submitted for job {other['job_id']}: one payment pays one job")
        papers = {"token": claim.token} if claim.token else {}
        return self._move(row, "pay", now_ms, papers, payment_rail=claim.rail, payment_id=claim.payment_id, due_at=None)

    def lock(self, caller: str, job_id: str, now_ms: int) -> JobRow:
        """Within its time the lock is the seller's and only renewed; once it ran out, taking it again is a new take with a new fence."""
        row = self._load(job_id, caller, "seller", now_ms)
        if row["state"] == "accepted" and row["payment_id"] is None:
            raise StateError(f"job {job_id} has no submitted payment: lock it once the buyer submitted one")
        advance(JOB, row["state"], "lock")
        held = row["lock_expires_at"] is not None and row["lock_expires_at"] > now_ms
        fence = row["market_fence"] if held else self._next("fence")
        return self._move(row, "lock", now_ms, lock_expires_at=now_ms + LOCK_TTL_MS, market_fence=fence)

    def deliver(self, caller: str, job_id: str, entry: entries.DeliveryEntry, market_fence: int | None, now_ms: int) -> JobRow:
        """With the current fence, also after the lock ran out (nobody took it since); without a fence, within one's lock."""
        if market_fence is not None and type(market_fence) is not int:
            raise UsageError(f"market_fence must be a whole number, not {market_fence!r}")
        row = self._load(job_id, caller, "seller", now_ms)
        error = entry.error
        if row["state"] == "delivered":
            return self._repeated(row, error is None and row["result_sha256"] == entry.sha256, "delivered")
        if row["state"] == "failed":
            return self._repeated(row, error is not None and (row["error_code"], row["error_message"]) == (error.code, error.message), "failed")
        event = "deliver" if error is None else "fail"
        advance(JOB, row["state"], event)
        if market_fence is not None and market_fence != row["market_fence"]:
            raise StaleFenceError(f"job {job_id}: market fence {market_fence} is not the current {row['market_fence']}: the lock was taken anew")
        if market_fence is None and row["lock_expires_at"] <= now_ms:
            raise StateError(f"job {job_id}: the lock ran out at {row['lock_expires_at']}, it is {now_ms}: lock it again")
        if error is not None:
            return self._move(row, event, now_ms, error.papers, error_code=error.code, error_message=error.message)
        size = None if entry.data is None else len(entry.data)
        moved = self._move(row, event, now_ms, entry.papers, result_type=entry.media_type, result_size=size, result_sha256=entry.sha256)
        if entry.data is not None:
            self._db.execute(schema.RESULT_ADD, (job_id, entry.data))
        return moved

    def cancel(self, caller: str, job_id: str, reason: str, now_ms: int) -> JobRow:
        entries.check_text("reason", reason, 0, 200)
        row = self._load(job_id, caller, "buyer", now_ms)
        if row["canceled_by"] == "buyer":
            return self._repeated(row, (row["error_message"] or "") == reason, "canceled")
        if row["payment_id"] is not None and row["state"] == "accepted":
            raise StateError(f"job {job_id}: payment {row['payment_id']} is submitted, so it cannot be canceled any more")
        event = "cancel_unpaid" if row["state"] == "accepted" else "cancel"
        error: dict[str, Any] = {"error_code": "canceled", "error_message": reason} if reason else {}
        return self._move(row, event, now_ms, due_at=None, canceled_by="buyer", **error)

    def get(self, caller: str, job_id: str) -> JobRow:
        """Reads only: where time may have run out, `sweep` first."""
        return self.with_papers(self._visible(job_id, caller))

    def result(self, job_id: str) -> bytes | None:
        """The bytes that were delivered here, if any."""
        row = self._row(schema.RESULT, (job_id,))
        return None if row is None else bytes(row["data"])

    def find_request(self, caller: str, nonce: str) -> JobRow | None:
        row = self._row(schema.JOB_OF_NONCE, (caller, entries.check_text("nonce", nonce, 1, 128)))
        return None if row is None else self.with_papers(row)

    # changes

    def changes(self, caller: str, cursor: str, limit: int = 100) -> Page:
        """Every job's latest change after the cursor, oldest first.

        Nothing can slip behind a cursor: a change takes the next number inside the writing transaction, of which the database allows one
        at a time, so numbers become visible in their order and none is filled in later.
        """
        entries.check_range("limit", limit, 1, 1000)
        market_id = self.market_id()
        since = self._since(cursor, market_id)
        found = self._db.execute(schema.CHANGED, {"caller": caller, "since": since, "limit": limit + 1}).fetchall()
        rows: list[JobRow] = []
        size = 0
        for row in found[:limit]:
            job = self._answer(row["job_id"])
            size += job["result_size"] or 0
            if rows and size > PAGE_BYTES:
                break
            rows.append(job)
            since = row["change"]
        return Page(tuple(rows), f"{market_id}-{since}", more=len(rows) < len(found))

    def position(self) -> int:
        """The number of the latest change."""
        return self._counter("change")

    def changed(self, caller: str, since: int, limit: int = 1000) -> list[tuple[str, int]]:
        """(job id, change number) after `since`, oldest first: what a hint needs, without the jobs themselves."""
        rows = self._db.execute(schema.CHANGED, {"caller": caller, "since": since, "limit": limit}).fetchall()
        return [(row["job_id"], row["change"]) for row in rows]

    # time

    def due(self, now_ms: int) -> bool:
        """Whether `sweep` has anything to do; one look into an index."""
        return self._row(schema.DUE, (now_ms,)) is not None

    def sweep(self, now_ms: int, limit: int = 1000) -> int:
        """Expire quotes and acceptances whose time is over; at most `limit`, so that no caller waits for a long queue."""
        rows = self._db.execute(schema.DUE_JOBS, (now_ms, limit)).fetchall()
        for row in rows:
            self._expire({**dict(row), "papers": {}}, now_ms)
        return len(rows)

    # inside

    def _visible(self, job_id: str, caller: str) -> Row:
        row = self._row(schema.JOB, (entries.check_text("job_id", job_id, 1, 64),))
        if row is None or caller not in (row["buyer"], row["seller"]):
            if row is not None and self._strict:
                raise RefusedError(f"job {job_id} is somebody else's")
            raise NotFoundError(f"no job {job_id} of yours in this market")
        return row

    def _load(self, job_id: str, caller: str, role: str, now_ms: int) -> JobRow:
        """The job for a step of its `role`, expired if its time is over."""
        row = self._visible(job_id, caller)
        if row[role] != caller:
            raise RefusedError(f"only the {role} of job {job_id} may do this")
        job = self.with_papers(row)
        if row["due_at"] is not None and row["due_at"] <= now_ms:
            return self._expire(job, now_ms)
        return job

    def with_papers(self, row: Row) -> JobRow:
        papers = self._db.execute(schema.PAPERS, (row["job_id"],)).fetchall()
        return {**dict(row), "papers": {paper["kind"]: paper["text"] for paper in papers}}

    def _answer(self, job_id: str) -> JobRow:
        row = self._row(schema.JOB, (job_id,))
        assert row is not None
        return self.with_papers(row)

    def _repeated(self, row: JobRow, same: bool, what: str) -> JobRow:
        if self._strict:
            raise StateError(f"job {row['job_id']} is already {what}")
        if not same:
            raise StateError(f"job {row['job_id']} is already {what} with other arguments")
        return row

    def _expire(self, row: JobRow, now_ms: int) -> JobRow:
        return self._move(row, "expire" if row["state"] == "quoted" else "expire_unpaid", now_ms, due_at=None)

    def _since(self, cursor: str, market_id: str) -> int:
        if cursor == "":
            return 0
        match = _CURSOR.fullmatch(cursor) if isinstance(cursor, str) else None
        if match is None or match.group(1) != market_id or int(match.group(2)) > self.position():
            raise UsageError(f"cursor {str(cursor)[:60]!r} is not of this market (another file, or an older copy of it): start again with an empty one")
        return int(match.group(2))

    def _move(self, row: JobRow, event: str, now_ms: int, papers: Mapping[str, str] | None = None, **columns: object) -> JobRow:
        """The row after the step; `papers` are added to what it holds."""
        step = advance(JOB, row["state"], event)
        moved = {**row, **columns, "was": row["state"], "state": step.to, "revision": row["revision"] + 1}
        moved |= {"change": self._next("change"), "updated_at": max(now_ms, row["updated_at"])}
        if self._db.execute(schema.JOB_MOVE, moved).rowcount != 1:
            raise StateError(f"job {row['job_id']} was changed by somebody else meanwhile: read it again")
        for kind, text in (papers or {}).items():
            self._db.execute(schema.PAPER_ADD, (row["job_id"], kind, text))
        return {**moved, "papers": {**row["papers"], **(papers or {})}}
