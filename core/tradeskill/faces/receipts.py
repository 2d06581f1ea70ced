"""Receipt chains: offer, request, quote, receipt and countersignature in one file that a stranger can verify offline. docs/receipts.md is its format."""

from __future__ import annotations

import base64
import hashlib
import re
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from tradeskill.agreement import Quote, Receipt, Request, read_offer, read_quote, read_receipt, read_request
from tradeskill.errors import InputError, NotFoundError, StateError, UntrustedError
from tradeskill.journal import Fulfilment, Purchase, buying, selling
from tradeskill.journal.records import read_document
from tradeskill.model import Invoice, Json, Offer, SignedDocument
from tradeskill.signing import canonical, digest, document_from_json, document_hash, document_to_json, parse_json, verify_document

__all__ = ["MAX_CHAIN", "chain_bytes", "documents_of", "file_name", "verify_bytes", "verify_chain"]

MARK: Final = "tradeskill_receipt"
VERSION: Final = 1
DOCUMENTS: Final = ("offer", "request", "quote", "receipt")
COUNTERSIGN: Final = "countersign"
RESULT: Final = "result_base64"
BEFORE_VERSIONS: Final = {*DOCUMENTS, "job_id", "payment_id", RESULT}  # what `receipt show` printed before chains had a mark
MAX_CHAIN: Final = 8 * 2**20  # bytes of a file: the largest result a market takes, in base64, and room for the documents
_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)
_HEX = re.compile(r"[0-9A-Fa-f]+", re.ASCII)
_PLAIN = re.compile(r"[a-z0-9][a-z0-9_-]{0,79}", re.ASCII)


# making one


def documents_of(connection: sqlite3.Connection, name: str) -> tuple[dict[str, SignedDocument], Purchase | Fulfilment]:
    """The signed documents of a job bought or sold, by job or purchase id, and its row. NotFoundError, StateError where there is no receipt of it, and why."""
    purchase = buying.find_purchase(connection, name)
    if purchase is not None:
        if purchase.receipt is None or purchase.quote is None:
            if purchase.state == "received":
                raise StateError(f"job {name} is unverified: its result came without a receipt, and was taken because `buyer.receipts` allows it")
            raise NotFoundError(f"job {name} is {purchase.state} and has no receipt: a seller signs one when it delivers")
        texts = {"offer": purchase.offer, "request": purchase.request, "quote": purchase.quote, "receipt": purchase.receipt}
        if purchase.countersign is not None:
            texts[COUNTERSIGN] = purchase.countersign
        return {part: read_document(text) for part, text in texts.items()}, purchase
    row = selling.find_fulfilment(connection, name)
    if row is None:
        raise NotFoundError(f"job {name} is not in this profile: see `tradeskill jobs`")
    if row.state != "delivered" or row.receipt is None or row.quote is None:
        raise NotFoundError(f"job {name} is {row.state}, not delivered: only a delivered job has a receipt")
    request = read_document(row.request)
    found = selling.offer_document(connection, str(request.body["offer_hash"]))
    if found is None:
        raise NotFoundError(f"job {name} was sold by a version of its offer that is not in this journal any more")
    texts = {"offer": found[1], "request": row.request, "quote": row.quote, "receipt": row.receipt}
    return {part: read_document(text) for part, text in texts.items()}, row


def chain_bytes(documents: Mapping[str, SignedDocument], result: bytes | None = None) -> bytes:
    """The file: canonical JSON, nothing before or after it. InputError when it would be larger than `verify` reads."""
    value: dict[str, Json] = {name: document_to_json(document) for name, document in documents.items()}
    if result is not None:
        value[RESULT] = base64.b64encode(result).decode()
    data = canonical({**value, MARK: VERSION})
    if len(data) > MAX_CHAIN:
        raise InputError(f"the result is {len(result or b'')} bytes, too large for a file of {MAX_CHAIN} bytes at most: leave it out, keep it beside the file")
    return data


def file_name(job_id: str) -> str:
    """`JOB_ID.json`; an id that is no plain lower-case name (it comes from a stranger) is replaced by its hash, which no plain name can be."""
    return f"{job_id}.json" if _PLAIN.fullmatch(job_id) else f"sha256.{digest(job_id.encode())}.json"


# verifying one


def verify_chain(file: Path, result: Path | None, seller: str) -> dict[str, Any]:
    """`verify_bytes` of a file, and of the delivered bytes where there is a file of them. Errors name the file; NotFoundError when it cannot be read."""
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_CHAIN + 1)
        found = None if result is None else _hashed(result)
    except OSError as error:
        raise NotFoundError(f"{error.filename or file} cannot be read: {error.strerror}") from error
    try:
        return verify_bytes(data, seller=seller, result=found)
    except (InputError, UntrustedError) as error:
        raise type(error)(f"{file}: {error}") from error


def _hashed(file: Path) -> tuple[str, int]:
    """sha256 and size, without holding the file."""
    size, hashing = 0, hashlib.sha256()
    with file.open("rb") as stream:
        while part := stream.read(1 << 20):
            hashing.update(part)
            size += len(part)
    return hashing.hexdigest(), size


def verify_bytes(data: bytes, *, seller: str = "", result: tuple[str, int] | None = None) -> dict[str, Any]:
    """What the chain says, once every signature and every link of it holds. `result`: sha256 and size of the delivered bytes, if they are at hand.

    InputError for what is no chain; UntrustedError naming the first thing that does not hold. Looks at no clock and no ledger.
    """
    value = _read(data)
    documents = {name: document_from_json(value[name]) for name in (*DOCUMENTS, COUNTERSIGN) if name in value}
    offer = read_offer(documents["offer"])
    if seller and offer.seller != seller:
        raise UntrustedError(f"the offer is signed by {offer.seller}, not by the pinned seller {seller}")
    request = read_request(documents["request"], documents["request"].key)
    quote = read_quote(documents["quote"], offer.seller)
    receipt = read_receipt(documents["receipt"], offer.seller)
    checked = [f"{name}.signature" for name in DOCUMENTS]
    invoices = [invoice for invoice in quote.invoices if (invoice.rail, invoice.amount) == (receipt.rail, receipt.amount)]
    links = [
        *_links(offer, request, quote, receipt, invoices),
        *_unsigned(value, receipt),
        *_countersigned(documents.get(COUNTERSIGN), request.buyer, receipt),
        *_delivered(result, receipt),
        *_delivered(_enclosed(value), receipt),
    ]
    for name, found, wanted in links:
        if found != wanted:
            raise UntrustedError(f"{name} is {str(found)[:200]}, expected {str(wanted)[:200]}: this receipt does not stand")
        if name not in checked:
            checked.append(name)
    addresses = {invoice.address for invoice in invoices}
    return {
        "receipt_verified": True,
        "result_checked": "result.sha256" in checked,
        "countersigned": COUNTERSIGN in documents,
        "network": receipt.network,
        "job_id": receipt.job_id,
        "offer_id": offer.offer_id,
        "seller": receipt.seller,
        "buyer": receipt.buyer,
        "amount": str(receipt.amount.value),
        "unit": receipt.amount.unit,
        "price": str(receipt.amount),
        "rail": receipt.rail,
        "invoice_address": addresses.pop() if len(addresses) == 1 else None,  # None: several invoices fit, the receipt does not say which
        "payment_ids": list(receipt.payment_ids),
        "result_sha256": receipt.result_sha256,
        "result_size": receipt.result_size,
        "media_type": receipt.media_type,
        "requested_at": request.created_at,
        "quote_expires_at": quote.expires_at,
        "delivered_at": receipt.delivered_at,
        "fence": receipt.fence,
        "checked": checked,
        "remarks": list(_remarks(offer, receipt)),
    }


def _read(data: bytes) -> dict[str, Json]:
    """The parts by name. A file with the mark is exactly what `chain_bytes` makes, byte for byte."""
    if len(data) > MAX_CHAIN:
        raise InputError(f"more than {MAX_CHAIN} bytes: no receipt chain is that large")
    value = parse_json(data, "the receipt chain")
    if not isinstance(value, dict) or not set(DOCUMENTS) <= set(value):
        raise InputError("not a receipt chain (offer, request, quote and receipt): make one with `tradeskill receipt show JOB_ID`")
    version = value.get(MARK)
    if MARK in value and (type(version) is not int or version != VERSION):
        raise InputError(f"a receipt chain of version {str(version)[:20]}: this program knows {VERSION}, get a newer one")
    unknown = sorted(set(value) - ({MARK, *DOCUMENTS, COUNTERSIGN, RESULT} if version else BEFORE_VERSIONS))
    if unknown:
        raise InputError(f"{', '.join(unknown)[:200]} does not belong into a receipt chain: nobody signed it")
    if version and canonical(value) != data:
        raise UntrustedError("not byte for byte what `receipt export` writes (spaces, line ends or spellings differ): get the file as it was written")
    return value


Link = tuple[str, object, object]  # what is compared, what is there, what must be


def _links(offer: Offer, request: Request, quote: Quote, receipt: Receipt, invoices: list[Invoice]) -> Iterator[Link]:
    yield "request.network", request.network, offer.network
    yield "request.seller", request.seller, offer.seller
    yield "request.offer_id", request.offer_id, offer.offer_id
    yield "request.offer_hash", request.offer_hash, offer.offer_hash
    yield "quote.network", quote.network, request.network
    yield "quote.seller", quote.seller, offer.seller
    yield "quote.buyer", quote.buyer, request.buyer
    yield "quote.input_hash", quote.input_hash, request.input_hash
    yield "quote.offer_hash", quote.offer_hash, offer.offer_hash
    yield "quote.invoices.network", {invoice.network for invoice in quote.invoices}, {request.network}
    prices = {price.unit: price.value for price in offer.prices}
    dear = [i.amount for i in quote.invoices if i.amount.value > prices.get(i.amount.unit, i.amount.value)]
    yield "quote.price", [str(amount) for amount in dear] or "within the offer's", "within the offer's"
    yield "receipt.network", receipt.network, request.network
    yield "receipt.job_id", receipt.job_id, quote.job_id
    yield "receipt.request_hash", receipt.request_hash, document_hash(request.document)
    yield "receipt.quote_hash", receipt.quote_hash, document_hash(quote.document)
    yield "receipt.buyer", receipt.buyer, request.buyer
    yield "receipt.rail", receipt.rail if receipt.rail in {i.rail for i in quote.invoices} else f"{receipt.rail!r}, which was not quoted", receipt.rail
    quoted = [i.amount for i in quote.invoices if i.rail == receipt.rail]
    yield "receipt.amount", receipt.amount if invoices else f"{receipt.amount}, quoted was {', '.join(map(str, quoted))}", receipt.amount
    ids = [one.lower() if _HEX.fullmatch(one) else one for one in receipt.payment_ids]
    fault = "none" if not ids else "an empty one" if "" in ids else "a repeated one" if len(set(ids)) < len(ids) else "distinct"
    yield "receipt.payment_ids", fault, "distinct"
    yield "receipt.result.sha256", bool(_HASH.fullmatch(receipt.result_sha256)), True


def _unsigned(value: Mapping[str, Json], receipt: Receipt) -> Iterator[Link]:
    """What `receipt show` printed beside the documents before chains had a mark: held against what is signed."""
    if "job_id" in value:
        yield "job_id", value["job_id"], receipt.job_id
    if "payment_id" in value:
        yield "payment_id", value["payment_id"] in receipt.payment_ids, True


def _countersigned(document: SignedDocument | None, buyer: str, receipt: Receipt) -> Iterator[Link]:
    if document is not None:
        body = verify_document(document, COUNTERSIGN, buyer)
        yield "countersign.signature", document.key, buyer
        yield "countersign.receipt_hash", body.get("receipt_hash"), document_hash(receipt.document)
        yield "countersign.result_sha256", body.get("result_sha256"), receipt.result_sha256


def _delivered(found: tuple[str, int] | None, receipt: Receipt) -> Iterator[Link]:
    if found is not None:
        yield "result.sha256", found[0], receipt.result_sha256
        yield "result.size", found[1], receipt.result_size


def _enclosed(value: Mapping[str, Json]) -> tuple[str, int] | None:
    """sha256 and size of the result inside; InputError unless it is base64 in its one spelling."""
    if RESULT not in value:
        return None
    text = value[RESULT]
    try:
        data = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except ValueError as error:
        raise InputError(f"{RESULT} is not base64") from error
    if base64.b64encode(data).decode() != text:
        raise InputError(f"{RESULT} is not base64 as it is written: its last digits say more than the bytes")
    return digest(data), len(data)


def _remarks(offer: Offer, receipt: Receipt) -> Iterator[str]:
    """What is odd and proves nothing: times are each signer's own word, and clocks are set back."""
    if receipt.delivered_at < offer.created_at:
        yield "the seller dates its delivery before its offer: its clock was set back, or one of the two dates is wrong"
