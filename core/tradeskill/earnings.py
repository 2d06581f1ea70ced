"""What a seller earned: exact sums over allocated payments of delivered jobs, made in Python (never by SQL)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tradeskill.errors import UsageError

if TYPE_CHECKING:
    import sqlite3

    from tradeskill.journal import Database

__all__ = ["Earning", "day_range", "earnings", "read_earnings"]

_OPEN = 2**62
_DAY_MS = 86_400_000
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)


@dataclass(frozen=True)
class Earning:
    """One payment that a delivered job earned, or a surplus that was kept."""

    at: int  # ms: when the job was delivered, or the surplus found
    job_id: str
    offer: str
    source: str  # job | surplus
    amount: int
    unit: str
    payment_id: str


def read_earnings(connection: sqlite3.Connection, since: int = 0, until: int = _OPEN) -> list[Earning]:
    """Oldest first, `since` <= at < `until` (ms)."""
    rows = connection.execute(
        "SELECT f.finished_at, f.updated_at, p.job_id, f.offer_name, f.state, p.state, p.amount, p.unit, p.payment_id, p.updated_at"
        " FROM payments p JOIN fulfilments f USING (job_id) WHERE p.state IN ('allocated', 'surplus')"
    ).fetchall()
    found = []
    for finished, job_updated, job_id, offer, job_state, state, amount, unit, payment_id, updated in rows:
        if state == "allocated" and job_state != "delivered":
            continue
        at = (finished or job_updated) if state == "allocated" else updated
        if since <= at < until:
            found.append(Earning(at, job_id, offer, "job" if state == "allocated" else "surplus", int(amount), unit, payment_id))
    return sorted(found, key=lambda earning: (earning.at, earning.payment_id))


def earnings(journal: Database, now: int, since: int = 0, until: int = _OPEN) -> dict[str, Any]:
    """Totals by unit (digit strings), today (UTC), the range, by offer; open invoices; jobs by status."""

    def read(connection: sqlite3.Connection) -> dict[str, Any]:
        rows = read_earnings(connection)
        today = int(datetime.fromtimestamp(now / 1000, UTC).replace(hour=0, minute=0, second=0, microsecond=0).timestamp() * 1000)
        in_range = [e for e in rows if since <= e.at < until]
        offers: dict[str, dict[str, Any]] = {}
        for earning in in_range:
            entry = offers.setdefault(earning.offer or "(none)", {"jobs": set(), "amounts": []})
            entry["jobs"].add(earning.job_id)
            entry["amounts"].append(earning)
        pending = connection.execute(
            "SELECT COUNT(*) FROM invoices JOIN fulfilments USING (job_id) WHERE state = 'quoted' AND fulfilments.hold_until >= ?", (now,)
        ).fetchone()[0]
        return {
            "total": _sums(rows),
            "today": _sums([e for e in rows if e.at >= today]),
            "range": _sums(in_range),
            "by_offer": {name: {"jobs": len(entry["jobs"]), **_sums(entry["amounts"])} for name, entry in sorted(offers.items())},
            "pending_invoices": pending,
            "jobs_by_status": dict(connection.execute("SELECT state, COUNT(*) FROM fulfilments GROUP BY state ORDER BY state").fetchall()),
            "payments_by_status": dict(connection.execute("SELECT state, COUNT(*) FROM payments GROUP BY state ORDER BY state").fetchall()),
        }

    return journal.read(read)


def day_range(since: str, until: str) -> tuple[int, int]:
    """`YYYY-MM-DD` days, UTC, both included, to milliseconds. "" is open."""
    first = 0 if not since else _day(since)
    last = _OPEN if not until else _day(until) + _DAY_MS
    if last <= first:
        raise UsageError(f"the range from {since} to {until} ends before it begins: exchange the days")
    return first, last


def _day(text: str) -> int:
    try:
        if _DATE.fullmatch(text) is None:
            raise ValueError(text)
        return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)
    except ValueError as error:
        raise UsageError(f"date {text!r:.40} is not a day written as YYYY-MM-DD") from error


def _sums(rows: list[Earning]) -> dict[str, str]:
    totals: dict[str, int] = {}
    for row in rows:
        totals[row.unit] = totals.get(row.unit, 0) + row.amount
    return {unit: str(value) for unit, value in sorted(totals.items())} or {"raw": "0"}
