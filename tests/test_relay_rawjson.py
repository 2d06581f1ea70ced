"""Objects read strictly, with the exact text of each value."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradeskill.errors import InputError
from tradeskill_plugins.relay.rawjson import NotAnObjectError, members

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False) | st.text("abü\n\"\\{}[],: \U0001f40c"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc\"\\é", max_size=3), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=4).filter(lambda key: "\0" not in key), JSON, max_size=5), st.sampled_from([None, 0, 2]), st.booleans())
def test_every_value_keeps_its_own_text(value: dict[str, Any], indent: int | None, ascii_only: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    found = members(text.encode())
    assert list(found) == list(value)
    for key, member in found.items():
        assert member.value == value[key]
        assert json.loads(member.text) == value[key]
        assert member.text in text
        assert member.text == member.text.strip()


def test_numbers_key_order_and_empty_lists_stay_as_they_were_written() -> None:
    found = members(b' \t{ "n" : 1.50e+01 , "big":123456789012345678901234567890,"o":{"z":[] , "a":{}}\r\n} ')
    assert {key: member.text for key, member in found.items()} == {"n": "1.50e+01", "big": "123456789012345678901234567890", "o": '{"z":[] , "a":{}}'}


def test_an_escaped_backslash_before_u0000_is_no_nul() -> None:
    assert members(b'{"a":"\\\\u0000","b":[1,{"c":null}]}')["a"].value == "\\u0000"


@pytest.mark.parametrize("text", ["[]", '"x"', "5", "null", "true", "[{}]"])
def test_other_json_than_an_object_is_told_apart_from_what_is_no_json(text: str) -> None:
    with pytest.raises(NotAnObjectError):
        members(text.encode())


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"{}x",
        b'{"a":1,}',
        b'{"a":1,"a":2}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":1e400}',
        b'{"a":"\\ud800"}',
        b'{"\\udc00":1}',
        b'{"a":"\xff"}',
        b'{"a":"\\u0000"}',
        b'{"\\u0000":1}',
        b'{"a":["\\u0000"]}',
        b'{"a":"\x00"}',
        b"\xef\xbb\xbf{}",
        b'{"a":' + b"[" * 70 + b"]" * 70 + b"}",
        b'{"a":' + b"[" * 100_000,
        b'{"a":' + b"9" * 5000 + b"}",
        b"{'a':1}",
        b'{"a":01}',
    ],
)
def test_what_is_not_strict_json_is_refused(data: bytes) -> None:
    with pytest.raises(InputError) as refused:
        members(data)
    assert not isinstance(refused.value, NotAnObjectError)
