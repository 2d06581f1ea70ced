"""The market's tables as numbered migrations, and every SQL statement the book uses. Times are INTEGER milliseconds."""

from __future__ import annotations

from typing import Final

__all__ = ["APPLICATION_ID", "MIGRATIONS"]

APPLICATION_ID: Final = 0x74736B6D  # "tskm": tells a market file from any other SQLite file

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID",
        "CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID",
        "INSERT INTO counters VALUES ('change', 0), ('fence', 0)",
        """CREATE TABLE offers (
            seq INTEGER PRIMARY KEY, offer_id TEXT NOT NULL UNIQUE, seller TEXT NOT NULL, active INTEGER NOT NULL,
            document TEXT NOT NULL, put_up_at INTEGER NOT NULL, updated_at INTEGER NOT NULL) STRICT""",
        "CREATE INDEX offers_active ON offers (seq) WHERE active = 1",
        "CREATE INDEX offers_seller ON offers (seller, seq) WHERE active = 1",
        # both only of active offers, so that a withdrawn one costs a search nothing
        "CREATE TABLE offer_tags (tag TEXT NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (tag, seq)) STRICT, WITHOUT ROWID",
        "CREATE INDEX offer_tags_seq ON offer_tags (seq)",
        # holds case-folded text, so the tokenizer must not fold a second time by rules of its own
        "CREATE VIRTUAL TABLE offer_text USING fts5(title, description, tokenize = 'trigram case_sensitive 1')",
        # kept narrow: every step rewrites the row, so documents and results lie in tables of their own
        """CREATE TABLE jobs (
            job_id TEXT PRIMARY KEY, offer_id TEXT NOT NULL, seller TEXT NOT NULL, buyer TEXT NOT NULL, nonce TEXT NOT NULL,
            state TEXT NOT NULL, revision INTEGER NOT NULL, change INTEGER NOT NULL, created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL,
            due_at INTEGER, quote_expires_at INTEGER, accepted_at INTEGER, payment_rail TEXT, payment_id TEXT,
            lock_expires_at INTEGER, market_fence INTEGER, result_sha256 TEXT, error_code TEXT, error_message TEXT, canceled_by TEXT) STRICT""",
        "CREATE UNIQUE INDEX jobs_nonce ON jobs (buyer, nonce)",
        "CREATE UNIQUE INDEX jobs_claim ON jobs (buyer, payment_rail, payment_id) WHERE payment_id IS NOT NULL",
        "CREATE INDEX jobs_due ON jobs (due_at) WHERE due_at IS NOT NULL",
        "CREATE INDEX jobs_seller ON jobs (seller, change)",
        "CREATE INDEX jobs_buyer ON jobs (buyer, change)",
        "CREATE TABLE papers (job_id TEXT NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL, PRIMARY KEY (job_id, kind)) STRICT",
        "CREATE TABLE results (job_id TEXT PRIMARY KEY, media_type TEXT NOT NULL, data BLOB NOT NULL) STRICT",
    ),
)

FACT_ADD: Final = "INSERT OR IGNORE INTO facts (name, value) VALUES (?, ?)"
FACT: Final = "SELECT value FROM facts WHERE name = ?"
COUNT_UP: Final = "UPDATE counters SET value = value + 1 WHERE name = ? RETURNING value"
COUNTER: Final = "SELECT value FROM counters WHERE name = ?"

OFFER: Final = "SELECT seq, offer_id, seller, active, document FROM offers WHERE offer_id = ?"
OFFER_ADD: Final = """INSERT INTO offers (offer_id, seller, active, document, put_up_at, updated_at)
    VALUES (:offer_id, :seller, 1, :document, :now, :now) RETURNING seq"""
OFFER_REPLACE: Final = "UPDATE offers SET active = :active, document = :document, updated_at = :now WHERE seq = :seq AND seller = :seller"
TEXT_ADD: Final = "INSERT INTO offer_text (rowid, title, description) VALUES (?, ?, ?)"
TEXT_DROP: Final = "DELETE FROM offer_text WHERE rowid = ?"
TAG_ADD: Final = "INSERT INTO offer_tags (tag, seq) VALUES (?, ?)"
TAGS_DROP: Final = "DELETE FROM offer_tags WHERE seq = ?"

# A search walks one of these, newest first, and tests every row against the others' conditions.
BY_ALL: Final = "SELECT seq FROM offers WHERE active = 1"
BY_SELLER: Final = "SELECT seq FROM offers WHERE active = 1 AND seller = ?"
BY_TAG: Final = "SELECT seq FROM offer_tags WHERE tag = ?"
BY_TEXT: Final = "SELECT rowid AS seq FROM offer_text WHERE offer_text MATCH ?"
IF_SELLER: Final = "o.seller = ?"
IF_TAG: Final = "EXISTS (SELECT 1 FROM offer_tags AS t WHERE t.tag = ? AND t.seq = o.seq)"
IF_TEXT: Final = "EXISTS (SELECT 1 FROM offer_text AS t WHERE t.rowid = o.seq AND (instr(t.title, ?) OR instr(t.description, ?)))"
WALK_SIZE: Final = "SELECT count(*) FROM ({walk} LIMIT 1000)"
WALK: Final = """SELECT o.seq, o.offer_id, o.seller, o.active, o.document FROM ({walk}) AS w CROSS JOIN offers AS o ON o.seq = w.seq
    WHERE {conditions} ORDER BY w.seq DESC LIMIT ? OFFSET ?"""
WALK_BOUNDED: Final = "SELECT seq FROM ({walk} ORDER BY seq DESC LIMIT 10000)"

_JOB_COLUMNS: Final = """SELECT j.*, r.media_type, r.data,
    (SELECT text FROM papers AS p WHERE p.job_id = j.job_id AND p.kind = 'request') AS request,
    (SELECT text FROM papers AS p WHERE p.job_id = j.job_id AND p.kind = 'quote') AS quote,
    (SELECT text FROM papers AS p WHERE p.job_id = j.job_id AND p.kind = 'token') AS token,
    (SELECT text FROM papers AS p WHERE p.job_id = j.job_id AND p.kind = 'receipt') AS receipt
    FROM jobs AS j LEFT JOIN results AS r ON r.job_id = j.job_id"""
JOB: Final = _JOB_COLUMNS + " WHERE j.job_id = ?"
JOB_OF_NONCE: Final = _JOB_COLUMNS + " WHERE j.buyer = ? AND j.nonce = ?"
JOB_OF_CLAIM: Final = "SELECT job_id FROM jobs WHERE buyer = ? AND payment_rail = ? AND payment_id = ?"
JOB_ADD: Final = """INSERT INTO jobs (job_id, offer_id, seller, buyer, nonce, state, revision, change, created_at, updated_at)
    VALUES (:job_id, :offer_id, :seller, :buyer, :nonce, :state, 1, :change, :now, :now)"""
JOB_MOVE: Final = """UPDATE jobs SET state = :state, revision = :revision + 1, change = :change, updated_at = :updated_at, due_at = :due_at,
    quote_expires_at = :quote_expires_at, accepted_at = :accepted_at, payment_rail = :payment_rail, payment_id = :payment_id,
    lock_expires_at = :lock_expires_at, market_fence = :market_fence, result_sha256 = :result_sha256,
    error_code = :error_code, error_message = :error_message, canceled_by = :canceled_by
    WHERE job_id = :job_id AND state = :was AND revision = :revision"""
PAPER_ADD: Final = "INSERT INTO papers (job_id, kind, text) VALUES (?, ?, ?)"
RESULT_ADD: Final = "INSERT INTO results (job_id, media_type, data) VALUES (?, ?, ?)"
DUE: Final = "SELECT 1 FROM jobs WHERE due_at <= ? LIMIT 1"
DUE_JOBS: Final = "SELECT * FROM jobs WHERE due_at <= ? ORDER BY due_at LIMIT ?"
CHANGED: Final = """SELECT job_id, change FROM (SELECT job_id, change FROM jobs WHERE seller = :caller AND change > :since ORDER BY change LIMIT :limit)
    UNION SELECT job_id, change FROM (SELECT job_id, change FROM jobs WHERE buyer = :caller AND change > :since ORDER BY change LIMIT :limit)
    ORDER BY change LIMIT :limit"""
