"""The journal's rows as values."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cache, lru_cache
from typing import Any, TypeVar, cast

from tradeskill.model import Invoice, Json, Network, SignedDocument
from tradeskill.money import Amount, parse_raw
from tradeskill.signing import document_from_json, document_to_json, parse_json

__all__ = [
    "Effect",
    "Fulfilment",
    "InvoiceRow",
    "PaymentRow",
    "Purchase",
    "caps_text",
    "document_text",
    "from_row",
    "invoice_text",
    "read_document",
    "read_invoice",
]

T = TypeVar("T")


@dataclass(frozen=True)
class Fulfilment:
    """The seller's journal of one job."""

    job_id: str
    state: str
    offer_id: str
    offer_name: str
    buyer: str
    request: str
    quote: str | None
    expires_at: int | None
    hold_until: int | None  # capacity is held until then
    fence: int
    lease_owner: str
    lease_until: int
    market_fence: int | None
    contested: int  # 1: taken over from somebody not proved dead
    attempt: int
    execution_id: str | None
    claim: str | None
    claim_rail: str | None
    token: str | None
    result_sha256: str | None
    result_type: str | None
    receipt: str | None
    error_code: str | None
    error_message: str | None
    created_at: int
    updated_at: int
    paid_at: int | None
    started_at: int | None
    finished_at: int | None


@dataclass(frozen=True)
class InvoiceRow:
    invoice_id: str
    rail: str
    network: str
    job_id: str
    address: str
    amount: str
    unit: str
    expires_at: int
    details: str
    watch_until: int
    next_look: int

    @property
    def invoice(self) -> Invoice:
        return Invoice(
            rail=self.rail,
            network=cast(Network, self.network),
            invoice_id=self.invoice_id,
            job_id=self.job_id,
            address=self.address,
            amount=Amount(parse_raw(self.amount), self.unit),
            expires_at=self.expires_at,
            details=json.loads(self.details),
        )


@dataclass(frozen=True)
class PaymentRow:
    """One final payment, or the part of it in excess of the price (`part` 1). The parts of a payment sum to it exactly."""

    rail: str
    network: str
    payment_id: str
    part: int
    invoice_id: str
    job_id: str
    state: str
    amount: str
    unit: str
    received_at: int
    sender: str
    refund_to: str | None
    refund_id: str | None
    note: str
    found_at: int
    updated_at: int

    @property
    def value(self) -> int:
        return parse_raw(self.amount)

    @property
    def key(self) -> str:
        """Names this row in effects and refunds."""
        return f"{self.rail}/{self.network}/{self.payment_id}/{self.part}"


@dataclass(frozen=True)
class Purchase:
    """The buyer's journal of one job."""

    purchase_id: str
    intent: str
    state: str
    offer: str
    seller: str
    request: str
    cap: str | None
    job_id: str | None
    quote: str | None
    rail: str | None
    invoice: str | None
    amount: str | None
    unit: str | None
    accepted_at: int | None
    payment_id: str | None
    token: str | None
    refund_invoices: str
    result_sha256: str | None
    result_type: str | None
    receipt: str | None
    countersign: str | None
    error_code: str | None
    error_message: str | None
    created_at: int
    updated_at: int

    @property
    def caps(self) -> tuple[Amount, ...]:
        """The most that its caller lets it cost, at most one a unit; none: no cap of its own."""
        pairs = (text.split(" ") for text in self.cap.split(", ")) if self.cap else ()
        return tuple(Amount(int(value), unit) for value, unit in pairs)


@dataclass(frozen=True)
class Effect:
    """Work a committed step asked for; runs after the commit, may run again."""

    effect_id: int
    subject: str
    subject_id: str
    name: str
    attempts: int


def from_row(kind: type[T], row: Any) -> T:
    """A row's columns by the names of the dataclass's fields; the row may have more."""
    return kind(*[row[name] for name in _names(cast(Any, kind))])


@cache
def _names(kind: type[Any]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


def caps_text(caps: Iterable[Amount]) -> str | None:
    """As `Purchase.caps` reads it; None for none."""
    return ", ".join(f"{cap.value} {cap.unit}" for cap in caps) or None


def document_text(document: SignedDocument) -> str:
    return json.dumps(document_to_json(document), ensure_ascii=False, separators=(",", ":"))


@lru_cache(maxsize=1024)  # a document is read at every step of its job
def read_document(text: str) -> SignedDocument:
    return document_from_json(parse_json(text, "stored document"))


def invoice_text(invoice: Invoice) -> str:
    value: dict[str, Json] = {
        "rail": invoice.rail,
        "network": invoice.network,
        "invoice_id": invoice.invoice_id,
        "job_id": invoice.job_id,
        "address": invoice.address,
        "amount": str(invoice.amount.value),
        "unit": invoice.amount.unit,
        "expires_at": invoice.expires_at,
        "details": dict(invoice.details),
    }
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def read_invoice(text: str) -> Invoice:
    value = json.loads(text)
    return Invoice(
        rail=value["rail"],
        network=value["network"],
        invoice_id=value["invoice_id"],
        job_id=value["job_id"],
        address=value["address"],
        amount=Amount(parse_raw(value["amount"]), value["unit"]),
        expires_at=value["expires_at"],
        details=value["details"],
    )
