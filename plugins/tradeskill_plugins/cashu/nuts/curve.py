"""secp256k1 as the protocol uses it: hash to curve, blinding (NUT-00), DLEQ proofs in both forms (NUT-12), Schnorr signatures (NUT-11). Pure.

Points and scalars come in and go out as hex. What is no point or scalar raises InputError; a proof or signature that is merely wrong is False.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

from coincurve import PrivateKey, PublicKey, PublicKeyXOnly

from tradeskill.errors import InputError
from tradeskill_plugins.cashu.nuts.model import Dleq

__all__ = [
    "ORDER",
    "alice_verifies",
    "blind",
    "carol_verifies",
    "check_point",
    "check_scalar",
    "hash_e",
    "hash_to_curve",
    "public_key",
    "same_key",
    "sign",
    "signed_by",
    "unblind",
    "y_of",
]

ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
_DOMAIN: Final = b"Secp256k1_HashToCurve_Cashu_"
_POINT = re.compile(r"0[23][0-9a-f]{64}", re.ASCII)
_SCALAR = re.compile(r"[0-9a-f]{64}", re.ASCII)
_SIGNATURE = re.compile(r"[0-9a-f]{128}", re.ASCII)


def check_point(text: str, what: str = "point") -> str:
    """`text`, once it is the lowercase compressed hex of a point on the curve; else InputError naming `what` (never the value: it may be a secret)."""
    _point(text, what)
    return text


def check_scalar(text: str, what: str = "scalar") -> str:
    """`text`, once it is 64 lowercase hex of a number from 1 to the curve's order; else InputError naming `what`."""
    _scalar(text, what)
    return text


def hash_to_curve(message: bytes) -> str:
    """The point of a message: the first of sha256(sha256(domain + message) + counter) that is an x on the curve, with an even y."""
    return _hash_to_curve(message).format().hex()


def y_of(secret: str) -> str:
    """Y of a proof's secret: what mints know a proof by (NUT-07), and what tells two tokens with the same money apart from two with different money."""
    return hash_to_curve(secret.encode())


def blind(secret: str, r: str) -> str:
    """B_ = Y + rG."""
    y, factor = _hash_to_curve(secret.encode()), _scalar(r, "blinding factor")
    return _sum(y, PublicKey.from_secret(factor.to_bytes(32, "big")))


def unblind(blinded: str, r: str, key: str) -> str:
    """C = C_ - rK, from the mint's blind signature and its public key for the amount."""
    factor = _scalar(r, "blinding factor")
    return _sum(_point(blinded, "blind signature"), _times(_point(key, "mint key"), ORDER - factor))


def hash_e(*points: str) -> str:
    """The challenge of NUT-12: sha256 over the hex of the points' uncompressed forms."""
    return _challenge(*(_point(point, "point") for point in points))


def alice_verifies(dleq: Dleq, blinded: str, signature: str, key: str) -> bool:
    """Whoever asked for a signature: was `blinded` (B_) turned into `signature` (C_) with the private half of `key`?"""
    return _verifies(dleq, _point(blinded, "blinded message"), _point(signature, "blind signature"), _point(key, "mint key"))


def carol_verifies(dleq: Dleq, secret: str, signature: str, key: str) -> bool:
    """Whoever is given a proof: the same of its secret and C, by blinding both again with `dleq.r`."""
    factor = _scalar(dleq.r, "DLEQ r")
    mint_key = _point(key, "mint key")
    try:
        again = PublicKey.combine_keys([_point(signature, "signature"), _times(mint_key, factor)])
        blinded = PublicKey.combine_keys([_hash_to_curve(secret.encode()), PublicKey.from_secret(factor.to_bytes(32, "big"))])
    except ValueError:  # the sum is the point at infinity: no honest mint's signature
        return False
    return _verifies(dleq, blinded, again, mint_key)


def public_key(secret: bytes) -> str:
    """The compressed public key of 32 secret bytes."""
    _scalar(secret.hex(), "private key")
    return PublicKey.from_secret(secret).format().hex()


def sign(message: bytes, secret: bytes) -> str:
    """A Schnorr signature (BIP 340, fresh randomness) over sha256 of `message`, 128 hex."""
    _scalar(secret.hex(), "private key")
    return PrivateKey(secret).sign_schnorr(hashlib.sha256(message).digest()).hex()


def signed_by(message: bytes, signature: str, key: str) -> bool:
    """Whether `signature` is the Schnorr signature of sha256 of `message` by `key` (whose parity does not matter)."""
    point = _point(key, "public key")
    if _SIGNATURE.fullmatch(signature) is None:
        return False
    return PublicKeyXOnly(point.format()[1:]).verify(bytes.fromhex(signature), hashlib.sha256(message).digest())


def same_key(one: str, other: str) -> bool:
    """Whether the same private key signs for both: NUT-11 compares the x coordinate alone."""
    return one[2:].lower() == other[2:].lower()


def _verifies(dleq: Dleq, blinded: PublicKey, signature: PublicKey, key: PublicKey) -> bool:
    e, s = _scalar(dleq.e, "DLEQ e"), _scalar(dleq.s, "DLEQ s")
    try:
        r1 = PublicKey.combine_keys([PublicKey.from_secret(s.to_bytes(32, "big")), _times(key, ORDER - e)])
        r2 = PublicKey.combine_keys([_times(blinded, s), _times(signature, ORDER - e)])
    except ValueError:  # infinity again
        return False
    return _challenge(r1, r2, key, signature) == dleq.e


def _challenge(*points: PublicKey) -> str:
    return hashlib.sha256("".join(point.format(compressed=False).hex() for point in points).encode()).hexdigest()


def _hash_to_curve(message: bytes) -> PublicKey:
    start = hashlib.sha256(_DOMAIN + message).digest()
    for counter in range(2**16):  # half of all x are on the curve: the loop ends long before
        try:
            return PublicKey(b"\x02" + hashlib.sha256(start + counter.to_bytes(4, "little")).digest())
        except ValueError:
            continue
    raise InputError("message has no point on the curve")  # pragma: no cover - happens once in 2^65536


def _times(point: PublicKey, scalar: int) -> PublicKey:
    return point.multiply(scalar.to_bytes(32, "big"))


def _sum(one: PublicKey, other: PublicKey) -> str:
    try:
        return PublicKey.combine_keys([one, other]).format().hex()
    except ValueError as error:
        raise InputError("two points cancel each other: these values were chosen so") from error


def _point(text: str, what: str) -> PublicKey:
    if not isinstance(text, str) or _POINT.fullmatch(text) is None:
        raise InputError(f"{what} is not a compressed point: 66 lowercase hex that begin with 02 or 03")
    try:
        return PublicKey(bytes.fromhex(text))
    except ValueError as error:
        raise InputError(f"{what} is not on the curve") from error


def _scalar(text: str, what: str) -> int:
    if not isinstance(text, str) or _SCALAR.fullmatch(text) is None:
        raise InputError(f"{what} is not a scalar: 64 lowercase hex")
    value = int(text, 16)
    if not 0 < value < ORDER:
        raise InputError(f"{what} is not a scalar: 0, or not below the curve's order")
    return value
