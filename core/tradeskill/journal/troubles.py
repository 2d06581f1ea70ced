"""What was wrong with strangers' plugins of late, for their owner to read: one entry a plugin, in the journal's table `meta`."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import asdict, dataclass
from typing import Final

from tradeskill.journal.database import Transaction

__all__ = ["Trouble", "note", "troubles"]

_MARK: Final = "trouble:"
_APART_MS: Final = 3_600_000  # what comes later than this after the last is a trouble of its own


@dataclass(frozen=True)
class Trouble:
    """`said`: the last error, which names plugin and package. Times in milliseconds."""

    plugin: str
    said: str
    times: int
    since: int
    last: int


def note(tx: Transaction, plugin: str, said: str, times: int, now: int) -> None:
    """It happened `times` more."""
    known = next((each for each in troubles(tx) if each.plugin == plugin and now - each.last <= _APART_MS), None)
    entry = Trouble(plugin, said[:500], times + (known.times if known else 0), known.since if known else now, now)
    text = json.dumps(asdict(entry))
    tx.execute("INSERT INTO meta VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value", (_MARK + plugin[:200], text))


def troubles(connection: sqlite3.Connection | Transaction) -> list[Trouble]:
    """By plugin."""
    rows = connection.execute("SELECT value FROM meta WHERE name LIKE ? ORDER BY name", (f"{_MARK}%",)).fetchall()
    return [Trouble(**json.loads(row[0])) for row in rows]
