"""The wallet's tables, and which network the file belongs to. Amounts are TEXT of canonical digits; what money hangs on is sealed (encrypted)."""

from __future__ import annotations

from typing import Final

from tradeskill.errors import NetworkMismatchError, SecretError
from tradeskill.sqlite import Layout, Transaction

__all__ = ["LAYOUT", "bind", "bind_secret"]

MIGRATIONS: Final = (
    (
        "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT",
        # what a mint said of itself, kept for ever: a keyset that it drops later is still known here
        "CREATE TABLE mint (url TEXT PRIMARY KEY, info TEXT NOT NULL, looked_at INTEGER NOT NULL) STRICT",
        """CREATE TABLE keyset (
            mint TEXT NOT NULL, keyset_id TEXT NOT NULL, unit TEXT NOT NULL, fee_ppk INTEGER NOT NULL, active INTEGER NOT NULL, keys TEXT NOT NULL,
            final_expiry INTEGER, listed INTEGER NOT NULL DEFAULT 1, PRIMARY KEY (mint, keyset_id)) STRICT""",
        # NUT-13: which secrets were ever used; grows in the transaction that stores the request that uses them
        "CREATE TABLE counter (keyset_id TEXT PRIMARY KEY, next INTEGER NOT NULL) STRICT",
        # exact bytes that move money, stored before they are sent; `body` and `outputs` are sealed
        """CREATE TABLE request (
            request_id INTEGER PRIMARY KEY, mint TEXT NOT NULL, kind TEXT NOT NULL CHECK (kind IN ('swap', 'mint', 'melt')), purpose TEXT NOT NULL,
            sealed BLOB NOT NULL, state TEXT NOT NULL CHECK (state IN ('open', 'done', 'dead')), made_at INTEGER NOT NULL,
            tries INTEGER NOT NULL DEFAULT 0, trouble TEXT NOT NULL DEFAULT '') STRICT""",
        "CREATE INDEX request_open ON request (state) WHERE state = 'open'",
        # never a second living request for one purpose
        "CREATE UNIQUE INDEX request_purpose ON request (purpose) WHERE state <> 'dead'",
        # held: ours to spend; reserved: an open request spends it; sent: locked for somebody else; spent: gone
        """CREATE TABLE proof (
            y TEXT PRIMARY KEY, mint TEXT NOT NULL, keyset_id TEXT NOT NULL, amount TEXT NOT NULL,
            state TEXT NOT NULL CHECK (state IN ('held', 'reserved', 'sent', 'spent')),
            made_by INTEGER, spent_by INTEGER, sealed BLOB NOT NULL) STRICT""",
        "CREATE INDEX proof_state ON proof (state, mint)",
        "CREATE INDEX proof_made ON proof (made_by)",
        "CREATE INDEX proof_spent ON proof (spent_by) WHERE spent_by IS NOT NULL",
        """CREATE TABLE lock (
            lock_id INTEGER PRIMARY KEY, pubkey TEXT NOT NULL UNIQUE, job_id TEXT UNIQUE, invoice TEXT, quote BLOB, quote_mint TEXT, bolt11_id TEXT,
            forgotten INTEGER NOT NULL DEFAULT 0) STRICT""",
        # how many letters of a lock were looked through, in each keyset
        "CREATE TABLE letters (lock_id INTEGER NOT NULL, keyset_id TEXT NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (lock_id, keyset_id)) STRICT",
        # money for one of our locks; `request_id` takes it
        """CREATE TABLE payment (
            payment_id TEXT PRIMARY KEY, lock_id INTEGER NOT NULL, mint TEXT NOT NULL, amount TEXT NOT NULL, received_at INTEGER NOT NULL,
            state TEXT NOT NULL CHECK (state IN ('taking', 'taken', 'refused')), request_id INTEGER, note TEXT NOT NULL DEFAULT '') STRICT""",
        "CREATE INDEX payment_lock ON payment (lock_id)",
        "CREATE INDEX payment_request ON payment (request_id)",
        # every proof that was ever handed to us, for ever: one pays once
        "CREATE TABLE seen (y TEXT PRIMARY KEY, payment_id TEXT NOT NULL) STRICT",
        # money that leaves: one row a purpose (pay:KEY, refund:KEY, send:KEY)
        """CREATE TABLE outgoing (
            purpose TEXT PRIMARY KEY, target TEXT NOT NULL, amount TEXT NOT NULL, mint TEXT NOT NULL, payment_id TEXT NOT NULL,
            state TEXT NOT NULL CHECK (state IN ('open', 'published', 'final', 'back', 'gone', 'dead')),
            request_id INTEGER, refund_id INTEGER, locktime INTEGER, token BLOB, attempt INTEGER NOT NULL, at INTEGER NOT NULL) STRICT""",
        "CREATE INDEX outgoing_request ON outgoing (request_id)",
        "CREATE INDEX outgoing_locked ON outgoing (locktime) WHERE state = 'final' AND locktime IS NOT NULL",
    ),
)

LAYOUT: Final = Layout(0x74536B43, MIGRATIONS)  # "tSkC"


def bind(tx: Transaction, network: str, where: str) -> None:
    """Write the network into a new file, or check it. NetworkMismatchError when the file belongs to another."""
    tx.execute("INSERT OR IGNORE INTO meta VALUES ('network', ?)", (network,))
    found = str(tx.execute("SELECT value FROM meta WHERE name = 'network'").fetchone()[0])
    if found != network:
        raise NetworkMismatchError(f"{where} holds money of network {found!r}, this profile is on {network!r}: the networks never mix")


def bind_secret(tx: Transaction, main: str, where: str) -> None:
    """Write the wallet's first public key into a new file, or check it. SecretError when the file was made with another secret."""
    tx.execute("INSERT OR IGNORE INTO meta VALUES ('main', ?)", (main,))
    if tx.execute("SELECT value FROM meta WHERE name = 'main'").fetchone()[0] != main:
        raise SecretError(f"{where} was made with another secret than the seed file beside it holds: restore both from one backup")
