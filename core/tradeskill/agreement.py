"""What buyer and seller sign: offer, request, quote, receipt. Builds the bodies and verifies the other side's; pure. See docs/protocol.md.

Past 400 lines because what one side signs and what the other must check stand side by side, for four documents.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from tradeskill.boundedschema import first_error
from tradeskill.errors import AmountError, InputError, UntrustedError
from tradeskill.model import NETWORKS, Invoice, Json, Network, Offer, Result, SignedDocument
from tradeskill.money import Amount, in_unit, parse_raw
from tradeskill.signing import Identity, canonical, digest, document_hash, value_hash, verify_document

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator

__all__ = [
    "MAX_INPUT",
    "MAX_INVOICES",
    "MAX_PRICES",
    "Quote",
    "Receipt",
    "Request",
    "check_input",
    "offer_prices",
    "read_offer",
    "read_quote",
    "read_receipt",
    "read_request",
    "sign_offer",
    "sign_quote",
    "sign_receipt",
    "sign_request",
    "verify_quote",
    "verify_receipt",
]

MAX_INPUT = 65_536  # canonical bytes
MAX_PRICES = 8  # of one offer
MAX_INVOICES = 8  # of one quote
_UNIT = re.compile(r"[a-z][a-z0-9]{0,15}", re.ASCII)  # what a wallet may call its smallest unit
REFUND_RULE = "R1"  # back to the buyer's signed `refund_to` on this rail, whole payments, when the job fails or the payment is in excess


@dataclass(frozen=True)
class Request:
    """A buyer's signed wish. `refund_to` maps rail -> address, the only place refunds ever go."""

    network: Network
    offer_id: str
    offer_hash: str
    input: Json
    buyer: str
    seller: str
    refund_to: Mapping[str, str]
    nonce: str
    created_at: int
    document: SignedDocument

    @property
    def input_hash(self) -> str:
        return value_hash(self.input)


@dataclass(frozen=True)
class Quote:
    """A seller's signed price for one job: exactly one of `invoices` may be paid, before `expires_at` (ms)."""

    network: Network
    job_id: str
    input_hash: str
    offer_hash: str
    buyer: str
    seller: str
    invoices: tuple[Invoice, ...]
    expires_at: int
    nonce: str
    document: SignedDocument


@dataclass(frozen=True)
class Receipt:
    """What the seller signed at delivery; verifiable offline with the seller's key and the result's bytes."""

    network: Network
    job_id: str
    request_hash: str
    quote_hash: str
    buyer: str
    seller: str
    rail: str
    payment_ids: tuple[str, ...]
    amount: Amount
    result_sha256: str
    result_size: int
    media_type: str
    delivered_at: int
    fence: int
    document: SignedDocument


def sign_offer(
    identity: Identity,
    *,
    offer_id: str,
    network: Network,
    title: str,
    description: str,
    tags: Sequence[str],
    prices: Sequence[Amount],
    input_schema: Mapping[str, Json],
    pure: bool,
    trusted: bool,
    created_at: int,
) -> SignedDocument:
    """`prices`: at most one a unit, the favourite first; none: priced by quote."""
    shown: list[Json] = [{"amount": str(price.value), "unit": price.unit} for price in prices]
    body: dict[str, Json] = {
        "offer_id": offer_id,
        "network": network,
        "title": title,
        "description": description,
        "tags": list(tags),
        "price": shown[0] if shown else None,
        "input": dict(input_schema),
        "pure": pure,
        "trusted": trusted,
        "created_at": str(created_at),
    }
    if len(shown) > 1:
        body["prices"] = shown
    return identity.sign("offer", body)


def offer_prices(body: Mapping[str, Json]) -> tuple[Amount, ...]:
    """The prices of an offer's body. UntrustedError where they are misshapen, double a unit, or `prices` does not begin with `price`."""
    reader = _Reader(body, "offer")
    price = reader.optional_amount("price")
    if "prices" not in body:
        return () if price is None else (price,)
    listed = body["prices"]
    if not isinstance(listed, list) or not 2 <= len(listed) <= MAX_PRICES:
        raise UntrustedError(f"offer: prices must be a list of 2 to {MAX_PRICES}")
    prices = tuple(_Reader(item if isinstance(item, dict) else {}, "offer prices").amount() for item in listed)
    if prices[0] != price:
        raise UntrustedError("offer: prices must begin with price")
    if len({each.unit for each in prices}) != len(prices):
        raise UntrustedError("offer: prices name a unit twice")
    return prices


def read_offer(document: SignedDocument) -> Offer:
    """The offer its seller signed. UntrustedError when the signature, the shape or a size is wrong."""
    body = _Reader(verify_document(document, "offer"), "offer")
    prices = offer_prices(document.body)
    tags = body.list_of_text("tags", 32)
    if len(tags) > 16:
        raise UntrustedError(f"offer: tags are {len(tags)}: 16 at most")
    return Offer(
        offer_id=body.text("offer_id", 64),
        seller=document.key,
        title=body.text("title", 120),
        description=body.text("description", 2_000),
        tags=tags,
        prices=prices,
        network=body.network(),
        input_schema=body.object("input"),
        offer_hash=document_hash(document),
        document=document,
        created_at=body.time("created_at"),
    )


def sign_request(
    identity: Identity, offer: Offer, *, input_value: Json, refund_to: Mapping[str, str], nonce: str, created_at: int
) -> SignedDocument:
    body: dict[str, Json] = {
        "network": offer.network,
        "offer_id": offer.offer_id,
        "offer_hash": offer.offer_hash,
        "input": input_value,
        "buyer": identity.key,
        "seller": offer.seller,
        "refund_to": dict(refund_to),
        "nonce": nonce,
        "created_at": str(created_at),
    }
    return identity.sign("request", body)


def read_request(document: SignedDocument, buyer: str) -> Request:
    """The request as its buyer signed it. UntrustedError when it is not signed by `buyer` or misshapen."""
    body = _Reader(verify_document(document, "request", buyer), "request")
    if body.text("buyer") != buyer:
        raise UntrustedError(f"request names buyer {body.text('buyer')} but is signed by {buyer}")
    refund_to = body.object("refund_to")
    if not all(isinstance(address, str) for address in refund_to.values()):
        raise UntrustedError("request: refund_to must map rails to addresses")
    return Request(
        network=body.network(),
        offer_id=body.text("offer_id"),
        offer_hash=body.text("offer_hash"),
        input=body.value("input"),
        buyer=buyer,
        seller=body.text("seller"),
        refund_to={rail: str(address) for rail, address in refund_to.items()},
        nonce=body.text("nonce"),
        created_at=body.time("created_at"),
        document=document,
    )


def sign_quote(identity: Identity, request: Request, *, job_id: str, invoices: Sequence[Invoice], expires_at: int, nonce: str) -> SignedDocument:
    body: dict[str, Json] = {
        "network": request.network,
        "job_id": job_id,
        "input_hash": request.input_hash,
        "offer_hash": request.offer_hash,
        "buyer": request.buyer,
        "seller": identity.key,
        "invoices": [
            {
                "rail": invoice.rail,
                "network": invoice.network,
                "invoice_id": invoice.invoice_id,
                "amount": str(invoice.amount.value),
                "unit": invoice.amount.unit,
                "address": invoice.address,
                "details": dict(invoice.details),
            }
            for invoice in invoices
        ],
        "expires_at": str(expires_at),
        "refund_rule": REFUND_RULE,
        "nonce": nonce,
    }
    return identity.sign("quote", body)


def read_quote(document: SignedDocument, seller: str) -> Quote:
    """The quote as `seller` signed it; says nothing yet of whether it fits one's own request (`verify_quote` does)."""
    body = _Reader(verify_document(document, "quote", seller), "quote")
    expires_at = body.time("expires_at")
    job_id = body.text("job_id")
    network = body.network()
    items = body.value("invoices")
    if not isinstance(items, list) or not 1 <= len(items) <= MAX_INVOICES:
        raise UntrustedError(f"quote: invoices must be a list of 1 to {MAX_INVOICES}")
    invoices = []
    for item in items:
        entry = _Reader(item if isinstance(item, dict) else {}, "quote invoice")
        invoices.append(
            Invoice(
                rail=entry.text("rail"),
                network=entry.network(),
                invoice_id=entry.text("invoice_id"),
                job_id=job_id,
                address=entry.text("address"),
                amount=entry.amount(),
                expires_at=expires_at,
                details=entry.object("details"),
            )
        )
    return Quote(
        network=network,
        job_id=job_id,
        input_hash=body.text("input_hash"),
        offer_hash=body.text("offer_hash"),
        buyer=body.text("buyer"),
        seller=body.text("seller"),
        invoices=tuple(invoices),
        expires_at=expires_at,
        nonce=body.text("nonce"),
        document=document,
    )


def verify_quote(document: SignedDocument, request: Request, *, job_id: str, prices: Sequence[Amount]) -> Quote:
    """The quote, once the pinned seller signed it for exactly this request and job, at the offer's prices where it has some."""
    quote = read_quote(document, request.seller)
    expected = {
        "network": (quote.network, request.network),
        "job_id": (quote.job_id, job_id),
        "input_hash": (quote.input_hash, request.input_hash),
        "offer_hash": (quote.offer_hash, request.offer_hash),
        "buyer": (quote.buyer, request.buyer),
        "seller": (quote.seller, request.seller),
        "refund_rule": (document.body.get("refund_rule"), REFUND_RULE),
    }
    for name, (found, wanted) in expected.items():
        if found != wanted:
            raise UntrustedError(f"quote for job {job_id}: {name} is {found!r}, expected {wanted!r}; not paying")
    for invoice in quote.invoices:
        if invoice.network != request.network:
            raise UntrustedError(f"quote for job {job_id}: an invoice is on network {invoice.network!r}, not {request.network!r}")
        price = in_unit(prices, invoice.amount.unit)
        if price is not None and invoice.amount.value > price.value:
            raise UntrustedError(f"quote for job {job_id}: asks {invoice.amount}, the offer's price is {price}; not paying")
    return quote


def sign_receipt(
    identity: Identity,
    request: Request,
    quote: SignedDocument,
    *,
    job_id: str,
    rail: str,
    payment_ids: Sequence[str],
    amount: Amount,
    result: Result,
    delivered_at: int,
    fence: int,
) -> SignedDocument:
    body: dict[str, Json] = {
        "network": request.network,
        "job_id": job_id,
        "request_hash": document_hash(request.document),
        "quote_hash": document_hash(quote),
        "buyer": request.buyer,
        "seller": identity.key,
        "rail": rail,
        "payment_ids": [*sorted(payment_ids)],
        "amount": str(amount.value),
        "unit": amount.unit,
        "result": {"sha256": digest(result.data), "size": str(len(result.data)), "media_type": result.media_type},
        "delivered_at": str(delivered_at),
        "fence": str(fence),
    }
    return identity.sign("receipt", body)


def read_receipt(document: SignedDocument, seller: str) -> Receipt:
    """The receipt as `seller` signed it. UntrustedError otherwise."""
    body = _Reader(verify_document(document, "receipt", seller), "receipt")
    if body.text("seller") != seller:
        raise UntrustedError(f"receipt names seller {body.text('seller')} but is signed by {seller}")
    result = _Reader(body.object("result"), "receipt result")
    return Receipt(
        network=body.network(),
        job_id=body.text("job_id"),
        request_hash=body.text("request_hash"),
        quote_hash=body.text("quote_hash"),
        buyer=body.text("buyer"),
        seller=seller,
        rail=body.text("rail"),
        payment_ids=body.list_of_text("payment_ids"),
        amount=body.amount(),
        result_sha256=result.text("sha256"),
        result_size=result.time("size"),
        media_type=result.text("media_type"),
        delivered_at=body.time("delivered_at"),
        fence=body.time("fence"),
        document=document,
    )


def verify_receipt(
    document: SignedDocument | None,
    request: Request,
    quote: SignedDocument,
    *,
    job_id: str,
    payment_id: str,
    amount: Amount,
    result: Result,
) -> Receipt:
    """The receipt, once the pinned seller signed it for this request, quote, payment and exactly these bytes."""
    if document is None:
        raise UntrustedError(f"job {job_id}: the delivery carries no receipt")
    receipt = read_receipt(document, request.seller)
    expected = {
        "network": (receipt.network, request.network),
        "job_id": (receipt.job_id, job_id),
        "request_hash": (receipt.request_hash, document_hash(request.document)),
        "quote_hash": (receipt.quote_hash, document_hash(quote)),
        "buyer": (receipt.buyer, request.buyer),
        "amount": (receipt.amount, amount),
        "result sha256": (receipt.result_sha256, digest(result.data)),
        "result size": (receipt.result_size, len(result.data)),
        "result media type": (receipt.media_type, result.media_type),
        "payment": (payment_id in receipt.payment_ids, True),
    }
    for name, (found, wanted) in expected.items():
        if found != wanted:
            raise UntrustedError(f"receipt for job {job_id}: {name} is {found}, expected {wanted}")
    return receipt


def check_input(schema: Mapping[str, Json], value: Json, *, own: bool = False) -> None:
    """InputError naming the place and the reason when `value` does not fit the offer's JSON Schema, is too large or has no canonical form.

    Nothing that a schema refers to is fetched, and one that cannot be used is an InputError too. It is a stranger's, judged in bounded time and
    without its patterns, unless it is one's `own`.
    """
    from jsonschema.exceptions import SchemaError, best_match
    from referencing.exceptions import Unresolvable

    size = len(canonical(value))
    if size > MAX_INPUT:
        raise InputError(f"input is {size} bytes: {MAX_INPUT} at most")
    try:
        error = best_match(_validator(canonical(schema)).iter_errors(value)) if own else first_error(schema, value)
    except (SchemaError, Unresolvable, RecursionError, re.error) as problem:
        raise InputError(f"the offer's input schema cannot be used ({type(problem).__name__}): ask its seller to mend it") from problem
    if error is not None:
        place = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in error.absolute_path)
        raise InputError(f"input{place}: {error.message[:200]}")


@lru_cache(maxsize=64)  # checking a schema takes a hundred times as long as checking a value by it
def _validator(schema: bytes) -> Draft202012Validator:
    from jsonschema import Draft202012Validator
    from referencing.jsonschema import EMPTY_REGISTRY

    value = json.loads(schema)
    Draft202012Validator.check_schema(value)
    return Draft202012Validator(value, registry=EMPTY_REGISTRY)


class _Reader:
    """Reads a signed body field by field; every wrong shape is an UntrustedError naming the field."""

    def __init__(self, body: Mapping[str, Json], what: str) -> None:
        self._body, self._what = body, what

    def value(self, name: str) -> Json:
        if name not in self._body:
            raise UntrustedError(f"{self._what}: {name} is missing")
        return self._body[name]

    def text(self, name: str, most: int = 0) -> str:
        """`most`: so many characters at most; 0 for any number."""
        value = self.value(name)
        if not isinstance(value, str):
            raise UntrustedError(f"{self._what}: {name} must be text")
        if most and len(value) > most:
            raise UntrustedError(f"{self._what}: {name} has {len(value)} characters: {most} at most")
        return value

    def object(self, name: str) -> Mapping[str, Json]:
        value = self.value(name)
        if not isinstance(value, dict):
            raise UntrustedError(f"{self._what}: {name} must be an object")
        return value

    def list_of_text(self, name: str, most: int = 0) -> tuple[str, ...]:
        value = self.value(name)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise UntrustedError(f"{self._what}: {name} must be a list of texts")
        if most and not all(len(str(item)) <= most for item in value):
            raise UntrustedError(f"{self._what}: each of {name} has {most} characters at most")
        return tuple(str(item) for item in value)

    def time(self, name: str) -> int:
        """Times and other whole numbers travel as plain digits."""
        try:
            return parse_raw(self.value(name))
        except AmountError as error:
            raise UntrustedError(f"{self._what}: {name} must be digits") from error

    def network(self) -> Network:
        value = self.text("network")
        for network in NETWORKS:
            if value == network:
                return network
        raise UntrustedError(f"{self._what}: network {value!r} is not one of {', '.join(NETWORKS)}")

    def amount(self) -> Amount:
        unit = self.text("unit")
        if _UNIT.fullmatch(unit) is None:
            raise UntrustedError(f"{self._what}: unit {unit[:20]!r} is not a wallet's smallest unit, such as raw or sat")
        return Amount(self.time("amount"), unit)

    def optional_amount(self, name: str) -> Amount | None:
        value = self.value(name)
        return None if value is None else _Reader(value if isinstance(value, dict) else {}, f"{self._what} {name}").amount()
