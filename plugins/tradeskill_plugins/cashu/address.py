"""The rail's addresses: a payment request (NUT-18) that names a key, the mints where it may be paid, and the network; changed anywhere, it is refused."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from tradeskill.errors import InputError, RefusedError, UsageError
from tradeskill.model import NETWORKS, Network
from tradeskill_plugins.cashu.nuts import curve, payment_requests
from tradeskill_plugins.cashu.nuts.model import PaymentRequest

__all__ = ["Address", "read_address"]

UNIT: Final = "sat"
MAX_MINTS: Final = 16


@dataclass(frozen=True)
class Address:
    """Whoever pays it locks proofs of one of `mints` to `pubkey`: as a token, or as letters left at the mint."""

    network: Network
    mints: tuple[str, ...]
    pubkey: str

    @property
    def text(self) -> str:
        """The only way it is written."""
        body = "\n".join(["tradeskill/cashu/address", self.network, UNIT, *self.mints, self.pubkey])
        check = hashlib.sha256(body.encode()).hexdigest()[:16]
        return payment_requests.encode(PaymentRequest(id=f"{self.network}-{check}", unit=UNIT, mints=self.mints, lock=("P2PK", self.pubkey, ())))


def read_address(text: str, network: Network) -> Address:
    """UsageError where it is not an address of this rail and network, written exactly so."""
    try:
        request = payment_requests.decode(text)
        kind, pubkey, tags = request.lock or ("", "", ())
        curve.check_point(pubkey, "its key")
    except (RefusedError, InputError) as error:
        raise UsageError(f"address {text[:60]!r} is not a cashu address: {error}") from error
    found = next((name for name in NETWORKS if request.id.startswith(f"{name}-")), None)
    if found is None or kind != "P2PK" or tags or request.unit != UNIT or not 1 <= len(request.mints) <= MAX_MINTS:
        raise UsageError(f"address {text[:60]!r} is a payment request of another wallet: an address made by `tradeskill cashu address` is needed")
    address = Address(found, request.mints, pubkey)
    if address.text != text:
        raise UsageError(f"address {text[:60]!r} is damaged: copy it again")
    if found != network:
        raise UsageError(f"address {text[:60]!r} belongs to network {found!r}, this is {network!r}: the networks never mix")
    return address
