"""May this be spent? Reserve, commit, release, inside the journal's transaction: caps of the configuration, the policy, grants. Unknown counts as spent."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tradeskill.errors import NotFoundError, PolicyError, StateError
from tradeskill.journal import spending, spendlog
from tradeskill.journal.buying import check_pin
from tradeskill.journal.database import Transaction
from tradeskill.money import Amount, format_amounts, in_unit
from tradeskill.policy.rules import WINDOWS, Allowed, Ask, CapTable, Intended, Policy, Refused, Spent, Verdict, judge, loosened

if TYPE_CHECKING:
    from tradeskill.policy.sealed import PolicyFile

__all__ = [
    "AskOwner",
    "Caps",
    "Guard",
    "Question",
    "accepted",
    "check",
    "check_not_frozen",
    "commit",
    "frozen_since",
    "lineage",
    "paid",
    "rails",
    "refusal",
    "release",
    "reserve",
    "settle_approval",
    "spent_and_reserved",
    "standing",
    "verdict",
]

BOUNDING = ("hour", "day", "month", "total")  # caps that leave no way to spend without end


@dataclass(frozen=True)
class Caps:
    """Those of config.yaml, at most one a unit; none: no cap. A capped profile refuses units that its caps do not name."""

    per_payment: tuple[Amount, ...] = ()
    in_total: tuple[Amount, ...] = ()
    unwritten: bool = False  # `in_total` is what a real network starts with; a policy that bounds spending takes its place


@dataclass(frozen=True)
class Guard:
    """All that the owner laid down, as it stands now. `grant`: the child budget that the spender is bound to, "" for none."""

    caps: Caps = Caps()
    file: PolicyFile | None = None
    grant: str = ""


@dataclass(frozen=True)
class Question:
    """What the owner is asked where the policy says so. `text` is one line for a person, the same whenever the same is asked."""

    wish: Intended
    rule: str
    text: str


AskOwner = Callable[[Question], Awaitable[bool]]


def spent_and_reserved(connection: sqlite3.Connection, unit: str) -> tuple[int, int]:
    return spending.total(connection, f"spent:{unit}"), spending.total(connection, f"reserved:{unit}")


# the judgement


def verdict(connection: sqlite3.Connection, wish: Intended, guard: Guard, this: Sequence[Amount], now: int) -> Verdict:
    """What would become of it; changes nothing. `this`: the caps given for this one spend, at most one a unit; none: no cap."""
    return _judged(connection, wish, guard, this, now)[0]


def check(connection: sqlite3.Connection, wish: Intended, guard: Guard, this: Sequence[Amount], now: int) -> Ask | None:
    """PolicyError naming the rule and how far over; else what the owner has to be asked, if anything. Changes nothing.

    What is held already is not judged again.
    """
    held = spending.spend(connection, wish.spend_id)
    if held is not None and held.state != "released":
        return None
    found = verdict(connection, wish, guard, this, now)
    if isinstance(found, Refused):
        raise refusal(found)
    return found if isinstance(found, Ask) else None


def refusal(found: Refused | Ask) -> PolicyError:
    over = {"over_by": str(found.over_by), "unit": found.unit} if isinstance(found, Refused) and found.over_by is not None else {}
    return PolicyError(f"{found.why}; nothing was paid", rule=found.rule, **over)


def _judged(connection: sqlite3.Connection, wish: Intended, guard: Guard, this: Sequence[Amount], now: int) -> tuple[Verdict, bool]:
    """And whether the file tightened what was accepted."""
    clock = spending.clock(connection, now)
    since = frozen_since(connection)
    if since is not None:
        return Refused("frozen", "all spending is frozen: `tradeskill policy unfreeze` (the owner's passphrase)"), False
    try:
        policy, tightened = standing(connection, guard.file)
    except PolicyError as error:
        return Refused("policy.yaml", str(error)), False
    refused = _configured(connection, wish.amount, guard.caps, this, policy)
    if refused is not None:
        return refused, tightened
    found: Verdict = Allowed() if policy is None else judge(policy, wish, _spent(connection, wish, policy.caps, clock))
    if isinstance(found, Refused):
        return found, tightened
    return _granted(connection, wish.amount, guard.grant, clock) or found, tightened


def _configured(connection: sqlite3.Connection, amount: Amount, caps: Caps, this: Sequence[Amount], policy: Policy | None) -> Refused | None:
    for rule, name, given in (("max", "--max of this purchase", this), ("buyer.cap_per_payment", "cap per payment", caps.per_payment)):
        found = _compare(rule, name, given, amount.value, amount) if given else None
        if found is not None:
            return found
    replaced = caps.unwritten and policy is not None and any(getattr(policy.caps, kind) for kind in BOUNDING)
    if not caps.in_total or replaced:
        return None
    spent, reserved = spent_and_reserved(connection, amount.unit)
    return _compare("buyer.cap_total", "total cap", caps.in_total, spent + reserved + amount.value, amount)


def _compare(rule: str, name: str, caps: Sequence[Amount], value: int, amount: Amount) -> Refused | None:
    cap = in_unit(caps, amount.unit)
    if cap is None:
        return Refused(rule, f"{name} is {format_amounts(caps)}, this payment is in {amount.unit}: set a cap in {amount.unit}")
    if value <= cap.value:
        return None
    over = value - cap.value
    shown = str(Amount(over, cap.unit)) if over < 2**128 else f"{over} {cap.unit}"
    return Refused(rule, f"{name} is {cap}: {amount} would exceed it by {shown}", over, cap.unit)


def _spent(connection: sqlite3.Connection, wish: Intended, caps: CapTable, clock: int) -> Spent:
    """Only what a cap asks for is added up."""
    by: dict[str, dict[str, int]] = {}
    for kind, span in WINDOWS.items():
        if getattr(caps, kind):
            by[kind] = spending.within(connection, clock - span)
    for kind, value in (("seller", wish.seller), ("offer", wish.offer), ("job", wish.job or wish.spend_id)):
        if getattr(caps, kind) and value:
            by[kind] = spending.held_for(connection, kind, value)
    by["total"] = {unit: sum(spent_and_reserved(connection, unit)) for unit in {unit for cap in caps.total for unit in cap.units}}
    known = check_pin(connection, wish.seller) or spending.paid_before(connection, wish.seller)
    return Spent(clock, by, not known)


def _granted(connection: sqlite3.Connection, amount: Amount, grant_id: str, clock: int) -> Refused | None:
    try:
        chain = lineage(connection, grant_id)
    except NotFoundError as error:
        return Refused(f"grant {grant_id:.80}", str(error))
    for grant in chain:
        rule = f"grant {grant.grant_id}"
        if grant.revoked_at is not None:
            return Refused(rule, f"{rule} is revoked")
        if grant.expires_at is not None and clock >= grant.expires_at:
            return Refused(rule, f"{rule} has expired")
        if amount.unit not in grant.budgets:
            return Refused(rule, f"{rule} has no budget in {amount.unit}")
        most, held = grant.budgets[amount.unit]
        found = _compare(rule, f"the budget of {rule}", [Amount(most, amount.unit)], held + amount.value, amount)
        if found is not None:
            return found
    return None


def lineage(connection: sqlite3.Connection, grant_id: str) -> list[spending.Grant]:
    """The grant and all its ancestors, itself first. NotFoundError for one that was never made."""
    found: list[spending.Grant] = []
    while grant_id:
        found.append(spending.grant(connection, grant_id))
        grant_id = found[-1].parent
    return found


# which policy is obeyed


def accepted(connection: sqlite3.Connection) -> PolicyFile | None:
    """The policy last accepted: confirmed by the owner, or made tighter since. Its seal is that of the confirmation, whose serial only grows."""
    text = spending.meta(connection, "policy.accepted")
    if text is None:
        return None
    from tradeskill.configvalues import Place
    from tradeskill.policy.sealed import POLICY_FILE, parse_policy

    return parse_policy(json.loads(text), Place(Path(POLICY_FILE)))


def standing(connection: sqlite3.Connection, file: PolicyFile | None) -> tuple[Policy | None, bool]:
    """The policy that is obeyed, and whether it is tighter than the one last accepted. PolicyError where the file may not be obeyed."""
    last = accepted(connection)
    if last is None:
        if file is None:
            return None, False
        raise PolicyError("policy.yaml was not confirmed by the owner: `tradeskill policy set` (asks for a passphrase), or remove it")
    if file is None:
        raise PolicyError("policy.yaml is gone, and without it nothing is spent: `tradeskill policy set --last` writes it again")
    if file.text == last.text:
        return last.policy, False
    assert last.seal is not None
    looser = loosened(last.policy, file.policy)
    serial = 0 if file.seal is None else file.seal.serial
    if looser:
        older = f", it is an older one (serial {serial}, confirmed is {last.seal.serial})" if 0 < serial < last.seal.serial else ""
        raise PolicyError(
            f"policy.yaml is looser than what the owner last confirmed ({', '.join(looser)}){older}: `tradeskill policy set` confirms it with"
            " the passphrase, `tradeskill policy set --last` takes it back"
        )
    return file.policy, serial == 0 or serial >= last.seal.serial


def rails(connection: sqlite3.Connection, guard: Guard) -> tuple[str, ...] | None:
    """In the owner's order of preference; None where the policy names none, or may not be obeyed."""
    try:
        policy, _ = standing(connection, guard.file)
    except PolicyError:
        return None
    return None if policy is None else policy.rails


def frozen_since(connection: sqlite3.Connection) -> int | None:
    text = spending.meta(connection, "spending.frozen")
    return None if text is None else int(text)


def check_not_frozen(connection: sqlite3.Connection) -> None:
    """PolicyError while `tradeskill policy freeze` holds: also what is reserved already is not paid then."""
    if frozen_since(connection) is not None:
        raise PolicyError("all spending is frozen: `tradeskill policy unfreeze` (the owner's passphrase); what is reserved stays reserved", rule="frozen")


# reserve, commit, release


def reserve(tx: Transaction, wish: Intended, guard: Guard, this: Sequence[Amount], now: int, *, approved: bool = False) -> None:
    """Hold the amount before anything is signed. PolicyError, and nothing changed, where a rule refuses, or asks and nobody `approved`.

    Repeating it changes nothing; a spend that was released is judged anew. StateError where the same spend is held for another amount or seller.
    """
    held = spending.spend(tx, wish.spend_id)
    if held is not None and held.state != "released":
        if (held.amount, held.unit, held.seller) != (wish.amount.value, wish.amount.unit, wish.seller):
            raise StateError(f"{wish.spend_id} stands for {Amount(held.amount, held.unit)} to {held.seller}: take another key for anything else")
        return
    found, tightened = _judged(tx, wish, guard, this, now)
    if isinstance(found, Refused) or (isinstance(found, Ask) and not approved):
        raise refusal(found if isinstance(found, Refused) else Refused(found.rule, f"{found.why}, and the owner did not agree"))
    clock = spending.set_clock(tx, now)
    if tightened:
        _remember(tx, guard.file)
    _debit(tx, guard.grant, wish.amount.unit, wish.amount.value)
    spending.change_total(tx, f"reserved:{wish.amount.unit}", wish.amount.value)
    new = spending.Spend(
        spend_id=wish.spend_id,
        kind=wish.kind,
        state="reserved",
        amount=wish.amount.value,
        unit=wish.amount.unit,
        seller=wish.seller,
        offer=wish.offer,
        market=next(iter(wish.markets), ""),
        job=wish.job or wish.spend_id,
        grant=guard.grant,
        reserved_at=clock,
    )
    spending.put_spend(tx, new)
    spendlog.append(tx, "reserved", new, clock)


def commit(tx: Transaction, spend_id: str, now: int) -> None:
    """The money is gone. Repeatable."""
    held = spending.spend(tx, spend_id)
    if held is not None and held.state == "reserved":
        spending.change_total(tx, f"reserved:{held.unit}", -held.amount)
        spending.change_total(tx, f"spent:{held.unit}", held.amount)
        settled_at = spending.set_clock(tx, now) if held.settled_at is None else held.settled_at
        spending.settle(tx, spend_id, "committed", settled_at)
        spendlog.append(tx, "committed", held, spending.clock(tx, now))


def paid(tx: Transaction, spend_id: str, now: int) -> None:
    """The payment is out; what it buys is not there yet. Still reserved, it counts in windows from now on. Repeatable."""
    held = spending.spend(tx, spend_id)
    if held is not None and held.state == "reserved" and held.settled_at is None:
        clock = spending.set_clock(tx, now)
        spending.settle(tx, spend_id, "reserved", clock)
        spendlog.append(tx, "paid", held, clock)


def release(tx: Transaction, spend_id: str, now: int) -> None:
    """The money is provably still here, or came back. Repeatable."""
    held = spending.spend(tx, spend_id)
    if held is not None and held.state != "released":
        spending.change_total(tx, f"{'spent' if held.state == 'committed' else 'reserved'}:{held.unit}", -held.amount)
        _debit(tx, held.grant, held.unit, -held.amount)
        clock = spending.set_clock(tx, now)
        spending.settle(tx, spend_id, "released", clock)
        spendlog.append(tx, "returned" if held.state == "committed" else "released", held, clock)


def _debit(tx: Transaction, grant_id: str, unit: str, by: int) -> None:
    """The grant and every ancestor of it, in the caller's transaction."""
    for grant in lineage(tx, grant_id):
        spending.change_budget(tx, grant.grant_id, unit, grant.budgets[unit][1] + by)


def _remember(tx: Transaction, file: PolicyFile | None) -> None:
    """A file made tighter by hand is the accepted one from its first use on; to take that back needs the passphrase."""
    last = accepted(tx)
    assert file is not None
    assert last is not None
    assert last.seal is not None
    spending.set_meta(tx, "policy.accepted", json.dumps({**file.content, "seal": vars(last.seal)}))


# asking


async def settle_approval(found: Ask | None, wish: Intended, title: str, ask_owner: AskOwner | None) -> bool:
    """Ask where the policy wants it. False when nothing had to be asked; PolicyError for a no, and where nobody can be asked."""
    if found is None:
        return False
    if ask_owner is None:
        raise PolicyError(f"{found.why}, and nobody can be asked here: run it at a terminal; nothing was paid", rule=found.rule)
    named = "".join(c if c.isprintable() else "?" for c in title)[:80]  # a stranger's words
    text = f"Pay {wish.amount} to {wish.seller or 'somebody'} for {named!r}? ({found.why})"
    if not await ask_owner(Question(wish, found.rule, text)):
        raise PolicyError(f"{found.why}, and the owner said no; nothing was paid", rule=found.rule)
    return True
