"""The market's tables as numbered migrations, and every SQL statement the book uses. Times are INTEGER milliseconds.

What SQLite and PostgreSQL say differently is a `Dialect`; all other statements are the same text on both (placeholders in SQLite's manner).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["APPLICATION_ID", "MIGRATIONS", "SQLITE", "Dialect"]

APPLICATION_ID: Final = 0x74736B6D  # "tskm": tells a market file from any other SQLite file

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID",
        "CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID",
        "INSERT INTO counters VALUES ('change', 0), ('fence', 0), ('offers', 0)",
        """CREATE TABLE offers (
            seq INTEGER PRIMARY KEY, offer_id TEXT NOT NULL UNIQUE, seller TEXT NOT NULL, active INTEGER NOT NULL,
            title TEXT NOT NULL, description TEXT NOT NULL, tags TEXT NOT NULL, pricing_mode TEXT NOT NULL, fixed_price TEXT,
            document TEXT, put_up_at INTEGER NOT NULL, updated_at INTEGER NOT NULL) STRICT""",
        "CREATE INDEX offers_active ON offers (seq) WHERE active = 1",
        "CREATE INDEX offers_inactive ON offers (seq) WHERE active = 0",
        "CREATE INDEX offers_seller ON offers (seller, seq) WHERE active = 1",
        "CREATE INDEX offers_pricing ON offers (pricing_mode, seq) WHERE active = 1",
        # both only of active offers, so that a withdrawn one costs a search nothing
        "CREATE TABLE offer_tags (tag TEXT NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (tag, seq)) STRICT, WITHOUT ROWID",
        "CREATE INDEX offer_tags_seq ON offer_tags (seq)",
        # holds case-folded text, so the tokenizer must not fold a second time by rules of its own
        "CREATE VIRTUAL TABLE offer_text USING fts5(title, description, tokenize = 'trigram case_sensitive 1')",
        # kept narrow: every step rewrites the row, so documents and results lie in tables of their own
        """CREATE TABLE jobs (
            job_id TEXT PRIMARY KEY, offer_id TEXT NOT NULL, seller TEXT NOT NULL, buyer TEXT NOT NULL, nonce TEXT, request_hash TEXT,
            state TEXT NOT NULL, revision INTEGER NOT NULL, change INTEGER NOT NULL, created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL,
            due_at INTEGER, quote_hash TEXT, quote_expires_at INTEGER, accepted_at INTEGER, payment_rail TEXT, payment_id TEXT,
            lock_expires_at INTEGER, market_fence INTEGER, result_type TEXT, result_size INTEGER, result_sha256 TEXT,
            error_code TEXT, error_message TEXT, canceled_by TEXT) STRICT""",
        "CREATE UNIQUE INDEX jobs_nonce ON jobs (buyer, nonce) WHERE nonce IS NOT NULL",
        "CREATE UNIQUE INDEX jobs_claim ON jobs (buyer, payment_rail, payment_id) WHERE payment_id IS NOT NULL",
        "CREATE INDEX jobs_due ON jobs (due_at) WHERE due_at IS NOT NULL",
        "CREATE INDEX jobs_seller ON jobs (seller, change)",
        "CREATE INDEX jobs_buyer ON jobs (buyer, change)",
        "CREATE TABLE papers (job_id TEXT NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL, PRIMARY KEY (job_id, kind)) STRICT",
        "CREATE TABLE results (job_id TEXT PRIMARY KEY, data BLOB NOT NULL) STRICT",
    ),
)

FACT_ADD: Final = "INSERT INTO facts (name, value) VALUES (?, ?) ON CONFLICT DO NOTHING"
FACT: Final = "SELECT value FROM facts WHERE name = ?"
COUNT_UP: Final = "UPDATE counters SET value = value + 1 WHERE name = ? RETURNING value"
COUNTER: Final = "SELECT value FROM counters WHERE name = ?"

OFFER: Final = "SELECT * FROM offers WHERE offer_id = ?"
OFFER_ADD: Final = """INSERT INTO offers (offer_id, seller, active, title, description, tags, pricing_mode, fixed_price, document, put_up_at, updated_at)
    VALUES (:offer_id, :seller, :active, :title, :description, :tags, :pricing_mode, :fixed_price, :document, :put_up_at, :updated_at) RETURNING seq"""
OFFER_REPLACE: Final = """UPDATE offers SET active = :active, title = :title, description = :description, tags = :tags, pricing_mode = :pricing_mode,
    fixed_price = :fixed_price, document = :document, updated_at = :updated_at WHERE seq = :seq AND seller = :seller"""
TEXT_DROP: Final = "DELETE FROM offer_text WHERE rowid = ?"
TAG_ADD: Final = "INSERT INTO offer_tags (tag, seq) VALUES (?, ?)"
TAGS_DROP: Final = "DELETE FROM offer_tags WHERE seq = ?"

# A search walks one of these, all of active offers, newest first, and tests every row against the others' conditions.
BY_ALL: Final = "SELECT seq FROM offers WHERE active = 1"
BY_SELLER: Final = "SELECT seq FROM offers WHERE active = 1 AND seller = ?"
BY_PRICING: Final = "SELECT seq FROM offers WHERE active = 1 AND pricing_mode = ?"
BY_TAG: Final = "SELECT seq FROM offer_tags WHERE tag = ?"
IF_SELLER: Final = "o.seller = ?"
IF_PRICING: Final = "o.pricing_mode = ?"
IF_TAG: Final = "EXISTS (SELECT 1 FROM offer_tags AS t WHERE t.tag = ? AND t.seq = o.seq)"
WALK_SIZE: Final = "SELECT count(*) AS size FROM ({walk} LIMIT 1000) AS w"
WALK_BOUNDED: Final = "SELECT seq FROM ({walk}) AS v ORDER BY seq DESC LIMIT 10000"
INACTIVE: Final = "SELECT * FROM offers WHERE active = 0 ORDER BY seq DESC LIMIT 10000"

JOB: Final = "SELECT * FROM jobs WHERE job_id = ?"
JOB_OF_NONCE: Final = "SELECT * FROM jobs WHERE buyer = ? AND nonce = ?"
JOB_OF_CLAIM: Final = "SELECT job_id FROM jobs WHERE buyer = ? AND payment_rail = ? AND payment_id = ?"
JOB_ADD: Final = """INSERT INTO jobs (job_id, offer_id, seller, buyer, nonce, request_hash, state, revision, change, created_at, updated_at)
    VALUES (:job_id, :offer_id, :seller, :buyer, :nonce, :request_hash, :state, 1, :change, :now, :now)"""
JOB_MOVE: Final = """UPDATE jobs SET state = :state, revision = :revision, change = :change, updated_at = :updated_at, due_at = :due_at,
    quote_hash = :quote_hash, quote_expires_at = :quote_expires_at, accepted_at = :accepted_at, payment_rail = :payment_rail, payment_id = :payment_id,
    lock_expires_at = :lock_expires_at, market_fence = :market_fence, result_type = :result_type, result_size = :result_size,
    result_sha256 = :result_sha256, error_code = :error_code, error_message = :error_message, canceled_by = :canceled_by
    WHERE job_id = :job_id AND state = :was AND revision = :revision - 1"""
PAPERS: Final = "SELECT kind, text FROM papers WHERE job_id = ?"
PAPER_ADD: Final = "INSERT INTO papers (job_id, kind, text) VALUES (?, ?, ?)"
RESULT: Final = "SELECT data FROM results WHERE job_id = ?"
RESULT_ADD: Final = "INSERT INTO results (job_id, data) VALUES (?, ?)"
DUE: Final = "SELECT 1 AS due FROM jobs WHERE due_at <= ? LIMIT 1"
DUE_JOBS: Final = "SELECT * FROM jobs WHERE due_at <= ? ORDER BY due_at LIMIT ?"
CHANGED: Final = """SELECT job_id, change FROM (SELECT job_id, change FROM jobs WHERE seller = :caller AND change > :since ORDER BY change LIMIT :limit) AS s
    UNION SELECT job_id, change FROM (SELECT job_id, change FROM jobs WHERE buyer = :caller AND change > :since ORDER BY change LIMIT :limit) AS b
    ORDER BY change LIMIT :limit"""


@dataclass(frozen=True)
class Dialect:
    """How one database finds text: a substring of title or description, both already case-folded."""

    walk: str  # picks the offers of a search, newest first; {walk} and {conditions} are put in
    count: str  # counts them
    text_add: str
    text_row: Callable[[int, str, str], tuple[Any, ...]]  # (seq, title, description) -> parameters of text_add
    by_text: str  # the walk for a query of three characters and more
    text_given: Callable[[str], Any]  # query -> its parameter
    if_text: str  # the condition; takes the query twice
    count_all: str = "SELECT count(*) AS size FROM ({walk}) AS w"  # counts them where the walk meets every condition
    exact: bool = True  # whether that walk finds nothing that does not hold the text
    sample: str = ""  # counts fits among the newest 1,000 texts, taking the query twice; for an index that gives its finds in no order


_FROM: Final = "FROM ({walk}) AS w CROSS JOIN offers AS o ON o.seq = w.seq WHERE {conditions}"  # CROSS: SQLite must not turn the walk around
SQLITE: Final = Dialect(
    walk=f"SELECT o.* {_FROM} ORDER BY w.seq DESC LIMIT ? OFFSET ?",
    count=f"SELECT count(*) AS size {_FROM}",
    text_add="INSERT INTO offer_text (rowid, title, description) VALUES (?, ?, ?)",
    text_row=lambda seq, title, description: (seq, title, description),
    by_text="SELECT rowid AS seq FROM offer_text WHERE offer_text MATCH ?",
    text_given=lambda query: '"{}"'.format(query.replace('"', '""')),
    if_text="EXISTS (SELECT 1 FROM offer_text AS t WHERE t.rowid = o.seq AND (instr(t.title, ?) OR instr(t.description, ?)))",
)
