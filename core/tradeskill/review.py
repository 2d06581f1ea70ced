"""Settling by hand what the rules leave open: payments in review, each decision journalled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tradeskill.errors import NotFoundError, StateError
from tradeskill.journal import PaymentRow, Transaction, selling
from tradeskill.money import Amount, format_amount
from tradeskill.policy import Intended
from tradeskill.policy.by_hand import approved, spend_now
from tradeskill.seller.shop import ACTIVE, execution_id

if TYPE_CHECKING:
    from tradeskill.journal import Database
    from tradeskill.profile import Profile

__all__ = ["keep", "listed", "refund", "rerun", "view"]


def listed(journal: Database) -> list[PaymentRow]:
    """Everything that waits for the owner."""
    return journal.read(lambda c: selling.payments_in(c, "review"))


def view(journal: Database, row: PaymentRow) -> dict[str, Any]:
    job = journal.read(lambda c: selling.fulfilment(c, row.job_id))
    return {
        "payment": row.key,
        "job_id": row.job_id,
        "job_state": job.state,
        "offer": job.offer_name,
        "amount_raw": row.amount,
        "unit": row.unit,
        "amount": format_amount(Amount(row.value, row.unit)),
        "received_at": row.received_at,
        "refund_to": row.refund_to,
        "reason": row.note or job.error_message or "",
        "choices": ["refund", "keep", *(["run"] if job.state in ACTIVE else [])],
    }


async def refund(profile: Profile, name: str, to: str) -> PaymentRow:
    """Send it back to `to` (checked), or to the address the buyer signed. The worker, or this call's caller, carries it out.

    It passes the spending policy: PolicyError, and nothing changed, where that refuses.
    """
    row = _in_review(profile.journal, name)
    wallets = await profile.wallets()
    address = to or row.refund_to
    if not address:
        raise StateError(f"payment {row.payment_id}: the buyer signed no refund address: give one with --to ADDRESS")
    if row.rail not in wallets:
        raise NotFoundError(f"payment {row.payment_id} is on rail {row.rail!r}, which this profile has not configured")
    address = wallets[row.rail].check_address(address)
    now, guard = profile.world.now_ms(), profile.guard()
    wish = Intended(f"refund:{row.key}:{address}", Amount(row.value, row.unit), rail=row.rail, seller=address, kind="refund")
    agreed = await approved(profile.journal, wish, guard, f"a refund of job {row.job_id}", profile.ask_owner, now)

    def settle(tx: Transaction) -> PaymentRow:
        spend_now(tx, wish, guard, now, approved=agreed)
        moved = selling.move_payment(tx, _in_review_in(tx, row), "return", now, refund_to=address, note="refunded by the owner")
        _close_job(tx, row.job_id, now)
        return moved

    return await profile.journal.write(settle)


async def keep(profile: Profile, name: str) -> PaymentRow:
    """The owner keeps the money (agreed with the buyer elsewhere, say); an open job fails."""
    row = _in_review(profile.journal, name)
    now = profile.world.now_ms()

    def settle(tx: Transaction) -> PaymentRow:
        moved = selling.move_payment(tx, _in_review_in(tx, row), "keep", now, note="kept by the owner")
        _close_job(tx, row.job_id, now)
        return moved

    return await profile.journal.write(settle)


async def rerun(profile: Profile, name: str) -> PaymentRow:
    """Allocate it again and do the work (once more): the owner says that an interrupted execution may be repeated.

    The worker carries it out. StateError, and nothing changed, for a job that has ended or that somebody alive is working on.
    """
    from tradeskill.instance import is_dead

    row = _in_review(profile.journal, name)
    now = profile.world.now_ms()

    def settle(tx: Transaction) -> PaymentRow:
        job = selling.fulfilment(tx, row.job_id)
        if job.state not in ACTIVE:
            raise StateError(f"job {row.job_id} is {job.state}, and ended jobs stay as they are: use refund or keep")
        for payment in selling.payments_of(tx, row.job_id):
            if payment.state == "review":
                selling.move_payment(tx, payment, "allocate", now, note="run again by the owner")
        if job.state == "started":
            dead = (job.lease_owner,) if is_dead(job.lease_owner) else ()
            held = selling.take(tx, row.job_id, "review", now, now, dead_owners=dead, market_fence=job.market_fence)
            if held is None:
                raise StateError(f"job {row.job_id} is held by a worker that may be at it: try again in a minute")
            attempt = held.attempt + 1
            selling.move_fulfilment(
                tx, row.job_id, "retry", now, fence=held.fence, attempt=attempt, execution_id=execution_id(row.job_id, attempt), started_at=now
            )
            selling.record_start(tx, row.job_id, attempt, held.fence, now)
        selling.let_go(tx, row.job_id)
        selling.add_effect(tx, "fulfilment", row.job_id, "deliver" if job.state == "executed" else "execute", now)
        return selling.payment_by_key(tx, row.key)

    return await profile.journal.write(settle)


def _in_review(journal: Database, name: str) -> PaymentRow:
    return journal.read(lambda c: _checked(selling.payment_by_key(c, name)))


def _in_review_in(tx: Transaction, row: PaymentRow) -> PaymentRow:
    return _checked(selling.payment_by_key(tx, row.key))


def _checked(row: PaymentRow) -> PaymentRow:
    if row.state != "review":
        raise StateError(f"payment {row.payment_id} is {row.state}, not in review: nothing to decide")
    return row


def _close_job(tx: Transaction, job_id: str, now: int) -> None:
    """A job whose last money left it can not be delivered any more: it fails, under its own fence."""
    job = selling.fulfilment(tx, job_id)
    money_left = any(p.state in ("allocated", "review") for p in selling.payments_of(tx, job_id))
    if job.state in ACTIVE and not money_left:
        selling.move_fulfilment(tx, job_id, "fail", now, fence=job.fence, error_code="settled_by_owner", error_message="the seller settled this job by hand")
