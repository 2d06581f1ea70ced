"""keysets.py and derivation.py: published ids and secrets; keysets that lie about themselves; fees; amounts that do or do not come out even."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.paper_mint import PaperMint
from tradeskill.errors import AmountError, InputError, UntrustedError
from tradeskill_plugins.cashu.nuts import derivation, keysets
from tradeskill_plugins.cashu.nuts.errors import TokenError
from tradeskill_plugins.cashu.nuts.model import MAX_AMOUNT, KeysetInfo

VECTORS = Path(__file__).parent / "vectors" / "cashu"
NUT02: dict[str, Any] = json.loads((VECTORS / "nut02.json").read_text())
NUT13: dict[str, Any] = json.loads((VECTORS / "nut13.json").read_text())
KEYS = {name: {int(amount): key for amount, key in keys.items()} for name, keys in NUT02["keys"].items()}
MINT = PaperMint()
BLS = "02b7e077d020fabed456a6be138a8e20e9ef40b44d873fa12c005b656eb0cf99f6"
POWERS = [2**n for n in range(63)]


@pytest.mark.parametrize("vector", NUT02["ids"], ids=lambda vector: vector["id"][:16])
def test_published_keys_have_the_published_id(vector: dict[str, Any]) -> None:
    info = KeysetInfo(vector["id"], vector.get("unit", "sat"), True, vector.get("fee_ppk", 0), vector.get("final_expiry"))
    made = keysets.keyset(info, KEYS[vector["keys"]])
    assert (made.id, made.keys) == (vector["id"], KEYS[vector["keys"]])
    with pytest.raises(UntrustedError, match="not what its id says"):
        keysets.keyset(info, {amount * 2: key for amount, key in list(KEYS[vector["keys"]].items())[1:]})


OTHER_INFOS: list[dict[str, Any]] = [
    {"unit": "usd"},
    {"fee_ppk": 101},
    {"fee_ppk": 0},
    {"final_expiry": 2_000_000_000},
    {"id": "01" + "ab" * 32},
    {"id": MINT.keyset.id[:64] + "00"},
]


@pytest.mark.parametrize("change", OTHER_INFOS, ids=str)
def test_an_id_of_generation_1_holds_unit_fee_and_expiry(change: dict[str, Any]) -> None:
    with pytest.raises(UntrustedError, match="not what its id says"):
        keysets.keyset(replace(MINT.info, **change), MINT.keyset.keys)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({}, "has 0 keys"),
        (dict.fromkeys(range(1, 400), "02" + "11" * 32), "has 399 keys"),
        ({1: "04" + "11" * 32}, "key for amount 1 is not"),
        ({0: MINT.keyset.keys[1]}, "amount 0 is out of range"),
        ({2**64 + 1: MINT.keyset.keys[1]}, "out of range"),
        ({1: MINT.keyset.keys[1], 2: MINT.keyset.keys[1]}, "one key for two amounts"),
    ],
)
def test_keys_that_cannot_be_are_untrusted(keys: dict[int, str], words: str) -> None:
    with pytest.raises(UntrustedError, match=words):
        keysets.keyset(MINT.info, keys)


@pytest.mark.parametrize("fee", [-1, 1_000_001])
def test_a_fee_that_eats_the_money_is_untrusted(fee: int) -> None:
    with pytest.raises(UntrustedError, match="thousandths an input"):
        keysets.keyset(replace(MINT.info, fee_ppk=fee), MINT.keyset.keys)


@pytest.mark.parametrize("text", ["", "00", "00" * 9, "01" + "ab" * 7, "01" + "AB" * 32, "03" + "ab" * 32, "DSAl9nvvyfva", None, 7])
def test_what_is_no_keyset_id_is_refused(text: Any) -> None:
    with pytest.raises(InputError, match="is no keyset id"):
        keysets.check_id(text)


@pytest.mark.parametrize("text", [BLS, BLS[:16]])
def test_keysets_of_another_curve_are_refused_by_name(text: str) -> None:
    with pytest.raises(InputError, match="generation 02"):
        keysets.check_id(text)
    with pytest.raises(UntrustedError, match="generation 02"):
        keysets.keyset(replace(MINT.info, id=text), MINT.keyset.keys)
    with pytest.raises(InputError, match="generation 2"):
        keysets.derive_id(2, MINT.keyset.keys, "sat")


def test_a_short_id_means_the_one_keyset_that_begins_so() -> None:
    full = MINT.keyset.id
    twin = replace(MINT.info, id=full[:16] + "00" * 25)
    old = KeysetInfo("00456a94ab4e1c46", "sat", False)
    assert keysets.find(full[:16], [MINT.info, old]).id == full
    assert keysets.find(full, [MINT.info, twin]).id == full
    assert keysets.find(old.id, [MINT.info, old, old]).id == old.id
    assert keysets.short_id(old.id) == old.id
    with pytest.raises(TokenError, match="may mean"):
        keysets.find(full[:16], [MINT.info, twin])
    with pytest.raises(TokenError, match="not one of this mint"):
        keysets.find(full[:16], [old])
    with pytest.raises(TokenError, match="not one of this mint"):
        keysets.find(full[:20], [MINT.info])


def test_fees_of_several_keysets_are_added_before_they_are_rounded() -> None:
    cheap, dear = PaperMint("cheap", fee_ppk=100), PaperMint("dear", fee_ppk=950)
    known = {**cheap.known, **dear.known}
    assert keysets.fee([], known) == 0
    assert keysets.fee(cheap.proofs(1), known) == 1
    assert keysets.fee(cheap.proofs(*[1] * 10), known) == 1
    assert keysets.fee(cheap.proofs(*[1] * 11), known) == 2
    assert keysets.fee((*cheap.proofs(1), *dear.proofs(2)), known) == 2
    assert keysets.fee((*PaperMint("free", fee_ppk=0).proofs(1),), PaperMint("free", fee_ppk=0).known) == 0
    with pytest.raises(TokenError, match="not one of this mint"):
        keysets.fee(dear.proofs(1), cheap.known)


@given(st.integers(0, MAX_AMOUNT))
def test_every_amount_is_the_sum_of_its_different_powers_of_two(amount: int) -> None:
    parts = keysets.split(amount, POWERS)
    assert sum(parts) == amount
    assert list(parts) == sorted(set(parts))


@pytest.mark.parametrize(("amount", "amounts"), [(-1, POWERS), (MAX_AMOUNT + 1, POWERS), (3, [2]), (1, []), (10**15, [1]), (5, [3])])
def test_an_amount_that_does_not_come_out_even_is_an_amount_error(amount: int, amounts: list[int]) -> None:
    with pytest.raises(AmountError):
        keysets.split(amount, amounts)


def test_larger_stocks_of_one_amount_are_split_up_to_a_thousand_proofs() -> None:
    assert keysets.split(1000, [1]) == (1,) * 1000
    assert keysets.split(30, [10, 1]) == (10, 10, 10)
    with pytest.raises(AmountError, match="more than 1000"):
        keysets.split(1001, [1])
    with pytest.raises(AmountError, match="more than 1000"):
        keysets.split(1005, [1, 500_000])


@settings(deadline=None)
@given(net=st.integers(1, 3000), fee_ppk=st.sampled_from([0, 1, 100, 999, 1000, 5000]))
def test_amounts_for_a_receiver_are_worth_what_was_asked_for_after_the_fee(net: int, fee_ppk: int) -> None:
    keyset = replace(MINT.keyset, fee_ppk=fee_ppk, keys={2**n: MINT.keyset.keys[2**n] for n in range(12)})
    parts = keysets.amounts_for(net, keyset)
    kept = sum(parts) - keysets.input_fee(len(parts), fee_ppk)
    assert net <= kept <= net + 2 * keysets.input_fee(len(parts) + 12, fee_ppk)
    assert fee_ppk or kept == net


@pytest.mark.parametrize("vector", NUT13["derived"], ids=lambda vector: vector["id"][:16])
def test_a_published_seed_derives_the_published_secrets(vector: dict[str, Any]) -> None:
    seed = bytes.fromhex(NUT13["seed"])
    assert [derivation.derive(seed, vector["id"], counter) for counter in range(5)] == list(zip(vector["secrets"], vector["r"], strict=True))


@pytest.mark.parametrize(("keyset_id", "number"), NUT13["numbers"].items())
def test_a_published_keyset_has_the_published_number(keyset_id: str, number: int) -> None:
    assert derivation.keyset_number(keyset_id) == number


def test_no_two_counters_keysets_or_seeds_derive_the_same() -> None:
    seen = [
        derivation.derive(seed, keyset_id, counter)
        for seed in (b"\1" * 16, b"\1" * 32, b"\2" * 64)
        for keyset_id in ("00456a94ab4e1c46", "000f01df73ea149a", MINT.keyset.id)
        for counter in (0, 1, 2, derivation.MAX_COUNTER)
    ]
    assert len({value for pair in seen for value in pair}) == 2 * len(seen)


@pytest.mark.parametrize(("seed", "counter"), [(b"\1" * 15, 0), (b"\1" * 65, 0), (b"\1" * 32, -1), (b"\1" * 32, 2**31)])
def test_a_seed_or_counter_out_of_range_derives_nothing(seed: bytes, counter: int) -> None:
    with pytest.raises(InputError):
        derivation.derive(seed, MINT.keyset.id, counter)
    with pytest.raises(InputError):
        derivation.derive(b"\1" * 32, BLS, 0)
