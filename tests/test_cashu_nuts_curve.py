"""curve.py: the published vectors of NUT-00 and NUT-12, and what is no point, scalar or signature."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from coincurve import PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.paper_mint import PaperMint
from tradeskill.errors import InputError
from tradeskill_plugins.cashu.nuts import curve
from tradeskill_plugins.cashu.nuts.model import Dleq

VECTORS = Path(__file__).parent / "vectors" / "cashu"
NUT00: dict[str, Any] = json.loads((VECTORS / "nut00.json").read_text())
NUT12: dict[str, Any] = json.loads((VECTORS / "nut12.json").read_text())
MINT = PaperMint()
SCALARS = st.integers(1, curve.ORDER - 1).map(lambda number: f"{number:064x}")
FEW = settings(max_examples=50, deadline=None)


@pytest.mark.parametrize(("message", "point"), NUT00["hash_to_curve"])
def test_a_message_has_the_point_of_the_vector(message: str, point: str) -> None:
    assert curve.hash_to_curve(bytes.fromhex(message)) == point


@pytest.mark.parametrize("vector", NUT00["blinded"])
def test_a_published_secret_is_blinded_to_the_published_point(vector: dict[str, str]) -> None:
    """The vectors' secrets are bytes, most of which are no text, as which wallets have them: so the sum is made here."""
    y = PublicKey(bytes.fromhex(curve.hash_to_curve(bytes.fromhex(vector["x"]))))
    assert PublicKey.combine_keys([y, PublicKey.from_secret(bytes.fromhex(vector["r"]))]).format().hex() == vector["B_"]


@pytest.mark.parametrize("vector", NUT00["signed"])
def test_a_published_blind_signature_is_the_point_times_the_key(vector: dict[str, str]) -> None:
    assert PublicKey(bytes.fromhex(vector["B_"])).multiply(bytes.fromhex(vector["k"])).format().hex() == vector["C_"]


def test_the_challenge_is_the_published_hash() -> None:
    assert curve.hash_e(*NUT12["hash_e"]["points"]) == NUT12["hash_e"]["hash"]


@pytest.mark.parametrize("vector", NUT12["blind"])
def test_alice_takes_the_published_proof_and_none_that_differs(vector: dict[str, str]) -> None:
    good = Dleq(vector["e"], vector["s"])
    assert curve.alice_verifies(good, vector["B_"], vector["C_"], vector["A"])
    other = curve.public_key(b"\5" * 32)
    assert not curve.alice_verifies(good, other, vector["C_"], vector["A"])
    assert not curve.alice_verifies(good, vector["B_"], other, vector["A"])
    assert not curve.alice_verifies(good, vector["B_"], vector["C_"], other)
    assert not curve.alice_verifies(Dleq(vector["s"], vector["e"]), vector["B_"], vector["C_"], vector["A"])


@pytest.mark.parametrize("vector", NUT12["proof"])
def test_carol_takes_the_published_proof_and_none_that_differs(vector: dict[str, str]) -> None:
    good = Dleq(vector["e"], vector["s"], vector["r"])
    assert curve.carol_verifies(good, vector["secret"], vector["C"], vector["A"])
    assert not curve.carol_verifies(good, vector["secret"] + " ", vector["C"], vector["A"])
    assert not curve.carol_verifies(good, vector["secret"], vector["A"], vector["A"])
    assert not curve.carol_verifies(Dleq(vector["e"], vector["s"], vector["e"]), vector["secret"], vector["C"], vector["A"])


@FEW
@given(secret=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40), r=SCALARS)
def test_what_is_blinded_signed_and_unblinded_is_the_mints_key_times_y(secret: str, r: str) -> None:
    blinded = curve.blind(secret, r)
    unblinded = curve.unblind(MINT.signed(blinded, 8), r, MINT.keyset.keys[8])
    assert unblinded == PublicKey(bytes.fromhex(curve.y_of(secret))).multiply(MINT.secrets[8]).format().hex()
    dleq = MINT.dleq(blinded, 8)
    assert curve.carol_verifies(Dleq(dleq["e"], dleq["s"], r), secret, unblinded, MINT.keyset.keys[8])
    assert not curve.carol_verifies(Dleq(dleq["e"], dleq["s"], r), secret, unblinded, MINT.keyset.keys[4])


@FEW
@given(message=st.binary(max_size=60), secret=SCALARS)
def test_a_signature_is_of_one_message_by_one_key_whatever_its_parity(message: bytes, secret: str) -> None:
    key = curve.public_key(bytes.fromhex(secret))
    signature = curve.sign(message, bytes.fromhex(secret))
    mirrored = ("03" if key.startswith("02") else "02") + key[2:]
    assert curve.signed_by(message, signature, key)
    assert curve.signed_by(message, signature, mirrored)
    assert curve.same_key(key, mirrored.upper())
    assert not curve.signed_by(message + b"!", signature, key)
    assert not curve.signed_by(message, signature, curve.public_key(b"\7" * 32))
    assert not curve.same_key(key, curve.public_key(b"\7" * 32))


@pytest.mark.parametrize("signature", ["", "00" * 63, "zz" * 64, "00" * 65, "00" * 64, "ff" * 64])
def test_what_is_no_signature_is_false_and_no_accident(signature: str) -> None:
    assert not curve.signed_by(b"message", signature, MINT.keyset.keys[1])


@pytest.mark.parametrize("text", ["", "02", "04" + "11" * 32, "02" + "ff" * 32, "02" + "00" * 32, "02" + "AB" * 32, "02" + "ab" * 33, "٠2" + "11" * 32])
def test_what_is_no_point_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(InputError, match="a thing is not") as caught:
        curve.check_point(text, "a thing")
    assert len(text) < 3 or text not in str(caught.value)


@pytest.mark.parametrize("text", ["", "00" * 32, f"{curve.ORDER:064x}", "ff" * 32, "1", "AB" * 32, "0x" + "11" * 31, " " + "1" * 63])
def test_what_is_no_scalar_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="a number is not a scalar"):
        curve.check_scalar(text, "a number")
    with pytest.raises(InputError):
        curve.alice_verifies(Dleq(text, "11" * 32), MINT.keyset.keys[1], MINT.keyset.keys[2], MINT.keyset.keys[4])


def test_values_of_another_type_are_refused() -> None:
    for check in (curve.check_point, curve.check_scalar):
        for value in (None, 7, b"02" * 33):
            with pytest.raises(InputError):
                check(value)  # type: ignore[arg-type]  # what a stranger sends has any type


def test_points_chosen_to_cancel_each_other_are_an_error_or_false() -> None:
    key = curve.public_key(b"\1" * 32)
    assert curve.check_scalar("01" * 32) == "01" * 32
    with pytest.raises(InputError, match="cancel"):
        curve.unblind(key, "00" * 31 + "01", key)  # C_ - 1K, with C_ = K
    opposite = ("03" if key.startswith("02") else "02") + key[2:]
    assert not curve.carol_verifies(Dleq("11" * 32, "11" * 32, "00" * 31 + "01"), "secret", opposite, key)  # C + 1K, with C = -K
    one = curve.public_key(bytes(31) + b"\1")
    assert not curve.alice_verifies(Dleq("11" * 32, "11" * 32), key, key, one)  # sG - eK, with s = e and K = G


def test_a_private_key_must_be_one() -> None:
    for wrong in (bytes(32), b"\1" * 31, b"\xff" * 32):
        with pytest.raises(InputError):
            curve.public_key(wrong)
        with pytest.raises(InputError):
            curve.sign(b"", wrong)
