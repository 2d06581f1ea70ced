"""Everything that is derived from the wallet's one secret: seed file, lock keys by index, the NUT-13 seed, and the box that its store is kept in."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tradeskill.errors import SecretError, StorageError
from tradeskill.model import Network
from tradeskill.secretfile import Cost, read_secret, write_secret

__all__ = ["SEED_FILE", "Keys", "create_seed", "open_seed"]

SEED_FILE: Final = "seed.json"
SEED_KIND: Final = "cashu-seed"
ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141  # of secp256k1's group


def create_seed(path: Path, network: Network, password: str, random_bytes: Callable[[int], bytes], secret: bytes, cost: Cost | None = None) -> None:
    """Write the wallet's 32 bytes, encrypted. SecretError, and nothing changed, when a file is there."""
    if len(secret) != 32:
        raise SecretError(f"a wallet's secret has 32 bytes, not {len(secret)}")
    write_secret(path, SEED_KIND, network, secret, password, random_bytes, cost)


def open_seed(path: Path, network: Network, password: str) -> bytes:
    """The 32 bytes. SecretError on a missing, readable-by-others, truncated or foreign file, or a wrong password."""
    secret = read_secret(path, SEED_KIND, network, password)
    if len(secret) != 32:
        raise SecretError(f"{path} does not hold a wallet's secret of 32 bytes")
    return secret


class Keys:
    """All keys of one wallet. None of them is ever shown, logged or part of an error."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._box = hmac.digest(secret, b"tradeskill/cashu/store", hashlib.sha256)

    def __repr__(self) -> str:
        return "Keys(…)"

    @property
    def nut13_seed(self) -> bytes:
        """64 bytes: where the secrets of all own proofs come from (NUT-13)."""
        return hmac.digest(self._secret, b"tradeskill/cashu/nut13", hashlib.sha512)

    def lock(self, index: int) -> bytes:
        """The private key that unlocks what was paid to lock `index`: 0 is the wallet's own address, each invoice has the next."""
        return self._scalar("lock", index)

    def refund(self, index: int) -> bytes:
        """The private key that takes an unspent token back after its locktime."""
        return self._scalar("refund", index)

    def _scalar(self, use: str, index: int) -> bytes:
        for attempt in range(256):
            digest = hmac.digest(self._secret, f"tradeskill/cashu/{use}/{index}/{attempt}".encode(), hashlib.sha256)
            if 0 < int.from_bytes(digest, "big") < ORDER:
                return digest
        raise AssertionError("2^-32768")  # pragma: no cover - no such secret will ever be met

    def seal(self, value: Any, nonce: bytes) -> bytes:
        """JSON, encrypted for the store. `nonce`: 24 fresh random bytes."""
        from nacl.secret import SecretBox

        return bytes(SecretBox(self._box).encrypt(json.dumps(value, separators=(",", ":")).encode(), nonce))

    def unseal(self, box: bytes) -> Any:
        from nacl.exceptions import CryptoError
        from nacl.secret import SecretBox

        try:
            return json.loads(SecretBox(self._box).decrypt(box))
        except CryptoError as error:
            raise StorageError("the wallet's store was not written with this secret, or is damaged: restore both from one backup") from error
