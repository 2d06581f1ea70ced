"""packing.py: what goes into an old relay's fields comes out whole, and whatever was changed on the way does not verify."""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.old_relay import _as_float64, _as_stored
from tradeskill.agreement import read_offer, read_request, sign_offer, sign_quote, sign_receipt, sign_request, verify_quote, verify_receipt
from tradeskill.errors import InputError, UntrustedError, UsageError
from tradeskill.model import Invoice, Json, Offer, Result, SignedDocument
from tradeskill.money import Amount
from tradeskill.signing import Identity, document_to_json
from tradeskill_plugins.relay import packing
from tradeskill_plugins.relay.wire import MAX_REQUEST, MAX_URL, show_time

BUYER, SELLER = Identity(b"\1" * 32), Identity(b"\2" * 32)
JOB = "0b9a6d0e-63a1-4a3c-9d7e-2f5d3c1b0a99"
ADDRESS = "nano_3e3j5tkog48pnny9dmfzj1r16pg8t1e76dz5tmac6iq689wyjfpiij4txtdo"
NOW = 1_750_000_000_000
PRICE = Amount(10**27, "raw")
FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
NUMBERS = st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False).filter(lambda n: not 2**53 <= abs(n) < 1e21)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=12
)


def an_offer(**changes: Any) -> SignedDocument:
    fields: dict[str, Any] = {
        "offer_id": "5f0c7f1e-3d0a-4b53-9a54-0c7a6a2b9a11",
        "network": "dev",
        "title": "Web page to Markdown",
        "description": "One page in,\n\n[tso1.x] clean Markdown out",
        "tags": ["web", "markdown"],
        "prices": (PRICE,),
        "input_schema": {"type": "object", "required": ["url"]},
        "pure": True,
        "trusted": False,
        "created_at": NOW,
    }
    return sign_offer(SELLER, **{**fields, **changes})


OFFER: Offer = read_offer(an_offer())


def a_request(value: Json = None, **changes: Any) -> SignedDocument:
    fields: dict[str, Any] = {"refund_to": {"nano": ADDRESS}, "nonce": "6f1d" * 8, "created_at": NOW + 1}
    return sign_request(BUYER, OFFER, input_value={"url": "http://a/"} if value is None else value, **{**fields, **changes})


def a_quote(request: SignedDocument, nonce: str = "90ab" * 8, expires_at: int = NOW + 900_000, amount: int = 10**27, **changes: Json) -> SignedDocument:
    invoice = Invoice("nano", "dev", ADDRESS, JOB, ADDRESS, Amount(amount, "raw"), expires_at)
    made = sign_quote(SELLER, read_request(request, BUYER.key), job_id=JOB, invoices=[invoice], expires_at=expires_at, nonce=nonce)
    return SELLER.sign("quote", {**made.body, **changes}) if changes else made


def as_job(fields: Mapping[str, Json]) -> dict[str, Json]:
    """How an old relay shows the job after the quote."""
    return {"job_id": JOB, "seller_pubkey": SELLER.key, "buyer_pubkey": BUYER.key, "status": "quoted", "payment_tx_hash": None, **fields}


# quotes


@FEW
@given(VALUES, st.binary(min_size=16, max_size=16), st.integers(0, 253_402_300_799_999), st.integers(0, 2**128 - 1))
def test_a_quote_is_rebuilt_to_the_byte(value: Json, nonce: bytes, expires_at: int, amount: int) -> None:
    request = a_request(value)
    quote = a_quote(request, nonce.hex(), expires_at, amount)
    fields = packing.pack_quote(quote)
    assert len(str(fields["payment_charge_id"])) == 112
    assert packing.unpack_quote(as_job(fields), request) == quote


def test_any_field_of_a_quote_that_is_changed_makes_it_one_that_nobody_signed() -> None:
    request = a_request()
    job = as_job(packing.pack_quote(a_quote(request)))
    read = read_request(request, BUYER.key)

    def verified(row: Mapping[str, Json], asked: SignedDocument = request) -> bool:
        quote = packing.unpack_quote(row, asked)
        if quote is None:
            return False
        try:
            verify_quote(quote, read, job_id=JOB, prices=(PRICE,))
        except UntrustedError:
            return False
        return True

    assert verified(job)
    changes: dict[str, list[Json]] = {
        "job_id": [JOB.replace("0b", "0c"), None],
        "seller_pubkey": [BUYER.key, "x", None],
        "buyer_pubkey": [SELLER.key, None],
        "quote_amount_raw": ["1", "1" + "0" * 26, None, 5, "01" + "0" * 27],
        "quote_invoice_address": [ADDRESS[:-1] + "p", None, 5],
        "quote_expires_at": [show_time(NOW + 900_001), "soon", None],
        "payment_provider": ["berrypay", None],
        "payment_charge_id": [None, "", "q1", f"q1.{'A' * 22}.{'A' * 86}", "q2." + str(job["payment_charge_id"])[3:], str(job["payment_charge_id"]) + "A"],
    }
    for name, others in changes.items():
        for other in others:
            assert not verified({**job, name: other}), (name, other)
    assert not verified(job, a_request({"url": "http://evil/"}))
    # the last characters of base64 have bits that say nothing: only one spelling of them counts
    charge = str(job["payment_charge_id"])
    assert sum(verified({**job, "payment_charge_id": charge[:-1] + c}) for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") == 1


@FEW
@given(st.integers(0, 111), st.characters(exclude_categories=["Cs"]))
def test_no_character_of_the_charge_can_be_changed(place: int, other: str) -> None:
    request = a_request()
    job = as_job(packing.pack_quote(a_quote(request)))
    charge = str(job["payment_charge_id"])
    if charge[place] != other:
        quote = packing.unpack_quote({**job, "payment_charge_id": charge[:place] + other + charge[place + 1 :]}, request)
        with pytest.raises(UntrustedError):
            verify_quote(quote or replace(request, kind="none"), read_request(request, BUYER.key), job_id=JOB, prices=(PRICE,))


INVOICE: dict[str, Json] = {"rail": "nano", "network": "dev", "invoice_id": ADDRESS, "amount": "5", "unit": "raw", "address": ADDRESS, "details": {}}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"nonce": "short"}, "nonce"),
        ({"nonce": "AB" * 16}, "nonce"),
        ({"invoices": []}, "invoices"),
        ({"invoices": [INVOICE, INVOICE]}, "invoices"),
        ({"invoices": [INVOICE | {"rail": "cashu"}]}, "rail"),
        ({"invoices": [INVOICE | {"unit": "sat"}]}, "unit"),
        ({"invoices": [INVOICE | {"details": {"mint": "x"}}]}, "details"),
        ({"invoices": [INVOICE | {"invoice_id": "i-1"}]}, "invoice_id"),
        ({"invoices": [INVOICE | {"network": "test"}]}, "network"),
        ({"invoices": [INVOICE | {"amount": "05"}]}, "amount"),
        ({"invoices": [INVOICE | {"address": "", "invoice_id": ""}]}, "address"),
        ({"invoices": [INVOICE | {"memo": "x"}]}, "invoices"),
        ({"refund_rule": "R2"}, "refund_rule"),
        ({"expires_at": None}, "expires_at"),
        ({"expires_at": "9" * 20}, "expires_at"),
        ({"seller": BUYER.key}, "seller"),
        ({"memo": "x"}, "memo"),
    ],
)
def test_a_quote_that_cannot_be_rebuilt_is_refused_naming_the_field(changes: dict[str, Json], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        packing.pack_quote(a_quote(a_request(), **changes))


# requests


@FEW
@given(VALUES)
def test_a_request_survives_a_relay_that_rewrites_its_payload(value: Json) -> None:
    request = a_request(value)
    payload = packing.pack_request(request)
    sent = json.loads(json.dumps(payload))
    stored = _as_stored(_as_float64(sent))
    assert packing.unpack_request(stored, BUYER.key) == request


def test_the_plain_fields_are_a_courtesy_that_nobody_reads() -> None:
    payload = packing.pack_request(a_request({"url": "http://a/", "deep": [1.5]}))
    assert {name: payload[name] for name in ("url", "deep")} == {"url": "http://a/", "deep": [1.5]}
    assert packing.unpack_request({**payload, "url": "http://evil/"}, BUYER.key).body["input"] == {"url": "http://a/", "deep": [1.5]}
    for value in ([1], "x", {"_tradeskill": "mine"}, {"nul": "\0"}, {"long": "x" * 30_000}):
        assert list(packing.pack_request(a_request(value))) == ["_tradeskill"]


def test_an_input_too_large_for_a_payload_is_refused_with_its_size() -> None:
    size = next(n for n in range(49_000, 40_000, -1) if _fits("x" * n))
    assert len(json.dumps(packing.pack_request(a_request("x" * size)), separators=(",", ":"))) <= MAX_REQUEST
    with pytest.raises(InputError, match=rf"{size + 3} bytes.*carries 65536"):
        packing.pack_request(a_request("x" * (size + 1)))


def _fits(value: str) -> bool:
    try:
        packing.pack_request(a_request(value))
    except InputError:
        return False
    return True


@FEW
@given(st.data())
def test_no_character_of_a_packed_request_can_be_changed(data: st.DataObject) -> None:
    text = str(packing.pack_request(a_request())["_tradeskill"])
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.sampled_from("ABab01-_.=+/ é\n"))
    if text[place] != other:
        with pytest.raises(UntrustedError):
            packing.unpack_request({"_tradeskill": text[:place] + other + text[place + 1 :]}, BUYER.key)


@pytest.mark.parametrize("payload", [None, 5, [], {}, {"_tradeskill": 5}, {"_tradeskill": ""}, {"_tradeskill": "e30."}, {"_tradeskill": "x" * 70_000}])
def test_a_payload_without_a_signed_request_has_none(payload: Json) -> None:
    with pytest.raises(UntrustedError):
        packing.unpack_request(payload, BUYER.key)


def test_a_number_that_would_be_read_as_another_is_refused() -> None:
    for value in (float(2**53), -1e20):
        with pytest.raises(InputError, match="write large integers as strings"):
            packing.pack_request(a_request({"n": value}))
        with pytest.raises(InputError, match="write large integers as strings"):
            packing.pack_offer(an_offer(input_schema={"maximum": value}))


def test_a_request_of_another_key_is_refused() -> None:
    with pytest.raises(UntrustedError):
        packing.unpack_request(packing.pack_request(a_request()), SELLER.key)


@FEW
@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda data: base64.urlsafe_b64encode(data).decode().rstrip("=") + ".AAAA"))
def test_no_text_at_all_breaks_the_reading(text: str) -> None:
    with pytest.raises(UntrustedError):
        packing.unpack_request({"_tradeskill": text}, BUYER.key)
    packing.unpack_receipt(text, SELLER.key)
    packing.read_data_url(text)
    assert packing.unpack_quote(as_job({"payment_provider": "tradeskill-q1", "payment_charge_id": text}), a_request()) is None
    with pytest.raises(UntrustedError):
        packing.unpack_offer({"seller_pubkey": SELLER.key, "title": text, "description": text, "tags": ["tradeskill"]})


# receipts and results


def a_receipt(result: Result, payments: int = 1) -> SignedDocument:
    request = a_request()
    return sign_receipt(
        SELLER,
        read_request(request, BUYER.key),
        a_quote(request),
        job_id=JOB,
        rail="nano",
        payment_ids=[f"{n:064X}" for n in range(payments)],
        amount=PRICE,
        result=result,
        delivered_at=NOW,
        fence=7,
    )


@FEW
@given(st.binary(max_size=300), st.sampled_from(["text/plain", "text/markdown; charset=utf-8", "application/x.y+json;a=\"b c\"", "überraschung/ß"]))
def test_a_small_result_and_its_receipt_come_back_out_of_one_url(data: bytes, media_type: str) -> None:
    result = Result(data, media_type)
    receipt = a_receipt(result)
    whole = f"{packing.data_url(result)}#{packing.pack_receipt(receipt)}"
    assert len(whole) <= MAX_URL
    url, found = packing.unpack_receipt(whole, SELLER.key)
    assert found == receipt
    assert packing.read_data_url(url) == result
    request = a_request()
    checked = {"job_id": JOB, "payment_id": f"{0:064X}", "amount": PRICE}
    verify_receipt(found, read_request(request, BUYER.key), a_quote(request), result=result, **checked)  # type: ignore[arg-type]  # as they are named
    with pytest.raises(UntrustedError):
        verify_receipt(found, read_request(request, BUYER.key), a_quote(request), result=Result(data + b"x", media_type), **checked)  # type: ignore[arg-type]  # as they are named


@pytest.mark.parametrize("url", ["https://a/x", "https://a/x#top", "https://a/x#tsr1.", "https://a/x#tsr1.e30", "https://a/x#tsr1.!.x", "https://a/x#tsr1.W10.AAAA"])
def test_a_fragment_that_is_no_receipt_of_ours_is_none(url: str) -> None:
    assert packing.unpack_receipt(url, SELLER.key) == ("https://a/x", None)


@pytest.mark.parametrize(
    "url", ["data:text/plain,abc", "data:text/plain;base64,!", "data:;base64,A", "https://a", "data:%ff;base64,", "data:x;base64," + "A" * 2048]
)
def test_a_data_url_that_is_none_of_ours_is_not_read(url: str) -> None:
    assert packing.read_data_url(url) is None


# offers


def as_offer(fields: Mapping[str, Json]) -> dict[str, Json]:
    return {"offer_id": JOB, "seller_pubkey": SELLER.key, "active": True, "created_at": "x", **fields}


@FEW
@given(
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=120),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=500),
    st.lists(st.sampled_from(["web", "tradeskill", "ü", "a b"]), max_size=4),
    st.lists(st.integers(0, 2**128 - 1).map(lambda n: Amount(n, "raw")) | st.just(Amount(5, "sat")), max_size=2, unique_by=lambda price: price.unit),
    VALUES,
)
def test_an_offer_comes_back_as_it_was_signed(title: str, description: str, tags: list[str], prices: list[Amount], schema: Json) -> None:
    document = an_offer(title=title, description=description, tags=tags, prices=prices, input_schema={"type": "object", "x": schema})
    fields = packing.pack_offer(document)
    assert "tradeskill" in fields["tags"]  # type: ignore[operator]  # a list
    assert fields["fixed_price_raw"] == next((str(price.value) for price in prices if price.unit == "raw"), None)
    assert packing.unpack_offer(as_offer(json.loads(json.dumps(fields)))) == read_offer(document)


def test_any_field_of_an_offer_that_is_changed_makes_it_none_of_ours() -> None:
    fields = as_offer(packing.pack_offer(an_offer()))
    description = str(fields["description"])
    changes: dict[str, list[Json]] = {
        "seller_pubkey": [BUYER.key, "", None],
        "title": ["x", None],
        "tags": [["web", "markdown"], ["markdown", "web", "tradeskill"], ["web", "tradeskill"], ["web", "markdown", "tradeskill", "tradeskill"], [], None, [5]],
        "pricing_mode": ["quote"],
        "fixed_price_raw": ["1", None],
        "description": [description[:-1], description + " ", "x" + description, description.replace("clean", "dirty"), "x" * 3000, None],
    }
    for name, others in changes.items():
        for other in others:
            with pytest.raises(UntrustedError):
                packing.unpack_offer({**fields, name: other})
    packing.unpack_offer(fields)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"description": "x" * 1_900}, r"description is 1900 characters.*2000"),
        ({"input_schema": {"enum": [f"{n * 7919 % 10007:x}" for n in range(1_500)]}}, "signed rest"),
        ({"tags": [f"t{n}" for n in range(16)]}, "tags"),
    ],
)
def test_an_offer_that_does_not_fit_is_refused_naming_the_sizes(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        packing.pack_offer(an_offer(**changes))


def test_an_offer_without_its_words_is_refused() -> None:
    with pytest.raises(UsageError, match="title"):
        packing.pack_offer(SELLER.sign("offer", {"description": "d", "tags": []}))


def _with_blob(data: bytes) -> dict[str, Json]:
    text = base64.urlsafe_b64encode(data).decode().rstrip("=")
    return as_offer({"title": "x", "description": f"x\n\n[tso1.{text}]", "tags": ["tradeskill"], "pricing_mode": "quote", "fixed_price_raw": None})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(64),
        bytes(64) + b"not zlib",
        bytes(64) + zlib.compress(b"{"),
        bytes(64) + zlib.compress(b"[]"),
        bytes(64) + zlib.compress(b'{"a": 1}'),
        bytes(64) + zlib.compress(b'{"a":1,"a":2}'),
        bytes(64) + zlib.compress(b'{"price":null}') + b"x",
        bytes(64) + zlib.compress(b'{"price":null}')[:-1],
        bytes(64) + zlib.compress(b'{"price":null}'),
        bytes(64) + zlib.compress(b'"' + b"A" * 10_000_000 + b'"', 9)[:1300],
    ],
)
def test_a_rest_that_is_damaged_or_a_bomb_is_refused(data: bytes) -> None:
    with pytest.raises(UntrustedError):
        packing.unpack_offer(_with_blob(data))


def test_a_bomb_is_not_unpacked_beyond_its_bound() -> None:
    bomb = zlib.compress(b'{"x":"' + b"A" * 600_000 + b'"}', 9)
    assert len(bomb) < 1_000
    with pytest.raises(UntrustedError, match="more than 65536 bytes"):
        packing.unpack_offer(_with_blob(bytes(64) + bomb))


def test_what_is_packed_has_the_shapes_that_the_protocol_page_gives() -> None:
    quote, request = packing.pack_quote(a_quote(a_request())), packing.pack_request(a_request())
    assert re.fullmatch(r"q1\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{86}", str(quote["payment_charge_id"]))
    assert re.fullmatch(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{86}", str(request["_tradeskill"]))
    assert re.search(r"\n\n\[tso1\.[A-Za-z0-9_-]+\]$", str(packing.pack_offer(an_offer())["description"]))
    assert re.fullmatch(r"tsr1\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{86}", packing.pack_receipt(a_receipt(Result(b""))))
    assert set(document_to_json(a_quote(a_request()))) == {"kind", "body", "key", "signature"}
