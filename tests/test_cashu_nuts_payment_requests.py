"""payment_requests.py: the published requests of NUT-18, round trips, and requests that are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradeskill_plugins.cashu.nuts import armour, payment_requests
from tradeskill_plugins.cashu.nuts.errors import TokenError
from tradeskill_plugins.cashu.nuts.model import PaymentRequest, Transport

NUT18: dict[str, Any] = json.loads((Path(__file__).parent / "vectors" / "cashu" / "nut18.json").read_text())
TEXT = st.text("abcdefXYZ019-_.", min_size=1, max_size=12)
TAGS = st.lists(st.lists(TEXT, min_size=1, max_size=3).map(tuple), max_size=3).map(tuple)


def asked(vector: dict[str, Any]) -> PaymentRequest:
    def tags(rows: list[list[str]]) -> tuple[tuple[str, ...], ...]:
        return tuple(tuple(row) for row in rows)

    lock = vector.get("lock")
    return PaymentRequest(
        id=vector["id"],
        amount=vector.get("amount"),
        unit=vector["unit"],
        single_use=vector.get("single_use"),
        mints=tuple(vector["mints"]),
        description=vector.get("description", ""),
        transports=tuple(Transport(kind, target, tags(rows)) for kind, target, rows in vector.get("transports", [])),
        lock=None if lock is None else (lock[0], lock[1], tags(lock[2])),
    )


@pytest.mark.parametrize("vector", NUT18["requests"], ids=lambda vector: vector["id"])
def test_a_published_request_is_read_as_published(vector: dict[str, Any]) -> None:
    """Ours has its fields in another order than some of the published ones, as every writer may."""
    request = payment_requests.decode(vector["text"])
    assert request == asked(vector)
    assert payment_requests.decode(payment_requests.encode(request)) == request


@settings(max_examples=60, deadline=None)
@given(
    st.builds(
        PaymentRequest,
        id=TEXT,
        amount=st.none() | st.integers(1, 2**60),
        unit=TEXT,
        single_use=st.none() | st.booleans(),
        mints=st.sampled_from([(), ("https://a.example",), ("https://a.example", "http://127.0.0.1:3338")]),
        description=TEXT,
        transports=st.lists(st.builds(Transport, TEXT, TEXT, TAGS), max_size=2).map(tuple),
        lock=st.none() | st.tuples(TEXT, TEXT, TAGS),
    )
)
def test_a_request_comes_back_as_it_was_written(request: PaymentRequest) -> None:
    assert payment_requests.decode(payment_requests.encode(request)) == request


def test_an_empty_request_asks_for_anything() -> None:
    assert payment_requests.decode(payment_requests.encode(PaymentRequest())) == PaymentRequest()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ([], "holds no map"),
        ({"a": 0, "u": "sat"}, "a is no whole number"),
        ({"a": -1, "u": "sat"}, "a is no whole number"),
        ({"a": "10", "u": "sat"}, "a is no whole number"),
        ({"a": 10}, "amount without a unit"),
        ({"u": 7}, "u is no text"),
        ({"s": 1}, "s is neither"),
        ({"m": "https://mint.example"}, "m is no list"),
        ({"m": ["https://a.example"] * 101}, "m is no list"),
        ({"m": ["javascript:x"]}, "mint URL"),
        ({"m": [7]}, "m is no text"),
        ({"d": b"x"}, "d is no text"),
        ({"i": "x" * 257}, "i is no text"),
        ({"t": {}}, "t is no list"),
        ({"t": [{"a": "x"}]}, "transport is no text"),
        ({"t": [{"t": "post"}]}, "target is no text"),
        ({"t": [{"t": "post", "a": "x", "g": "n"}]}, "tags are no short list"),
        ({"t": [{"t": "post", "a": "x", "g": [[]]}]}, "tags are no short list"),
        ({"t": [{"t": "post", "a": "x", "g": [[1]]}]}, "tag is no text"),
        ({"t": [{"t": "post", "a": "x"}] * 21}, "21 entries"),
        ({"nut10": "P2PK"}, "nut10 is no map"),
        ({"nut10": {"k": "P2PK"}}, "d is no text"),
        ({"nut10": {"k": "P2PK", "d": "x", "t": [["a"]] * 33}}, "tags are no short list"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_malformed_request_is_refused(body: Any, words: str) -> None:
    with pytest.raises(TokenError, match=words):
        payment_requests.decode("creqA" + armour.wrap(cbor2.dumps(body)))


@pytest.mark.parametrize("text", ["", "creqA", "creqB", "lnbc1", "creqA" + "=" * 4, "creqAo2Fp", "creqA" + armour.wrap(b"\x81" * 3000)])
def test_what_is_no_request_is_refused(text: str) -> None:
    with pytest.raises(TokenError, match="no payment request"):
        payment_requests.decode(text)


def test_a_huge_request_costs_nothing() -> None:
    with pytest.raises(TokenError, match="10000005 characters"):
        payment_requests.decode("creqA" + "A" * 10_000_000)
