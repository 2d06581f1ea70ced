"""Which index of the seed is used for what: main accounts at the bottom, then invoices by epoch, so that a restored wallet never reuses one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from tradeskill.errors import RefusedError
from tradeskill_wallet.primitives import derive_key, public_key

__all__ = ["EPOCHS", "MAINS", "PER_EPOCH", "Keys", "invoice_index"]

MAINS: Final = 64  # indexes 0 to 63 are main accounts in every wallet
PER_EPOCH: Final = 1 << 20
EPOCHS: Final = 1 << 12  # 2^12 * 2^20 = all indexes there are


def invoice_index(epoch: int, number: int) -> int:
    """Index of the `number`th invoice account of an epoch. RefusedError when the range is used up."""
    if not (0 <= epoch < EPOCHS and 0 <= number < PER_EPOCH - MAINS):
        raise RefusedError(f"no account index is left in epoch {epoch}: begin a new epoch or a new seed")
    return epoch * PER_EPOCH + MAINS + number


@dataclass(frozen=True)
class Keys:
    """The seed in memory. Derivation is blake2b-256(seed || index); equal indexes give equal keys, always."""

    _seed: bytes

    def __repr__(self) -> str:
        return "Keys(…)"  # a seed never reaches a log through a traceback or a dataclass dump

    def secret(self, index: int) -> bytes:
        return derive_key(self._seed, index)

    def account(self, index: int) -> bytes:
        """Public key of an index."""
        return _account(self._seed, index)


@lru_cache(maxsize=4096)
def _account(seed: bytes, index: int) -> bytes:
    return public_key(derive_key(seed, index))
