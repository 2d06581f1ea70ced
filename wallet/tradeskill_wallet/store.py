"""The wallet's own disk: accounts handed out, every block ever signed, final payments seen. All SQL of the rail nano is here.

One SQLite file per profile, shared by its processes. Writing happens only inside `Store.write()`, one BEGIN IMMEDIATE with synchronous=FULL:
when it returns, it is on the disk. Amounts are canonical digits as TEXT; hashes and keys are upper-case hex.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from tradeskill.errors import StorageError, UnavailableError
from tradeskill.model import Json
from tradeskill.money import parse_raw
from tradeskill_wallet.primitives import StateBlock

__all__ = ["AccountRow", "BlockRow", "BlockState", "IncomingRow", "Rows", "Store"]

BlockState = Literal["signed", "published", "confirmed", "dead"]
AccountKind = Literal["main", "reserved", "invoice", "burned", "found"]

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS account (
    idx INTEGER PRIMARY KEY,
    account TEXT NOT NULL UNIQUE,
    epoch INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('main', 'reserved', 'invoice', 'burned', 'found')),
    job_id TEXT UNIQUE,
    invoice TEXT,
    forgotten INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE IF NOT EXISTS block (
    hash TEXT PRIMARY KEY,
    account TEXT NOT NULL,
    previous TEXT NOT NULL,
    height INTEGER NOT NULL,
    kind TEXT NOT NULL,
    subtype TEXT NOT NULL,
    amount TEXT NOT NULL,
    body TEXT NOT NULL,
    work TEXT,
    purpose TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('signed', 'published', 'confirmed', 'dead'))
) STRICT;
-- never a second living block on one previous, never a second one for one purpose
CREATE UNIQUE INDEX IF NOT EXISTS block_previous ON block (account, previous) WHERE state <> 'dead';
CREATE UNIQUE INDEX IF NOT EXISTS block_purpose ON block (purpose) WHERE state <> 'dead';
CREATE INDEX IF NOT EXISTS block_height ON block (account, height);
CREATE INDEX IF NOT EXISTS block_open ON block (state) WHERE state IN ('signed', 'published');
CREATE INDEX IF NOT EXISTS block_by_purpose ON block (purpose);
CREATE TABLE IF NOT EXISTS incoming (
    hash TEXT PRIMARY KEY,
    account TEXT NOT NULL,
    amount TEXT NOT NULL,
    sender TEXT NOT NULL,
    received_at INTEGER NOT NULL,
    done INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX IF NOT EXISTS incoming_account ON incoming (account);
CREATE INDEX IF NOT EXISTS incoming_open ON incoming (account) WHERE done = 0;
CREATE TABLE IF NOT EXISTS work (root TEXT PRIMARY KEY, work TEXT NOT NULL) STRICT;
"""

_ACCOUNT: Final = "SELECT idx, account, epoch, kind, job_id, invoice, forgotten FROM account "
_BLOCK: Final = "SELECT height, kind, subtype, amount, body, work, purpose, state FROM block "
_INCOMING: Final = "SELECT hash, account, amount, sender, received_at FROM incoming "

GET_META: Final = "SELECT value FROM meta WHERE key = ?"
SET_META: Final = "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
MAINS: Final = _ACCOUNT + "WHERE kind = 'main' ORDER BY idx"
INVOICES: Final = _ACCOUNT + "WHERE kind = 'invoice' ORDER BY idx"
WATCHED: Final = _ACCOUNT + "WHERE kind = 'invoice' AND forgotten = 0 ORDER BY idx"
ACCOUNT_OF_JOB: Final = _ACCOUNT + "WHERE job_id = ?"
ACCOUNT_OF_KEY: Final = _ACCOUNT + "WHERE account = ?"
HIGHEST_INDEX: Final = "SELECT max(idx) FROM account WHERE epoch = ? AND kind <> 'main'"
ADD_ACCOUNT: Final = "INSERT INTO account (idx, account, epoch, kind, job_id) VALUES (?, ?, ?, ?, ?)"
ISSUE: Final = "UPDATE account SET kind = 'invoice', invoice = ? WHERE idx = ? AND kind = 'reserved'"
BURN: Final = "UPDATE account SET kind = 'burned', job_id = NULL WHERE idx = ? AND kind = 'reserved'"
FORGET: Final = "UPDATE account SET forgotten = 1 WHERE account = ?"
HEAD: Final = _BLOCK + "WHERE account = ? AND state <> 'dead' ORDER BY height DESC LIMIT 1"
BLOCK: Final = _BLOCK + "WHERE hash = ?"
BY_PURPOSE: Final = _BLOCK + "WHERE purpose = ? ORDER BY state = 'dead', height DESC LIMIT 1"
CHILD: Final = _BLOCK + "WHERE account = ? AND previous = ? AND state <> 'dead'"
UNPUBLISHED: Final = _BLOCK + "WHERE account = ? AND state = 'signed' ORDER BY height"
UNPUBLISHED_ACCOUNTS: Final = "SELECT DISTINCT account FROM block WHERE state = 'signed'"
PUBLISHED: Final = _BLOCK + "WHERE state = 'published' ORDER BY rowid LIMIT ?"
LAST_CONFIRMED: Final = _BLOCK + "WHERE state = 'confirmed' ORDER BY rowid DESC LIMIT 1"
QUEUE: Final = "SELECT count(*) FROM block WHERE account = ? AND state IN ('signed', 'published')"
ABANDONED: Final = (  # constants only
    _BLOCK + "AS b WHERE account = ? AND state = 'dead' AND kind NOT IN ('receive', 'sweep', 'ledger')"  # noqa: S608  # a constant of this module
    " AND NOT EXISTS (SELECT 1 FROM block WHERE purpose = b.purpose AND state <> 'dead') ORDER BY height"
)
RECEIVES: Final = _BLOCK + "WHERE account = ? AND subtype = 'receive' AND state <> 'dead' ORDER BY height"
ADD_BLOCK: Final = (
    "INSERT INTO block (hash, account, previous, height, kind, subtype, amount, body, work, purpose, state)"
    " VALUES (:hash, :account, :previous, :height, :kind, :subtype, :amount, :body, :work, :purpose, :state)"
)
SET_WORK: Final = "UPDATE block SET work = ? WHERE hash = ? AND work IS ?"
SET_STATE: Final = "UPDATE block SET state = ? WHERE hash = ? AND state NOT IN ('confirmed', 'dead')"
REVIVE: Final = "UPDATE block SET state = 'published' WHERE hash = ? AND state = 'dead'"
KILL_BRANCH: Final = "UPDATE block SET state = 'dead' WHERE account = ? AND height >= ? AND state IN ('signed', 'published')"
ADD_INCOMING: Final = "INSERT OR IGNORE INTO incoming (hash, account, amount, sender, received_at) VALUES (?, ?, ?, ?, ?)"
INCOMING_OF: Final = _INCOMING + "WHERE account = ? ORDER BY received_at, hash"
INCOMING_OPEN: Final = _INCOMING + "WHERE done = 0 ORDER BY rowid"
INCOMING_DONE: Final = "UPDATE incoming SET done = 1 WHERE hash = ?"
KEEP_WORK: Final = "INSERT OR REPLACE INTO work (root, work) VALUES (?, ?)"
TAKE_WORK: Final = "SELECT work FROM work WHERE root = ?"
DROP_WORK: Final = "DELETE FROM work WHERE root = ?"


@dataclass(frozen=True)
class AccountRow:
    index: int
    account: bytes
    epoch: int
    kind: AccountKind
    job_id: str | None
    invoice: Mapping[str, Json] | None
    forgotten: bool


@dataclass(frozen=True)
class BlockRow:
    """A block of one of our accounts. `kind`: why we made it (pay, refund, sweep, send, receive), or `ledger` for one found there."""

    block: StateBlock  # with its signature; with its work once that is known
    height: int
    kind: str
    subtype: str
    amount: int
    purpose: str
    state: BlockState


@dataclass(frozen=True)
class IncomingRow:
    """A verified, final send to one of our accounts."""

    hash: str
    account: bytes
    amount: int
    sender: str
    received_at: int  # ms


class Rows:
    """The named statements on one connection. Those that change something belong inside `Store.write()`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    # --- meta

    def meta(self, key: str) -> str | None:
        row = self._db.execute(GET_META, (key,)).fetchone()
        return None if row is None else str(row[0])

    def set_meta(self, key: str, value: str) -> None:
        self._db.execute(SET_META, (key, value))

    # --- accounts

    def mains(self) -> list[AccountRow]:
        return [_account(row) for row in self._db.execute(MAINS)]

    def invoices(self, *, watched: bool) -> list[AccountRow]:
        return [_account(row) for row in self._db.execute(WATCHED if watched else INVOICES)]

    def account_of_job(self, job_id: str) -> AccountRow | None:
        row = self._db.execute(ACCOUNT_OF_JOB, (job_id,)).fetchone()
        return None if row is None else _account(row)

    def account(self, account: bytes) -> AccountRow | None:
        row = self._db.execute(ACCOUNT_OF_KEY, (_hex(account),)).fetchone()
        return None if row is None else _account(row)

    def highest_index(self, epoch: int) -> int | None:
        value = self._db.execute(HIGHEST_INDEX, (epoch,)).fetchone()[0]
        return None if value is None else int(value)

    def add_account(self, index: int, account: bytes, epoch: int, kind: AccountKind, job_id: str | None = None) -> None:
        self._db.execute(ADD_ACCOUNT, (index, _hex(account), epoch, kind, job_id))

    def issue(self, index: int, invoice: Mapping[str, Json]) -> bool:
        """Turn a reserved account into an invoice; False when somebody did so before."""
        return self._db.execute(ISSUE, (json.dumps(invoice), index)).rowcount == 1

    def burn(self, index: int) -> None:
        self._db.execute(BURN, (index,))

    def forget(self, account: bytes) -> None:
        self._db.execute(FORGET, (_hex(account),))

    # --- blocks

    def head(self, account: bytes) -> BlockRow | None:
        """The last living block known of an account."""
        return self._one(HEAD, _hex(account))

    def block(self, block_hash: str) -> BlockRow | None:
        return self._one(BLOCK, block_hash)

    def by_purpose(self, purpose: str) -> BlockRow | None:
        """The living block of a purpose, else its last dead one."""
        return self._one(BY_PURPOSE, purpose)

    def child(self, account: bytes, previous: bytes) -> BlockRow | None:
        return self._one(CHILD, _hex(account), _hex(previous))

    def unpublished(self, account: bytes) -> list[BlockRow]:
        return [_block(row) for row in self._db.execute(UNPUBLISHED, (_hex(account),))]

    def unpublished_accounts(self) -> list[bytes]:
        return [bytes.fromhex(row[0]) for row in self._db.execute(UNPUBLISHED_ACCOUNTS)]

    def published(self, limit: int) -> list[BlockRow]:
        return [_block(row) for row in self._db.execute(PUBLISHED, (limit,))]

    def last_confirmed(self) -> BlockRow | None:
        return self._one(LAST_CONFIRMED)

    def queue(self, account: bytes) -> int:
        """How many blocks of the account wait for their confirmation."""
        return int(self._db.execute(QUEUE, (_hex(account),)).fetchone()[0])

    def abandoned(self, account: bytes) -> list[BlockRow]:
        """Dead sends whose purpose has no living block: to be signed again."""
        return [_block(row) for row in self._db.execute(ABANDONED, (_hex(account),))]

    def received_sources(self, account: bytes) -> list[bytes]:
        """Hashes of the sends that this account received."""
        return [_block(row).block.link for row in self._db.execute(RECEIVES, (_hex(account),))]

    def add_block(self, row: BlockRow) -> None:
        """IntegrityError (nothing changed) when the previous or the purpose has a living block."""
        block = row.block
        body = {key: value for key, value in block.to_json().items() if key != "work"}
        self._db.execute(
            ADD_BLOCK,
            {
                "hash": block.hash_hex,
                "account": _hex(block.account),
                "previous": _hex(block.previous),
                "height": row.height,
                "kind": row.kind,
                "subtype": row.subtype,
                "amount": str(row.amount),
                "body": json.dumps(body),
                "work": block.work or None,
                "purpose": row.purpose,
                "state": row.state,
            },
        )

    def set_work(self, block_hash: str, work: str, instead_of: str | None = None) -> None:
        """Fixed once stored, unless the node refused exactly the work that is being replaced."""
        self._db.execute(SET_WORK, (work, block_hash, instead_of))

    def set_state(self, block_hash: str, state: BlockState) -> None:
        """`confirmed` and `dead` are for ever."""
        self._db.execute(SET_STATE, (state, block_hash))

    def revive(self, block_hash: str) -> None:
        """Only for a receive that was given up and turned out to be on the ledger."""
        self._db.execute(REVIVE, (block_hash,))

    def kill_branch(self, account: bytes, height: int) -> None:
        """This block and everything built on it can never be confirmed any more."""
        self._db.execute(KILL_BRANCH, (_hex(account), height))

    # --- incoming payments

    def add_incoming(self, row: IncomingRow) -> None:
        self._db.execute(ADD_INCOMING, (row.hash, _hex(row.account), str(row.amount), row.sender, row.received_at))

    def incoming(self, account: bytes) -> list[IncomingRow]:
        return [_incoming(row) for row in self._db.execute(INCOMING_OF, (_hex(account),))]

    def uncollected(self) -> list[IncomingRow]:
        return [_incoming(row) for row in self._db.execute(INCOMING_OPEN)]

    def collected(self, block_hash: str) -> None:
        self._db.execute(INCOMING_DONE, (block_hash,))

    # --- work computed ahead

    def keep_work(self, root: bytes, work: str) -> None:
        self._db.execute(KEEP_WORK, (_hex(root), work))

    def work(self, root: bytes) -> str | None:
        row = self._db.execute(TAKE_WORK, (_hex(root),)).fetchone()
        return None if row is None else str(row[0])

    def drop_work(self, root: bytes) -> None:
        self._db.execute(DROP_WORK, (_hex(root),))

    def _one(self, statement: str, *values: str) -> BlockRow | None:
        row = self._db.execute(statement, values).fetchone()
        return None if row is None else _block(row)


class Store:
    """`rows` reads, on the thread that opened the store; `write()` writes, on any thread, one at a time."""

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.touch(0o600)
        except OSError as error:
            raise StorageError(f"{path} cannot be made: {error.strerror}") from error
        self.path = path
        self._lock = threading.RLock()
        with _translated(path):
            self._writer = _connect(path, own_thread=False)
            self._writer.executescript(f"BEGIN IMMEDIATE;{SCHEMA}COMMIT;")
            self._reader = _connect(path, own_thread=True)
        self.rows = Rows(self._reader)

    @contextlib.contextmanager
    def write(self) -> Iterator[Rows]:
        """All or nothing, on the disk when it ends. StorageError on a full or failing disk, UnavailableError when locked for 30 s."""
        with self._lock, _translated(self.path):
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield Rows(self._writer)
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    def close(self) -> None:
        with self._lock:
            self._reader.close()
            self._writer.close()


def _connect(path: Path, *, own_thread: bool) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=30.0, isolation_level=None, check_same_thread=own_thread)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.IntegrityError:
        raise  # a rule of the schema: the caller knows which and why
    except sqlite3.OperationalError as error:
        if "locked" in str(error) or "busy" in str(error):
            raise UnavailableError(f"{path} is locked by another process: try again") from error
        raise StorageError(f"{path}: {error}; free some space or repair the disk, nothing was acknowledged") from error
    except sqlite3.DatabaseError as error:
        raise StorageError(f"{path} is damaged: {error}; restore it from your backup") from error


def _hex(data: bytes) -> str:
    return data.hex().upper()


def _account(row: tuple[Any, ...]) -> AccountRow:
    index, account, epoch, kind, job_id, invoice, forgotten = row
    return AccountRow(index, bytes.fromhex(account), epoch, kind, job_id, json.loads(invoice) if invoice else None, bool(forgotten))


def _block(row: tuple[Any, ...]) -> BlockRow:
    height, kind, subtype, amount, body, work, purpose, state = row
    return BlockRow(StateBlock.from_json({**json.loads(body), "work": work or ""}), height, kind, subtype, parse_raw(amount), purpose, state)


def _incoming(row: tuple[Any, ...]) -> IncomingRow:
    block_hash, account, amount, sender, received_at = row
    return IncomingRow(block_hash, bytes.fromhex(account), parse_raw(amount), sender, received_at)
