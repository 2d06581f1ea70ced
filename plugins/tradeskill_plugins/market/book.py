"""The market's book: every rule of offers and jobs, as steps on rows. No clock, no randomness, no transaction of its own.

Each call is to run inside one writing transaction of its caller (reads: inside any), gets who calls and what time it is, and either
takes its whole step or raises and asks for a rollback. Time limits are judged by the time handed in, also where nobody swept yet.
Order of checks: shape (entries.py), existence, right, state. Embedded market and relay stand on this same class.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from tradeskill.contracts import Changes
from tradeskill.errors import NetworkMismatchError, NotFoundError, RefusedError, StaleFenceError, StateError, UsageError
from tradeskill.lifecycle import JOB, advance
from tradeskill.model import PAYMENT_TTL_MS, Job, JobError, Lock, Offer, Result
from tradeskill.signing import document_hash
from tradeskill_plugins.market import entries, schema

__all__ = ["LOCK_TTL_MS", "QUOTE_TTL_MAX_MS", "QUOTE_TTL_MS", "Book", "Statements"]

QUOTE_TTL_MS: Final = 15 * 60_000
QUOTE_TTL_MAX_MS: Final = 60 * 60_000
LOCK_TTL_MS: Final = 5 * 60_000
PAGE_BYTES: Final = 8 * 2**20  # results come inline, so a page of changes ends early once it holds this much
_CURSOR = re.compile(r"([0-9a-f]{16})-(0|[1-9][0-9]{0,17})", re.ASCII)
_SHORT = 3  # the trigram index needs three characters

Row = Mapping[str, Any]


class Statements(Protocol):
    """What the book asks of a database: run a statement of schema.py. Rows answer to column names."""

    def execute(self, sql: str, parameters: Any = ..., /) -> Any: ...


class Book:
    def __init__(self, database: Statements) -> None:
        self._db = database

    # offers

    def publish(self, entry: entries.OfferEntry, now_ms: int) -> Offer:
        """Put up, replace or put up again. A replaced offer keeps its place: edits must not buy attention."""
        offer = entry.offer
        self._check_network(offer.network)
        row = self._row(schema.OFFER, (offer.offer_id,))
        values = {"offer_id": offer.offer_id, "seller": offer.seller, "document": entry.text, "active": 1, "now": now_ms}
        if row is None:
            seq = self._row(schema.OFFER_ADD, values)["seq"]  # type: ignore[index]  # RETURNING gives a row
        else:
            if row["seller"] != offer.seller:
                raise RefusedError(f"offer {offer.offer_id} belongs to another seller: choose another offer_id")
            if row["active"] and row["document"] == entry.text:
                return offer
            seq = row["seq"]
            self._db.execute(schema.OFFER_REPLACE, {**values, "seq": seq})
            self._hide(seq)
        self._db.execute(schema.TEXT_ADD, (seq, offer.title.casefold(), offer.description.casefold()))
        for tag in dict.fromkeys(offer.tags):
            self._db.execute(schema.TAG_ADD, (tag, seq))
        return offer

    def withdraw(self, caller: str, offer_id: str, now_ms: int) -> None:
        row = self._offer(offer_id)
        if row["seller"] != caller:
            raise RefusedError(f"offer {offer_id} belongs to another seller")
        if row["active"]:
            self._db.execute(schema.OFFER_REPLACE, {"active": 0, "document": row["document"], "now": now_ms, "seq": row["seq"], "seller": caller})
            self._hide(row["seq"])

    def offer(self, offer_id: str) -> Offer:
        """Withdrawn ones too: open jobs still refer to them."""
        row = self._offer(offer_id)
        return entries.offer_of(entries.stored_document(row["document"]), active=bool(row["active"]))

    def search(self, query: str = "", tags: Sequence[str] = (), seller: str = "", limit: int = 20, offset: int = 0) -> list[Offer]:
        """Active offers, newest first. A query under three characters looks at the newest 10,000 that fit the rest."""
        folded = entries.check_text("query", query, 0, 200).casefold()
        entries.check_text("seller", seller, 0, 64)
        _check_range("limit", limit, 1, 100)
        _check_range("offset", offset, 0, 1_000_000)
        wanted = list(dict.fromkeys(entries.check_text("tags", tag, 1, 32) for tag in tags))
        if len(wanted) > 16:
            raise UsageError("tags must be at most 16")
        walks: list[tuple[str, str]] = [(schema.BY_TAG, tag) for tag in wanted]
        conditions: list[tuple[str, tuple[str, ...]]] = [(schema.IF_TAG, (tag,)) for tag in wanted]
        if seller:
            walks.append((schema.BY_SELLER, seller))
            conditions.append((schema.IF_SELLER, (seller,)))
        if len(folded) >= _SHORT:
            quoted = folded.replace('"', '""')
            walks.append((schema.BY_TEXT, f'"{quoted}"'))
        if folded:
            conditions.append((schema.IF_TEXT, (folded, folded)))
        walk, given = self._shortest(walks)
        if 0 < len(folded) < _SHORT:
            walk = schema.WALK_BOUNDED.format(walk=walk)
        sql = schema.WALK.format(walk=walk, conditions=" AND ".join(["o.active = 1", *(text for text, _ in conditions)]))
        values = [*given, *(value for _, group in conditions for value in group), limit, offset]
        rows = self._db.execute(sql, values).fetchall()
        return [entries.offer_of(entries.stored_document(row["document"])) for row in rows]

    # jobs

    def request(self, entry: entries.RequestEntry, job_id: str, now_ms: int) -> Job:
        """`job_id` names the job if it is new; the buyer's nonce decides whether it is."""
        buyer = entry.document.key
        known = self._row(schema.JOB_OF_NONCE, (buyer, entry.nonce))
        if known is not None:
            if document_hash(entries.stored_document(known["request"])) != document_hash(entry.document):
                raise StateError(f"nonce {entry.nonce} already opened job {known['job_id']} with another request: use a fresh nonce")
            return _job(known)
        self._check_network(entry.network)
        offer = self._offer(entry.offer_id)
        if not offer["active"]:
            raise StateError(f"offer {entry.offer_id} is withdrawn: search for another")
        if entry.seller != offer["seller"]:
            raise UsageError(f"seller in the request is {entry.seller}, the offer is by {offer['seller']}")
        job = {"job_id": job_id, "offer_id": entry.offer_id, "seller": entry.seller, "buyer": buyer, "nonce": entry.nonce}
        self._db.execute(schema.JOB_ADD, {**job, "state": JOB.start, "change": self._next("change"), "now": now_ms})
        self._db.execute(schema.PAPER_ADD, (job_id, "request", entry.text))
        return self._answer(job_id)

    def quote(self, entry: entries.QuoteEntry, now_ms: int) -> Job:
        row = self._load(entry.job_id, entry.document.key, "seller", now_ms)
        if row["quote"] is not None and row["state"] not in ("canceled", "expired"):
            if document_hash(entries.stored_document(row["quote"])) != document_hash(entry.document):
                raise StateError(f"job {entry.job_id} already has another quote")
            return _job(row)
        self._check_network(entry.network)
        if entry.buyer != row["buyer"]:
            raise UsageError(f"buyer in the quote is {entry.buyer}, the job's is {row['buyer']}")
        wanted = now_ms + QUOTE_TTL_MS if entry.expires_at is None else entry.expires_at
        expires_at = min(wanted, now_ms + QUOTE_TTL_MAX_MS)
        if expires_at <= now_ms and row["state"] == "requested":
            raise StateError(f"the quote for job {entry.job_id} ran out at {expires_at}, it is {now_ms}: sign a new one")
        self._move(row, "quote", now_ms, quote_expires_at=expires_at, due_at=expires_at)
        self._db.execute(schema.PAPER_ADD, (entry.job_id, "quote", entry.text))
        return self._answer(entry.job_id)

    def decline(self, caller: str, job_id: str, error: JobError, now_ms: int) -> Job:
        row = self._load(job_id, caller, "seller", now_ms)
        if row["canceled_by"] == "seller":
            return self._repeated(row, (row["error_code"], row["error_message"]) == (error.code, error.message), "declined")
        self._move(row, "decline", now_ms, due_at=None, canceled_by="seller", error_code=error.code, error_message=error.message)
        return self._answer(job_id)

    def accept(self, caller: str, job_id: str, now_ms: int) -> Job:
        row = self._load(job_id, caller, "buyer", now_ms)
        if row["accepted_at"] is not None and row["state"] not in ("canceled", "expired"):
            return _job(row)
        self._move(row, "accept", now_ms, accepted_at=now_ms, due_at=now_ms + PAYMENT_TTL_MS)
        return self._answer(job_id)

    def submit_payment(self, caller: str, job_id: str, claim: entries.Claim, now_ms: int) -> Job:
        """A claim: unique among one buyer's jobs, but no stranger can take an id away by claiming it first."""
        row = self._load(job_id, caller, "buyer", now_ms)
        if row["payment_id"] is not None:
            known = (row["payment_rail"], row["payment_id"], row["token"] or "")
            return self._repeated(row, known == (claim.rail, claim.payment_id, claim.token), "paid")
        other = self._row(schema.JOB_OF_CLAIM, (caller, claim.rail, claim.payment_id))
        if other is not None:
            raise StateError(f"payment {claim.payment_id} is already submitted for job {other['job_id']}: one payment pays one job")
        self._move(row, "pay", now_ms, payment_rail=claim.rail, payment_id=claim.payment_id, due_at=None)
        if claim.token:
            self._db.execute(schema.PAPER_ADD, (job_id, "token", claim.token))
        return self._answer(job_id)

    def lock(self, caller: str, job_id: str, now_ms: int) -> Lock:
        """Within its time the lock is the seller's and only renewed; once it ran out, taking it again is a new take with a new fence."""
        row = self._load(job_id, caller, "seller", now_ms)
        if row["state"] == "accepted" and row["payment_id"] is None:
            raise StateError(f"job {job_id} has no submitted payment: lock it once the buyer submitted one")
        advance(JOB, row["state"], "lock")
        held = row["lock_expires_at"] is not None and row["lock_expires_at"] > now_ms
        fence = row["market_fence"] if held else self._next("fence")
        expires_at = now_ms + LOCK_TTL_MS
        self._move(row, "lock", now_ms, lock_expires_at=expires_at, market_fence=fence)
        return Lock(job_id, expires_at, LOCK_TTL_MS / 1000, fence)

    def deliver(self, caller: str, job_id: str, entry: entries.DeliveryEntry, market_fence: int | None, now_ms: int) -> Job:
        """With the current fence, also after the lock ran out (nobody took it since); without a fence, within one's lock."""
        if market_fence is not None and type(market_fence) is not int:
            raise UsageError(f"market_fence must be a whole number, not {market_fence!r}")
        row = self._load(job_id, caller, "seller", now_ms)
        error = entry.error
        if row["state"] == "delivered":
            return self._repeated(row, row["result_sha256"] == entry.result_sha256, "delivered")
        if row["state"] == "failed":
            return self._repeated(row, error is not None and (row["error_code"], row["error_message"]) == (error.code, error.message), "failed")
        event = "deliver" if error is None else "fail"
        advance(JOB, row["state"], event)
        if market_fence is not None and market_fence != row["market_fence"]:
            raise StaleFenceError(f"job {job_id}: market fence {market_fence} is not the current {row['market_fence']}: the lock was taken anew")
        if market_fence is None and row["lock_expires_at"] <= now_ms:
            raise StateError(f"job {job_id}: the lock ran out at {row['lock_expires_at']}, it is {now_ms}: lock it again")
        if error is not None:
            self._move(row, event, now_ms, error_code=error.code, error_message=error.message)
            return self._answer(job_id)
        assert entry.result is not None
        self._move(row, event, now_ms, result_sha256=entry.result_sha256)
        self._db.execute(schema.RESULT_ADD, (job_id, entry.result.media_type, entry.result.data))
        if entry.receipt_text is not None:
            self._db.execute(schema.PAPER_ADD, (job_id, "receipt", entry.receipt_text))
        return self._answer(job_id)

    def cancel(self, caller: str, job_id: str, reason: str, now_ms: int) -> Job:
        entries.check_text("reason", reason, 0, 200)
        row = self._load(job_id, caller, "buyer", now_ms)
        if row["canceled_by"] == "buyer":
            return self._repeated(row, (row["error_message"] or "") == reason, "canceled")
        if row["payment_id"] is not None and row["state"] == "accepted":
            raise StateError(f"job {job_id}: payment {row['payment_id']} is submitted, so it cannot be canceled any more")
        event = "cancel_unpaid" if row["state"] == "accepted" else "cancel"
        error = {"error_code": "canceled", "error_message": reason} if reason else {}
        self._move(row, event, now_ms, due_at=None, canceled_by="buyer", **error)
        return self._answer(job_id)

    def get(self, caller: str, job_id: str) -> Job:
        """Reads only: where time may have run out, `sweep` first."""
        return _job(self._visible(job_id, caller))

    def find_request(self, caller: str, nonce: str) -> Job | None:
        row = self._row(schema.JOB_OF_NONCE, (caller, entries.check_text("nonce", nonce, 1, 128)))
        return None if row is None else _job(row)

    # changes

    def changes(self, caller: str, cursor: str, limit: int = 100) -> Changes:
        """Every job's latest change after the cursor, oldest first.

        Nothing can slip behind a cursor: a change takes the next number inside the writing transaction, of which the database allows one
        at a time, so numbers become visible in their order and none is filled in later.
        """
        _check_range("limit", limit, 1, 1000)
        market_id = self._row(schema.FACT, ("market_id",))["value"]  # type: ignore[index]  # written when the file was made
        since = self._since(cursor, market_id)
        found = self._db.execute(schema.CHANGED, {"caller": caller, "since": since, "limit": limit + 1}).fetchall()
        jobs: list[Job] = []
        size = 0
        for row in found[:limit]:
            job = self._answer(row["job_id"])
            size += len(job.result.data) if job.result else 0
            if jobs and size > PAGE_BYTES:
                break
            jobs.append(job)
            since = row["change"]
        return Changes(tuple(jobs), f"{market_id}-{since}", more=len(jobs) < len(found))

    def position(self) -> int:
        """The number of the latest change."""
        return int(self._row(schema.COUNTER, ("change",))["value"])  # type: ignore[index]  # made by the migration

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
            self._expire(row, now_ms)
        return len(rows)

    # inside

    def _row(self, sql: str, values: Any) -> Row | None:
        row: Row | None = self._db.execute(sql, values).fetchone()
        return row

    def _next(self, counter: str) -> int:
        return int(self._row(schema.COUNT_UP, (counter,))["value"])  # type: ignore[index]  # RETURNING gives a row

    def _check_network(self, network: str) -> None:
        bound = self._row(schema.FACT, ("network",))
        if bound is not None and bound["value"] != network:
            raise NetworkMismatchError(f"this market is for network {bound['value']!r}, the document says {network!r}")

    def _offer(self, offer_id: str) -> Row:
        row = self._row(schema.OFFER, (entries.check_text("offer_id", offer_id, 1, 64),))
        if row is None:
            raise NotFoundError(f"no offer {offer_id} in this market")
        return row

    def _hide(self, seq: int) -> None:
        self._db.execute(schema.TEXT_DROP, (seq,))
        self._db.execute(schema.TAGS_DROP, (seq,))

    def _shortest(self, walks: list[tuple[str, str]]) -> tuple[str, list[str]]:
        """The walk with the fewest rows, counted up to a bound: a rare tag must not cost a walk over a common word."""
        if not walks:
            return schema.BY_ALL, []
        if len(walks) == 1:
            return walks[0][0], [walks[0][1]]
        sizes = [self._db.execute(schema.WALK_SIZE.format(walk=walk), (given,)).fetchone()[0] for walk, given in walks]
        walk, given = walks[sizes.index(min(sizes))]
        return walk, [given]

    def _visible(self, job_id: str, caller: str) -> Row:
        """Strangers learn nothing of a job, not even that it exists."""
        row = self._row(schema.JOB, (entries.check_text("job_id", job_id, 1, 64),))
        if row is None or caller not in (row["buyer"], row["seller"]):
            raise NotFoundError(f"no job {job_id} of yours in this market")
        return row

    def _load(self, job_id: str, caller: str, role: str, now_ms: int) -> Row:
        """The job for a step of its `role`, expired if its time is over."""
        row = self._visible(job_id, caller)
        if row[role] != caller:
            raise RefusedError(f"only the {role} of job {job_id} may do this")
        if row["due_at"] is not None and row["due_at"] <= now_ms:
            self._expire(row, now_ms)
            return self._visible(job_id, caller)
        return row

    def _answer(self, job_id: str) -> Job:
        row = self._row(schema.JOB, (job_id,))
        assert row is not None
        return _job(row)

    def _repeated(self, row: Row, same: bool, what: str) -> Job:
        if not same:
            raise StateError(f"job {row['job_id']} is already {what} with other arguments")
        return _job(row)

    def _expire(self, row: Row, now_ms: int) -> None:
        self._move(row, "expire" if row["state"] == "quoted" else "expire_unpaid", now_ms, due_at=None)

    def _since(self, cursor: str, market_id: str) -> int:
        if cursor == "":
            return 0
        match = _CURSOR.fullmatch(cursor) if isinstance(cursor, str) else None
        if match is None or match.group(1) != market_id or int(match.group(2)) > self.position():
            raise UsageError(f"cursor {str(cursor)[:60]!r} is not of this market (another file, or an older copy of it): start again with an empty one")
        return int(match.group(2))

    def _move(self, row: Row, event: str, now_ms: int, **columns: object) -> None:
        step = advance(JOB, row["state"], event)
        values = {**dict(row), **columns, "was": row["state"], "state": step.to}
        values |= {"change": self._next("change"), "updated_at": max(now_ms, row["updated_at"])}
        if self._db.execute(schema.JOB_MOVE, values).rowcount != 1:
            raise StateError(f"job {row['job_id']} was changed by somebody else meanwhile: read it again")


def _check_range(name: str, value: object, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise UsageError(f"{name} must be a whole number from {low} to {high}, not {value!r}")


def _job(row: Row) -> Job:
    document = entries.stored_document
    return Job(
        job_id=row["job_id"],
        offer_id=row["offer_id"],
        seller=row["seller"],
        buyer=row["buyer"],
        state=row["state"],
        request=document(row["request"]),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        revision=row["revision"],
        quote=document(row["quote"]) if row["quote"] else None,
        quote_expires_at=row["quote_expires_at"],
        accepted_at=row["accepted_at"],
        payment_id=row["payment_id"],
        payment_rail=row["payment_rail"],
        payment_token=row["token"],
        lock_expires_at=row["lock_expires_at"],
        market_fence=row["market_fence"],
        result=Result(row["data"], row["media_type"]) if row["data"] is not None else None,
        receipt=document(row["receipt"]) if row["receipt"] else None,
        error=JobError(row["error_code"], row["error_message"]) if row["error_code"] is not None else None,
    )
