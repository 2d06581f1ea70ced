"""Signed requests: the protocol's vector, the order in which the headers are judged, and that nothing signed can be changed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradeskill_plugins.relay.signed_http import HEADERS, Claimed, WrongSignature, canonical_string, claimed, sign_request, verify

SEED = b"\x01" * 32
NONCE = "00112233445566778899aabbccddeeff"
SIGNED = sign_request(SEED, "POST", b"/v1/offers?x=1", b'{"a":1}', timestamp=1_700_000_000, nonce=NONCE)


def heads(**changes: str | None) -> dict[bytes, bytes]:
    """The vector's headers with some changed, or None: left out."""
    named = {"key": HEADERS[0], "time": HEADERS[1], "nonce": HEADERS[2], "signature": HEADERS[3]}
    values: dict[str, str | None] = {**SIGNED, **{named[name]: value for name, value in changes.items()}}
    return {name.encode(): value.encode() for name, value in values.items() if value is not None}


def test_the_vector_of_the_protocol() -> None:
    assert SIGNED == {
        "x-molt-pubkey": "8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c",
        "x-molt-timestamp": "1700000000",
        "x-molt-nonce": NONCE,
        "x-molt-signature": "c0ba9f778b9657fc12892dc38f09064f3894ade4c07fa5432ce17c7b16d3b5cf"
        "dd965dc2ec7c60f746ee51944eb9af33d8aba5569a23a43a0ac9aa82dbbeda08",
    }
    claim = claimed(heads())
    assert claim == Claimed(SIGNED["x-molt-pubkey"], 1_700_000_000, NONCE, SIGNED["x-molt-signature"])
    verify(claim, "post", b"/v1/offers?x=1", b"1700000000", b'{"a":1}')


def test_an_empty_body_counts_as_the_empty_text() -> None:
    assert canonical_string("get", b"/x?", b"1", b"n", b"") == b"GET\n/x?\n1\nn\ne3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"key": None}, "PubKey"),
        ({"key": "A" * 64}, "PubKey"),
        ({"key": "a" * 63}, "PubKey"),
        ({"key": "a" * 64 + "\n"}, "PubKey"),
        ({"time": None}, "Timestamp and"),
        ({"nonce": None}, "Nonce must be sent"),
        ({"signature": None}, "Signature"),
        ({"signature": "A" * 128}, "Signature"),
        ({"nonce": "a" * 31}, "Nonce must be 32"),
        ({"nonce": "a" * 65}, "Nonce must be 32"),
        ({"nonce": "A" * 32}, "Nonce must be 32"),
        ({"time": "1700000000.5"}, "unix seconds"),
        ({"time": "-1"}, "unix seconds"),
        ({"time": "9" * 13}, "unix seconds"),
        # of two faults the earlier one answers
        ({"key": "x", "time": None}, "PubKey"),
        ({"time": None, "signature": "x"}, "Timestamp and"),
        ({"signature": "x", "nonce": "x"}, "Signature"),
        ({"nonce": "x", "time": "x"}, "Nonce must be 32"),
    ],
)
def test_a_malformed_header_is_named(changes: dict[str, str | None], named: str) -> None:
    with pytest.raises(WrongSignature, match=named):
        claimed(heads(**changes))


@pytest.mark.parametrize(
    ("method", "target", "time", "body"),
    [
        ("GET", b"/v1/offers?x=1", b"1700000000", b'{"a":1}'),
        ("POST", b"/v1/offers?x=1&", b"1700000000", b'{"a":1}'),
        ("POST", b"/v1/offers", b"1700000000", b'{"a":1}'),
        ("POST", b"/v1/offers?x=1", b"1700000001", b'{"a":1}'),
        ("POST", b"/v1/offers?x=1", b"01700000000", b'{"a":1}'),
        ("POST", b"/v1/offers?x=1", b"1700000000", b'{"a":1} '),
        ("POST", b"/v1/offers?x=1", b"1700000000", b""),
    ],
)
def test_nothing_signed_can_be_changed(method: str, target: bytes, time: bytes, body: bytes) -> None:
    with pytest.raises(WrongSignature, match="does not fit"):
        verify(claimed(heads()), method, target, time, body)


@given(st.binary(min_size=32, max_size=32), st.sampled_from(["GET", "POST"]), st.binary(max_size=40), st.binary(max_size=80))
def test_what_one_key_signed_no_other_key_signed(seed: bytes, method: str, target: bytes, body: bytes) -> None:
    headers = {name.encode(): value.encode() for name, value in sign_request(seed, method, target, body, timestamp=7, nonce=NONCE).items()}
    claim = claimed(headers)
    verify(claim, method, target, b"7", body)
    if seed != SEED:
        with pytest.raises(WrongSignature):
            verify(Claimed(SIGNED["x-molt-pubkey"], 7, NONCE, claim.signature), method, target, b"7", body)


@pytest.mark.parametrize("key", ["01" + "00" * 31, "00" * 32, "ec" + "ff" * 30 + "7f", "ed" + "ff" * 30 + "7f", "ff" * 32])
def test_a_key_of_small_order_signs_nothing(key: str) -> None:
    with pytest.raises(WrongSignature):
        verify(Claimed(key, 7, NONCE, "01" + "00" * 63), "POST", b"/v1/offers", b"7", b"{}")
