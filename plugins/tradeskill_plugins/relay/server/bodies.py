"""From a request's body to an entry of the book: which fields each call takes, their shapes and limits. Pure; wrong ones raise before the book is asked.

A call's unknown keys are ignored, but for a delivery's, which are refused. Signed documents, where they come along, are verified here.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import Any, Final, Literal

from tradeskill.errors import InputError, UsageError
from tradeskill.model import Delivery, Json, Result, SignedDocument
from tradeskill.signing import digest, document_from_json
from tradeskill_plugins.market import signed
from tradeskill_plugins.market.book import QUOTE_TTL_MAX_MS
from tradeskill_plugins.market.entries import (
    Claim,
    DeliveryEntry,
    ErrorEntry,
    OfferEntry,
    QuoteEntry,
    RequestEntry,
    check_text,
    claim_entry,
)
from tradeskill_plugins.relay import wire
from tradeskill_plugins.relay.rawjson import Member
from tradeskill_plugins.relay.server.rejections import Rejection

__all__ = ["Members", "cancel", "decline", "deliver", "offer", "payment", "quote", "request"]

Members = Mapping[str, Member]
_DIGITS = re.compile(r"[0-9]{1,40}", re.ASCII)
_TERMS: Final = (("payment_charge_id", 128), ("payment_charge_address", 128), ("payment_provider", 32))
_DELIVERY: Final = frozenset({"result_url", "error", "result", "receipt", "market_fence"})
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\x00-\x20\x7f]+")
_NEVER: Final = ("javascript:", "vbscript:", "file:")


def offer(body: Members, caller: str, offer_id: str) -> OfferEntry:
    """`offer_id`: the name of a new offer that has none of its own. With `document` the plain fields may be left out and must agree where given."""
    active = _value(body, "active")
    if active is not None and not isinstance(active, bool):
        raise UsageError("active must be true or false")
    document = _document(body, "document")
    if document is not None:
        named = document.body.get("offer_id")
        on_the_wire = wire.offer_id_on_the_wire(named) if isinstance(named, str) else offer_id
        entry = signed.offer_entry(document, caller, body["document"].text, on_the_wire)
        plain: dict[str, Json] = {"title": entry.title, "description": entry.description, "tags": list(entry.tags)}
        _agree(body, {**plain, "pricing_mode": entry.pricing_mode, "fixed_price_raw": entry.fixed_price})
        return entry if active is not False else _hidden(entry)
    tags = _value(body, "tags")
    if tags is not None and (not isinstance(tags, list) or len(tags) > 16):
        raise UsageError("tags must be a list of at most 16")
    mode, price = _value(body, "pricing_mode"), _value(body, "fixed_price_raw")
    title, description = check_text("title", _value(body, "title"), 1, 120), check_text("description", _value(body, "description"), 1, 2_000)
    texts = tuple(check_text("tags", tag, 1, 32) for tag in tags or [])
    return OfferEntry(
        offer_id, caller, title, description, texts, _mode(mode), _price(mode, price), document=None, network=None, active=active is not False
    )


def request(body: Members, caller: str) -> RequestEntry:
    offer_id = wire.job_id("offer_id", _value(body, "offer_id"))
    payload = body.get("request_payload")
    if payload is None or not isinstance(payload.value, dict):
        raise UsageError("request_payload must be a JSON object")
    _check_bytes("request_payload", payload.text, wire.MAX_REQUEST)
    papers = {"payload": payload.text}
    document = _document(body, "request")
    if document is None:
        return RequestEntry(offer_id, caller, papers)
    entry = signed.request_entry(document, caller, body["request"].text, papers)
    if wire.offer_id_on_the_wire(entry.offer_id) != offer_id:
        raise UsageError(f"offer_id is {offer_id}, the signed request names another offer")
    return RequestEntry(offer_id, caller, entry.papers, entry.nonce, entry.hash, entry.seller, entry.network)


def quote(body: Members, caller: str, job_id: str, now_ms: int) -> QuoteEntry:
    """A signed quote says all that the plain fields say; the first Nano invoice of it stands in them."""
    terms: dict[str, Json] = {}
    for name, most in _TERMS:
        value = _value(body, name)
        if value is not None:
            terms[name] = check_text(name, value, 1, most)
    expires = _value(body, "quote_expires_at")
    expires_at = None if expires is None else wire.read_time("quote_expires_at", expires)
    document = _document(body, "quote")
    entry = None if document is None else signed.quote_entry(document, caller, job_id, body["quote"].text)
    if entry is not None and document is not None:
        terms = {**_nano(document), **terms}
        _agree(body, {name: terms.get(name) for name in ("quote_amount_raw", "quote_invoice_address")})
        if expires_at is not None and entry.expires_at is not None and expires_at != entry.expires_at:
            raise UsageError("quote_expires_at is not the signed quote's expires_at")
        expires_at = entry.expires_at if entry.expires_at is not None else expires_at
    else:
        amount = _value(body, "quote_amount_raw")
        if not isinstance(amount, str) or not _DIGITS.fullmatch(amount):
            raise UsageError("quote_amount_raw must be a text of 1 to 40 digits")
        address = check_text("quote_invoice_address", _value(body, "quote_invoice_address"), 1, 128)
        terms = {"quote_amount_raw": amount, "quote_invoice_address": address, **terms}
        if expires_at is not None and not now_ms < expires_at <= now_ms + QUOTE_TTL_MAX_MS:
            raise UsageError("quote_expires_at must be ahead, by 60 minutes at most")
    papers = {"terms": json.dumps(terms, ensure_ascii=False, separators=(",", ":"))}
    if entry is None:
        return QuoteEntry(job_id, caller, papers, expires_at=expires_at)
    return QuoteEntry(job_id, caller, {**entry.papers, **papers}, entry.hash, entry.buyer, entry.network, expires_at)


def payment(body: Members) -> Claim:
    payment_id = check_text("payment_tx_hash", _value(body, "payment_tx_hash"), 1, 128)
    rail, proof = _value(body, "payment_rail"), _value(body, "payment_proof")
    if proof is not None and (not isinstance(proof, str) or len(proof.encode(errors="replace")) > wire.MAX_PROOF):
        raise UsageError(f"payment_proof must be text of at most {wire.MAX_PROOF} bytes")
    return claim_entry("nano" if rail is None else check_text("payment_rail", rail, 1, 32), payment_id, proof or "")


def deliver(body: Members, caller: str, job_id: str) -> tuple[DeliveryEntry, int | None]:
    """What is delivered and the fence it is delivered under."""
    unknown = sorted(set(body) - _DELIVERY)
    if unknown:
        raise UsageError(f"{unknown[0][:60]!r} is no field of a delivery: {', '.join(sorted(_DELIVERY))}")
    fence = _value(body, "market_fence")
    if fence is not None and (type(fence) is not int or not 0 <= fence < 2**63):
        raise UsageError("market_fence must be a whole number")
    given = [name for name in ("result_url", "result", "error") if _value(body, name) is not None]
    if len(given) != 1:
        raise UsageError("a delivery holds exactly one of result_url, result and error")
    receipt = _document(body, "receipt")
    if given == ["error"]:
        if receipt is not None:
            raise UsageError("receipt cannot come with an error")
        return DeliveryEntry(_error(body["error"])), fence
    receipt_text = None if receipt is None else body["receipt"].text
    if given == ["result"]:
        delivery = Delivery(_result(body["result"].value), receipt)
        return signed.delivery_entry(delivery, caller, job_id, receipt_text, wire.INLINE_RESULT), fence
    url = check_text("result_url", body["result_url"].value, 1, wire.MAX_URL)
    if not _URL.fullmatch(url) or url.lower().startswith(_NEVER):
        raise UsageError("result_url must be a URL that a buyer can fetch, such as https://… or data:…")
    papers = {"url": url}
    if receipt is not None and receipt_text is not None:
        signed.check_receipt(receipt, caller, job_id)
        papers["receipt"] = receipt_text
    return DeliveryEntry(sha256=digest(url.encode()), papers=papers), fence


def decline(body: Members) -> ErrorEntry:
    code, message = check_text("code", _value(body, "code"), 1, 128), check_text("message", _value(body, "message"), 0, wire.MAX_ERROR)
    text = json.dumps({"code": code, "message": message}, ensure_ascii=False, separators=(",", ":"))
    _check_bytes("error", text, wire.MAX_ERROR)
    return ErrorEntry(code, message, {"error": text})


def cancel(body: Members) -> str:
    reason = _value(body, "reason")
    return "" if reason is None else check_text("reason", reason, 0, 200)


def _value(body: Members, name: str) -> Any:
    member = body.get(name)
    return None if member is None else member.value


def _document(body: Members, name: str) -> SignedDocument | None:
    value = _value(body, name)
    return None if value is None else document_from_json(value)


def _agree(body: Members, signed_values: Mapping[str, Json]) -> None:
    for name, value in signed_values.items():
        given = _value(body, name)
        if given is not None and given != value:
            raise UsageError(f"{name} is not what the signed document says")


def _hidden(entry: OfferEntry) -> OfferEntry:
    from dataclasses import replace

    return replace(entry, active=False)


def _mode(mode: object) -> Literal["fixed", "quote"]:
    if mode == "fixed":
        return "fixed"
    if mode == "quote":
        return "quote"
    raise UsageError("pricing_mode must be fixed or quote")


def _price(mode: object, price: object) -> str | None:
    if mode == "quote":
        if price is not None:
            raise UsageError("fixed_price_raw must be absent or null for pricing_mode quote")
        return None
    if not isinstance(price, str) or not _DIGITS.fullmatch(price):
        raise UsageError("fixed_price_raw must be a text of 1 to 40 digits for pricing_mode fixed")
    return price


def _nano(document: SignedDocument) -> dict[str, Json]:
    invoices = document.body.get("invoices")
    for invoice in invoices if isinstance(invoices, list) else []:
        if isinstance(invoice, dict) and invoice.get("rail") == "nano":
            amount, address = invoice.get("amount"), invoice.get("address")
            if isinstance(amount, str) and isinstance(address, str) and _DIGITS.fullmatch(amount) and 1 <= len(address) <= 128:
                return {"quote_amount_raw": amount, "quote_invoice_address": address}
    return {}


def _error(member: Member) -> ErrorEntry:
    _check_bytes("error", member.text, wire.MAX_ERROR)
    value = member.value
    if not isinstance(value, dict) or not set(value) <= {"code", "message", "details"}:
        raise UsageError("error must be an object of code, message and, if need be, details")
    code, message = check_text("error.code", value.get("code"), 1, 128), check_text("error.message", value.get("message"), 0, wire.MAX_ERROR)
    return ErrorEntry(code, message, {"error": member.text})


def _result(value: Json) -> Result:
    if not isinstance(value, dict) or set(value) != {"media_type", "data"}:
        raise UsageError("result must be an object of media_type and data")
    data = value["data"]
    try:
        if not isinstance(data, str):
            raise InputError("result.data must be base64 text")
        return Result(base64.b64decode(data, validate=True), check_text("result.media_type", value["media_type"], 1, 255))
    except (binascii.Error, ValueError) as error:
        raise InputError("result.data must be base64 text") from error


def _check_bytes(name: str, text: str, most: int) -> None:
    size = len(text.encode(errors="replace"))
    if size > most:
        raise Rejection("payload_too_large", f"{name} exceeds {most} bytes", {"bytes": size, "maxBytes": most})


def wrong_offer(offer_id: str) -> UsageError:
    return UsageError(f"the document is for another offer than {offer_id}")
