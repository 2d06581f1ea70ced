"""The seller's statements: fulfilments, invoices, payments, leases, effects. Every write is conditional on state (and fence) and changes one row or raises.

Past 400 lines because all of a seller's statements stand in one place, so that no write is made anywhere else.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tradeskill.allocation import Allocation
from tradeskill.errors import NotFoundError, PluginError, StaleFenceError, StateError
from tradeskill.journal.database import Transaction
from tradeskill.journal.records import Effect, Fulfilment, InvoiceRow, PaymentRow, from_row
from tradeskill.lifecycle import FULFILMENT, PAYMENT, advance
from tradeskill.model import Invoice, Payment

__all__ = [
    "add_effect",
    "add_fulfilment",
    "add_invoice",
    "allocate_found",
    "close_invoices",
    "contested_since",
    "current_offers",
    "cursor",
    "delivered_jobs",
    "due_invoices",
    "effect_done",
    "effect_failed",
    "find_fulfilment",
    "find_invoice",
    "forget_result",
    "fulfilment",
    "fulfilments",
    "heartbeat",
    "hold_allocated",
    "holding",
    "invoices_of",
    "keep_result",
    "let_go",
    "look_later",
    "move_fulfilment",
    "move_payment",
    "next_fence",
    "offer_document",
    "old_results",
    "payment_by_key",
    "payments_in",
    "payments_of",
    "pending_effects",
    "record_found",
    "record_start",
    "repeat_effect",
    "return_allocated",
    "save_claim",
    "save_cursor",
    "save_offer",
    "take",
    "takeable",
    "tries",
]


# offers


def save_offer(tx: Transaction, offer_hash: str, offer_id: str, name: str, document: str) -> None:
    """Remember every version ever published; the newest under `name` is current."""
    tx.execute("UPDATE offers SET current = 0 WHERE name = ?", (name,))
    tx.execute(
        "INSERT INTO offers VALUES (?, ?, ?, ?, 1) ON CONFLICT (offer_hash) DO UPDATE SET current = 1",
        (offer_hash, offer_id, name, document),
    )


def current_offers(connection: sqlite3.Connection) -> dict[str, tuple[str, str, str]]:
    """name -> (offer_id, offer_hash, document)."""
    rows = connection.execute("SELECT name, offer_id, offer_hash, document FROM offers WHERE current = 1").fetchall()
    return {row[0]: (row[1], row[2], row[3]) for row in rows}


def offer_document(connection: sqlite3.Connection, offer_hash: str) -> tuple[str, str] | None:
    """(name, document) of a version."""
    row = connection.execute("SELECT name, document FROM offers WHERE offer_hash = ?", (offer_hash,)).fetchone()
    return None if row is None else (row[0], row[1])


# fulfilments


def fulfilment(connection: sqlite3.Connection, job_id: str) -> Fulfilment:
    row = find_fulfilment(connection, job_id)
    if row is None:
        raise NotFoundError(f"job {job_id} is not in this seller's journal")
    return row


def find_fulfilment(connection: sqlite3.Connection, job_id: str) -> Fulfilment | None:
    row = connection.execute("SELECT * FROM fulfilments WHERE job_id = ?", (job_id,)).fetchone()
    return None if row is None else from_row(Fulfilment, row)


def fulfilments(connection: sqlite3.Connection, states: Iterable[str] = (), limit: int = 1000) -> list[Fulfilment]:
    """Newest change first."""
    names = tuple(states)
    where = f"WHERE state IN ({', '.join('?' * len(names))})" if names else ""
    rows = connection.execute(f"SELECT * FROM fulfilments {where} ORDER BY updated_at DESC LIMIT ?", (*names, limit)).fetchall()  # noqa: S608  # only placeholders
    return [from_row(Fulfilment, row) for row in rows]


def delivered_jobs(connection: sqlite3.Connection) -> list[str]:
    """The ids, oldest first."""
    return [row[0] for row in connection.execute("SELECT job_id FROM fulfilments WHERE state = 'delivered' ORDER BY created_at, rowid")]


def contested_since(connection: sqlite3.Connection, at: int) -> list[Fulfilment]:
    """Jobs that were taken over from somebody who may only have slept, and that changed since."""
    rows = connection.execute("SELECT * FROM fulfilments WHERE contested = 1 AND updated_at >= ?", (at,)).fetchall()
    return [from_row(Fulfilment, row) for row in rows]


def holding(connection: sqlite3.Connection, offer_name: str, now: int) -> dict[str, int]:
    """Capacity in use, by buyer: quoted and still within its deadlines, or paid and not finished."""
    rows = connection.execute(
        "SELECT buyer, COUNT(*) FROM fulfilments WHERE offer_name = ? AND (state IN ('paid', 'leased', 'started', 'executed')"
        " OR (state IN ('seen', 'quoted') AND COALESCE(hold_until, ?) >= ?)) GROUP BY buyer",
        (offer_name, now, now),
    ).fetchall()
    return {row[0]: row[1] for row in rows}


def add_fulfilment(tx: Transaction, *, job_id: str, offer_id: str, offer_name: str, buyer: str, request: str, hold_until: int, now: int) -> bool:
    """A job seen for the first time. False, and nothing changed, when it is known."""
    cursor = tx.execute(
        "INSERT OR IGNORE INTO fulfilments (job_id, state, offer_id, offer_name, buyer, request, hold_until, created_at, updated_at)"
        " VALUES (?, 'seen', ?, ?, ?, ?, ?, ?, ?)",
        (job_id, offer_id, offer_name, buyer, request, hold_until, now, now),
    )
    return cursor.rowcount == 1


def move_fulfilment(
    tx: Transaction, job_id: str, event: str, now: int, *, fence: int | None = None, new_fence: int | None = None, **changes: object
) -> Fulfilment:
    """One step of the fulfilment table with its column changes and effects, or an error and nothing changed.

    `fence`: who reports on execution must show the fence it took; StaleFenceError when somebody newer holds the job.
    """
    row = fulfilment(tx, job_id)
    step = advance(FULFILMENT, row.state, event)
    if new_fence is not None:
        changes["fence"] = new_fence
    _update(tx, "fulfilments", {"job_id": job_id}, row.state, step.to, now, fence, changes)
    for name in step.effects:
        _add_effect(tx, "fulfilment", job_id, name, now)
    return fulfilment(tx, job_id)


def take(
    tx: Transaction, job_id: str, owner: str, until: int, now: int, *, dead_owners: Iterable[str] = (), market_fence: int | None = None
) -> Fulfilment | None:
    """Take the lease on a paid or interrupted job under a new fence; None while somebody alive holds it."""
    row = fulfilment(tx, job_id)
    if not takeable(row, owner, now, dead_owners):
        return None
    fence = next_fence(tx)
    changes: dict[str, Any] = {"new_fence": fence, "lease_owner": owner, "lease_until": until, "market_fence": market_fence}
    if row.state == "started" and row.lease_owner not in ("", owner, *dead_owners):
        changes["contested"] = 1  # the former holder may only be asleep
    if row.state == "leased":
        row = move_fulfilment(tx, job_id, "lapse", now)
    if row.state == "paid":
        return move_fulfilment(tx, job_id, "lease", now, **changes)
    return move_fulfilment(tx, job_id, "take_over", now, **changes)


def let_go(tx: Transaction, job_id: str) -> None:
    """Give the lease back by its holder's own will: whoever wants it takes it at once, under a new fence."""
    tx.execute("UPDATE fulfilments SET lease_owner = '', lease_until = 0 WHERE job_id = ? AND state IN ('leased', 'started')", (job_id,))


def takeable(row: Fulfilment, owner: str, now: int, dead_owners: Iterable[str] = ()) -> bool:
    """Whether `owner` may take the lease: the job is paid or interrupted, and nobody else alive holds it."""
    if row.state not in ("leased", "started"):
        return row.state == "paid"
    return row.lease_owner == owner or row.lease_until <= now or row.lease_owner in dead_owners


def next_fence(tx: Transaction) -> int:
    """One counter for the whole journal; it only grows."""
    fence = int(tx.execute("SELECT value FROM meta WHERE name = 'fence'").fetchone()[0]) + 1
    tx.execute("UPDATE meta SET value = ? WHERE name = 'fence'", (str(fence),))
    return fence


def heartbeat(tx: Transaction, job_id: str, fence: int, until: int, market_fence: int | None = None) -> None:
    """Renew the lease, and note a new market fence if there is one. StaleFenceError when somebody newer holds the job."""
    changed = tx.execute(
        "UPDATE fulfilments SET lease_until = ?, market_fence = COALESCE(?, market_fence)"
        " WHERE job_id = ? AND fence = ? AND state IN ('leased', 'started', 'executed')",
        (until, market_fence, job_id, fence),
    ).rowcount
    if changed != 1:
        raise StaleFenceError(f"job {job_id}: fence {fence} is not current any more")


def record_start(tx: Transaction, job_id: str, attempt: int, fence: int, now: int) -> None:
    """The one committed start of (job, attempt), for I1."""
    tx.execute("INSERT INTO starts VALUES (?, ?, ?, ?)", (job_id, attempt, fence, now))


def save_claim(tx: Transaction, job_id: str, rail: str, claim: str, token: str, now: int) -> None:
    """What the buyer submitted: a hint for settlement, and the token of a bearer rail."""
    tx.execute(
        "UPDATE fulfilments SET claim = ?, claim_rail = ?, token = ?, updated_at = ? WHERE job_id = ? AND claim IS NULL",
        (claim, rail, token, now, job_id),
    )


# invoices


def add_invoice(tx: Transaction, invoice: Invoice, watch_until: int) -> None:
    """Repeatable: the same invoice again changes nothing. PluginError where its wallet gave it out before, for something else."""
    known = find_invoice(tx, invoice.invoice_id)
    if known is not None and known.invoice != invoice:
        before = f"on the rail {known.rail} for job {known.job_id}"
        raise PluginError(f"wallet {invoice.rail!r} gave out invoice {invoice.invoice_id:.80} twice: {before}, now for job {invoice.job_id:.80}")
    tx.execute(
        "INSERT OR IGNORE INTO invoices VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
        (
            invoice.invoice_id,
            invoice.rail,
            invoice.network,
            invoice.job_id,
            invoice.address,
            str(invoice.amount.value),
            invoice.amount.unit,
            invoice.expires_at,
            json.dumps(dict(invoice.details)),
            watch_until,
        ),
    )


def invoices_of(connection: sqlite3.Connection, job_id: str) -> list[InvoiceRow]:
    return [from_row(InvoiceRow, row) for row in connection.execute("SELECT * FROM invoices WHERE job_id = ? ORDER BY rail", (job_id,)).fetchall()]


def find_invoice(connection: sqlite3.Connection, invoice_id: str) -> InvoiceRow | None:
    row = connection.execute("SELECT * FROM invoices WHERE invoice_id = ?", (invoice_id,)).fetchone()
    return None if row is None else from_row(InvoiceRow, row)


def due_invoices(connection: sqlite3.Connection, now: int, limit: int = 200) -> list[tuple[InvoiceRow, Fulfilment]]:
    """Invoices that should be looked at now, longest overdue first, each with its job. The cost does not grow with how many there are."""
    rows = connection.execute("SELECT * FROM invoices WHERE next_look <= ? ORDER BY next_look LIMIT ?", (now, limit)).fetchall()
    return [(from_row(InvoiceRow, row), fulfilment(connection, row["job_id"])) for row in rows]


def look_later(tx: Transaction, times: Mapping[str, int]) -> None:
    """When each of these invoices is due again."""
    tx.executemany("UPDATE invoices SET next_look = ? WHERE invoice_id = ?", [(at, invoice_id) for invoice_id, at in times.items()])


def close_invoices(tx: Transaction, job_id: str, watch_until: int) -> None:
    """Watch a finished job's invoices only until then (late and double payments are still found)."""
    tx.execute("UPDATE invoices SET watch_until = ? WHERE job_id = ?", (watch_until, job_id))


# payments


def record_found(tx: Transaction, invoice: Invoice, payments: Sequence[Payment], now: int) -> list[Payment]:
    """Write each final payment once, for one job, for ever (I3); return those of this job still undecided."""
    for payment in payments:
        tx.execute(
            "INSERT OR IGNORE INTO payments"
            " (rail, network, payment_id, part, invoice_id, job_id, state, amount, unit, received_at, sender, found_at, updated_at)"
            " VALUES (?, ?, ?, 0, ?, ?, 'found', ?, ?, ?, ?, ?, ?)",
            (
                invoice.rail,
                invoice.network,
                payment.payment_id,
                invoice.invoice_id,
                invoice.job_id,
                str(payment.amount.value),
                payment.amount.unit,
                payment.received_at,
                payment.sender,
                now,
                now,
            ),
        )
    undecided = {row.payment_id for row in payments_of(tx, invoice.job_id) if row.state == "found" and row.invoice_id == invoice.invoice_id}
    return [payment for payment in payments if payment.payment_id in undecided]


def allocate_found(tx: Transaction, invoice: Invoice, allocation: Allocation, refund_to: str | None, now: int) -> None:
    """Carry out what `allocation.allocate` decided, splitting a payment in excess into its two parts."""
    for part in allocation.parts:
        if part.part == 1:
            tx.execute(
                "INSERT INTO payments SELECT rail, network, payment_id, 1, invoice_id, job_id, 'found', ?, unit, received_at, sender,"
                " NULL, NULL, 'in excess', ?, ? FROM payments WHERE rail = ? AND network = ? AND payment_id = ? AND part = 0",
                (str(part.amount), now, now, invoice.rail, invoice.network, part.payment_id),
            )
        elif part.event == "allocate":
            tx.execute(
                "UPDATE payments SET amount = ? WHERE rail = ? AND network = ? AND payment_id = ? AND part = 0 AND state = 'found'",
                (str(part.amount), invoice.rail, invoice.network, part.payment_id),
            )
        row = payment_by_key(tx, f"{invoice.rail}/{invoice.network}/{part.payment_id}/{part.part}")
        move_payment(tx, row, part.event, now, refund_to=refund_to)


def return_allocated(tx: Transaction, job_id: str, refund_to: Mapping[str, str], now: int, minimum: Mapping[str, int] | None = None) -> None:
    """A failed job's money becomes refund due where the buyer signed an address, else review. Surplus below its unit's `minimum` stays."""
    for row in payments_of(tx, job_id):
        if row.state in ("allocated", "surplus") and (row.state == "allocated" or row.value >= (minimum or {}).get(row.unit, 0)):
            to = refund_to.get(row.rail)
            if to is not None:
                move_payment(tx, row, "return", now, refund_to=to)
            elif row.state == "allocated":
                move_payment(tx, row, "hold", now, note="the job failed and the buyer signed no refund address for this rail")


def hold_allocated(tx: Transaction, job_id: str, note: str, now: int) -> None:
    """The job's money goes to review: its owner decides."""
    for row in payments_of(tx, job_id):
        if row.state == "allocated":
            move_payment(tx, row, "hold", now, note=note)


def payments_of(connection: sqlite3.Connection, job_id: str) -> list[PaymentRow]:
    rows = connection.execute("SELECT * FROM payments WHERE job_id = ? ORDER BY received_at, payment_id, part", (job_id,)).fetchall()
    return [from_row(PaymentRow, row) for row in rows]


def payments_in(connection: sqlite3.Connection, state: str) -> list[PaymentRow]:
    rows = connection.execute("SELECT * FROM payments WHERE state = ? ORDER BY updated_at", (state,)).fetchall()
    return [from_row(PaymentRow, row) for row in rows]


def payment_by_key(connection: sqlite3.Connection, key: str) -> PaymentRow:
    """By `PaymentRow.key`, or by a payment id alone where it is unique."""
    if key.count("/") >= 3:
        rail, network, rest = key.split("/", 2)
        payment_id, part = rest.rsplit("/", 1)
        rows = connection.execute(
            "SELECT * FROM payments WHERE rail = ? AND network = ? AND payment_id = ? AND part = ?", (rail, network, payment_id, part)
        ).fetchall()
    else:
        rows = connection.execute("SELECT * FROM payments WHERE payment_id = ? COLLATE NOCASE OR job_id = ?", (key, key)).fetchall()
    if not rows:
        raise NotFoundError(f"payment {key} is not in this journal")
    if len(rows) > 1:
        raise StateError(f"{key} names {len(rows)} payments: use one of {', '.join(from_row(PaymentRow, row).key for row in rows)}")
    return from_row(PaymentRow, rows[0])


def move_payment(tx: Transaction, row: PaymentRow, event: str, now: int, **changes: object) -> PaymentRow:
    """One step of the payment table with its column changes and effects, or an error and nothing changed."""
    step = advance(PAYMENT, row.state, event)
    key = {"rail": row.rail, "network": row.network, "payment_id": row.payment_id, "part": row.part}
    _update(tx, "payments", key, row.state, step.to, now, None, changes)
    for name in step.effects:
        _add_effect(tx, "payment", row.key, name, now)
    return payment_by_key(tx, row.key)


# results


def keep_result(tx: Transaction, sha256: str, size: int, until: int) -> None:
    """Remember how long a delivered result is kept; another job with the same bytes can only lengthen it."""
    tx.execute(
        "INSERT INTO results VALUES (?, ?, ?) ON CONFLICT (sha256) DO UPDATE SET kept_until = MAX(kept_until, excluded.kept_until)", (sha256, size, until)
    )


def old_results(connection: sqlite3.Connection, now: int) -> list[str]:
    """Results whose time is over."""
    return [row[0] for row in connection.execute("SELECT sha256 FROM results WHERE kept_until < ?", (now,)).fetchall()]


def forget_result(tx: Transaction, sha256: str, now: int) -> bool:
    """False, and nothing changed, when it was delivered anew meanwhile, or is about to be."""
    return (
        tx.execute(
            "DELETE FROM results WHERE sha256 = ? AND kept_until < ?"
            " AND NOT EXISTS (SELECT 1 FROM fulfilments WHERE state = 'executed' AND result_sha256 = results.sha256)",
            (sha256, now),
        ).rowcount
        == 1
    )


# effects and cursors


def pending_effects(connection: sqlite3.Connection, after: int = 0) -> list[Effect]:
    """In the order they were asked for."""
    rows = connection.execute(
        "SELECT effect_id, subject, subject_id, name, attempts FROM effects WHERE state = 'pending' AND effect_id > ? ORDER BY effect_id", (after,)
    ).fetchall()
    return [from_row(Effect, row) for row in rows]


def effect_done(tx: Transaction, effect_id: int) -> None:
    tx.execute("UPDATE effects SET state = 'done' WHERE effect_id = ?", (effect_id,))


def effect_failed(tx: Transaction, effect_id: int, error: str, give_up: bool) -> None:
    """Count the attempt; a given-up effect stays visible as failed."""
    tx.execute(
        "UPDATE effects SET attempts = attempts + 1, last_error = ?, state = ? WHERE effect_id = ? AND state = 'pending'",
        (error[:500], "failed" if give_up else "pending", effect_id),
    )


def tries(connection: sqlite3.Connection, effect_id: int) -> int:
    """How often it was tried in vain."""
    return int(connection.execute("SELECT attempts FROM effects WHERE effect_id = ?", (effect_id,)).fetchone()[0])


def repeat_effect(tx: Transaction, subject: str, subject_id: str, name: str, now: int) -> None:
    """Ask for an effect again, unless it is being asked for."""
    if tx.execute("SELECT 1 FROM effects WHERE subject_id = ? AND name = ? AND state = 'pending'", (subject_id, name)).fetchone() is None:
        _add_effect(tx, subject, subject_id, name, now)


def add_effect(tx: Transaction, subject: str, subject_id: str, name: str, now: int) -> None:
    """Ask for an effect again that a table once asked for (a review settled by hand)."""
    _add_effect(tx, subject, subject_id, name, now)


def cursor(connection: sqlite3.Connection, name: str) -> str:
    row = connection.execute("SELECT value FROM cursors WHERE name = ?", (name,)).fetchone()
    return "" if row is None else str(row[0])


def save_cursor(tx: Transaction, name: str, value: str) -> None:
    tx.execute("INSERT INTO cursors VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value", (name, value))


def _add_effect(tx: Transaction, subject: str, subject_id: str, name: str, now: int) -> None:
    tx.execute("INSERT INTO effects (subject, subject_id, name, state, created_at) VALUES (?, ?, ?, 'pending', ?)", (subject, subject_id, name, now))


def _update(
    tx: Transaction, table: str, key: Mapping[str, object], state: str, to: str, now: int, fence: int | None, changes: Mapping[str, object]
) -> None:
    columns = {"state": to, "updated_at": now, **changes}
    assignments = ", ".join(f"{name} = ?" for name in columns)
    where = " AND ".join(f"{name} = ?" for name in (*key, "state", *(("fence",) if fence is not None else ())))
    values = (*columns.values(), *key.values(), state, *((fence,) if fence is not None else ()))
    changed = tx.execute(f"UPDATE {table} SET {assignments} WHERE {where}", values).rowcount  # noqa: S608  # names come from this module's callers, never from outside
    if changed != 1:
        raise StaleFenceError(f"{'/'.join(map(str, key.values()))}: somebody newer holds it (shown: fence {fence}, state {state})")


