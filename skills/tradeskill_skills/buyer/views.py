"""What the buyer's tools answer with: offers, purchases and results as a model is shown them, marked as the words of strangers."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal

from typing_extensions import TypedDict  # pydantic needs this one below Python 3.12

from tradeskill.downloads import save_download
from tradeskill.errors import UntrustedError
from tradeskill.money import Amount, format_amount

if TYPE_CHECKING:  # the journal is imported where it is read: a search has to answer quickly
    from tradeskill.journal import Purchase
    from tradeskill.model import Offer
    from tradeskill.profile import Profile

__all__ = [
    "SHOWN",
    "HireView",
    "OfferView",
    "PriceView",
    "PurchaseView",
    "ResultView",
    "money_of",
    "offer_view",
    "purchase_view",
    "result_view",
    "signed_offer",
]

_MEDIA_TYPE: Final = re.compile(r"[a-z0-9!#$&^_.+-]{1,60}/[a-z0-9!#$&^_.+-]{1,60}(; ?[a-z]{1,20}=[A-Za-z0-9_.-]{1,40})?", re.ASCII)
_CONTROLS: Final = re.compile(r"[\x00-\x1f]")
SHOWN: Final = 50_000  # bytes of a result that a model is shown; the rest is in a file


class PriceView(TypedDict):
    price: str
    price_raw: str
    unit: str


class OfferView(TypedDict):
    offer_id: str
    title: str
    description: str
    tags: list[str]
    price: str | None
    price_raw: str | None
    unit: str | None
    prices: list[PriceView]
    seller: str
    network: str
    input: dict[str, Any]
    signature_valid: bool
    untrusted: Literal[True]


class PurchaseView(TypedDict):
    purchase_id: str
    job_id: str | None
    state: str
    offer_id: str
    title: str
    seller: str
    price: str | None
    amount_raw: str | None
    unit: str | None
    rail: str | None
    payment_id: str | None
    money: Literal["not moved", "reserved", "spent", "returned"]
    result_sha256: str | None
    receipt: Literal["verified", "unverified"] | None
    error: dict[str, str] | None
    next: str
    repeated: bool
    bought_at: str | None
    again: Literal["label"]
    untrusted: Literal[True]


class ResultView(TypedDict):
    job_id: str | None
    media_type: str
    sha256: str
    size: int
    text: str | None
    base64: str | None
    truncated: bool
    file: str | None
    untrusted: Literal[True]


class HireView(PurchaseView):
    result: ResultView | None


def signed_offer(offer: Offer) -> Offer | None:
    """As its seller signed it; None where the signature is wrong."""
    from tradeskill.agreement import read_offer

    try:
        return read_offer(offer.document)
    except UntrustedError:
        return None


def offer_view(offer: Offer) -> OfferView:
    signed = signed_offer(offer)
    valid = signed is not None and signed.offer_hash == offer.offer_hash
    if signed is not None and valid:
        offer = signed  # not what the market says of it
    else:  # nobody stands for any of it, and it cannot be bought
        offer = replace(
            offer,
            offer_id=offer.offer_id[:64],
            title=offer.title[:120],
            description=offer.description[:2_000],
            tags=tuple(tag[:32] for tag in offer.tags[:16]),
            prices=(),
            input_schema={},
        )
    return {
        "offer_id": offer.offer_id,
        "title": offer.title,
        "description": offer.description,
        "tags": list(offer.tags),
        "price": None if offer.price is None else format_amount(offer.price),
        "price_raw": None if offer.price is None else str(offer.price.value),
        "unit": None if offer.price is None else offer.price.unit,
        "prices": [{"price": format_amount(price), "price_raw": str(price.value), "unit": price.unit} for price in offer.prices],
        "seller": offer.seller,
        "network": offer.network,
        "input": dict(offer.input_schema),
        "signature_valid": valid,
        "untrusted": True,
    }


def result_view(profile: Profile, purchase: Purchase, data: bytes, limit: int) -> ResultView:
    """What a model is shown of a result: text that fits, or the beginning of it; anything else as a file in the profile."""
    from base64 import b64encode

    try:
        text: str | None = data.decode("utf-8")
    except UnicodeDecodeError:
        text = None
    cut = len(data) > limit
    if cut and text is not None:
        text = data[: max(0, limit)].decode("utf-8", "ignore")
    escaped = 0 if text is None else len(text) + 5 * len(_CONTROLS.findall(text))
    if text is not None and escaped > 2 * SHOWN:  # an answer is JSON, where such a character takes six
        cut, text = True, text[: SHOWN // 6]
    return {
        "job_id": purchase.job_id,
        "media_type": _media_type(purchase.result_type or ""),
        "sha256": purchase.result_sha256 or "",
        "size": len(data),
        "text": text,
        "base64": None if text is not None or cut else b64encode(data).decode(),
        "truncated": cut,
        "file": str(save_download(profile.home, data, f"result-{purchase.purchase_id[:8]}", "")) if cut else None,
        "untrusted": True,
    }


def _media_type(said: str) -> str:
    """As the seller said it where it has the form of one."""
    return said if _MEDIA_TYPE.fullmatch(said) else "application/octet-stream"


def purchase_view(purchase: Purchase, *, repeated: bool = False) -> PurchaseView:
    """`repeated`: the call changed nothing, this purchase had ended before."""
    from tradeskill.journal.records import read_document

    offer = read_document(purchase.offer).body
    amount = None if purchase.amount is None or purchase.unit is None else Amount(int(purchase.amount), purchase.unit)
    error = None if purchase.error_code is None else {"code": purchase.error_code, "message": purchase.error_message or ""}
    return {
        "purchase_id": purchase.purchase_id,
        "job_id": purchase.job_id,
        "state": purchase.state,
        "offer_id": str(offer.get("offer_id", "")),
        "title": str(offer.get("title", "")),
        "seller": purchase.seller,
        "price": None if amount is None else format_amount(amount),
        "amount_raw": purchase.amount,
        "unit": purchase.unit,
        "rail": purchase.rail,
        "payment_id": purchase.payment_id,
        "money": money_of(purchase.state),
        "result_sha256": purchase.result_sha256,
        "receipt": None if purchase.state != "received" else "unverified" if purchase.receipt is None else "verified",
        "error": error,
        "next": _NEXT.get(purchase.state, "wait: ask buyer.status again"),
        "repeated": repeated,
        "bought_at": None if purchase.accepted_at is None else datetime.fromtimestamp(purchase.accepted_at / 1000, UTC).isoformat(timespec="seconds"),
        "again": "label",
        "untrusted": True,
    }


_NEXT = {
    "verified": "buyer.accept to reserve the price, or buyer.hire for all the rest",
    "accepted": "buyer.pay",
    "received": "buyer.result",
    "failed": "nothing: the seller owes a refund to the address signed in the request; ask buyer.status later",
    "refunded": "the money is back; request again with another label if still wanted",
    "disputed": "ask the owner: the payment is made, the evidence is kept (tradeskill job)",
    "abandoned": "request again with another label if still wanted",
    "canceled": "request again with another label if still wanted",
    "expired": "request again with another label if still wanted",
}


def money_of(state: str) -> Literal["not moved", "reserved", "spent", "returned"]:
    """Where the money of a purchase in this state is."""
    if state in ("reserved", "accepted"):
        return "reserved"
    if state in ("paying", "paid", "submitted", "waiting", "received", "failed", "disputed"):
        return "spent"
    return "returned" if state == "refunded" else "not moved"
