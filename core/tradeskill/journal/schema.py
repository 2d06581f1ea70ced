"""The journal's tables, as numbered migrations. Amounts are TEXT of canonical digits; times are INTEGER milliseconds."""

from __future__ import annotations

from typing import Final

from tradeskill.errors import NetworkMismatchError
from tradeskill.sqlite import Layout, Transaction

__all__ = ["LAYOUT", "bind_network"]

MIGRATIONS: Final = (
    (
        "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT",
        "INSERT INTO meta VALUES ('fence', '0')",
        """CREATE TABLE offers (
            offer_hash TEXT PRIMARY KEY, offer_id TEXT NOT NULL, name TEXT NOT NULL, document TEXT NOT NULL, current INTEGER NOT NULL) STRICT""",
        "CREATE INDEX offers_name ON offers (name, current)",
        """CREATE TABLE fulfilments (
            job_id TEXT PRIMARY KEY, state TEXT NOT NULL, offer_id TEXT NOT NULL, offer_name TEXT NOT NULL, buyer TEXT NOT NULL,
            request TEXT NOT NULL, quote TEXT, expires_at INTEGER, hold_until INTEGER,
            fence INTEGER NOT NULL DEFAULT 0, lease_owner TEXT NOT NULL DEFAULT '', lease_until INTEGER NOT NULL DEFAULT 0, market_fence INTEGER,
            contested INTEGER NOT NULL DEFAULT 0,
            attempt INTEGER NOT NULL DEFAULT 0, execution_id TEXT, claim TEXT, claim_rail TEXT, token TEXT,
            result_sha256 TEXT, result_type TEXT, receipt TEXT, error_code TEXT, error_message TEXT,
            created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL, paid_at INTEGER, started_at INTEGER, finished_at INTEGER) STRICT""",
        "CREATE INDEX fulfilments_state ON fulfilments (state, updated_at)",
        "CREATE INDEX fulfilments_offer ON fulfilments (offer_name, state)",
        # every start, for I1: one per (job, attempt), for ever
        """CREATE TABLE starts (
            job_id TEXT NOT NULL, attempt INTEGER NOT NULL, fence INTEGER NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (job_id, attempt)) STRICT""",
        """CREATE TABLE invoices (
            invoice_id TEXT PRIMARY KEY, rail TEXT NOT NULL, network TEXT NOT NULL, job_id TEXT NOT NULL, address TEXT NOT NULL,
            amount TEXT NOT NULL, unit TEXT NOT NULL, expires_at INTEGER NOT NULL, details TEXT NOT NULL,
            watch_until INTEGER NOT NULL, next_look INTEGER NOT NULL DEFAULT 0,
            UNIQUE (rail, network, address, job_id)) STRICT""",
        "CREATE INDEX invoices_job ON invoices (job_id)",
        "CREATE INDEX invoices_look ON invoices (next_look)",
        """CREATE TABLE payments (
            rail TEXT NOT NULL, network TEXT NOT NULL, payment_id TEXT NOT NULL, part INTEGER NOT NULL, invoice_id TEXT NOT NULL, job_id TEXT NOT NULL,
            state TEXT NOT NULL, amount TEXT NOT NULL, unit TEXT NOT NULL, received_at INTEGER NOT NULL, sender TEXT NOT NULL,
            refund_to TEXT, refund_id TEXT, note TEXT NOT NULL DEFAULT '', found_at INTEGER NOT NULL, updated_at INTEGER NOT NULL,
            PRIMARY KEY (rail, network, payment_id, part)) STRICT""",
        "CREATE INDEX payments_job ON payments (job_id)",
        "CREATE INDEX payments_state ON payments (state)",
        """CREATE TABLE purchases (
            purchase_id TEXT PRIMARY KEY, intent TEXT NOT NULL UNIQUE, state TEXT NOT NULL, offer TEXT NOT NULL, seller TEXT NOT NULL, request TEXT NOT NULL,
            cap TEXT, job_id TEXT, quote TEXT, rail TEXT, invoice TEXT, amount TEXT, unit TEXT, accepted_at INTEGER, payment_id TEXT, token TEXT,
            refund_invoices TEXT NOT NULL DEFAULT '{}', result_sha256 TEXT, result_type TEXT, receipt TEXT, countersign TEXT,
            error_code TEXT, error_message TEXT, created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL) STRICT""",
        "CREATE INDEX purchases_state ON purchases (state, updated_at)",
        "CREATE INDEX purchases_job ON purchases (job_id)",
        """CREATE TABLE reservations (
            purchase_id TEXT PRIMARY KEY, state TEXT NOT NULL, amount TEXT NOT NULL, unit TEXT NOT NULL, seller TEXT NOT NULL,
            created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL) STRICT""",
        "CREATE TABLE totals (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT",
        """CREATE TABLE effects (
            effect_id INTEGER PRIMARY KEY, subject TEXT NOT NULL, subject_id TEXT NOT NULL, name TEXT NOT NULL, state TEXT NOT NULL,
            attempts INTEGER NOT NULL DEFAULT 0, last_error TEXT NOT NULL DEFAULT '', created_at INTEGER NOT NULL) STRICT""",
        "CREATE INDEX effects_pending ON effects (state, effect_id)",
        "CREATE INDEX effects_subject ON effects (subject_id, name, state)",
        "CREATE TABLE cursors (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT",
        "CREATE TABLE pins (label TEXT PRIMARY KEY, seller TEXT NOT NULL, how TEXT NOT NULL, pinned_at INTEGER NOT NULL) STRICT",
        "CREATE INDEX pins_seller ON pins (seller)",
        "CREATE TABLE results (sha256 TEXT PRIMARY KEY, size INTEGER NOT NULL, kept_until INTEGER NOT NULL) STRICT",
    ),
    (
        # one row a spend: a purchase's under its id, any other under `send:`, `sweep:` or `refund:` and its key
        "ALTER TABLE reservations ADD COLUMN kind TEXT NOT NULL DEFAULT 'purchase'",
        "ALTER TABLE reservations ADD COLUMN job TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE reservations ADD COLUMN offer TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE reservations ADD COLUMN market TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE reservations ADD COLUMN grant_id TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE reservations ADD COLUMN settled_at INTEGER",  # by the largest clock seen: when it was known to be paid; NULL before
        "UPDATE reservations SET job = purchase_id, settled_at = CASE state WHEN 'reserved' THEN NULL ELSE updated_at END",
        """UPDATE reservations SET offer = coalesce((SELECT json_extract(purchases.offer, '$.body.offer_id') FROM purchases
            WHERE purchases.purchase_id = reservations.purchase_id), '')""",
        "CREATE INDEX reservations_state ON reservations (state, settled_at)",
        "CREATE INDEX reservations_seller ON reservations (seller)",
        "CREATE INDEX reservations_offer ON reservations (offer)",
        "CREATE INDEX reservations_job ON reservations (job)",
        """CREATE TABLE grants (
            grant_id TEXT PRIMARY KEY, parent TEXT NOT NULL, note TEXT NOT NULL, made_at INTEGER NOT NULL, expires_at INTEGER, revoked_at INTEGER) STRICT""",
        """CREATE TABLE grant_budgets (
            grant_id TEXT NOT NULL, unit TEXT NOT NULL, most TEXT NOT NULL, held TEXT NOT NULL, PRIMARY KEY (grant_id, unit)) STRICT""",
    ),
    (
        # every change of a spend, for ever: only added to, in the transaction of the change; `hash` covers the rest, `previous` is the hash before
        """CREATE TABLE spend_log (
            seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, event TEXT NOT NULL, spend_id TEXT NOT NULL, kind TEXT NOT NULL,
            amount TEXT NOT NULL, unit TEXT NOT NULL, seller TEXT NOT NULL, offer TEXT NOT NULL, market TEXT NOT NULL, job TEXT NOT NULL,
            grant_id TEXT NOT NULL, previous TEXT NOT NULL, hash TEXT NOT NULL) STRICT""",
        "INSERT INTO meta VALUES ('spend_log.to_begin', '1')",  # `spendlog.carry_over`, in this same transaction: hashes are not made in SQL
    ),
)


LAYOUT: Final = Layout(0x74536A6C, MIGRATIONS)  # "tSjl"


def bind_network(tx: Transaction, network: str) -> None:
    """Write the network into a new journal, or check it. NetworkMismatchError when the journal belongs to another."""
    tx.execute("INSERT OR IGNORE INTO meta VALUES ('network', ?)", (network,))
    found = tx.execute("SELECT value FROM meta WHERE name = 'network'").fetchone()[0]
    if found != network:
        raise NetworkMismatchError(f"this profile's journal belongs to network {found!r}, the configuration says {network!r}: use another TRADESKILL_HOME")
