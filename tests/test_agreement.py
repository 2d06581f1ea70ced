"""A job's input against its offer's schema, which may be a stranger's: the place is named, nothing is fetched, nothing crashes.

What is signed, and what is refused, is held by test_protocol_vectors.py.
"""

from __future__ import annotations

from typing import Any

import pytest

from tradeskill.agreement import MAX_INPUT, check_input, read_offer
from tradeskill.errors import InputError, UntrustedError
from tradeskill.signing import Identity

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["pages"],
    "additionalProperties": False,
    "properties": {
        "pages": {"type": "array", "items": {"type": "object", "required": ["url"], "properties": {"url": {"type": "string", "pattern": "^http"}}}},
        "depth": {"type": "integer", "minimum": 1, "maximum": 5},
    },
}


@pytest.mark.parametrize("value", [{"pages": []}, {"pages": [{"url": "http://a/"}], "depth": 5}, {"pages": [{"url": "http://a/", "more": None}]}])
def test_what_fits_is_accepted(value: Any) -> None:
    check_input(SCHEMA, value)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize(
    ("value", "place"),
    [
        (None, "input: "),
        ([], "input: "),
        ({}, "input: 'pages'"),
        ({"pages": [], "extra": 1}, "input: "),
        ({"pages": {}}, "input.pages: "),
        ({"pages": [{}]}, "input.pages[0]: 'url'"),
        ({"pages": [], "depth": 6}, "input.depth: 6"),
        ({"pages": [], "depth": True}, "input.depth: True"),
        ({"pages": [], "depth": 1.5}, "input.depth: 1.5"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_place(value: Any, place: str, own: bool) -> None:
    with pytest.raises(InputError) as error:
        check_input(SCHEMA, value, own=own)
    assert str(error.value).startswith(place)
    assert "\n" not in str(error.value)


def test_a_long_wrong_value_does_not_fill_the_screen() -> None:
    with pytest.raises(InputError) as error:
        check_input({"type": "integer"}, "x" * 10_000)
    assert len(str(error.value)) < 300


def test_the_largest_input_is_accepted_and_one_byte_more_refused() -> None:
    check_input({}, "x" * (MAX_INPUT - 2))
    with pytest.raises(InputError, match=f"{MAX_INPUT} at most"):
        check_input({}, "x" * (MAX_INPUT - 1))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**53 + 1, "\ud800"])
def test_what_has_no_canonical_form_is_refused(value: Any) -> None:
    with pytest.raises(InputError):
        check_input({}, value)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "no such type"},
        {"$ref": "http://127.0.0.1:1/schema.json"},
        {"$ref": "#/nowhere"},
        {"properties": "not an object"},
        {"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
    ],
)
def test_a_strangers_schema_that_cannot_be_used_is_said_to_be_the_sellers_matter(schema: dict[str, Any]) -> None:
    for _ in range(2):  # also when it was seen before
        with pytest.raises(InputError, match="ask its seller to mend it"):
            check_input(schema, "x")


def test_patterns_are_judged_by_those_who_wrote_them_alone() -> None:
    for schema in ({"pattern": "("}, {"pattern": "^(a+)+$"}, {"patternProperties": {"^(a+)+$": False}, "additionalProperties": False}):
        check_input(schema, "a" * 200 + "!" if "pattern" in schema else {"a" * 200 + "!": 1})
    with pytest.raises(InputError, match="ask its seller to mend it"):
        check_input({"pattern": "("}, "x", own=True)
    other = {"pages": [{"url": "http://a/"}, {"url": "ftp://a/"}]}
    with pytest.raises(InputError, match=r"input\.pages\[1\]\.url: .* does not match"):
        check_input(SCHEMA, other, own=True)
    check_input(SCHEMA, other)


def test_a_strangers_schema_is_judged_in_so_many_steps_and_not_above_its_size() -> None:
    doubling: dict[str, Any] = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)}
    with pytest.raises(InputError, match="50000 steps"):
        check_input({"$defs": {**doubling, "d40": {}}, "$ref": "#/$defs/d0"}, 1)
    with pytest.raises(InputError, match="65536 at most"):
        check_input({"description": "x" * 65_536}, 1)


def test_changing_a_schema_after_its_use_changes_what_fits() -> None:
    schema: dict[str, Any] = {"maximum": 5}
    check_input(schema, 5)
    schema["maximum"] = 4
    with pytest.raises(InputError):
        check_input(schema, 5)


OFFER: dict[str, Any] = {
    "offer_id": "o" * 64,
    "network": "dev",
    "title": "t" * 120,
    "description": "d" * 2_000,
    "tags": ["g" * 32] * 16,
    "price": {"amount": "1", "unit": "raw"},
    "input": {},
    "pure": False,
    "trusted": True,
    "created_at": "1",
}


@pytest.mark.parametrize(
    ("larger", "words"),
    [
        ({"offer_id": "o" * 65}, "offer_id has 65 characters: 64 at most"),
        ({"title": "t" * 121}, "title has 121"),
        ({"description": "d" * 2_001}, "description has 2001"),
        ({"tags": ["g"] * 17}, "tags are 17: 16 at most"),
        ({"tags": ["g" * 33]}, "each of tags has 32"),
        ({"price": {"amount": "1", "unit": "RAW"}}, "unit 'RAW' is not a wallet's smallest unit"),
        ({"price": {"amount": "1", "unit": "r" * 17}}, "is not a wallet's smallest unit"),
    ],
)
def test_an_offer_of_the_largest_size_is_read_and_anything_larger_is_refused(larger: dict[str, Any], words: str) -> None:
    seller = Identity(b"s" * 32)
    assert read_offer(seller.sign("offer", OFFER)).title == OFFER["title"]
    with pytest.raises(UntrustedError, match=words):
        read_offer(seller.sign("offer", {**OFFER, **larger}))
