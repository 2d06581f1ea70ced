"""May this be spent? Reserve, commit, release, inside the journal's transaction. Unknown counts as spent."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from tradeskill.errors import PolicyError
from tradeskill.journal.buying import change_total, reservation, set_reservation, total
from tradeskill.journal.database import Transaction
from tradeskill.money import Amount

__all__ = ["Caps", "check", "commit", "release", "reserve", "spent_and_reserved"]


@dataclass(frozen=True)
class Caps:
    """None: no cap. A cap applies to payments in its own unit; a capped profile refuses units its caps do not name."""

    per_payment: Amount | None = None
    in_total: Amount | None = None


def spent_and_reserved(connection: sqlite3.Connection, unit: str) -> tuple[int, int]:
    return total(connection, f"spent:{unit}"), total(connection, f"reserved:{unit}")


def check(connection: sqlite3.Connection, amount: Amount, caps: Caps, this: Amount | None = None) -> None:
    """PolicyError naming the rule and how far over; changes nothing. `this`: the cap given for this one purchase."""
    for rule, cap in (("--max of this purchase", this), ("cap per payment", caps.per_payment)):
        if cap is not None:
            _compare(rule, cap, amount.value, amount)
    if caps.in_total is not None:
        spent, reserved = spent_and_reserved(connection, amount.unit)
        _compare("total cap", caps.in_total, spent + reserved + amount.value, amount)


def reserve(tx: Transaction, purchase_id: str, amount: Amount, seller: str, caps: Caps, this: Amount | None, now: int) -> None:
    """Hold `amount` before anything is signed. Repeating it for the same purchase changes nothing."""
    if reservation(tx, purchase_id) is not None:
        return
    check(tx, amount, caps, this)
    change_total(tx, f"reserved:{amount.unit}", amount.value)
    set_reservation(tx, purchase_id, "reserved", amount.value, amount.unit, seller, now)


def commit(tx: Transaction, purchase_id: str, now: int) -> None:
    """The money is gone. Repeatable."""
    held = reservation(tx, purchase_id)
    if held is not None and held[0] == "reserved":
        _, amount, unit = held
        change_total(tx, f"reserved:{unit}", -amount)
        change_total(tx, f"spent:{unit}", amount)
        set_reservation(tx, purchase_id, "committed", amount, unit, "", now)


def release(tx: Transaction, purchase_id: str, now: int) -> None:
    """The money is provably still here, or came back. Repeatable."""
    held = reservation(tx, purchase_id)
    if held is not None and held[0] != "released":
        state, amount, unit = held
        change_total(tx, f"{'spent' if state == 'committed' else 'reserved'}:{unit}", -amount)
        set_reservation(tx, purchase_id, "released", amount, unit, "", now)


def _compare(rule: str, cap: Amount, value: int, amount: Amount) -> None:
    if cap.unit != amount.unit:
        raise PolicyError(f"{rule} is {cap}, this payment is in {amount.unit}: set a cap in {amount.unit}")
    if value > cap.value:
        raise PolicyError(f"{rule} is {cap}: {amount} would exceed it by {Amount(value - cap.value, amount.unit)}; nothing was paid")
