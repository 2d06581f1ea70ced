"""The pure parts of the Cashu wallet: which proofs, in which pieces; addresses; letters; Lightning invoices; the configuration entry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradeskill.errors import AmountError, ConfigError, InputError, StorageError, UsageError
from tradeskill.model import NETWORKS, Network
from tradeskill_plugins.cashu.address import Address, read_address
from tradeskill_plugins.cashu.bolt11 import bolt11_id, chain_of, sats_of
from tradeskill_plugins.cashu.keys import Keys
from tradeskill_plugins.cashu.letters import letter
from tradeskill_plugins.cashu.nuts import curve
from tradeskill_plugins.cashu.nuts.secrets import lock_of
from tradeskill_plugins.cashu.selection import choose, face, fee
from tradeskill_plugins.cashu.settings import parse_settings

POWERS = [2**n for n in range(32)]
KEY = curve.public_key(b"\x05" * 32)
MINTS = ("https://mint.example", "http://127.0.0.1:3338/path")


@dataclass(frozen=True)
class Piece:
    amount: int
    fee_ppk: int
    number: int = 0
    ends: bool = False


# --- pieces


@given(st.integers(1, 10**9), st.integers(0, 3000))
@settings(max_examples=300, deadline=None)
def test_a_payee_nets_what_was_meant_to_the_sat_or_the_least_more(amount: int, ppk: int) -> None:
    parts = face(amount, POWERS, ppk)
    net = sum(parts) - -(-len(parts) * ppk // 1000)
    assert net >= amount
    assert set(parts) <= set(POWERS)
    if ppk <= 1000:
        assert net == amount  # one piece more costs a sat at most, so every sum can be met


def test_fees_that_eat_what_is_paid_are_refused() -> None:
    with pytest.raises(AmountError):
        face(1, [1], 2000)


@given(st.lists(st.tuples(st.sampled_from(POWERS[:12]), st.sampled_from([0, 100, 1000, 2500])), max_size=30), st.integers(1, 20_000))
@settings(max_examples=300, deadline=None)
def test_what_is_chosen_is_enough_and_nothing_in_it_is_needless_and_no_is_said_only_when_all_are_not_enough(found: list[tuple[int, int]], need: int) -> None:
    coins = [Piece(amount, ppk, number) for number, (amount, ppk) in enumerate(found)]
    chosen = choose(coins, need)
    if chosen is None:
        useful = [coin for coin in coins if coin.amount * 1000 > coin.fee_ppk]
        assert sum(coin.amount for coin in useful) - fee(useful) < need
        return
    assert len(set(chosen)) == len(chosen)
    assert sum(coin.amount for coin in chosen) - fee(chosen) >= need
    for coin in chosen:
        rest = [other for other in chosen if other is not coin]
        assert sum(other.amount for other in rest) - fee(rest) < need


# --- addresses


@pytest.mark.parametrize("network", NETWORKS)
def test_an_address_reads_back_and_belongs_to_one_network(network: Network) -> None:
    address = Address(network, MINTS, KEY)
    assert read_address(address.text, network) == address
    for other in set(NETWORKS) - {network}:
        with pytest.raises(UsageError, match="never mix"):
            read_address(address.text, other)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_an_address_changed_in_any_place_is_no_address(data: st.DataObject) -> None:
    text = Address("dev", MINTS, KEY).text
    place = data.draw(st.integers(0, len(text) - 1))
    letter_there = data.draw(st.sampled_from("ABCxyz019-_=+/ \n").filter(lambda c: c != text[place]))
    with pytest.raises(UsageError):
        read_address(text[:place] + letter_there + text[place + 1 :], "dev")


def test_a_payment_request_of_another_wallet_is_named_as_one() -> None:
    from tradeskill_plugins.cashu.nuts import payment_requests
    from tradeskill_plugins.cashu.nuts.model import PaymentRequest

    with pytest.raises(UsageError):
        read_address(payment_requests.encode(PaymentRequest(id="abc", unit="sat", mints=MINTS)), "dev")
    with pytest.raises(UsageError, match="another wallet"):
        read_address(payment_requests.encode(PaymentRequest(id="abc", unit="sat", mints=MINTS, lock=("P2PK", KEY, ()))), "dev")


# --- letters


def test_letters_are_the_same_for_everybody_locked_to_the_key_and_all_different() -> None:
    keysets = ["00" + "ab" * 7, "01" + "cd" * 32]
    made = [letter(KEY, keyset, index, 8) for keyset in keysets for index in range(20)]
    assert made == [letter(KEY, keyset, index, 8) for keyset in keysets for index in range(20)]
    assert len({each.secret for each in made}) == len({each.r for each in made}) == len({each.point for each in made}) == 40
    for each in made:
        lock = lock_of(each.secret)
        assert lock is not None
        assert (lock.key, lock.locktime, lock.refund, lock.pubkeys) == (KEY, None, (), ())
        assert curve.blind(each.secret, each.r) == each.point


def test_letters_are_what_the_page_says() -> None:
    one = letter(KEY, "00" + "ab" * 7, 0)
    assert one.secret.startswith('["P2PK",{"nonce":"')
    assert one.secret.endswith(f'","data":"{KEY}","tags":[["sigflag","SIG_INPUTS"]]}}]')
    assert (one.point, one.amount) == (letter(KEY, "00" + "ab" * 7, 0, 64).point, 1)


# --- Lightning invoices: examples of BOLT 11

COFFEE = (
    "lnbc2500u1pvjluezsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygspp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdq5xysxxatsyp3k7enxv4jsxqzpu"
    "9qrsgquk0rl77nj30yxdy8j9vdx85fkpmdla2087ne0xh8nhedh8w27kyke0lp53ut353s06fv3qfegext0eh0ymjpf39tuven09sam30g4vgpfna3rh"
)


def test_the_amount_of_a_lightning_invoice_is_read_and_its_damage_seen() -> None:
    assert (sats_of(COFFEE), chain_of(COFFEE)) == (250_000, "bc")
    assert sats_of(COFFEE.upper()) == 250_000
    assert bolt11_id(COFFEE) == bolt11_id(COFFEE.upper())
    for place in range(0, len(COFFEE), 7):
        changed = COFFEE[:place] + ("q" if COFFEE[place] != "q" else "p") + COFFEE[place + 1 :]
        with pytest.raises(InputError):
            sats_of(changed)
    for bad in ("", "lnbc", COFFEE[:-1], COFFEE + "q", COFFEE.capitalize(), " " + COFFEE, "lnbc1" + "q" * 5000, "lñbc1" + "q" * 200):
        with pytest.raises(InputError):
            sats_of(bad)


# --- keys


def test_keys_follow_from_the_secret_and_show_nothing_of_it() -> None:
    keys, other = Keys(bytes(32)), Keys(bytes(31) + b"\x01")
    numbers = [use(index) for use in (keys.lock, keys.refund, other.lock) for index in range(5)]
    assert len(set(numbers)) == 15
    assert keys.lock(3) == Keys(bytes(32)).lock(3)
    assert "00" not in repr(keys)
    box = keys.seal({"a": ["b", 1]}, bytes(24))
    assert keys.unseal(box) == {"a": ["b", 1]}
    assert b'"a"' not in box
    for bad in (box[:-1], bytes(len(box))):
        with pytest.raises(StorageError):
            keys.unseal(bad)
    with pytest.raises(StorageError):
        other.unseal(box)


# --- settings


def test_the_least_that_must_be_written_is_a_mint() -> None:
    found = parse_settings({"mints": "https://Mint.example/"}, "live")
    assert (found.mints, found.unit, found.lightning) == (("https://mint.example",), "sat", False)
    assert parse_settings({"mints": ["http://127.0.0.1:3338"]}, "live").mints == ("http://127.0.0.1:3338",)


WRONG: list[tuple[dict[str, Any], Network, str]] = [
    ({}, "dev", '"mints" must be'),
    ({"mints": []}, "dev", '"mints" must be'),
    ({"mints": [5]}, "dev", '"mints" has 5'),
    ({"mints": ["ftp://mint.example"]}, "dev", "ftp://mint.example"),
    ({"mints": ["https://mint.example", "https://MINT.example/"]}, "dev", "twice"),
    ({"mints": ["http://mint.example"]}, "test", "by https"),
    ({"mints": ["https://testnut.cashu.space"]}, "live", "made up"),
    ({"mints": ["https://m.example"], "unit": "usd"}, "dev", "only sat"),
    ({"mints": ["https://m.example"], "lightning": "yes"}, "dev", '"lightning"'),
    ({"mints": ["https://m.example"], "locktime_margin_seconds": 5}, "dev", '"locktime_margin_seconds"'),
    ({"mints": ["https://m.example"], "longest_locktime_seconds": 600}, "dev", '"longest_locktime_seconds"'),
    ({"mints": ["https://m.example"], "max_proofs": True}, "dev", '"max_proofs"'),
    ({"mints": ["https://m.example"], "mint": "x"}, "dev", "unknown key 'mint'"),
]


@pytest.mark.parametrize(("entry", "network", "words"), WRONG)
def test_what_is_written_wrong_is_named_with_its_key(entry: dict[str, Any], network: Network, words: str) -> None:
    with pytest.raises(ConfigError, match="wallet cashu") as found:
        parse_settings(entry, network)
    assert words in str(found.value)
