"""Our signed documents inside the fields of a relay that knows none of them, and back. Pure. Everything read here is a stranger's.

quote    payment_provider `tradeskill-q1`, payment_charge_id `q1.<nonce>.<signature>`; the body is rebuilt from the job's fields and the request
request  the reserved key `_tradeskill` of request_payload: `<body>.<signature>`; plain input fields beside it are a courtesy to people
receipt  the fragment of result_url: `#tsr1.<body>.<signature>`; a small result is a `data:` URL before it
offer    tag `tradeskill`; what the plain fields do not say, at the end of the description: `\\n\\n[tso1.<signature and compressed body>]`

Bodies are canonical JSON in base64url without padding, of which one spelling is taken. A document is whole or there is none: what a field cannot
carry is refused when packing, and what was changed on the way does not verify.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import urllib.parse
import zlib
from collections.abc import Mapping
from typing import Final

from tradeskill.agreement import offer_prices, read_offer
from tradeskill.errors import InputError, UntrustedError, UsageError
from tradeskill.model import Json, Offer, Result, SignedDocument
from tradeskill.money import in_unit
from tradeskill.signing import canonical, parse_json, value_hash, verify_document
from tradeskill_plugins.relay.wire import MAX_REQUEST, MAX_URL, read_time, show_time

__all__ = [
    "DESCRIPTION_MAX",
    "PAYLOAD_KEY",
    "QUOTE_PROVIDER",
    "TAG",
    "data_url",
    "pack_offer",
    "pack_quote",
    "pack_receipt",
    "pack_request",
    "read_data_url",
    "unpack_offer",
    "unpack_quote",
    "unpack_receipt",
    "unpack_request",
]

QUOTE_PROVIDER: Final = "tradeskill-q1"
PAYLOAD_KEY: Final = "_tradeskill"
COURTESY_MAX: Final = 60_000  # with the plain fields: a relay may count what it writes itself a little differently
TAG: Final = "tradeskill"
TAGS_MAX: Final = 16
DESCRIPTION_MAX: Final = 2_000  # characters
UNPACKED_MAX: Final = 65_536  # bytes of a decompressed offer
RAIL, UNIT, REFUND_RULE = "nano", "raw", "R1"

_BASE64URL = re.compile(r"[A-Za-z0-9_-]*", re.ASCII)
_NONCE = re.compile(r"[0-9a-f]{32}", re.ASCII)
_DIGITS = re.compile(r"0|[1-9][0-9]{0,38}", re.ASCII)
_CHARGE = re.compile(r"q1\.([A-Za-z0-9_-]{22})\.([A-Za-z0-9_-]{86})", re.ASCII)
_OFFER = re.compile(r"(.*)\n\n\[tso1\.([A-Za-z0-9_-]+)\]", re.DOTALL)
_DATA = re.compile(r"data:([A-Za-z0-9!$&'*+./;=_%-]*);base64,([A-Za-z0-9+/]*={0,2})", re.ASCII)
_QUOTE_FIELDS = {"network", "job_id", "input_hash", "offer_hash", "buyer", "seller", "invoices", "expires_at", "refund_rule", "nonce"}
_INVOICE_FIELDS = {"rail", "network", "invoice_id", "amount", "unit", "address", "details"}
_LAST_MS: Final = 253_402_300_799_999  # of the year 9999


# the quote


def pack_quote(document: SignedDocument) -> dict[str, Json]:
    """The body of POST …/quote for a signed quote. UsageError naming the field that such a relay cannot carry.

    What can be carried: one invoice of the rail nano in raw, named by its address, without details; refund rule R1; a nonce of 16 bytes as hex.
    """
    body = document.body
    if set(body) != _QUOTE_FIELDS:
        raise UsageError(f"quote: {', '.join(sorted(set(body) ^ _QUOTE_FIELDS))}: this relay carries the fields of protocol version 1 and no others")
    invoices = body["invoices"]
    if not isinstance(invoices, list) or len(invoices) != 1 or not isinstance(invoices[0], dict) or set(invoices[0]) != _INVOICE_FIELDS:
        raise UsageError("quote: invoices: this relay carries exactly one, of the rail nano")
    invoice, nonce = invoices[0], body["nonce"]
    fixed = {"rail": RAIL, "network": body["network"], "unit": UNIT, "details": {}, "invoice_id": invoice["address"]}
    for name, value in fixed.items():
        if invoice[name] != value:
            raise UsageError(f"quote: invoices[0].{name} is {_shown(invoice[name])}: this relay carries only {_shown(value)}")
    if body["refund_rule"] != REFUND_RULE:
        raise UsageError(f"quote: refund_rule is {_shown(body['refund_rule'])}: this relay carries only {REFUND_RULE}")
    if body["seller"] != document.key:
        raise UsageError("quote: seller is not the key that signed it")
    if not isinstance(nonce, str) or _NONCE.fullmatch(nonce) is None:
        raise UsageError("quote: nonce: this relay carries 16 bytes, written as 32 hex digits")
    expires_at, amount, address = body["expires_at"], invoice["amount"], invoice["address"]
    if not isinstance(expires_at, str) or _DIGITS.fullmatch(expires_at) is None:
        raise UsageError("quote: expires_at must be milliseconds in plain digits: this relay carries no quote without them")
    if int(expires_at) > _LAST_MS:
        raise UsageError(f"quote: expires_at {expires_at} is beyond the calendar")
    if not isinstance(amount, str) or _DIGITS.fullmatch(amount) is None:
        raise UsageError("quote: invoices[0].amount must be plain digits")
    if not isinstance(address, str) or not 1 <= len(address) <= 128:
        raise UsageError("quote: invoices[0].address must be 1 to 128 characters")
    return {
        "quote_amount_raw": amount,
        "quote_invoice_address": address,
        "quote_expires_at": show_time(int(expires_at)),
        "payment_provider": QUOTE_PROVIDER,
        "payment_charge_id": f"q1.{_encode(bytes.fromhex(nonce))}.{_encode(bytes.fromhex(document.signature))}",
    }


def unpack_quote(job: Mapping[str, Json], request: SignedDocument) -> SignedDocument | None:
    """The quote as it must have been signed, rebuilt from a job's fields; None where there is none of ours. Whether it verifies is still to be asked."""
    charge = job.get("payment_charge_id")
    match = _CHARGE.fullmatch(charge) if isinstance(charge, str) else None
    if job.get("payment_provider") != QUOTE_PROVIDER or match is None:
        return None
    seller, address = job.get("seller_pubkey"), job.get("quote_invoice_address")
    try:
        nonce, signature = _decode(match[1]), _decode(match[2])
        expires_at = str(read_time("quote_expires_at", job.get("quote_expires_at")))
    except (UntrustedError, UsageError):
        return None
    invoice: dict[str, Json] = {
        "rail": RAIL,
        "network": request.body.get("network"),
        "invoice_id": address,
        "amount": job.get("quote_amount_raw"),
        "unit": UNIT,
        "address": address,
        "details": {},
    }
    body: dict[str, Json] = {
        "network": request.body.get("network"),
        "job_id": job.get("job_id"),
        "input_hash": value_hash(request.body.get("input")),
        "offer_hash": request.body.get("offer_hash"),
        "buyer": job.get("buyer_pubkey"),
        "seller": seller,
        "invoices": [invoice],
        "expires_at": expires_at,
        "refund_rule": REFUND_RULE,
        "nonce": nonce.hex(),
    }
    return SignedDocument("quote", body, seller if isinstance(seller, str) else "", signature.hex())


# the request


def pack_request(document: SignedDocument) -> dict[str, Json]:
    """request_payload for a signed request. InputError naming the sizes when the input is too large for it."""
    packed = _pack_signed(document)
    payload: dict[str, Json] = {PAYLOAD_KEY: packed}
    size = len(_compact(payload))
    if size > MAX_REQUEST:
        given = len(canonical(document.body["input"]))
        raise InputError(f"input is {given} bytes, which makes a signed request of {size} bytes: this relay carries {MAX_REQUEST}")
    wanted = document.body.get("input")
    if isinstance(wanted, dict) and PAYLOAD_KEY not in wanted:
        whole = {**payload, **wanted}
        text = _compact(whole)
        if len(text) <= COURTESY_MAX and b"\\u0000" not in text:
            return whole
    return payload


def unpack_request(payload: Json, buyer: str) -> SignedDocument:
    """The request in a job's request_payload, verified to be signed by `buyer`. UntrustedError where there is none."""
    packed = payload.get(PAYLOAD_KEY) if isinstance(payload, dict) else None
    if not isinstance(packed, str) or len(packed) > MAX_REQUEST:
        raise UntrustedError("the job carries no signed request")
    document = _unpack_signed("request", packed, buyer)
    verify_document(document, "request", buyer)
    return document


# the receipt


def pack_receipt(document: SignedDocument) -> str:
    """What stands behind the `#` of a result_url."""
    return f"tsr1.{_pack_signed(document)}"


def unpack_receipt(result_url: str, seller: str) -> tuple[str, SignedDocument | None]:
    """The URL without its fragment, and the receipt in it: rebuilt, not verified; None where there is none."""
    url, _, fragment = result_url.partition("#")
    if not fragment.startswith("tsr1."):
        return url, None
    try:
        return url, _unpack_signed("receipt", fragment.removeprefix("tsr1."), seller)
    except UntrustedError:
        return url, None


def data_url(result: Result) -> str:
    """A small result as a URL. How long it becomes is for the caller to judge, with the receipt behind it."""
    kind = urllib.parse.quote(result.media_type, safe="/;=+.-_!$&'*")
    return f"data:{kind};base64,{base64.b64encode(result.data).decode()}"


def read_data_url(url: str) -> Result | None:
    """None where it is none of ours."""
    match = _DATA.fullmatch(url)
    if match is None or len(url) > MAX_URL:
        return None
    try:
        return Result(base64.b64decode(match[2], validate=True), urllib.parse.unquote(match[1], errors="strict"))
    except (binascii.Error, UnicodeDecodeError):
        return None


# the offer


def pack_offer(document: SignedDocument) -> dict[str, Json]:
    """The body of POST /v1/offers for a signed offer. UsageError naming what does not fit."""
    body = document.body
    title, description, tags = body.get("title"), body.get("description"), body.get("tags")
    if not isinstance(title, str) or not isinstance(description, str) or not isinstance(tags, list):
        raise UsageError("offer: title, description and tags must be there")
    shown: list[Json] = tags if TAG in tags else [*tags, TAG]
    if len(shown) > TAGS_MAX:
        raise UsageError(f"offer: tags: this relay carries {TAGS_MAX}, and one of them must be {TAG!r}: leave one out")
    rest = {name: value for name, value in body.items() if name not in ("title", "description", "tags")}
    mark = f"\n\n[tso1.{_encode(bytes.fromhex(document.signature) + zlib.compress(_stable(rest, 'offer'), 9))}]"
    if len(description) + len(mark) > DESCRIPTION_MAX:
        raise UsageError(
            f"offer: description is {len(description)} characters and the signed rest of the offer {len(mark)}, "
            f"this relay carries {DESCRIPTION_MAX} in all: shorten the description or the input schema"
        )
    return {"title": title, "description": description + mark, "tags": shown, **_pricing(body)}


def unpack_offer(fields: Mapping[str, Json]) -> Offer:
    """The offer in a relay's plain fields, verified. UntrustedError where it is none of ours, or was changed."""
    seller, title, tags = fields.get("seller_pubkey"), fields.get("title"), fields.get("tags")
    description = fields.get("description")
    match = _OFFER.fullmatch(description) if isinstance(description, str) and len(description) <= DESCRIPTION_MAX else None
    if match is None or not isinstance(seller, str) or not isinstance(tags, list) or TAG not in tags:
        raise UntrustedError("the offer is not signed")
    blob = _decode(match[2])
    rest = _object(_decompressed(blob[64:]), "offer")
    if _pricing(rest) != {"pricing_mode": fields.get("pricing_mode"), "fixed_price_raw": fields.get("fixed_price_raw")}:
        raise UntrustedError("the offer shows another price than the signed one")
    unsigned: dict[str, Json] = {**rest, "title": title, "description": match[1]}
    refused: UntrustedError | None = None
    # the tag at the end may be the seller's own or the packing's: the signature knows
    for signed_tags in [tags[:-1], tags] if tags[-1] == TAG else [tags]:
        try:
            return read_offer(SignedDocument("offer", {**unsigned, "tags": signed_tags}, seller, blob[:64].hex()))
        except UntrustedError as error:
            refused = error
    assert refused is not None
    raise refused


def _pricing(body: Mapping[str, Json]) -> dict[str, Json]:
    price = in_unit(offer_prices(body), UNIT)
    if price is None:
        return {"pricing_mode": "quote", "fixed_price_raw": None}
    return {"pricing_mode": "fixed", "fixed_price_raw": str(price.value)}


# what they share


def _pack_signed(document: SignedDocument) -> str:
    return f"{_encode(_stable(document.body, document.kind))}.{_encode(bytes.fromhex(document.signature))}"


def _unpack_signed(kind: str, packed: str, key: str) -> SignedDocument:
    body, _, signature = packed.partition(".")
    signed = _decode(signature)
    if len(signed) != 64:
        raise UntrustedError(f"{kind}: 64 bytes of signature must follow it")
    return SignedDocument(kind, _object(_decode(body), kind), key, signed.hex())


def _stable(body: Mapping[str, Json], what: str) -> bytes:
    """Canonical JSON that is read back as the same: a float that prints as a whole number of 2^53 or more is not."""
    data = canonical(body)
    try:
        _object(data, what)
    except UntrustedError as error:
        raise InputError(f"{error}; this relay cannot carry it") from error
    return data


def _object(data: bytes, what: str) -> dict[str, Json]:
    """Canonical JSON of an object, and nothing else: there is one spelling of a signed body."""
    try:
        value = parse_json(data, what)
        if isinstance(value, dict) and canonical(value) == data:
            return value
    except InputError as error:
        raise UntrustedError(f"{what}: {error}") from error
    raise UntrustedError(f"{what} is not one canonical JSON object")


def _decompressed(data: bytes) -> bytes:
    """At most `UNPACKED_MAX` bytes, whatever the input claims to be."""
    unpacker = zlib.decompressobj()
    try:
        found = unpacker.decompress(data, UNPACKED_MAX)
    except zlib.error as error:
        raise UntrustedError("the signed rest of the offer is damaged") from error
    if not unpacker.eof or unpacker.unused_data:
        raise UntrustedError(f"the signed rest of the offer is damaged, or more than {UNPACKED_MAX} bytes")
    return found


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    """base64url without padding, in its one spelling."""
    if _BASE64URL.fullmatch(text) is None or len(text) % 4 == 1:
        raise UntrustedError("not base64url")
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if _encode(data) != text:
        raise UntrustedError("base64url with bits left over")
    return data


def _compact(value: Json) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
