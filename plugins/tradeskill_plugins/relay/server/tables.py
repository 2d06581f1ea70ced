"""What a relay keeps beside the book, and in the same transactions: nonces, answers to keyed requests, links to results, shared buckets."""

from __future__ import annotations

from typing import Final

from tradeskill.sqlite import Layout
from tradeskill_plugins.market import schema

__all__ = ["APPLICATION_ID", "LAYOUT"]

APPLICATION_ID: Final = 0x74736B72  # "tskr": tells a relay's file from any other SQLite file

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        *(statement for migration in schema.MIGRATIONS for statement in migration),
        # the lists of `GET /v1/jobs`
        "CREATE INDEX jobs_seller_created ON jobs (seller, created_at)",
        "CREATE INDEX jobs_buyer_created ON jobs (buyer, created_at)",
        "CREATE INDEX jobs_seller_updated ON jobs (seller, updated_at)",
        "CREATE INDEX jobs_buyer_updated ON jobs (buyer, updated_at)",
        "CREATE INDEX jobs_change ON jobs (change)",
        "CREATE TABLE nonces (name BLOB PRIMARY KEY, expires_at INTEGER NOT NULL) STRICT, WITHOUT ROWID",
        "CREATE INDEX nonces_expires ON nonces (expires_at)",
        """CREATE TABLE answers (
            caller TEXT NOT NULL, idempotency_key TEXT NOT NULL, request_hash TEXT NOT NULL, status INTEGER NOT NULL, body TEXT NOT NULL,
            expires_at INTEGER NOT NULL, PRIMARY KEY (caller, idempotency_key)) STRICT""",
        "CREATE INDEX answers_expires ON answers (expires_at)",
        "CREATE TABLE links (token TEXT PRIMARY KEY, job_id TEXT NOT NULL) STRICT",
        """CREATE TABLE buckets (
            name TEXT PRIMARY KEY, level INTEGER NOT NULL, at_ms INTEGER NOT NULL, span INTEGER NOT NULL, lent INTEGER NOT NULL,
            before INTEGER NOT NULL) STRICT""",
    ),
)
LAYOUT: Final = Layout(APPLICATION_ID, MIGRATIONS)

NONCE_ADD: Final = "INSERT INTO nonces (name, expires_at) VALUES (?, ?) ON CONFLICT DO NOTHING"  # name: the key's 32 bytes, then the nonce's
NONCES_DROP: Final = "DELETE FROM nonces WHERE name IN (SELECT name FROM nonces WHERE expires_at <= ? LIMIT ?)"
ANSWER: Final = "SELECT request_hash, status, body FROM answers WHERE caller = ? AND idempotency_key = ? AND expires_at > ?"
ANSWER_ADD: Final = """INSERT INTO answers (caller, idempotency_key, request_hash, status, body, expires_at) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (caller, idempotency_key) DO UPDATE SET request_hash = excluded.request_hash, status = excluded.status, body = excluded.body,
    expires_at = excluded.expires_at"""
ANSWERS_DROP: Final = """DELETE FROM answers WHERE (caller, idempotency_key) IN
    (SELECT caller, idempotency_key FROM answers WHERE expires_at <= ? LIMIT ?)"""
LINK_ADD: Final = "INSERT INTO links (token, job_id) VALUES (?, ?)"
LINK: Final = "SELECT job_id FROM links WHERE token = ?"

BUCKET: Final = "SELECT level, at_ms, span, lent, before FROM buckets WHERE name = ?"
BUCKET_PUT: Final = """INSERT INTO buckets (name, level, at_ms, span, lent, before) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET
    level = excluded.level, at_ms = excluded.at_ms, span = excluded.span, lent = excluded.lent, before = excluded.before"""
BUCKETS_DROP: Final = "DELETE FROM buckets WHERE at_ms < ?"
JOBS_BY_STATE: Final = "SELECT state, count(*) AS size FROM jobs GROUP BY state"
CHANGED_SINCE: Final = "SELECT job_id, seller, buyer, state, revision, change FROM jobs WHERE change > ? ORDER BY change LIMIT ?"

# A page of jobs: one or two of these; {more}: further conditions.
LISTED: Final = "SELECT * FROM jobs WHERE {side} = ?{more}"
SIZE: Final = "SELECT count(*) AS size FROM jobs WHERE {condition}"
LATEST: Final = "SELECT change FROM jobs WHERE {side} = ? ORDER BY change DESC LIMIT 1"
