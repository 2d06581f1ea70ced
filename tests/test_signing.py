"""signing.py: published vectors, forgeries that a lax library takes, and JSON that two parsers would read differently."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from tradeskill.errors import InputError, UntrustedError
from tradeskill.model import Json, SignedDocument
from tradeskill.signing import (
    KINDS,
    Identity,
    canonical,
    digest,
    document_from_json,
    document_hash,
    document_to_json,
    parse_json,
    value_hash,
    verify_document,
)

VECTORS = Path(__file__).parent / "vectors" / "signing"


def cases(name: str) -> list[Any]:
    return [pytest.param(case, id=case["name"]) for case in json.loads((VECTORS / name).read_text("utf-8"))["cases"]]


def raw(case: dict[str, Any]) -> bytes:
    return bytes.fromhex(case["hex"]) if "hex" in case else (case["repeat"][0] * case["repeat"][1]).encode()


def document(case: dict[str, Any]) -> SignedDocument:
    return SignedDocument(case["kind"], case["body"], case["key"], case["signature"])


# Vectors


@pytest.mark.parametrize("case", cases("valid.json"))
def test_a_vector_is_signed_and_verified_to_the_byte(case: dict[str, Any]) -> None:
    identity = Identity(bytes.fromhex(case["seed"]))
    signed = identity.sign(case["kind"], case["body"])
    assert f"tradeskill/{case['kind']}/1\n".encode() + canonical(case["body"]) == bytes.fromhex(case["signed"])
    assert (signed.key, signed.signature) == (case["key"], case["signature"])
    assert value_hash(case["body"]) == case["value_hash"]
    assert document_hash(signed) == case["document_hash"]
    assert verify_document(document(case), case["kind"]) == case["body"]
    assert verify_document(document(case), case["kind"], case["key"]) == case["body"]


@pytest.mark.parametrize("case", cases("invalid.json"))
def test_an_invalid_vector_does_not_verify(case: dict[str, Any]) -> None:
    with pytest.raises(UntrustedError) as caught:
        verify_document(document(case["document"]), case["expected"], case["by"])
    assert str(caught.value).isprintable()


def test_a_stranger_s_key_cannot_write_to_the_terminal() -> None:
    signed = Identity(bytes(32)).sign("offer", {})
    with pytest.raises(UntrustedError) as caught:
        verify_document(dataclasses.replace(signed, key="\x1b[2J\nverified", kind="offer"), "offer", signed.key)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("case", cases("small_order.json"))
def test_a_forgery_under_a_small_order_key_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(UntrustedError):
        verify_document(document(case), "request")


@pytest.mark.parametrize("case", cases("small_order.json"))
def test_the_forgeries_are_real_a_lax_library_takes_them(case: dict[str, Any]) -> None:
    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    message = b"tradeskill/request/1\n" + canonical(case["body"])
    ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(case["key"])).verify(bytes.fromhex(case["signature"]), message)


def test_the_vectors_hold_all_encodings_of_the_small_order_points() -> None:
    """Eight points; those with y of 0 or 1 can also be written with y + p, and those with x = 0 with either sign."""
    p = 2**255 - 19
    keys = {case.values[0]["key"] for case in cases("small_order.json")}
    ys = {int.from_bytes(bytes.fromhex(key), "little") & (2**255 - 1) for key in keys}
    assert len(keys) == 14
    assert {0, 1, p - 1, p, p + 1} < ys
    assert len({y % p for y in ys}) == 5
    assert keys == {(y | sign << 255).to_bytes(32, "little").hex() for y in ys for sign in (0, 1)}


@pytest.mark.parametrize("case", cases("json_valid.json"))
def test_json_is_read(case: dict[str, Any]) -> None:
    data = raw(case)
    assert parse_json(data) == json.loads(data)
    assert parse_json(data.decode()) == json.loads(data)


@pytest.mark.parametrize("case", cases("json_invalid.json"))
def test_json_that_could_be_read_two_ways_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"^the input ") as caught:
        parse_json(raw(case), "the input")
    assert len(str(caught.value)) < 300


def test_the_duplicate_key_is_named() -> None:
    with pytest.raises(InputError, match="duplicate key 'price'"):
        parse_json('{"a": 1, "price": 1, "price": 2}')


# Signing and verifying


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
bodies = st.dictionaries(st.text(max_size=5), json_values, max_size=4)


@given(bodies, st.binary(min_size=32, max_size=32), st.sampled_from(KINDS))
def test_what_is_signed_verifies_after_a_trip_through_json(body: dict[str, Json], seed: bytes, kind: str) -> None:
    signed = Identity(seed).sign(kind, body)
    sent = json.dumps(document_to_json(signed))
    received = document_from_json(parse_json(sent))
    assert verify_document(received, kind, Identity(seed).key) == body
    assert document_hash(received) == document_hash(signed)


@given(bodies, bodies)
def test_two_bodies_share_a_hash_only_if_they_are_equal(one: dict[str, Json], two: dict[str, Json]) -> None:
    assert (value_hash(one) == value_hash(two)) == (canonical(one) == canonical(two))


def test_the_signed_body_is_a_copy() -> None:
    body: dict[str, Json] = {"price": "1"}
    signed = Identity(bytes(32)).sign("offer", body)
    body["price"] = "2"
    assert verify_document(signed, "offer") == {"price": "1"}


def test_one_body_signed_as_two_kinds_has_two_signatures_and_hashes() -> None:
    identity = Identity(bytes(32))
    signed = [identity.sign(kind, {"a": "1"}) for kind in KINDS]
    assert len({item.signature for item in signed}) == len({document_hash(item) for item in signed}) == len(KINDS)
    for item in signed:
        for kind in KINDS:
            if kind != item.kind:
                with pytest.raises(UntrustedError):
                    verify_document(dataclasses.replace(item, kind=kind), kind)


def test_the_hash_names_the_signer_too() -> None:
    assert document_hash(Identity(bytes(32)).sign("offer", {})) != document_hash(Identity(bytes([1]) * 32).sign("offer", {}))


def test_a_document_is_not_named_by_its_signature() -> None:
    signed = Identity(bytes(32)).sign("offer", {"a": "1"})
    assert document_hash(signed) == document_hash(dataclasses.replace(signed, signature="00" * 64))


def test_a_seed_is_not_shown() -> None:
    seed = bytes(range(32))
    identity = Identity(seed)
    assert seed.hex() not in repr(identity)
    assert identity.key == SigningKey(seed).verify_key.encode().hex()
    assert identity.key in repr(identity)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": "\ud800"}, {"\ud800": 1}, 2**53, -(2**53), [2**70]])
def test_a_value_without_one_canonical_form_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match="has no canonical JSON form"):
        canonical(value)
    with pytest.raises(InputError):
        Identity(bytes(32)).sign("request", {"value": value})


def test_a_value_without_a_bottom_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(InputError, match="has no canonical JSON form"):
        canonical(loop)


def test_a_digest_is_sha256_in_lower_case() -> None:
    assert digest(b"abc") == hashlib.sha256(b"abc").hexdigest() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize(
    "value",
    [
        *(None, [], "x", 5, {}, {"kind": "offer"}),
        {"kind": "offer", "body": {}, "key": "", "signature": "", "extra": 1},
        {"kind": 5, "body": {}, "key": "", "signature": ""},
        {"kind": "offer", "body": [], "key": "", "signature": ""},
        {"kind": "offer", "body": {}, "key": None, "signature": ""},
        {"kind": "offer", "body": {}, "key": "", "signature": 0},
    ],
)
def test_another_shape_is_no_document(value: Json) -> None:
    with pytest.raises(UntrustedError, match="not a signed document"):
        document_from_json(value)


def test_other_bytes_are_signed_unless_they_could_pass_for_a_document() -> None:
    identity = Identity(bytes(32))
    SigningKey(bytes(32)).verify_key.verify(b"POST\n/v1/jobs", bytes.fromhex(identity.sign_bytes(b"POST\n/v1/jobs")))
    with pytest.raises(InputError, match="document"):
        identity.sign_bytes(b"tradeskill/receipt/1\n{}")
