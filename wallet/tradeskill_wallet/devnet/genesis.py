"""The dev network's first block and key, public in the node's own source: whoever runs a dev ledger may sign with it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from tradeskill.money import MAX_RAW
from tradeskill_wallet.primitives import ZERO, decode_address, encode_address

__all__ = ["EPOCH_LINKS", "GENESIS", "GENESIS_ACCOUNT", "GENESIS_SECRET", "LegacyOpen"]

GENESIS_SECRET: Final = bytes.fromhex("34F0A37AAD20F4A260F0A5B3CB3D7FB50673212263E58A380BC10474BB039CE4")
GENESIS_ACCOUNT: Final = decode_address("nano_3e3j5tkog48pnny9dmfzj1r16pg8t1e76dz5tmac6iq689wyjfpiij4txtdo")

# An epoch block carries its epoch's name as its link and is signed by the genesis key, whatever its account.
EPOCH_LINKS: Final[dict[bytes, int]] = {f"epoch v{number} block".encode().ljust(32, b"\0"): number for number in (1, 2)}


@dataclass(frozen=True)
class LegacyOpen:
    """The only legacy block the ledger holds. It has no balance field: the whole supply is its amount."""

    source: bytes
    representative: bytes
    account: bytes
    signature: bytes
    work: str

    previous: bytes = ZERO
    link: bytes = ZERO
    balance: int = MAX_RAW

    @cached_property
    def hash(self) -> bytes:
        return hashlib.blake2b(self.source + self.representative + self.account, digest_size=32).digest()

    @property
    def hash_hex(self) -> str:
        return self.hash.hex().upper()

    def to_json(self) -> dict[str, str]:
        return {
            "type": "open",
            "source": self.source.hex().upper(),
            "representative": encode_address(self.representative),
            "account": encode_address(self.account),
            "work": self.work,
            "signature": self.signature.hex().upper(),
        }


GENESIS: Final = LegacyOpen(
    source=GENESIS_ACCOUNT,
    representative=GENESIS_ACCOUNT,
    account=GENESIS_ACCOUNT,
    signature=bytes.fromhex("ECDA914373A2F0CA1296475BAEE40500A7F0A7AD72A5A80C81D7FAB7F6C802B2CC7DB50F5DD0FB25B2EF11761FA7344A158DD5A700B21BD47DE5BD0F63153A02"),
    work="7b42a00ee91d5810",
)
