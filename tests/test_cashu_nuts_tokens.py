"""tokens.py and what it reads with: published tokens, round trips, and everything a stranger may send in a token's place.

Past 400 lines because it is one catalogue of hostile tokens.
"""

from __future__ import annotations

import base64
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.paper_mint import PaperMint
from tradeskill.errors import InputError, UntrustedError
from tradeskill_plugins.cashu.nuts import armour, cbor, secrets, tokens
from tradeskill_plugins.cashu.nuts.errors import TokenError
from tradeskill_plugins.cashu.nuts.mint_url import mint_url
from tradeskill_plugins.cashu.nuts.model import MAX_AMOUNT, Dleq, KeysetInfo, Proof, Token

VECTORS = Path(__file__).parent / "vectors" / "cashu"
NUT00: dict[str, Any] = json.loads((VECTORS / "nut00.json").read_text())
NUT10: dict[str, Any] = json.loads((VECTORS / "nut10.json").read_text())
URL = "https://mint.example:3338"
MINT, OLD = PaperMint(), PaperMint("old", version=0)
KEY = MINT.keyset.keys[1]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
FEW = settings(max_examples=60, deadline=None)


def v3(body: Any) -> str:
    return "cashuA" + base64.urlsafe_b64encode(json.dumps(body).encode()).decode()


def v4(body: Any) -> str:
    return "cashuB" + base64.urlsafe_b64encode(body if isinstance(body, bytes) else cbor2.dumps(body)).decode()


def v3_proof(**changes: Any) -> dict[str, Any]:
    return {"amount": 1, "id": "00ad268c4d1f5826", "secret": "s", "C": KEY, **changes}


def v3_token(*proofs: Any, **changes: Any) -> dict[str, Any]:
    return {"token": [{"mint": URL, "proofs": list(proofs or [v3_proof()])}], "unit": "sat", **changes}


def v4_proof(**changes: Any) -> dict[str, Any]:
    return {"a": 1, "s": "s", "c": bytes.fromhex(KEY), **changes}


def v4_token(*proofs: Any, **changes: Any) -> dict[str, Any]:
    return {"t": [{"i": bytes.fromhex("00ad268c4d1f5826"), "p": list(proofs or [v4_proof()])}], "m": URL, "u": "sat", **changes}


@pytest.mark.parametrize("vector", NUT00["tokens"], ids=lambda vector: f"v{vector['version']} {vector['memo']}")
def test_a_published_token_is_read_and_written_as_published(vector: dict[str, Any]) -> None:
    token = tokens.decode(vector["text"])
    proofs = tuple(Proof(each["amount"], each["id"], each["secret"], each["C"]) for each in vector["proofs"])
    assert token == Token(vector["mint"], vector["unit"], proofs, vector["memo"])
    assert tokens.encode(token, vector["version"]) == vector["text"].rstrip("=")
    assert tokens.decode("cashu:" + vector["text"].rstrip("=")) == token
    assert tokens.decode(tokens.encode(token, 3)) == tokens.decode(tokens.encode(token, 4)) == token
    assert token.amount == sum(each["amount"] for each in vector["proofs"])


@pytest.mark.parametrize("text", [*NUT00["not_tokens"], "", "cashu", "cashu:", "cashu:cashu:cashuA", "cashuC", "craw", " cashuA", "cashuB", "cashuA"])
def test_what_does_not_begin_as_a_token_is_none(text: str) -> None:
    with pytest.raises(TokenError, match="no token"):
        tokens.decode(text)


def test_a_token_of_keysets_on_another_curve_is_refused_by_name() -> None:
    with pytest.raises(TokenError, match="generation 02"):
        tokens.decode(NUT10["nutroot_token"])


SCALARS = st.integers(1, 2**250).map(lambda number: f"{number:064x}")
PROOFS = st.builds(
    Proof,
    amount=st.integers(1, 2**32),
    keyset_id=st.sampled_from(["00ad268c4d1f5826", "009a1f293253e41e", MINT.keyset.id]),
    secret=TEXT.filter(bool),
    signature=st.sampled_from(list(MINT.keyset.keys.values())),
    dleq=st.none() | st.builds(Dleq, SCALARS, SCALARS, SCALARS),
    witness=TEXT,
)


@FEW
@given(proofs=st.lists(PROOFS, min_size=1, max_size=5, unique_by=lambda proof: proof.secret), memo=st.text("abc é漢", max_size=20))
def test_a_token_comes_back_as_it_was_sent(proofs: list[Proof], memo: str) -> None:
    token = Token(URL, "sat", tuple(proofs), memo)
    known = [KeysetInfo(each, "sat", True) for each in ("00ad268c4d1f5826", "009a1f293253e41e", MINT.keyset.id)]
    assert tokens.decode(tokens.encode(token, 3)) == token
    grouped = tokens.resolve(tokens.decode(tokens.encode(token, 4)), known)
    assert set(grouped.proofs) == set(token.proofs)
    assert (grouped.mint, grouped.unit, grouped.memo) == (token.mint, token.unit, token.memo)
    assert tokens.resolve(tokens.decode(tokens.encode(grouped)), known) == grouped


def test_generation_1_travels_by_its_short_id_and_is_found_again() -> None:
    token = Token(URL, "sat", MINT.proofs(1, 2))
    sent = tokens.decode(tokens.encode(token))
    assert {proof.keyset_id for proof in sent.proofs} == {MINT.keyset.id[:16]}
    assert tokens.resolve(sent, [OLD.info, MINT.info]) == token
    assert tokens.resolve(sent, [MINT.keyset]) == token
    with pytest.raises(TokenError, match="may mean"):
        tokens.resolve(sent, [MINT.info, replace(MINT.info, id=MINT.info.id[:16] + "00" * 25)])
    with pytest.raises(TokenError, match="not one of this mint"):
        tokens.resolve(sent, [OLD.info])
    with pytest.raises(TokenError, match="in usd, the token says sat"):
        tokens.resolve(sent, [replace(MINT.info, unit="usd")])


def test_a_token_of_both_generations_is_resolved_and_verified() -> None:
    token = Token(URL, "sat", (*MINT.proofs(1, 2), *OLD.proofs(4)))
    again = tokens.resolve(tokens.decode(tokens.encode(token)), [MINT.info, OLD.info])
    assert again == token
    tokens.verify(again.proofs, {**MINT.known, **OLD.known})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"amount": 2}, "was not signed"),
        ({"amount": 3}, "has no key for 3"),
        ({"keyset_id": OLD.keyset.id}, "has no key for 1"),
        ({"secret": "another"}, "was not signed"),
        ({"signature": KEY}, "was not signed"),
        ({"signature": "02" + "ff" * 32}, "malformed"),
        ({"dleq": None}, "without its DLEQ"),
        ({"dleq": replace(MINT.proofs(1)[0].dleq or Dleq("", ""), r="")}, "without its DLEQ"),
        ({"dleq": Dleq("00" * 32, "11" * 32, "11" * 32)}, "malformed"),
        ({"dleq": Dleq("11" * 32, "11" * 32, "11" * 32)}, "was not signed"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_proof_that_this_keyset_did_not_sign_is_untrusted(change: dict[str, Any], words: str) -> None:
    tokens.verify(MINT.proofs(1), MINT.known)
    with pytest.raises(UntrustedError, match=words):
        tokens.verify((*MINT.proofs(2, counter=9), replace(MINT.proofs(1)[0], **change)), MINT.known)


BAD_V3: list[tuple[Any, str]] = [
    ([], "not an object"),
    ({}, "token is no list"),
    ({"token": {}}, "token is no list"),
    ({"token": [1]}, "token is no list"),
    ({"token": []}, "0 mints"),
    ({"token": [{"mint": URL, "proofs": [v3_proof()]}, {"mint": "https://other.example", "proofs": [v3_proof(secret="t")]}]}, "2 mints"),
    ({"token": [{"mint": 7, "proofs": [v3_proof()]}]}, "mint is no text"),
    ({"token": [{"mint": "ftp://mint", "proofs": [v3_proof()]}]}, "mint URL"),
    ({"token": [{"mint": URL}]}, "proofs is no list"),
    ({"token": [{"mint": URL, "proofs": []}]}, "0 proofs"),
    (v3_token(*[v3_proof(secret=str(n)) for n in range(257)]), "257 entries"),
    (v3_token(v3_proof(), v3_proof(amount=2)), "stands in it twice"),
    (v3_token(v3_proof(amount=0)), "amount is no whole number"),
    (v3_token(v3_proof(amount=-5)), "amount is no whole number"),
    (v3_token(v3_proof(amount=2**63)), "amount is no whole number"),
    (v3_token(v3_proof(amount=1.0)), "amount is no whole number"),
    (v3_token(v3_proof(amount=True)), "amount is no whole number"),
    (v3_token(v3_proof(amount="1")), "amount is no whole number"),
    (v3_token(v3_proof(amount=MAX_AMOUNT), v3_proof(secret="t")), "together are out of range"),
    (v3_token(v3_proof(id="DSAl9nvvyfva")), "no keyset id"),
    (v3_token(v3_proof(id=None)), "id is no text"),
    (v3_token(v3_proof(secret="")), "secret is empty"),
    (v3_token(v3_proof(secret="x" * 1025)), "secret is no text of at most 1024"),
    (v3_token(v3_proof(secret=5)), "secret is no text"),
    (v3_token(v3_proof(C="02" + "ff" * 32)), "C is not on the curve"),
    (v3_token(v3_proof(C="04" * 33)), "C is not a compressed point"),
    (v3_token(v3_proof(dleq=[])), "dleq is no object"),
    (v3_token(v3_proof(dleq={"e": "11" * 32, "s": "11" * 32})), "dleq r is no text"),
    (v3_token(v3_proof(dleq={"e": "11" * 32, "s": "00" * 32, "r": "11" * 32})), "dleq s is not a scalar"),
    (v3_token(v3_proof(witness={})), "witness is no text"),
    (v3_token(v3_proof(witness="x" * 4097)), "witness is no text"),
    (v3_token(unit="sat\n"), "unit is no name"),
    (v3_token(unit=""), "unit is no name"),
    (v3_token(unit="sät"), "unit is no name"),
    (v3_token(unit=None), "unit is no text"),
    (v3_token(memo=7), "memo is no text"),
]
BAD_V4: list[tuple[Any, str]] = [
    ([], "holds no map"),
    ({}, "t is no list"),
    ({"t": [], "m": URL, "u": "sat"}, "0 proofs"),
    (v4_token(v4_proof(a=0)), "a is no whole number"),
    (v4_token(v4_proof(a=-1)), "a is no whole number"),
    (v4_token(v4_proof(a=2**64 - 1)), "a is no whole number"),
    (v4_token(v4_proof(a=2**80)), "holds a tag"),
    (v4_token(v4_proof(a=1.5)), "holds a float"),
    (v4_token(v4_proof(a=b"\1")), "a is no whole number"),
    (v4_token(v4_proof(), v4_proof()), "stands in it twice"),
    (v4_token(v4_proof(s=b"s")), "secret is no text"),
    (v4_token(v4_proof(c=KEY)), "c is no byte string"),
    (v4_token(v4_proof(c=b"\2")), "c is not a compressed point"),
    (v4_token(v4_proof(d=[])), "d is no map"),
    (v4_token(v4_proof(d={"e": b"\1" * 32, "s": b"\1" * 32, "r": "1"})), "r is no byte string"),
    (v4_token(v4_proof(d={"e": b"\1" * 31, "s": b"\1" * 32, "r": b"\1" * 32})), "d e is not a scalar"),
    (v4_token(v4_proof(d={"e": b"\1" * 32, "s": b"\1" * 32})), "d r is no text"),
    (v4_token(v4_proof(w=b"")), "witness is no text"),
    (v4_token(m="https://u:p@mint.example"), "mint URL"),
    (v4_token(m=None), "m is no text"),
    (v4_token(u=b"sat"), "unit is no text"),
    (v4_token(d=1), "memo is no text"),
    ({**v4_token(), "t": [{"i": "00ad268c4d1f5826", "p": [v4_proof()]}]}, "i is no byte string"),
    ({**v4_token(), "t": [{"i": b"\0" * 7, "p": [v4_proof()]}]}, "no keyset id"),
    ({**v4_token(), "t": [{"i": b"\1" * 8, "p": {}}]}, "p is no list"),
    ({**v4_token(), 1: 2}, "no text"),
]


@pytest.mark.parametrize(("body", "words"), BAD_V3, ids=lambda value: str(value)[:40])
def test_a_malformed_v3_token_is_refused(body: Any, words: str) -> None:
    with pytest.raises(TokenError, match=words):
        tokens.decode(v3(body))


@pytest.mark.parametrize(("body", "words"), BAD_V4, ids=lambda value: str(value)[:40])
def test_a_malformed_v4_token_is_refused(body: Any, words: str) -> None:
    with pytest.raises(TokenError, match=words):
        tokens.decode(v4(body))


def test_what_is_optional_may_be_missing_and_what_is_unknown_is_let_be() -> None:
    body = v3_token(v3_proof(dleq=None, witness=None, y="z"), extra=[1], memo=None)
    del body["unit"]
    assert tokens.decode(v3(body)) == tokens.decode(v4(v4_token(v4_proof(d=None, w=None, z=1), x={"y": b"z"}, d=None)))
    assert tokens.decode(v3(body)).unit == "sat"
    twice = {"token": [{"mint": URL + "/", "proofs": [v3_proof()]}, {"mint": URL.upper().replace("HTTPS", "https"), "proofs": [v3_proof(secret="t")]}]}
    assert len(tokens.decode(v3(twice)).proofs) == 2


def test_a_memo_is_cut_and_cannot_move_the_cursor() -> None:
    assert tokens.decode(v4(v4_token(d="hi\x1b[2J\n" + "x" * 5000))).memo == "hi [2J " + "x" * 993


@pytest.mark.parametrize(
    "text",
    [
        '{"token":[],"token":[]}',
        '{"token":[{"mint":"https://m.example","mint":"https://n.example","proofs":[]}]}',
        '{"token":NaN}',
        '{"token":' + "[" * 100_000,
        '{"a":' * 5_000,
        '{"token":' + "9" * 5_000 + "}",
        '{"token":[{"mint":"https://m.example","proofs":[{"amount":1,"id":"00ad268c4d1f5826","secret":"\\ud800","C":"' + KEY + '"}]}]}',
        "\ufeff{}",
        "{} {}",
    ],
    ids=lambda text: str(text)[:24],
)
def test_json_that_two_readers_could_read_in_two_ways_is_refused(text: str) -> None:
    with pytest.raises(TokenError, match="no token"):
        tokens.decode("cashuA" + armour.wrap(text.encode()))


def test_a_token_of_ten_megabytes_costs_nothing() -> None:
    huge = [
        "cashuA" + "A" * 10_000_000,
        "cashuB" + "9" * 10_000_000,
        v3(v3_token(*[v3_proof(secret=str(n)) for n in range(60_000)])),
        v4(b"\x81" * 8_000_000),
    ]
    start = time.process_time()
    for text in huge:
        with pytest.raises(TokenError, match="characters"):
            tokens.decode(text)
    assert time.process_time() - start < 0.1


BOMBS = {
    "nested lists": b"\x81" * 200_000 + b"\x00",
    "nested maps": b"\xa1\x61a" * 60_000 + b"\x00",
    "a list of 2^60": b"\x9b\x10" + bytes(7),
    "a map of 2^60": b"\xbb\x10" + bytes(7),
    "a string of 2^60": b"\x5b\x10" + bytes(7),
    "many lists that promise much": b"\x99\xff\xff" * 60_000,
    "many values": b"\x99\xea\x60" + b"\x00" * 60_000,
    "indefinite list": b"\x9f\x00\xff",
    "indefinite map": b"\xbf\xff",
    "indefinite text": b"\x7f\x61a\xff",
    "indefinite bytes": b"\x5f\x41a\xff",
    "reserved length": b"\x1c",
    "break": b"\xff",
    "tag": b"\xc2\x41\x05",
    "shared value": b"\xd8\x1c\x81\xd8\x1d\x00",
    "regular expression": b"\xd8\x23\x64(a+)",
    "decimal": b"\xc4\x82\x1a\x3b\x9a\xca\x00\x01",
    "half float": b"\xf9\x3c\x00",
    "double": b"\xfb" + bytes(8),
    "simple value": b"\xf8\xff",
    "duplicate key": b"\xa2\x61a\x00\x61a\x00",
    "key of another type": b"\xa1\x00\x00",
    "bytes key": b"\xa1\x41a\x00",
    "longer form of a number": b"\x18\x17",
    "longer form of a length": b"\x78\x01a",
    "longest form": b"\x1b\x00\x00\x00\x00\xff\xff\xff\xff",
    "text that is none": b"\x62\xc3\x28",
    "lone surrogate": b"\x63\xed\xa0\x80",
    "truncated": b"\x82\x00",
    "truncated number": b"\x19\x01",
    "trailing byte": b"\xa0\x00",
    "nothing": b"",
}


@pytest.mark.parametrize("data", BOMBS.values(), ids=BOMBS.keys())
def test_cbor_that_tokens_never_have_is_refused_at_once(data: bytes) -> None:
    start = time.process_time()
    with pytest.raises(InputError, match=r"CBOR"):
        cbor.loads(data)
    with pytest.raises(TokenError, match="no token"):
        tokens.decode("cashuB" + armour.wrap(data), max_length=1_000_000)
    assert time.process_time() - start < 1.0


def test_cbor_is_read_as_deep_as_it_says_and_no_deeper() -> None:
    assert cbor.loads(b"\x81" * (cbor.MAX_DEPTH - 1) + b"\x00") == [[[[[[[0]]]]]]]
    with pytest.raises(InputError, match="levels"):
        cbor.loads(b"\x81" * cbor.MAX_DEPTH + b"\x00")


CBOR: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**64 - 1) | st.binary(max_size=300) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=10,
).filter(lambda value: _depth(value) <= cbor.MAX_DEPTH)


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max((_depth(each) for each in inner), default=0)


@FEW
@given(CBOR)
def test_cbor_is_read_as_the_library_writes_it(value: Any) -> None:
    assert cbor.loads(cbor.dumps(value)) == value
    assert cbor.loads(cbor2.dumps(value, canonical=True)) == value


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
def test_what_our_cbor_reads_is_what_the_library_reads(data: bytes) -> None:
    try:
        value = cbor.loads(data)
    except InputError:
        return
    theirs = cbor2.loads(data)
    assert value == (None if theirs is cbor2.undefined else theirs) or cbor2.undefined in _flat(theirs)


def _flat(value: Any) -> list[Any]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [value, *(each for part in inner for each in _flat(part))]


GOOD = tokens.encode(Token(URL, "sat", MINT.proofs(1, 2, 4)))


@settings(max_examples=300, deadline=None)
@given(place=st.integers(6, len(GOOD) - 1), letter=st.sampled_from("ABCxyz019-_=+/ \n\0é"))
def test_a_token_changed_in_one_place_is_refused_or_does_not_verify_or_is_the_same_money(place: int, letter: str) -> None:
    changed = GOOD[:place] + letter + GOOD[place + 1 :]
    try:
        token = tokens.resolve(tokens.decode(changed), [MINT.info])
        tokens.verify(token.proofs, MINT.known)
    except (TokenError, UntrustedError):
        return
    assert [(proof.secret, proof.signature) for proof in token.proofs] == [(proof.secret, proof.signature) for proof in MINT.proofs(1, 2, 4)]


@settings(deadline=None)
@given(st.sampled_from(["", "cashu:", "cashuA", "cashuB", "cashu:cashuB"]), st.text(max_size=80) | st.binary(max_size=80).map(armour.wrap))
def test_any_text_is_a_token_or_refused(start: str, text: str) -> None:
    with pytest.raises(TokenError):
        tokens.decode(start + text)


@pytest.mark.parametrize("end", range(0, len(GOOD), 7))
def test_a_token_cut_short_is_refused(end: int) -> None:
    with pytest.raises(TokenError):
        tokens.decode(GOOD[:end])


@pytest.mark.parametrize("text", ["A", "AAA=AAA", "====", "AA===", "A A", "AA\n", "AAé", "AB", "+/", "A==="])
def test_base64_that_nobody_writes_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="not base64url"):
        armour.unwrap(text)


@given(st.binary(max_size=100))
def test_base64_comes_back_with_padding_or_without_in_either_alphabet(data: bytes) -> None:
    assert armour.unwrap(armour.wrap(data)) == armour.unwrap(base64.urlsafe_b64encode(data).decode()) == data
    assert armour.unwrap(base64.b64encode(data).decode(), both=True) == data


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("https://mint.example", "https://mint.example"),
        ("HTTPS://Mint.Example:443//", "https://mint.example"),
        ("http://127.0.0.1:80/", "http://127.0.0.1"),
        ("http://[::1]:3338/Bitcoin/", "http://[::1]:3338/Bitcoin"),
        ("https://mint.example:3338/a.b/c~d_e-f", "https://mint.example:3338/a.b/c~d_e-f"),
    ],
)
def test_a_mint_has_one_spelling(text: str, canonical: str) -> None:
    assert mint_url(text) == canonical
    assert mint_url(canonical) == canonical


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mint.example",
        "ftp://mint.example",
        "https://",
        "https:///path",
        "https://user@mint.example",
        "https://user:pass@mint.example:1",
        "https://mint.example?x=1",
        "https://mint.example/?",
        "https://mint.example#f",
        "https://mint.example:0x50",
        "https://mint.example:99999",
        "https://mint.example:",
        "https://mint.example/../up",
        "https://mint.example/a//b",
        "https://mint.example/%2e%2e",
        "https://mint.example/a b",
        "https://mint.example/\u200b",
        "https://münt.example",
        "https://[::1",
        "https://mint.example\n",
        "https://mint.example\\@evil",
        "https://" + "a" * 300,
    ],
)
def test_what_could_lead_elsewhere_is_no_mint(text: str) -> None:
    with pytest.raises(InputError, match="mint URL"):
        mint_url(text)


def test_a_locked_token_carries_its_lock_through() -> None:
    lock = secrets.Lock(KEY, locktime=2_000_000_000, refund=(MINT.keyset.keys[2],))
    proof = replace(MINT.proofs(1)[0], secret=secrets.secret_text(lock, "n"))
    again = tokens.decode(tokens.encode(Token(URL, "sat", (proof,))))
    assert secrets.demand(again.proofs[0].secret, KEY, 1_900_000_000, MINT.keyset.keys[2]) == lock
