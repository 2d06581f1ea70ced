"""Our signed documents as entries of the book, and the book's rows as offers and jobs of the model. Pure but for reading a result's bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from tradeskill.agreement import MAX_INPUT, offer_prices
from tradeskill.errors import InputError, UntrustedError, UsageError
from tradeskill.model import NETWORKS, Delivery, Job, JobError, Json, Network, Offer, Result, SignedDocument
from tradeskill.money import Amount, in_unit
from tradeskill.signing import canonical, digest, document_from_json, document_hash, document_to_json, verify_document
from tradeskill_plugins.market.entries import (
    MAX_PROOF,
    DeliveryEntry,
    OfferEntry,
    QuoteEntry,
    RequestEntry,
    check_size,
    check_text,
    digits,
    error_entry,
    shown,
)

if TYPE_CHECKING:
    from tradeskill_plugins.market.book import JobRow, Row

__all__ = ["MAX_RESULT", "check_receipt", "delivery_entry", "job_of", "offer_entry", "offer_of", "quote_entry", "request_entry"]

MAX_DOCUMENT = MAX_INPUT  # canonical bytes of a signed body; a request may be larger by its input
MAX_RESULT = 4 * 2**20


def offer_entry(document: SignedDocument, caller: str, text: str | None = None, offer_id: str | None = None) -> OfferEntry:
    """`text`: the JSON the document was read from, where there is one; it is what others will get. `offer_id`: the market's own name for it."""
    body = verify_document(document, "offer", caller)
    check_size(body, "offer", MAX_DOCUMENT)
    check_text("offer_id", body.get("offer_id"), 1, 64)
    tags = body.get("tags", [])
    if not isinstance(tags, list) or len(tags) > 16:
        raise UsageError("tags must be a list of at most 16")
    if not isinstance(body.get("input", {}), dict):
        raise UsageError("input must be a JSON Schema object")
    prices = _prices(body)
    fixed = in_unit(prices, "raw")  # those in other units are told by the document and the quote only
    entry = OfferEntry(
        offer_id=offer_id or str(body["offer_id"]),
        seller=document.key,
        title=check_text("title", body.get("title"), 1, 120),
        description=check_text("description", body.get("description"), 1, 2_000),
        tags=tuple(check_text("tags", tag, 1, 32) for tag in tags),
        pricing_mode="quote" if fixed is None else "fixed",
        fixed_price=None if fixed is None else str(fixed.value),
        document=text if text is not None else _as_text(document),
        network=_network(body),
    )
    digits("created_at", body.get("created_at"))
    return entry


def offer_of(row: Row) -> Offer:
    """The offer of a row that holds a document, without checking it again."""
    document = _stored(row["document"])
    body = document.body
    tags, schema = body.get("tags"), body.get("input")
    return Offer(
        offer_id=str(body["offer_id"]),
        seller=document.key,
        title=str(body["title"]),
        description=str(body["description"]),
        tags=tuple(str(tag) for tag in tags) if isinstance(tags, list) else (),
        prices=offer_prices(body),
        network=_network(body),
        input_schema=schema if isinstance(schema, dict) else {},
        offer_hash=document_hash(document),
        document=document,
        active=bool(row["active"]),
        created_at=digits("created_at", body.get("created_at")),
    )


def request_entry(document: SignedDocument, caller: str, text: str | None = None, papers: Mapping[str, str] | None = None) -> RequestEntry:
    """`papers`: what else to keep with the job."""
    body = verify_document(document, "request", caller)
    if "input" not in body:
        raise UsageError("input is missing from the request")
    size = len(canonical(body["input"]))
    if size > MAX_INPUT:
        raise InputError(f"input is {size} bytes: {MAX_INPUT} at most")
    check_size(body, "request", MAX_INPUT + MAX_PROOF)
    if body.get("buyer") != caller:
        raise UsageError(f"buyer must be the signing key {caller}")
    return RequestEntry(
        offer_id=check_text("offer_id", body.get("offer_id"), 1, 64),
        buyer=caller,
        papers={"request": text if text is not None else _as_text(document), **(papers or {})},
        nonce=check_text("nonce", body.get("nonce"), 1, 128),
        hash=document_hash(document),
        seller=check_text("seller", body.get("seller"), 64, 64),
        network=_network(body),
    )


def quote_entry(
    document: SignedDocument, caller: str, job_id: str, text: str | None = None, papers: Mapping[str, str] | None = None
) -> QuoteEntry:
    body = verify_document(document, "quote", caller)
    check_size(body, "quote", MAX_DOCUMENT)
    if body.get("job_id") != job_id:
        raise UsageError(f"job_id in the quote is {shown(body.get('job_id'))}, not {job_id}")
    if body.get("seller", caller) != caller:
        raise UsageError(f"seller must be the signing key {caller}")
    expires_at = body.get("expires_at")
    return QuoteEntry(
        job_id=job_id,
        seller=caller,
        papers={"quote": text if text is not None else _as_text(document), **(papers or {})},
        hash=document_hash(document),
        buyer=check_text("buyer", body.get("buyer"), 64, 64),
        network=_network(body),
        expires_at=None if expires_at is None else digits("expires_at", expires_at),
    )


def delivery_entry(
    delivery: Delivery, caller: str, job_id: str, receipt_text: str | None = None, most: int = MAX_RESULT, papers: Mapping[str, str] | None = None
) -> DeliveryEntry:
    """`most`: bytes of a result."""
    if (delivery.result is None) == (delivery.error is None):
        raise UsageError("a delivery holds either a result or an error")
    if delivery.error is not None:
        if delivery.receipt is not None:
            raise UsageError("receipt cannot come with an error")
        return DeliveryEntry(error_entry(delivery.error.code, delivery.error.message))
    result = delivery.result
    assert result is not None
    if not isinstance(result.data, bytes):
        raise UsageError("result must be bytes")
    if len(result.data) > most:
        raise UsageError(f"result is {len(result.data)} bytes: {most} at most")
    check_text("media_type", result.media_type, 1, 255)
    kept = dict(papers or {})
    if delivery.receipt is not None:
        check_receipt(delivery.receipt, caller, job_id)
        kept["receipt"] = receipt_text if receipt_text is not None else _as_text(delivery.receipt)
    return DeliveryEntry(None, result.data, result.media_type, digest(result.data), kept)


def check_receipt(receipt: SignedDocument, caller: str, job_id: str) -> None:
    body = verify_document(receipt, "receipt", caller)
    check_size(body, "receipt", MAX_DOCUMENT)
    if body.get("job_id") != job_id:
        raise UsageError(f"job_id in the receipt is {shown(body.get('job_id'))}, not {job_id}")


def job_of(row: JobRow, data: bytes | None) -> Job:
    """The job of a row whose papers hold documents. `data`: its result's bytes, where it has some."""
    papers = row["papers"]
    code = row["error_code"]
    return Job(
        job_id=row["job_id"],
        offer_id=row["offer_id"],
        seller=row["seller"],
        buyer=row["buyer"],
        state=row["state"],
        request=_stored(papers["request"]),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        revision=row["revision"],
        quote=_stored(papers["quote"]) if "quote" in papers else None,
        quote_expires_at=row["quote_expires_at"],
        accepted_at=row["accepted_at"],
        payment_id=row["payment_id"],
        payment_rail=row["payment_rail"],
        payment_token=papers.get("token"),
        lock_expires_at=row["lock_expires_at"],
        market_fence=row["market_fence"],
        result=Result(data, row["result_type"]) if data is not None else None,
        receipt=_stored(papers["receipt"]) if "receipt" in papers else None,
        error=JobError(code, row["error_message"]) if code is not None else None,
    )


def _stored(text: str) -> SignedDocument:
    """Back from the text an entry kept."""
    return document_from_json(json.loads(text))


def _as_text(document: SignedDocument) -> str:
    # not the canonical form: numbers and key order stay as the caller wrote them
    return json.dumps(document_to_json(document), ensure_ascii=False, separators=(",", ":"))


def _prices(body: Mapping[str, Json]) -> tuple[Amount, ...]:
    try:
        return offer_prices(body)
    except UntrustedError as error:
        raise UsageError(str(error)) from error


def _network(body: Mapping[str, Json]) -> Network:
    for network in NETWORKS:
        if body.get("network") == network:
            return network
    raise UsageError(f"network must be one of {', '.join(NETWORKS)}, not {shown(body.get('network'))}")
