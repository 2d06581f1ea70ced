"""What the disks of both sides say, read with plain SQL while nobody or anybody works on them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Rows = list[dict[str, Any]]


def rows(database: Path, query: str, *values: object) -> Rows:
    """[] when the file is not there yet."""
    if not database.exists():
        return []
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(query, values).fetchall()]


@dataclass(frozen=True)
class Books:
    """One profile's journal and its wallet's store at one moment."""

    fence: int
    starts: Rows
    fulfilments: Rows
    invoices: Rows
    payments: Rows
    effects: Rows
    results: Rows
    purchases: Rows
    reservations: Rows
    totals: dict[str, int]
    accounts: Rows
    blocks: Rows

    def block(self, purpose: str) -> Rows:
        return [block for block in self.blocks if block["purpose"].startswith(purpose)]


def read_books(home: Path) -> Books:
    journal, wallet = home / "journal.db", home / "wallets" / "nano" / "wallet.db"
    fence = rows(journal, "SELECT value FROM meta WHERE name = 'fence'")
    return Books(
        fence=int(fence[0]["value"]) if fence else 0,
        starts=rows(journal, "SELECT job_id, attempt FROM starts"),
        fulfilments=rows(journal, "SELECT * FROM fulfilments"),
        invoices=rows(journal, "SELECT * FROM invoices"),
        payments=rows(journal, "SELECT * FROM payments"),
        effects=rows(journal, "SELECT * FROM effects WHERE state <> 'done'"),
        results=rows(journal, "SELECT * FROM results"),
        purchases=rows(journal, "SELECT * FROM purchases"),
        reservations=rows(journal, "SELECT * FROM reservations"),
        totals={row["name"]: int(row["value"]) for row in rows(journal, "SELECT * FROM totals")},
        accounts=rows(wallet, "SELECT * FROM account"),
        blocks=rows(wallet, "SELECT hash, account, kind, amount, purpose, state FROM block"),
    )
