"""The buyer's statements: purchases and pinned sellers. Every write is conditional on state and changes one row or raises."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any

from tradeskill.errors import NotFoundError, StaleFenceError, UntrustedError
from tradeskill.journal.database import Transaction
from tradeskill.journal.records import Purchase, from_row
from tradeskill.lifecycle import PURCHASE, advance

__all__ = [
    "add_purchase",
    "check_pin",
    "find_by_intent",
    "find_by_job",
    "find_purchase",
    "finished_purchases",
    "move_purchase",
    "pin",
    "pins",
    "purchase",
    "purchases",
]


def add_purchase(
    tx: Transaction, *, purchase_id: str, intent: str, offer: str, seller: str, request: str, cap: str | None, refund_invoices: str, now: int
) -> Purchase:
    """The purchase of this intent: a new one, or the one it already has (unique for ever)."""
    tx.execute(
        "INSERT OR IGNORE INTO purchases (purchase_id, intent, state, offer, seller, request, cap, refund_invoices, created_at, updated_at)"
        " VALUES (?, ?, 'intended', ?, ?, ?, ?, ?, ?, ?)",
        (purchase_id, intent, offer, seller, request, cap, refund_invoices, now, now),
    )
    found = find_by_intent(tx, intent)
    assert found is not None
    return found


def purchase(connection: sqlite3.Connection, purchase_id: str) -> Purchase:
    row = connection.execute("SELECT * FROM purchases WHERE purchase_id = ?", (purchase_id,)).fetchone()
    if row is None:
        raise NotFoundError(f"purchase {purchase_id} is not in this buyer's journal")
    return from_row(Purchase, row)


def find_purchase(connection: sqlite3.Connection, name: str) -> Purchase | None:
    """By purchase id or job id."""
    row = connection.execute("SELECT * FROM purchases WHERE purchase_id = ? OR job_id = ?", (name, name)).fetchone()
    return None if row is None else from_row(Purchase, row)


def find_by_intent(connection: sqlite3.Connection, intent: str) -> Purchase | None:
    row = connection.execute("SELECT * FROM purchases WHERE intent = ?", (intent,)).fetchone()
    return None if row is None else from_row(Purchase, row)


def find_by_job(connection: sqlite3.Connection, job_id: str) -> Purchase | None:
    row = connection.execute("SELECT * FROM purchases WHERE job_id = ?", (job_id,)).fetchone()
    return None if row is None else from_row(Purchase, row)


def purchases(connection: sqlite3.Connection, states: Iterable[str] = (), limit: int = 1000) -> list[Purchase]:
    """Newest change first."""
    names = tuple(states)
    where = f"WHERE state IN ({', '.join('?' * len(names))})" if names else ""
    rows = connection.execute(f"SELECT * FROM purchases {where} ORDER BY updated_at DESC LIMIT ?", (*names, limit)).fetchall()  # noqa: S608  # only placeholders
    return [from_row(Purchase, row) for row in rows]


def finished_purchases(connection: sqlite3.Connection) -> list[str]:
    """The ids of those with a receipt, or received without one; oldest first."""
    rows = connection.execute("SELECT purchase_id FROM purchases WHERE receipt IS NOT NULL OR state = 'received' ORDER BY created_at, rowid")
    return [row[0] for row in rows]


def move_purchase(tx: Transaction, purchase_id: str, state: str, event: str, now: int, **changes: object) -> Purchase:
    """One step from `state`. StaleFenceError when another process of this profile has moved it meanwhile."""
    step = advance(PURCHASE, state, event)
    columns: dict[str, Any] = {"state": step.to, "updated_at": now, **changes}
    assignments = ", ".join(f"{name} = ?" for name in columns)
    changed = tx.execute(
        f"UPDATE purchases SET {assignments} WHERE purchase_id = ? AND state = ?",  # noqa: S608  # column names come from the buyer flow, never from outside
        (*columns.values(), purchase_id, state),
    ).rowcount
    if changed != 1:
        raise StaleFenceError(f"purchase {purchase_id} is not in state {state!r} any more")
    return purchase(tx, purchase_id)


# pinned sellers


def pins(connection: sqlite3.Connection) -> list[tuple[str, str, str, int]]:
    """(seller key, label, how, pinned_at)."""
    return [tuple(row) for row in connection.execute("SELECT seller, label, how, pinned_at FROM pins ORDER BY pinned_at, label").fetchall()]


def pin(tx: Transaction, seller: str, label: str, how: str, now: int, *, replace: bool = False) -> None:
    """Trust this key under this label. UntrustedError when the label names another key, unless the owner says `replace`. Repeatable."""
    row = tx.execute("SELECT seller FROM pins WHERE label = ?", (label,)).fetchone()
    if row is not None and row[0] != seller and not replace:
        raise UntrustedError(
            f"{label} is pinned to key {row[0]}, now it shows {seller}: ask the seller;"
            f" if the new key is right, `tradeskill identity pin {seller} --label {label} --replace`"
        )
    if row is None or how != "first use":  # what the owner said is not overwritten by what was merely seen
        tx.execute("INSERT OR REPLACE INTO pins (label, seller, how, pinned_at) VALUES (?, ?, ?, ?)", (label, seller, how, now))


def check_pin(connection: sqlite3.Connection, seller: str) -> bool:
    """Whether this seller is known: pinned by the owner, or something it sold was received. Having merely been seen is not enough."""
    known = connection.execute(
        "SELECT 1 FROM pins WHERE seller = ? AND how <> 'first use' UNION ALL SELECT 1 FROM purchases WHERE seller = ? AND state = 'received' LIMIT 1",
        (seller, seller),
    )
    return known.fetchone() is not None
