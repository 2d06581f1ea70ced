"""What happens to each payment found: to the job, to the surplus, back to the buyer, or to review. Pure; the one place payments are judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tradeskill.model import Payment
from tradeskill.money import Amount

__all__ = ["Allocation", "Part", "Terms", "allocate"]


@dataclass(frozen=True)
class Terms:
    """The seller's policy for money that does not fit. `refund_minimum`, by unit: less than this is kept as surplus (a refund would cost more)."""

    late: Literal["run", "refund"] = "run"
    surplus: Literal["keep", "refund"] = "refund"
    refund_minimum: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """`amount` of payment `payment_id` takes `event` of the payment table. Parts of one payment sum to it exactly."""

    payment_id: str
    part: int
    amount: int
    event: Literal["allocate", "keep", "return", "hold"]


@dataclass(frozen=True)
class Allocation:
    """`event`: the fulfilment's step, if any. Payments not named in `parts` stay found (a partial payment, still open to top-ups)."""

    event: Literal["pay", "pay_late", "expire"] | None
    parts: tuple[Part, ...] = ()


def allocate(state: str, price: int, found: Sequence[Payment], *, late: bool, closing: bool, refundable: bool, terms: Terms) -> Allocation:
    """Decide on the `found` payments of one job whose fulfilment is in `state`.

    `price` in smallest units; `late`: the payment became final after the invoice expired; `closing`: no more time for top-ups;
    `refundable`: the buyer signed a refund address for this rail. `pay_late`: allocated, and the job fails at once so that all of it returns.
    """
    ordered = sorted(found, key=lambda payment: (payment.received_at, payment.payment_id))
    if state != "quoted":
        return Allocation(None, tuple(_back(p.payment_id, 0, p.amount, refundable, terms) for p in ordered))
    if sum(payment.amount.value for payment in ordered) < price:
        if not closing:
            return Allocation(None)
        return Allocation("expire", tuple(_back(p.payment_id, 0, p.amount, refundable, terms) for p in ordered))
    parts: list[Part] = []
    missing = price
    for payment in ordered:
        used = min(missing, payment.amount.value)
        missing -= used
        rest = payment.amount.value - used
        if used:
            parts.append(Part(payment.payment_id, 0, used, "allocate"))
        if rest:
            parts.append(_extra(payment.payment_id, 1 if used else 0, Amount(rest, payment.amount.unit), refundable, terms))
    return Allocation("pay_late" if late and terms.late == "refund" else "pay", tuple(parts))


def _extra(payment_id: str, part: int, amount: Amount, refundable: bool, terms: Terms) -> Part:
    if terms.surplus == "keep":
        return Part(payment_id, part, amount.value, "keep")
    return _back(payment_id, part, amount, refundable, terms)


def _back(payment_id: str, part: int, amount: Amount, refundable: bool, terms: Terms) -> Part:
    if amount.value < terms.refund_minimum.get(amount.unit, 0):
        return Part(payment_id, part, amount.value, "keep")
    return Part(payment_id, part, amount.value, "return" if refundable else "hold")
