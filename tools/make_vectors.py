"""Writes docs/vectors/*.json from fixed seeds: signed documents that stand, and such that must be refused. `--check` only says what is out of date.

Past 400 lines because a case is one line and the cases are the protocol.
Everything is deterministic (ed25519 is), so the same code writes the same files. docs/protocol.md explains them; tests/test_protocol_vectors.py replays them.
"""

from __future__ import annotations

import base64
import copy
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tradeskill.agreement import Request, read_offer, read_request, sign_offer, sign_quote, sign_receipt, sign_request
from tradeskill.model import Invoice, Json, Offer, Result, SignedDocument
from tradeskill.money import Amount
from tradeskill.signing import Identity, canonical, document_hash, document_to_json, value_hash

FOLDER = Path(__file__).parent.parent / "docs" / "vectors"
SEEDS = {"buyer": bytes([0x11]) * 32, "seller": bytes([0x22]) * 32, "stranger": bytes([0x33]) * 32}
BUYER, SELLER, STRANGER = (Identity(SEEDS[name]) for name in ("buyer", "seller", "stranger"))

NOW = 1_750_000_000_000
PRICE = Amount(10**27, "raw")
SATS = Amount(21, "sat")
JOB = "0b9a6d0e-63a1-4a3c-9d7e-2f5d3c1b0a99"
INVOICE_ADDRESS = "nano_3e3j5tkog48pnny9dmfzj1r16pg8t1e76dz5tmac6iq689wyjfpiij4txtdo"
REFUND_ADDRESS = "nano_1qun9aut39ai9mkumww3yi31pxiiuoia1wrtyb53u7z4p4bb5nc4emsbkyin"
PAYMENT = "B1D60C0B886B57401EF5A1DAA04340E53726AA6F4D706C085706F31BBD100CEE"
RESULT = Result("# Mesures\n\nÉtat : 5 °C\n".encode(), "text/markdown; charset=utf-8")
INPUT: Json = {"url": "https://example.org/mesures?unité=°C", "depth": 1}
SCHEMA: dict[str, Json] = {
    "type": "object",
    "required": ["url"],
    "properties": {"url": {"type": "string", "format": "uri"}, "depth": {"type": "integer", "minimum": 0}},
}


def the_offer(identity: Identity = SELLER, prices: Sequence[Amount] = (PRICE,), **changes: Any) -> SignedDocument:
    fields: dict[str, Any] = {
        "offer_id": "5f0c7f1e-3d0a-4b53-9a54-0c7a6a2b9a11",
        "network": "dev",
        "title": "Web page to Markdown",
        "description": "One page in, clean Markdown out: tables, lists and “quotes” kept.",
        "tags": ["web", "markdown"],
        "input_schema": SCHEMA,
        "pure": True,
        "trusted": True,
        "created_at": NOW,
    }
    return sign_offer(identity, prices=prices, **{**fields, **changes})


def the_request(offer: Offer | None = None, identity: Identity = BUYER, **changes: Any) -> SignedDocument:
    fields: dict[str, Any] = {"input_value": INPUT, "refund_to": {"nano": REFUND_ADDRESS}, "nonce": "6f1d" * 8, "created_at": NOW + 1_000}
    return sign_request(identity, offer or read_offer(the_offer()), **{**fields, **changes})


def the_invoice(**changes: Any) -> Invoice:
    fields: dict[str, Any] = {
        "rail": "nano",
        "network": "dev",
        "invoice_id": INVOICE_ADDRESS,
        "job_id": JOB,
        "address": INVOICE_ADDRESS,
        "amount": PRICE,
        "expires_at": NOW + 900_000,
    }
    return Invoice(**{**fields, **changes})


def the_quote(request: Request | None = None, identity: Identity = SELLER, **changes: Any) -> SignedDocument:
    fields: dict[str, Any] = {"job_id": JOB, "invoices": [the_invoice()], "expires_at": NOW + 900_000, "nonce": "90ab" * 8}
    return sign_quote(identity, request or read_request(the_request(), BUYER.key), **{**fields, **changes})


def the_receipt(request: Request | None = None, quote: SignedDocument | None = None, identity: Identity = SELLER, **changes: Any) -> SignedDocument:
    fields: dict[str, Any] = {
        "job_id": JOB,
        "rail": "nano",
        "payment_ids": [PAYMENT],
        "amount": PRICE,
        "result": RESULT,
        "delivered_at": NOW + 9_000,
        "fence": 7,
    }
    return sign_receipt(identity, request or read_request(the_request(), BUYER.key), quote or the_quote(), **{**fields, **changes})


def the_countersign() -> SignedDocument:
    receipt = the_receipt()
    result: Any = receipt.body["result"]
    return BUYER.sign("countersign", {"receipt_hash": document_hash(receipt), "result_sha256": result["sha256"]})


# what a case says


def valid(name: str, document: SignedDocument, **context: Any) -> dict[str, Any]:
    """A document that stands, with the exact bytes that were signed (as text) and its hash."""
    signed = f"tradeskill/{document.kind}/1\n" + canonical(document.body).decode()
    return {"name": name, "document": document_to_json(document), "signed": signed, "document_hash": document_hash(document), **context}


def invalid(name: str, document: SignedDocument | dict[str, Any] | None, says: str, code: str = "refused.untrusted", **context: Any) -> dict[str, Any]:
    """A document that must be refused with this error code, in a message that holds the words `says`."""
    shown = document_to_json(document) if isinstance(document, SignedDocument) else document
    return {"name": name, "document": shown, "refusal": {"code": code, "says": says}, **context}


def forged(document: SignedDocument, **changes: Any) -> SignedDocument:
    """Changed after it was signed, as a market could."""
    return SignedDocument(document.kind, {**document.body, **changes}, document.key, document.signature)


def signed(document: SignedDocument, identity: Identity, remove: str = "", **changes: Any) -> SignedDocument:
    """Changed and then signed, as a dishonest or mistaken signer could."""
    body = {name: value for name, value in {**document.body, **changes}.items() if name != remove}
    return identity.sign(document.kind, body)


def changed(value: Any, *path: Any, to: Any) -> Any:
    copied = copy.deepcopy(value)
    place = copied
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = to
    return copied


# the files


def offers() -> dict[str, Any]:
    good, two = the_offer(), the_offer(prices=[PRICE, SATS])
    prices: Any = two.body["prices"]
    return {
        "about": "Offers, read with nothing but their own bytes.",
        "valid": [
            valid("an offer with a fixed price", good),
            valid("an offer priced by quote, with an empty description and no tags", the_offer(prices=(), description="", tags=[])),
            valid("a price of one raw", the_offer(prices=[Amount(1, "raw")])),
            valid("the largest price there is", the_offer(prices=[Amount(2**128 - 1, "raw")])),
            valid("prices in two units", two),
            valid("a field this version does not know is signed and ignored", signed(good, SELLER, later="x")),
        ],
        "invalid": [
            invalid("the title changed after signing", forged(good, title="Web page to PDF"), "does not verify"),
            invalid("a field added after signing", forged(good, extra=None), "does not verify"),
            invalid("shown as another seller's", SignedDocument("offer", good.body, STRANGER.key, good.signature), "does not verify"),
            invalid("the key in capitals", SignedDocument("offer", good.body, good.key.upper(), good.signature), "malformed key or signature"),
            invalid("a signature cut short", SignedDocument("offer", good.body, good.key, good.signature[:-2]), "malformed key or signature"),
            invalid("a key of small order", SignedDocument("offer", good.body, "01" + "00" * 31, "01" + "00" * 63), "does not verify"),
            invalid("signed as a request, shown as an offer", _renamed(SELLER.sign("request", good.body), "offer"), "does not verify"),
            invalid("a quote where an offer belongs", the_quote(), "a signed offer was expected"),
            invalid("price as a number", signed(good, SELLER, price={"amount": 1000, "unit": "raw"}), "amount must be digits"),
            invalid("price with a leading zero", signed(good, SELLER, price={"amount": "01000", "unit": "raw"}), "amount must be digits"),
            invalid("price in full-width digits", signed(good, SELLER, price={"amount": "１２", "unit": "raw"}), "amount must be digits"),
            invalid("price of 2^128", signed(good, SELLER, price={"amount": str(2**128), "unit": "raw"}), "amount must be digits"),
            invalid("price without a unit", signed(good, SELLER, price={"amount": "1000"}), "unit is missing"),
            invalid("price left out", signed(good, SELLER, remove="price"), "price is missing"),
            invalid("prices that do not begin with price", signed(two, SELLER, prices=prices[::-1]), "prices must begin with price"),
            invalid("prices without a price", signed(two, SELLER, price=None), "prices must begin with price"),
            invalid("prices that name a unit twice", signed(two, SELLER, prices=[prices[0], prices[0]]), "prices name a unit twice"),
            invalid("a single price as a list", signed(two, SELLER, prices=prices[:1]), "prices must be a list of 2 to 8"),
            invalid("nine prices", signed(two, SELLER, prices=[*prices, *prices[1:] * 7]), "prices must be a list of 2 to 8"),
            invalid("prices as null", signed(two, SELLER, prices=None), "prices must be a list of 2 to 8"),
            invalid("a price among several that is text", signed(two, SELLER, prices=[prices[0], "21 sat"]), "unit is missing"),
            invalid("tags as text", signed(good, SELLER, tags="web"), "tags must be a list of texts"),
            invalid("an unknown network", signed(good, SELLER, network="main"), "network 'main' is not one of"),
            invalid("a time as a number", signed(good, SELLER, created_at=NOW), "created_at must be digits"),
            invalid("a fifth field beside the four of a document", {**document_to_json(good), "alg": "none"}, "not a signed document"),
            invalid("no signature", {k: v for k, v in document_to_json(good).items() if k != "signature"}, "not a signed document"),
            invalid("a body that is a list", {**document_to_json(good), "body": []}, "not a signed document"),
        ],
    }


def requests() -> dict[str, Any]:
    good = the_request()
    return {
        "about": "Requests, read by a seller who was told by the market that `buyer` asks.",
        "buyer": BUYER.key,
        "valid": [
            valid("a request", good, input_hash=value_hash(INPUT)),
            valid("without a refund address: money that must go back waits in review", the_request(refund_to={}), input_hash=value_hash(INPUT)),
            valid("input that is not an object", the_request(input_value=["é", 1.5, None]), input_hash=value_hash(["é", 1.5, None])),
        ],
        "invalid": [
            invalid("signed by somebody else", the_request(identity=STRANGER), f"is signed by {STRANGER.key}, not by"),
            invalid("names another buyer than its signer", signed(good, BUYER, buyer=STRANGER.key), "request names buyer"),
            invalid("refund address changed by the market", forged(good, refund_to={"nano": INVOICE_ADDRESS}), "does not verify"),
            invalid("input changed by the market", forged(good, input={"url": "https://example.org/"}), "does not verify"),
            invalid("a refund address that is no text", signed(good, BUYER, refund_to={"nano": 5}), "refund_to must map rails to addresses"),
            invalid("refund_to as a list", signed(good, BUYER, refund_to=[REFUND_ADDRESS]), "refund_to must be an object"),
            invalid("input left out", signed(good, BUYER, remove="input"), "input is missing"),
            invalid("nonce as a number", signed(good, BUYER, nonce=7), "nonce must be text"),
            invalid("a negative time", signed(good, BUYER, created_at="-1"), "created_at must be digits"),
            invalid("signed as an offer, shown as a request", _renamed(BUYER.sign("offer", good.body), "request"), "does not verify"),
        ],
    }


def quotes() -> dict[str, Any]:
    request = read_request(the_request(), BUYER.key)
    good = the_quote()
    invoices: Any = good.body["invoices"]
    other_offer = read_offer(the_offer(title="Web page to Markdown, second version"))
    other_input = read_request(the_request(input_value={"url": "https://example.org/other"}), BUYER.key)
    other_version = read_request(the_request(other_offer), BUYER.key)
    return {
        "about": "Quotes, verified by the buyer of `request` for the job `job_id` at the offer's `prices`, before any money is reserved.",
        "request": document_to_json(request.document),
        "job_id": JOB,
        "prices": [_price(PRICE)],
        "valid": [
            valid("a quote with one invoice", good),
            valid("cheaper than the offer", the_quote(invoices=[the_invoice(amount=Amount(1, "raw"))])),
            valid("two invoices to choose from", the_quote(invoices=[the_invoice(), _token_invoice()])),
            valid("no price in the offer: any amount, the caps decide", the_quote(invoices=[the_invoice(amount=Amount(10**30, "raw"))]), prices=[]),
            valid("an invoice for each of two prices", the_quote(invoices=[the_invoice(), _token_invoice(amount=SATS)]), prices=[_price(PRICE), _price(SATS)]),
        ],
        "invalid": [
            invalid("the market's own address", forged(good, invoices=changed(invoices, 0, "address", to=REFUND_ADDRESS)), "does not verify"),
            invalid("the market's own amount", forged(good, invoices=changed(invoices, 0, "amount", to="1")), "does not verify"),
            invalid("the market's own rail", forged(good, invoices=changed(invoices, 0, "rail", to="token")), "does not verify"),
            invalid("signed by a stranger in the seller's name", the_quote(identity=STRANGER), f"is signed by {STRANGER.key}, not by"),
            invalid("a stranger's signature under the seller's key", _under(SELLER, the_quote(identity=STRANGER)), "does not verify"),
            invalid("made for another job", the_quote(job_id="ffffffff-ffff-4fff-bfff-ffffffffffff"), "job_id is"),
            invalid("made for another input", the_quote(other_input), "input_hash is"),
            invalid("made for another version of the offer", the_quote(other_version), "offer_hash is"),
            invalid("made for another buyer", signed(good, SELLER, buyer=STRANGER.key), "buyer is"),
            invalid("names another seller than its signer", signed(good, SELLER, seller=STRANGER.key), "seller is"),
            invalid("made for another network", signed(good, SELLER, network="test"), "network is 'test'"),
            invalid("with an invoice on another network", the_quote(invoices=[the_invoice(network="live")]), "an invoice is on network 'live'"),
            invalid("a refund rule that is not known", signed(good, SELLER, refund_rule="R0"), "refund_rule is 'R0'"),
            invalid("no refund rule", signed(good, SELLER, remove="refund_rule"), "refund_rule is None"),
            invalid("dearer than the offer by one raw", the_quote(invoices=[the_invoice(amount=Amount(PRICE.value + 1, "raw"))]), "the offer's price is"),
            invalid(
                "the second of two invoices dearer",
                the_quote(invoices=[the_invoice(), the_invoice(amount=Amount(2 * PRICE.value, "raw"))]),
                "the offer's price is",
            ),
            invalid(
                "dearer than the second of two prices",
                the_quote(invoices=[the_invoice(), _token_invoice(amount=Amount(SATS.value + 1, "sat"))]),
                "the offer's price is",
                prices=[_price(PRICE), _price(SATS)],
            ),
            invalid("nothing to pay to", signed(good, SELLER, invoices=[]), "invoices must be a list of 1 to 8"),
            invalid("nine invoices", signed(good, SELLER, invoices=invoices * 9), "invoices must be a list of 1 to 8"),
            invalid("amount as a number", signed(good, SELLER, invoices=changed(invoices, 0, "amount", to=1000)), "amount must be digits"),
            invalid("amount in e-notation", signed(good, SELLER, invoices=changed(invoices, 0, "amount", to="1e3")), "amount must be digits"),
            invalid("an invoice that is text", signed(good, SELLER, invoices=[INVOICE_ADDRESS]), "quote invoice: rail is missing"),
            invalid("details as text", signed(good, SELLER, invoices=changed(invoices, 0, "details", to="")), "details must be an object"),
            invalid("never ends", signed(good, SELLER, expires_at=None), "expires_at must be digits"),
            invalid("a receipt where a quote belongs", the_receipt(), "a signed quote was expected"),
        ],
    }


def receipts() -> dict[str, Any]:
    request, quote = read_request(the_request(), BUYER.key), the_quote()
    good = the_receipt()
    result: Any = good.body["result"]
    other_quote = the_quote(nonce="0000" * 8)
    other_request = read_request(the_request(nonce="0000" * 8), BUYER.key)
    return {
        "about": "Receipts, verified by the buyer of `request` who paid `payment_id` on `quote` and was delivered the bytes `result`.",
        "request": document_to_json(request.document),
        "quote": document_to_json(quote),
        "job_id": JOB,
        "payment_id": PAYMENT,
        "amount": {"amount": str(PRICE.value), "unit": PRICE.unit},
        "result": _result(RESULT),
        "valid": [
            valid("a receipt", good),
            valid("two payments made the price", the_receipt(payment_ids=[PAYMENT, "00" * 32])),
            valid("an empty result", the_receipt(result=Result(b"", "text/plain")), result=_result(Result(b"", "text/plain"))),
        ],
        "invalid": [
            invalid("no receipt at all", None, "carries no receipt"),
            invalid("other bytes than the seller signed", good, "result sha256 is", result=_result(Result(RESULT.data + b"!", RESULT.media_type))),
            invalid("no bytes", good, "result sha256 is", result=_result(Result(b"", RESULT.media_type))),
            invalid("other kind of bytes than the seller signed", good, "result media type is", result=_result(Result(RESULT.data, "application/x-tar"))),
            invalid("a size that is not the bytes'", signed(good, SELLER, result={**result, "size": "1"}), "result size is 1"),
            invalid("for another payment", good, "payment is False", payment_id="00" * 32),
            invalid("lists no payment", the_receipt(payment_ids=[]), "payment is False"),
            invalid("for another amount", the_receipt(amount=Amount(PRICE.value - 1, "raw")), "amount is"),
            invalid("the amount in another unit", signed(good, SELLER, unit="sat"), "amount is"),
            invalid("for another quote of the same job", the_receipt(quote=other_quote), "quote_hash is"),
            invalid("for another request of the same buyer", the_receipt(other_request), "request_hash is"),
            invalid("for another job", the_receipt(job_id="ffffffff-ffff-4fff-bfff-ffffffffffff"), "job_id is"),
            invalid("for another buyer", signed(good, SELLER, buyer=STRANGER.key), "buyer is"),
            invalid("on another network", signed(good, SELLER, network="live"), "network is live"),
            invalid("names another seller than its signer", signed(good, SELLER, seller=STRANGER.key), "receipt names seller"),
            invalid("signed by a stranger", the_receipt(identity=STRANGER), f"is signed by {STRANGER.key}, not by"),
            invalid("changed by the market", forged(good, delivered_at="1"), "does not verify"),
            invalid("fence as a number", signed(good, SELLER, fence=7), "fence must be digits"),
            invalid("result as text", signed(good, SELLER, result=result["sha256"]), "result must be an object"),
            invalid("payments as text", signed(good, SELLER, payment_ids=PAYMENT), "payment_ids must be a list of texts"),
        ],
    }


def countersigns() -> dict[str, Any]:
    good = the_countersign()
    return {
        "about": "What the buyer signs once a delivery is verified, and keeps: it took exactly this receipt and these bytes.",
        "buyer": BUYER.key,
        "receipt": document_to_json(the_receipt()),
        "valid": [valid("a countersignature", good)],
        "invalid": [
            invalid("signed by the seller", signed(good, SELLER), f"is signed by {SELLER.key}, not by"),
            invalid("another receipt", forged(good, receipt_hash="00" * 32), "does not verify"),
            invalid("signed as a receipt", _renamed(BUYER.sign("receipt", good.body), "countersign"), "does not verify"),
        ],
    }


def values() -> dict[str, Any]:
    texts = {
        "keys in order of UTF-16, no blanks": '{"b": 1, "a": {"z": [1, 2.50, 1e2], "ä": null}, "\U0001f600": true, "\ufb33": false}',
        "escapes only where needed": '"\\u20ac \\u000f \\n / \\" \\\\ \u2028"',
        "the largest whole number there is": "9007199254740991",
        "numbers as ECMAScript writes them": "[1.0, -0.0, 1e21, 1e-7, 0.000001, 123456789.125]",
    }
    refused = {
        "2^53 as a number": ("9007199254740992", "no canonical JSON form"),
        "the same key twice": ('{"amount": "1", "amount": "2"}', "duplicate key 'amount'"),
        "not a number": ("NaN", "NaN is not JSON"),
        "a number beyond a double": ("1e400", "outside the range"),
        "half a surrogate pair": ('"\\ud800"', "lone surrogate"),
        "66 levels": ("[" * 66 + "]" * 66, "nested too deeply"),
        "a comment": ('{"a": 1} // one', "not valid JSON"),
    }
    return {
        "about": "JSON texts, their canonical bytes (as text) and value_hash; and texts that have none.",
        "valid": [{"name": n, "json": t, "canonical": canonical(json.loads(t)).decode(), "value_hash": value_hash(json.loads(t))} for n, t in texts.items()],
        "invalid": [{"name": n, "json": t, "refusal": {"code": "usage.input", "says": says}} for n, (t, says) in refused.items()],
    }


def keys() -> dict[str, Any]:
    return {
        "about": "The seeds (ed25519 private keys) of all vectors, for whoever makes them again. Never use them for anything else.",
        "keys": [{"name": name, "seed": seed.hex(), "key": Identity(seed).key} for name, seed in SEEDS.items()],
    }


def _renamed(document: SignedDocument, kind: str) -> SignedDocument:
    return SignedDocument(kind, document.body, document.key, document.signature)


def _under(identity: Identity, document: SignedDocument) -> SignedDocument:
    return SignedDocument(document.kind, document.body, identity.key, document.signature)


def _token_invoice(amount: Amount = SATS) -> Invoice:
    return the_invoice(rail="token", invoice_id="t-1", address="lock-1", amount=amount, details={"mint": "https://mint.example"})


def _price(price: Amount) -> dict[str, str]:
    return {"amount": str(price.value), "unit": price.unit}


def _result(result: Result) -> dict[str, str]:
    return {"base64": base64.b64encode(result.data).decode(), "media_type": result.media_type}


FILES: Mapping[str, Callable[[], dict[str, Any]]] = {
    "keys.json": keys,
    "values.json": values,
    "offer.json": offers,
    "request.json": requests,
    "quote.json": quotes,
    "receipt.json": receipts,
    "countersign.json": countersigns,
}


def text_of(name: str) -> str:
    return json.dumps(FILES[name](), ensure_ascii=False, indent=1) + "\n"


def main(arguments: list[str]) -> int:
    stale = [name for name in FILES if not (FOLDER / name).exists() or (FOLDER / name).read_text("utf-8") != text_of(name)]
    if arguments == ["--check"]:
        for name in stale:
            print(f"docs/vectors/{name} is out of date: run tools/make_vectors.py")
        return 1 if stale else 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in stale:
        (FOLDER / name).write_text(text_of(name), "utf-8")
        print(f"docs/vectors/{name} written")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
