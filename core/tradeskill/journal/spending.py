"""The statements of spending: one row a spend, running totals, the largest clock, grants, and the policy last accepted. Sums are made in Python."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from tradeskill.errors import NotFoundError, StateError
from tradeskill.money import MAX_RAW, parse_raw
from tradeskill.sqlite import Transaction

__all__ = [
    "Grant",
    "Spend",
    "add_grant",
    "change_budget",
    "change_total",
    "clock",
    "forget_meta",
    "grant",
    "grants",
    "held_for",
    "meta",
    "paid_before",
    "put_spend",
    "read_spend",
    "revoke",
    "set_clock",
    "set_meta",
    "settle",
    "spend",
    "total",
    "within",
]


@dataclass(frozen=True)
class Spend:
    """One reservation: reserved -> committed | released; committed -> released (the money came back).

    `settled_at`: when it was known to be paid, or released; None while nobody knows.
    """

    spend_id: str
    kind: str
    state: str
    amount: int
    unit: str
    seller: str
    offer: str
    market: str
    job: str
    grant: str
    reserved_at: int
    settled_at: int | None = None


@dataclass(frozen=True)
class Grant:
    """A child budget. `budgets`: unit -> (most, held), held being reserved and spent together, its descendants' included."""

    grant_id: str
    parent: str
    note: str
    made_at: int
    expires_at: int | None
    revoked_at: int | None
    budgets: dict[str, tuple[int, int]]


# spends


def spend(connection: sqlite3.Connection, spend_id: str) -> Spend | None:
    row = connection.execute("SELECT * FROM reservations WHERE purchase_id = ?", (spend_id,)).fetchone()
    return None if row is None else read_spend(row)


def read_spend(row: sqlite3.Row) -> Spend:
    """A row of reservations as a value."""
    return Spend(
        spend_id=row["purchase_id"],
        kind=row["kind"],
        state=row["state"],
        amount=parse_raw(row["amount"]),
        unit=row["unit"],
        seller=row["seller"],
        offer=row["offer"],
        market=row["market"],
        job=row["job"],
        grant=row["grant_id"],
        reserved_at=row["created_at"],
        settled_at=row["settled_at"],
    )


def put_spend(tx: Transaction, new: Spend) -> None:
    """Write it whole; totals are the gate's to keep, in the same transaction."""
    tx.execute(
        "INSERT OR REPLACE INTO reservations"
        " (purchase_id, state, amount, unit, seller, created_at, updated_at, kind, job, offer, market, grant_id, settled_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(new.spend_id, new.state, str(new.amount), new.unit, new.seller, new.reserved_at, new.reserved_at),
            *(new.kind, new.job, new.offer, new.market, new.grant, new.settled_at),
        ),
    )


def settle(tx: Transaction, spend_id: str, state: str, now: int) -> None:
    tx.execute("UPDATE reservations SET state = ?, settled_at = ?, updated_at = ? WHERE purchase_id = ?", (state, now, now, spend_id))


def within(connection: sqlite3.Connection, since: int) -> dict[str, int]:
    """By unit: all that may or may not be paid, however old, and what was paid after `since`."""
    rows = connection.execute(
        "SELECT unit, amount FROM reservations WHERE (state = 'reserved' AND settled_at IS NULL) OR (state <> 'released' AND settled_at > ?)", (since,)
    ).fetchall()
    return _summed(rows)


def held_for(connection: sqlite3.Connection, column: str, value: str) -> dict[str, int]:
    """By unit: what is reserved or committed for one `seller`, `offer` or `job`."""
    where = {"seller": "seller = ?", "offer": "offer = ?", "job": "job = ?"}[column]
    rows = connection.execute(f"SELECT unit, amount FROM reservations WHERE {where} AND state <> 'released'", (value,)).fetchall()  # noqa: S608  # three fixed clauses
    return _summed(rows)


def paid_before(connection: sqlite3.Connection, seller: str) -> bool:
    """Whether money was sent there before, by hand."""
    known = connection.execute("SELECT 1 FROM reservations WHERE seller = ? AND kind <> 'purchase' AND state = 'committed' LIMIT 1", (seller,))
    return known.fetchone() is not None


def _summed(rows: Iterable[sqlite3.Row]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for unit, amount in rows:
        sums[unit] = sums.get(unit, 0) + parse_raw(amount)
    return sums


def total(connection: sqlite3.Connection, name: str) -> int:
    row = connection.execute("SELECT value FROM totals WHERE name = ?", (name,)).fetchone()
    return 0 if row is None else parse_raw(row[0])


def change_total(tx: Transaction, name: str, by: int) -> int:
    """The new running total; StateError rather than below 0 or above 2^128 - 1."""
    value = total(tx, name) + by
    if not 0 <= value <= MAX_RAW:
        raise StateError(f"total {name} would leave its range")
    tx.execute("INSERT INTO totals VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value", (name, str(value)))
    return value


# the clock, and what is remembered by name


def clock(connection: sqlite3.Connection, now: int) -> int:
    """`now`, or the largest time that a spend was ever judged or settled at: a clock that is set back frees nothing."""
    return max(now, int(meta(connection, "spending.clock") or "0"))


def set_clock(tx: Transaction, now: int) -> int:
    seen = clock(tx, now)
    set_meta(tx, "spending.clock", str(seen))
    return seen


def meta(connection: sqlite3.Connection, name: str) -> str | None:
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    return None if row is None else str(row[0])


def set_meta(tx: Transaction, name: str, value: str) -> None:
    tx.execute("INSERT INTO meta VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value", (name, value))


def forget_meta(tx: Transaction, name: str) -> None:
    tx.execute("DELETE FROM meta WHERE name = ?", (name,))


# grants


def add_grant(tx: Transaction, new: Grant) -> None:
    tx.execute("INSERT INTO grants VALUES (?, ?, ?, ?, ?, ?)", (new.grant_id, new.parent, new.note, new.made_at, new.expires_at, new.revoked_at))
    tx.executemany(
        "INSERT INTO grant_budgets VALUES (?, ?, ?, ?)", [(new.grant_id, unit, str(most), str(held)) for unit, (most, held) in new.budgets.items()]
    )


def grant(connection: sqlite3.Connection, grant_id: str) -> Grant:
    row = connection.execute("SELECT * FROM grants WHERE grant_id = ?", (grant_id,)).fetchone()
    if row is None:
        raise NotFoundError(f"grant {grant_id!r:.80} is not in this profile's journal: `tradeskill policy grants` lists them")
    return _grant(connection, row)


def grants(connection: sqlite3.Connection) -> list[Grant]:
    """All of them, oldest first."""
    return [_grant(connection, row) for row in connection.execute("SELECT * FROM grants ORDER BY made_at, rowid").fetchall()]


def _grant(connection: sqlite3.Connection, row: sqlite3.Row) -> Grant:
    budgets = connection.execute("SELECT unit, most, held FROM grant_budgets WHERE grant_id = ? ORDER BY unit", (row["grant_id"],)).fetchall()
    return Grant(
        grant_id=row["grant_id"],
        parent=row["parent"],
        note=row["note"],
        made_at=row["made_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        budgets={unit: (parse_raw(most), parse_raw(held)) for unit, most, held in budgets},
    )


def change_budget(tx: Transaction, grant_id: str, unit: str, held: int) -> None:
    """Set what a grant holds; whether it may is the gate's to say."""
    tx.execute("UPDATE grant_budgets SET held = ? WHERE grant_id = ? AND unit = ?", (str(held), grant_id, unit))


def revoke(tx: Transaction, grant_id: str, now: int) -> None:
    """From now on neither it nor what descends from it spends anything. Repeatable."""
    tx.execute("UPDATE grants SET revoked_at = coalesce(revoked_at, ?) WHERE grant_id = ?", (now, grant_id))
