"""What may enter the book: shapes, sizes and signatures of everything a caller hands in. Pure; an entry exists only once it was checked.

Wrong values raise UsageError naming the field (InputError for a job's input), wrong signatures UntrustedError. What the market cannot
judge (prices, hashes, addresses) is the parties' business: they verify end to end.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from tradeskill.agreement import MAX_INPUT
from tradeskill.errors import AmountError, InputError, UsageError
from tradeskill.model import NETWORKS, Delivery, JobError, Json, Network, Offer, Result, SignedDocument
from tradeskill.money import Amount, parse_raw
from tradeskill.signing import canonical, digest, document_from_json, document_hash, document_to_json, verify_document

__all__ = [
    "MAX_ERROR",
    "MAX_PROOF",
    "MAX_RESULT",
    "Claim",
    "DeliveryEntry",
    "OfferEntry",
    "QuoteEntry",
    "RequestEntry",
    "check_text",
    "claim_entry",
    "delivery_entry",
    "error_entry",
    "offer_entry",
    "offer_of",
    "quote_entry",
    "request_entry",
    "stored_document",
]

MAX_DOCUMENT = MAX_INPUT  # canonical bytes of a signed body; a request may be larger by its input
MAX_RESULT = 4 * 2**20
MAX_PROOF = 16_384
MAX_ERROR = 8_192  # canonical bytes of {code, message}


@dataclass(frozen=True)
class OfferEntry:
    offer: Offer
    text: str  # the signed document, as it came


@dataclass(frozen=True)
class RequestEntry:
    document: SignedDocument
    text: str
    offer_id: str
    nonce: str
    network: Network
    seller: str


@dataclass(frozen=True)
class QuoteEntry:
    document: SignedDocument
    text: str
    job_id: str
    network: Network
    buyer: str
    expires_at: int | None  # ms; None: the market's default


@dataclass(frozen=True)
class Claim:
    """Which transfer the buyer says paid. `token` is the proof that bearer rails need, else empty."""

    rail: str
    payment_id: str
    token: str


@dataclass(frozen=True)
class DeliveryEntry:
    result: Result | None
    result_sha256: str | None
    receipt_text: str | None
    error: JobError | None


def offer_entry(document: SignedDocument, caller: str, text: str | None = None) -> OfferEntry:
    """`text`: the JSON the document was read from, where there is one; it is what others will get."""
    body = verify_document(document, "offer", caller)
    _check_size(body, "offer", MAX_DOCUMENT)
    check_text("offer_id", body.get("offer_id"), 1, 64)
    check_text("title", body.get("title"), 1, 120)
    check_text("description", body.get("description"), 1, 2_000)
    tags = body.get("tags", [])
    if not isinstance(tags, list) or len(tags) > 16:
        raise UsageError("tags must be a list of at most 16")
    for tag in tags:
        check_text("tags", tag, 1, 32)
    _network(body)
    if not isinstance(body.get("input", {}), dict):
        raise UsageError("input must be a JSON Schema object")
    _digits("created_at", body.get("created_at"))
    price = body.get("price")
    if price is not None:
        if not isinstance(price, dict):
            raise UsageError("price must be null or {amount, unit}")
        check_text("price.unit", price.get("unit"), 1, 16)
        try:
            parse_raw(price.get("amount"))
        except AmountError as error:
            raise UsageError(f"price.{error}") from error
    return OfferEntry(offer_of(document), text if text is not None else _as_text(document))


def offer_of(document: SignedDocument, *, active: bool = True) -> Offer:
    """The offer a document states, without checking it again: for what was checked on entry."""
    body = document.body
    price, tags, schema = body.get("price"), body.get("tags"), body.get("input")
    return Offer(
        offer_id=str(body["offer_id"]),
        seller=document.key,
        title=str(body["title"]),
        description=str(body["description"]),
        tags=tuple(str(tag) for tag in tags) if isinstance(tags, list) else (),
        price=Amount(parse_raw(price["amount"]), str(price["unit"])) if isinstance(price, dict) else None,
        network=_network(body),
        input_schema=schema if isinstance(schema, dict) else {},
        offer_hash=document_hash(document),
        document=document,
        active=active,
        created_at=_digits("created_at", body.get("created_at")),
    )


def request_entry(document: SignedDocument, caller: str, text: str | None = None) -> RequestEntry:
    body = verify_document(document, "request", caller)
    if "input" not in body:
        raise UsageError("input is missing from the request")
    size = len(canonical(body["input"]))
    if size > MAX_INPUT:
        raise InputError(f"input is {size} bytes: {MAX_INPUT} at most")
    _check_size(body, "request", MAX_INPUT + MAX_PROOF)
    if body.get("buyer") != caller:
        raise UsageError(f"buyer must be the signing key {caller}")
    return RequestEntry(
        document,
        text if text is not None else _as_text(document),
        offer_id=check_text("offer_id", body.get("offer_id"), 1, 64),
        nonce=check_text("nonce", body.get("nonce"), 1, 128),
        network=_network(body),
        seller=check_text("seller", body.get("seller"), 64, 64),
    )


def quote_entry(document: SignedDocument, caller: str, job_id: str, text: str | None = None) -> QuoteEntry:
    body = verify_document(document, "quote", caller)
    _check_size(body, "quote", MAX_DOCUMENT)
    if body.get("job_id") != job_id:
        raise UsageError(f"job_id in the quote is {_shown(body.get('job_id'))}, not {job_id}")
    if body.get("seller", caller) != caller:
        raise UsageError(f"seller must be the signing key {caller}")
    expires_at = body.get("expires_at")
    return QuoteEntry(
        document,
        text if text is not None else _as_text(document),
        job_id=job_id,
        network=_network(body),
        buyer=check_text("buyer", body.get("buyer"), 64, 64),
        expires_at=None if expires_at is None else _digits("expires_at", expires_at),
    )


def claim_entry(rail: str, payment_id: str, token: str = "") -> Claim:
    check_text("rail", rail, 1, 32)
    check_text("payment_id", payment_id, 1, 128)
    check_text("token", token, 0, MAX_PROOF)
    if len(token.encode()) > MAX_PROOF:
        raise UsageError(f"token is {len(token.encode())} bytes: {MAX_PROOF} at most")
    return Claim(rail, payment_id, token)


def error_entry(code: str, message: str) -> JobError:
    check_text("code", code, 1, 128)
    check_text("message", message, 0, MAX_ERROR)
    _check_size({"code": code, "message": message}, "error", MAX_ERROR)
    return JobError(code, message)


def delivery_entry(delivery: Delivery, caller: str, job_id: str, receipt_text: str | None = None) -> DeliveryEntry:
    if (delivery.result is None) == (delivery.error is None):
        raise UsageError("a delivery holds either a result or an error")
    if delivery.error is not None:
        if delivery.receipt is not None:
            raise UsageError("receipt cannot come with an error")
        return DeliveryEntry(None, None, None, error_entry(delivery.error.code, delivery.error.message))
    result = delivery.result
    assert result is not None
    if not isinstance(result.data, bytes):
        raise UsageError("result must be bytes")
    if len(result.data) > MAX_RESULT:
        raise UsageError(f"result is {len(result.data)} bytes: {MAX_RESULT} at most")
    check_text("media_type", result.media_type, 1, 255)
    receipt = delivery.receipt
    if receipt is not None:
        body = verify_document(receipt, "receipt", caller)
        _check_size(body, "receipt", MAX_DOCUMENT)
        if body.get("job_id") != job_id:
            raise UsageError(f"job_id in the receipt is {_shown(body.get('job_id'))}, not {job_id}")
        receipt_text = receipt_text if receipt_text is not None else _as_text(receipt)
    return DeliveryEntry(result, digest(result.data), receipt_text, None)


def check_text(name: str, value: object, low: int, high: int) -> str:
    """Text of `low` to `high` characters, without NUL and lone surrogates (no database keeps those)."""
    if not isinstance(value, str) or not low <= len(value) <= high:
        found = f"{len(value)}" if isinstance(value, str) else _shown(value)
        raise UsageError(f"{name} must be text of {low} to {high} characters, not {found}")
    if "\0" in value or any("\ud800" <= c <= "\udfff" for c in value):
        raise UsageError(f"{name} holds a NUL or a lone surrogate: {_shown(value)}")
    return value


def stored_document(text: str) -> SignedDocument:
    """Back from the text an entry kept."""
    return document_from_json(json.loads(text))


def _as_text(document: SignedDocument) -> str:
    # not the canonical form: numbers and key order stay as the caller wrote them
    return json.dumps(document_to_json(document), ensure_ascii=False, separators=(",", ":"))


def _check_size(body: Mapping[str, Json], what: str, most: int) -> None:
    size = len(canonical(body))
    if size > most:
        raise UsageError(f"{what} is {size} bytes: {most} at most")


def _network(body: Mapping[str, Json]) -> Network:
    for network in NETWORKS:
        if body.get("network") == network:
            return network
    raise UsageError(f"network must be one of {', '.join(NETWORKS)}, not {_shown(body.get('network'))}")


def _digits(name: str, value: object) -> int:
    """Milliseconds as plain digits, small enough for any database."""
    if isinstance(value, str) and 1 <= len(value) <= 15 and value.isascii() and value.isdigit() and (value == "0" or value[0] != "0"):
        return int(value)
    raise UsageError(f"{name} must be milliseconds in plain digits, not {_shown(value)}")


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
