"""What may enter the book: entries, and the checks of shape and size that every market shares. Pure; an entry exists only once it was checked.

Wrong values raise UsageError naming the field. What the market cannot judge (prices, hashes, addresses) is the parties' business: they
verify end to end. `signed.py` makes entries of our signed documents, the relay's `wire.py` of a request's body.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from tradeskill.errors import UsageError
from tradeskill.model import Json, Network
from tradeskill.signing import canonical

__all__ = [
    "MAX_ERROR",
    "MAX_PROOF",
    "Claim",
    "DeliveryEntry",
    "ErrorEntry",
    "OfferEntry",
    "QuoteEntry",
    "RequestEntry",
    "check_range",
    "check_size",
    "check_text",
    "claim_entry",
    "digits",
    "error_entry",
    "shown",
]

MAX_PROOF = 16_384
MAX_ERROR = 8_192  # canonical bytes of {code, message}


@dataclass(frozen=True)
class OfferEntry:
    """`document`: the signed offer's text as it came, where there is one; then `network` is known too."""

    offer_id: str
    seller: str
    title: str
    description: str
    tags: tuple[str, ...]
    pricing_mode: Literal["fixed", "quote"]
    fixed_price: str | None
    document: str | None
    network: Network | None
    active: bool = True


@dataclass(frozen=True)
class RequestEntry:
    """`nonce` and `hash` name a signed request; without them every call opens a job. `papers` are kept with the job as they are, by kind."""

    offer_id: str
    buyer: str
    papers: Mapping[str, str]
    nonce: str | None = None
    hash: str | None = None
    seller: str | None = None
    network: Network | None = None


@dataclass(frozen=True)
class QuoteEntry:
    """`expires_at`: ms; None: the market's default. `hash` tells whether a repeated quote is the same."""

    job_id: str
    seller: str
    papers: Mapping[str, str]
    hash: str | None = None
    buyer: str | None = None
    network: Network | None = None
    expires_at: int | None = None


@dataclass(frozen=True)
class Claim:
    """Which transfer the buyer says paid. `token` is the proof that bearer rails need, else empty."""

    rail: str
    payment_id: str
    token: str


@dataclass(frozen=True)
class ErrorEntry:
    code: str
    message: str
    papers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DeliveryEntry:
    """Either an error, or a result: its bytes, or (on a relay) only what a paper says of where they are."""

    error: ErrorEntry | None = None
    data: bytes | None = None
    media_type: str | None = None
    sha256: str | None = None
    papers: Mapping[str, str] = field(default_factory=dict)


def claim_entry(rail: str, payment_id: str, token: str = "") -> Claim:
    check_text("rail", rail, 1, 32)
    check_text("payment_id", payment_id, 1, 128)
    check_text("token", token, 0, MAX_PROOF)
    if len(token.encode()) > MAX_PROOF:
        raise UsageError(f"token is {len(token.encode())} bytes: {MAX_PROOF} at most")
    return Claim(rail, payment_id, token)


def error_entry(code: str, message: str) -> ErrorEntry:
    check_text("code", code, 1, 128)
    check_text("message", message, 0, MAX_ERROR)
    check_size({"code": code, "message": message}, "error", MAX_ERROR)
    return ErrorEntry(code, message)


def check_text(name: str, value: object, low: int, high: int) -> str:
    """Text of `low` to `high` characters, without NUL and lone surrogates (no database keeps those)."""
    if not isinstance(value, str) or not low <= len(value) <= high:
        found = f"{len(value)}" if isinstance(value, str) else shown(value)
        raise UsageError(f"{name} must be text of {low} to {high} characters, not {found}")
    if "\0" in value or any("\ud800" <= c <= "\udfff" for c in value):
        raise UsageError(f"{name} holds a NUL or a lone surrogate: {shown(value)}")
    return value


def check_range(name: str, value: object, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise UsageError(f"{name} must be a whole number from {low} to {high}, not {value!r}")


def check_size(body: Mapping[str, Json], what: str, most: int) -> None:
    size = len(canonical(body))
    if size > most:
        raise UsageError(f"{what} is {size} bytes: {most} at most")


def digits(name: str, value: object) -> int:
    """Milliseconds as plain digits, small enough for any database."""
    if isinstance(value, str) and 1 <= len(value) <= 15 and value.isascii() and value.isdigit() and (value == "0" or value[0] != "0"):
        return int(value)
    raise UsageError(f"{name} must be milliseconds in plain digits, not {shown(value)}")


def shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
