"""Secrets and blinding factors from a seed, so that a lost wallet can be found again (NUT-13): both generations of keysets. Pure."""

from __future__ import annotations

import hmac
from typing import Final

from tradeskill.errors import InputError
from tradeskill_plugins.cashu.nuts import curve
from tradeskill_plugins.cashu.nuts.keysets import check_id

__all__ = ["MAX_COUNTER", "derive", "keyset_number"]

MAX_COUNTER: Final = 2**31 - 1  # the last that BIP 32 can take as a hardened step
_HARDENED: Final = 2**31
_DOMAIN: Final = b"Cashu_KDF_HMAC_SHA256"


def derive(seed: bytes, keyset_id: str, counter: int) -> tuple[str, str]:
    """(secret, blinding factor) number `counter` of a keyset, each 64 hex. The same three always give the same two: never use a counter twice.

    `seed` is 16 to 64 bytes: BIP 39's 64, or any of one's own. InputError for others, for a counter out of range and for ids not spoken here.
    """
    if not 16 <= len(seed) <= 64:
        raise InputError(f"a seed of {len(seed)} bytes: 16 to 64 are needed")
    if not 0 <= counter <= MAX_COUNTER:
        raise InputError(f"counter {counter} is out of range: 0 to {MAX_COUNTER}")
    check_id(keyset_id)
    if keyset_id.startswith("00"):
        return _by_bip32(seed, keyset_id, counter)
    message = _DOMAIN + bytes.fromhex(keyset_id) + counter.to_bytes(8, "big")
    secret = hmac.digest(seed, message + b"\x00", "sha256").hex()
    factor = int.from_bytes(hmac.digest(seed, message + b"\x01", "sha256"), "big") % curve.ORDER
    return secret, curve.check_scalar(f"{factor:064x}", "derived blinding factor")


def keyset_number(keyset_id: str) -> int:
    """Generation 0's place for the keyset in the BIP 32 path: two keysets may share one, which is why generation 1 has left it."""
    return int(keyset_id[:16], 16) % (2**31 - 1)


def _by_bip32(seed: bytes, keyset_id: str, counter: int) -> tuple[str, str]:
    """m / 129372' / 0' / keyset' / counter' / 0 (the secret) or 1 (the blinding factor)."""
    key, chain = _halves(hmac.digest(b"Bitcoin seed", seed, "sha512"), 0)
    for step in (129372, 0, keyset_number(keyset_id), counter):
        data = b"\x00" + key.to_bytes(32, "big") + (_HARDENED + step).to_bytes(4, "big")
        key, chain = _halves(hmac.digest(chain, data, "sha512"), key)
    point = bytes.fromhex(curve.public_key(key.to_bytes(32, "big")))
    secret, _ = _halves(hmac.digest(chain, point + bytes(4), "sha512"), key)
    factor, _ = _halves(hmac.digest(chain, point + (1).to_bytes(4, "big"), "sha512"), key)
    return f"{secret:064x}", f"{factor:064x}"


def _halves(digest: bytes, parent: int) -> tuple[int, bytes]:
    key = (int.from_bytes(digest[:32], "big") + parent) % curve.ORDER
    return key, digest[32:]
