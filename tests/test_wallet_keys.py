"""keys and seedfile: published derivation, indexes that never meet, and a seed that is never made or changed silently."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradeskill.errors import RefusedError, SecretError, UsageError
from tradeskill.secretfile import write_secret
from tradeskill_wallet.keys import EPOCHS, MAINS, PER_EPOCH, Keys, invoice_index
from tradeskill_wallet.primitives import decode_address, derive_key, encode_address
from tradeskill_wallet.seedfile import create_seed, open_seed, parse_seed

VECTORS = json.loads((Path(__file__).parent / "vectors" / "nano" / "derivation.json").read_text())


@pytest.mark.parametrize("vector", VECTORS["valid"], ids=lambda v: str(v["index"]))
def test_a_published_seed_and_index_give_the_published_key_and_address(vector: dict[str, str]) -> None:
    keys = Keys(parse_seed(vector["seed"]))
    index = int(vector["index"])
    assert keys.secret(index).hex().upper() == vector["secret"]
    assert keys.account(index).hex().upper() == vector["public"]
    assert encode_address(keys.account(index)) == vector["address"]
    assert decode_address(vector["address"]) == keys.account(index)


@pytest.mark.parametrize("index", VECTORS["invalid_index"])
def test_an_index_out_of_range_is_refused(index: int) -> None:
    with pytest.raises(UsageError):
        derive_key(bytes(32), index)


@pytest.mark.parametrize("case", VECTORS["invalid_seed"], ids=lambda c: str(c["why"]))
def test_a_seed_that_is_not_64_hex_digits_is_refused_and_not_repeated(case: dict[str, str]) -> None:
    with pytest.raises(SecretError) as caught:
        parse_seed(case["seed"])
    assert not case["seed"] or case["seed"] not in str(caught.value)


@pytest.mark.parametrize("case", VECTORS["invalid_address"], ids=lambda c: str(c["why"]))
def test_a_wrong_address_is_refused(case: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        decode_address(case["address"])


def test_a_seed_copied_with_blanks_and_line_ends_is_understood() -> None:
    assert parse_seed(" ".join(["ab" * 8] * 4) + "\n") == b"\xab" * 32


@given(st.integers(0, EPOCHS - 1), st.integers(0, PER_EPOCH - MAINS - 1), st.integers(0, EPOCHS - 1), st.integers(0, PER_EPOCH - MAINS - 1))
def test_two_invoices_never_share_an_index_and_none_is_a_main_account(epoch: int, number: int, other_epoch: int, other_number: int) -> None:
    index = invoice_index(epoch, number)
    assert MAINS <= index < 1 << 32
    assert (index == invoice_index(other_epoch, other_number)) == ((epoch, number) == (other_epoch, other_number))


@pytest.mark.parametrize(("epoch", "number"), [(EPOCHS, 0), (-1, 0), (0, -1), (0, PER_EPOCH - MAINS)])
def test_a_used_up_range_is_refused_instead_of_wrapping(epoch: int, number: int) -> None:
    with pytest.raises(RefusedError):
        invoice_index(epoch, number)


def test_a_seed_never_shows_in_a_dump() -> None:
    assert "ab" * 32 not in repr(Keys(b"\xab" * 32))
    assert str(b"\xab" * 32) not in repr(Keys(b"\xab" * 32))


def test_a_seed_comes_back_and_two_created_seeds_differ(tmp_path: Path) -> None:
    for name in ("one", "two"):
        create_seed(tmp_path / name, "dev", "password", os.urandom)
    one, two = (open_seed(tmp_path / name, "dev", "password") for name in ("one", "two"))
    assert len(one) == 32
    assert one != two
    create_seed(tmp_path / "copy", "live", "other", os.urandom, one)
    assert open_seed(tmp_path / "copy", "live", "other") == one


def test_a_seed_file_is_not_overwritten_by_a_second_init(tmp_path: Path) -> None:
    create_seed(tmp_path / "seed", "dev", "password", os.urandom)
    before = (tmp_path / "seed").read_bytes()
    with pytest.raises(SecretError):
        create_seed(tmp_path / "seed", "dev", "password", os.urandom)
    assert (tmp_path / "seed").read_bytes() == before


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_seed_of_another_size_is_refused_both_ways(tmp_path: Path, size: int) -> None:
    with pytest.raises(SecretError):
        create_seed(tmp_path / "seed", "dev", "password", os.urandom, bytes(size))
    write_secret(tmp_path / "seed", "nano-seed", "dev", bytes(size), "password", os.urandom)
    with pytest.raises(SecretError):
        open_seed(tmp_path / "seed", "dev", "password")
