"""Nano's primitives against published vectors and against what a real node answered."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradeskill.errors import UsageError
from tradeskill_wallet import primitives as nano

CAPTURES = Path(__file__).parent / "captures"
GENESIS_SECRET = bytes.fromhex("34F0A37AAD20F4A260F0A5B3CB3D7FB50673212263E58A380BC10474BB039CE4")
GENESIS = "nano_3e3j5tkog48pnny9dmfzj1r16pg8t1e76dz5tmac6iq689wyjfpiij4txtdo"


def _block(name: str) -> tuple[nano.StateBlock, str]:
    capture = json.loads((CAPTURES / name).read_text())
    return nano.StateBlock.from_json(capture["request"]["block"]), capture["response"]["hash"]


def test_the_zero_seed_gives_the_published_first_account() -> None:
    secret = nano.derive_key(bytes(32), 0)
    assert secret.hex().upper() == "9F0E444C69F77A49BD0BE89DB92C38FE713E0963165CCA12FAF5712D7657120F"
    assert nano.encode_address(nano.public_key(secret)) == "nano_3i1aq1cchnmbn9x5rsbap8b15akfh7wj7pwskuzi7ahz8oq6cobd99d4r3b7"


def test_the_genesis_key_gives_the_genesis_address_and_back() -> None:
    account = nano.public_key(GENESIS_SECRET)
    assert nano.encode_address(account) == GENESIS
    assert nano.decode_address(GENESIS) == account
    assert nano.decode_address("xrb_" + GENESIS[5:]) == account
    assert nano.encode_address(nano.BURN) == "nano_1111111111111111111111111111111111111111111111111111hifc8npp"


@given(st.binary(min_size=32, max_size=32))
@settings(max_examples=50)
def test_every_public_key_survives_its_address(account: bytes) -> None:
    assert nano.decode_address(nano.encode_address(account)) == account


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nano_",
        GENESIS[:-1],
        GENESIS + "o",
        GENESIS[:-1] + "p",
        GENESIS.upper(),
        "ban_" + GENESIS[5:],
        "nano_2" + GENESIS[6:],
        " " + GENESIS,
        GENESIS + "\n",
    ],
)
def test_anything_but_an_exact_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="address"):
        nano.decode_address(text)


def test_a_single_mistyped_character_is_caught_by_the_checksum() -> None:
    for place in range(6, 65):
        for letter in "13":
            if GENESIS[place] != letter:
                with pytest.raises(UsageError, match="checksum"):
                    nano.decode_address(GENESIS[:place] + letter + GENESIS[place + 1 :])


def test_hash_signature_and_work_agree_with_a_block_that_a_real_node_accepted() -> None:
    block, hash_hex = _block("039-process-good-send.json")
    assert block.hash_hex == hash_hex
    assert block.verified()
    assert nano.work_valid(block.root, block.work, nano.THRESHOLDS["dev"].epoch_2)


def test_an_open_block_has_its_work_over_the_public_key() -> None:
    block, hash_hex = _block("133-process-good-open.json")
    assert block.hash_hex == hash_hex
    assert block.root == block.account
    assert nano.work_valid(block.root, block.work, nano.THRESHOLDS["dev"].epoch_2_receive)


def test_work_just_below_a_threshold_is_not_valid() -> None:
    block, _ = _block("031-process-work-send-epoch2-just-above.json")
    value = nano.work_value(block.root, block.work)
    assert nano.work_valid(block.root, block.work, value)
    assert not nano.work_valid(block.root, block.work, value + 1)


def test_a_signature_is_valid_for_its_hash_and_key_only() -> None:
    account = nano.public_key(GENESIS_SECRET)
    block_hash = bytes(range(32))
    signature = nano.sign(GENESIS_SECRET, block_hash, os.urandom)
    assert nano.verify(account, block_hash, signature)
    assert not nano.verify(account, bytes(32), signature)
    assert not nano.verify(nano.public_key(bytes(31) + b"\1"), block_hash, signature)
    assert not nano.verify(account, block_hash, signature[:63])
    assert not nano.verify(account, block_hash, bytes([signature[0] ^ 1]) + signature[1:])


def test_a_block_survives_its_json_form_and_the_hash_covers_every_field() -> None:
    block = nano.StateBlock(bytes([1] * 32), bytes([2] * 32), bytes([3] * 32), 2**128 - 1, bytes([4] * 32)).with_work("00000000000000Aa")
    signed = block.signed(GENESIS_SECRET, os.urandom)
    assert nano.StateBlock.from_json(signed.to_json()) == signed
    assert signed.hash == block.hash
    others = [
        nano.StateBlock(bytes(32), block.previous, block.representative, block.balance, block.link),
        nano.StateBlock(block.account, bytes(32), block.representative, block.balance, block.link),
        nano.StateBlock(block.account, block.previous, bytes(32), block.balance, block.link),
        nano.StateBlock(block.account, block.previous, block.representative, 0, block.link),
        nano.StateBlock(block.account, block.previous, block.representative, block.balance, bytes(32)),
    ]
    assert len({block.hash, *(other.hash for other in others)}) == 6


@pytest.mark.parametrize("field", ["account", "previous", "representative", "balance", "link", "signature", "work", "type"])
def test_a_block_with_a_damaged_field_is_refused(field: str) -> None:
    block, _ = _block("039-process-good-send.json")
    value: dict[str, object] = dict(block.to_json())
    for bad in (None, 5, "x", value[field] and str(value[field]) + "0"):
        with pytest.raises(UsageError):
            nano.StateBlock.from_json({**value, field: bad})


@pytest.mark.parametrize("index", [-1, 2**32])
def test_an_index_out_of_range_has_no_key(index: int) -> None:
    with pytest.raises(UsageError, match="index"):
        nano.derive_key(bytes(32), index)


@pytest.mark.parametrize("balance", [-1, 2**128, True])
def test_a_balance_out_of_range_makes_no_block(balance: int) -> None:
    with pytest.raises(UsageError, match="balance"):
        nano.StateBlock(bytes(32), bytes(32), bytes(32), balance, bytes(32))


def test_test_and_live_share_their_thresholds_and_dev_is_easier() -> None:
    assert nano.THRESHOLDS["test"] == nano.THRESHOLDS["live"]
    assert nano.THRESHOLDS["dev"].entry == 0xF000000000000000
    assert nano.THRESHOLDS["live"].entry == 0xFFFFFE0000000000
    assert nano.THRESHOLDS["dev"].needed(1, receive=True) == 0xFE00000000000000
    assert nano.THRESHOLDS["live"].needed(2, receive=False) == 0xFFFFFFF800000000
