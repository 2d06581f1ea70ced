"""The trade's nouns as values: offer, job, quote, invoice, payment, result. Nothing here acts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from tradeskill.money import Amount

__all__ = [
    "NETWORKS",
    "PAYMENT_TTL_MS",
    "Delivery",
    "Invoice",
    "Job",
    "JobError",
    "JobState",
    "Json",
    "Lock",
    "Network",
    "Offer",
    "Payment",
    "PaymentState",
    "PaymentStatus",
    "Proof",
    "Result",
    "SignedDocument",
]

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
Network = Literal["dev", "test", "live"]
NETWORKS: tuple[Network, ...] = ("dev", "test", "live")

PAYMENT_TTL_MS = 30 * 60_000  # from accept to the submitted payment

JobState = Literal["requested", "quoted", "accepted", "running", "delivered", "failed", "canceled", "expired"]


@dataclass(frozen=True)
class SignedDocument:
    """`body` signed as `tradeskill/<kind>/1\\n` + RFC 8785 JSON by the ed25519 key `key` (64 hex); `signature` is 128 hex."""

    kind: str
    body: Mapping[str, Json]
    key: str
    signature: str


@dataclass(frozen=True)
class Offer:
    """What a seller sells. `document` is the signed offer; the other fields repeat its body for searching."""

    offer_id: str
    seller: str
    title: str
    description: str
    tags: tuple[str, ...]
    prices: tuple[Amount, ...]  # one a unit, the seller's favourite first, any one of them pays; none: priced by quote
    network: Network
    input_schema: Mapping[str, Json]
    offer_hash: str
    document: SignedDocument
    active: bool = True
    created_at: int = 0  # ms

    @property
    def price(self) -> Amount | None:
        """The first of its prices; None: priced by quote."""
        return self.prices[0] if self.prices else None


@dataclass(frozen=True)
class Invoice:
    """Where and how much to pay, on one rail, for one job. `details` carries what the rail needs beyond an address (mint, bolt11, lock key)."""

    rail: str
    network: Network
    invoice_id: str
    job_id: str
    address: str
    amount: Amount
    expires_at: int  # ms
    details: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True)
class Payment:
    """One final transfer to an invoice. `payment_id` is unique on its rail and network (Nano: the send's block hash)."""

    payment_id: str
    amount: Amount
    received_at: int  # ms, when the rail first saw it
    sender: str = ""  # for the record only; never a refund target


PaymentState = Literal["none", "pending", "partial", "paid", "unknown"]


@dataclass(frozen=True)
class PaymentStatus:
    """What a wallet reports of one invoice. `payments` holds final ones only; `pending` money may still vanish.

    `unknown`: the rail could not be asked, or its answers contradict each other; never to be read as "not paid".
    """

    state: PaymentState
    payments: tuple[Payment, ...] = ()
    surplus: int = 0
    late: bool = False
    detail: str = ""


@dataclass(frozen=True)
class Proof:
    """What the payer holds. `published`: on its way; `final`: confirmed; `unknown`: ask again. `token` travels with the submission (bearer rails)."""

    payment_id: str
    state: Literal["published", "final", "unknown"]
    token: str = ""


@dataclass(frozen=True)
class Result:
    """The bytes a job produced. Several output files travel as one tar."""

    data: bytes
    media_type: str = "application/octet-stream"


@dataclass(frozen=True)
class JobError:
    code: str
    message: str


@dataclass(frozen=True)
class Delivery:
    """A seller's last word on a job: a result with its receipt, or an error."""

    result: Result | None = None
    receipt: SignedDocument | None = None
    error: JobError | None = None


@dataclass(frozen=True)
class Lock:
    """A market's lock on a job for its seller. `market_fence` is None where the market has none."""

    job_id: str
    expires_at: int  # ms, by the market's clock
    seconds_left: float  # at the moment of the answer; what the holder counts down on its own monotonic clock
    market_fence: int | None


@dataclass(frozen=True)
class Job:
    """One request against an offer, as the market tells it. Believe only what is signed inside."""

    job_id: str
    offer_id: str
    seller: str
    buyer: str
    state: JobState
    request: SignedDocument
    created_at: int  # ms
    updated_at: int  # ms
    revision: int  # grows with every change of this job
    quote: SignedDocument | None = None
    quote_expires_at: int | None = None
    accepted_at: int | None = None
    payment_id: str | None = None
    payment_rail: str | None = None
    payment_token: str | None = None
    lock_expires_at: int | None = None
    market_fence: int | None = None
    result: Result | None = None
    receipt: SignedDocument | None = None
    error: JobError | None = None
