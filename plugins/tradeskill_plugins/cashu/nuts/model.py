"""The nouns of the protocol as frozen values: proofs, outputs, keysets, quotes, tokens. Values without behaviour; nothing here imports a library.

Points are 66 lowercase hex (compressed secp256k1), scalars 64, keyset ids 16 or 66, amounts positive ints in the keyset's unit. What reads a
stranger's bytes (`tokens`, `answers`) has checked that; a value made by hand is taken as right. No `repr` shows a secret, a signature or a witness.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = [
    "MAX_AMOUNT",
    "BlindSignature",
    "BlindedMessage",
    "Dleq",
    "Keyset",
    "KeysetInfo",
    "MeltQuote",
    "MeltState",
    "MintInfo",
    "MintQuote",
    "MintState",
    "Output",
    "PaymentRequest",
    "Proof",
    "ProofState",
    "SpendState",
    "Token",
    "Transport",
]

MAX_AMOUNT = 2**63 - 1  # of one proof, and of all proofs of a token together

SpendState = Literal["UNSPENT", "PENDING", "SPENT"]
MintState = Literal["UNPAID", "PAID", "ISSUED", "PENDING"]
MeltState = Literal["UNPAID", "PENDING", "PAID"]


@dataclass(frozen=True)
class Dleq:
    """NUT-12: shows that the mint signed with the key it published. `r` (the blinding factor) travels only with a proof, "" in a mint's answer."""

    e: str
    s: str
    r: str = field(default="", repr=False)


@dataclass(frozen=True)
class Proof:
    """NUT-00: money. Whoever knows `secret` and `signature` (C) can spend it, unless the secret is a lock (NUT-10)."""

    amount: int
    keyset_id: str
    secret: str = field(repr=False)
    signature: str = field(repr=False)
    dleq: Dleq | None = field(default=None, repr=False)
    witness: str = field(default="", repr=False)  # JSON text as the mint wants it, "" for none


@dataclass(frozen=True)
class BlindedMessage:
    """NUT-00: what the mint is asked to sign (`point` is B_). `amount` 0: blank, the mint chooses (NUT-08)."""

    amount: int
    keyset_id: str
    point: str


@dataclass(frozen=True)
class Output:
    """A blinded message with what only its maker knows. Everything that turns the mint's signature into a proof; may be made again from the seed."""

    amount: int
    keyset_id: str
    secret: str = field(repr=False)
    r: str = field(repr=False)
    point: str

    @property
    def message(self) -> BlindedMessage:
        return BlindedMessage(self.amount, self.keyset_id, self.point)


@dataclass(frozen=True)
class BlindSignature:
    """NUT-00: the mint's signature on a blinded message (`point` is C_)."""

    amount: int
    keyset_id: str
    point: str
    dleq: Dleq | None = None


@dataclass(frozen=True)
class KeysetInfo:
    """NUT-02: a keyset as the mint lists it, without its keys: not yet checked against its id. `fee_ppk` is thousandths of the unit an input."""

    id: str
    unit: str
    active: bool
    fee_ppk: int = 0
    final_expiry: int | None = None


@dataclass(frozen=True)
class Keyset:
    """NUT-01, 02: the mint's public key for each amount; its id was derived from them here, so it cannot lie about them."""

    id: str
    unit: str
    active: bool
    fee_ppk: int
    keys: Mapping[int, str] = field(repr=False)
    final_expiry: int | None = None


@dataclass(frozen=True)
class Token:
    """NUT-00: proofs of one mint and one unit, as they travel. Their keyset ids may be short (V4) until `tokens.resolve`."""

    mint: str
    unit: str
    proofs: tuple[Proof, ...]
    memo: str = ""

    @property
    def amount(self) -> int:
        """Face value, before fees."""
        return sum(proof.amount for proof in self.proofs)


@dataclass(frozen=True)
class ProofState:
    """NUT-07: what the mint says of the proof whose point is `y`."""

    y: str
    state: SpendState
    witness: str = field(default="", repr=False)


@dataclass(frozen=True)
class MintQuote:
    """NUT-04, 23: a Lightning invoice (`request`) that buys ecash. `id` is a secret: who knows it can take the ecash, unless `pubkey` locks it (NUT-20)."""

    id: str = field(repr=False)
    request: str
    amount: int
    unit: str
    state: MintState
    expiry: int | None = None
    pubkey: str = ""


@dataclass(frozen=True)
class MeltQuote:
    """NUT-05, 23: what the mint wants for paying `request`: `amount` + at most `fee_reserve`, plus the fee of the inputs."""

    id: str = field(repr=False)
    request: str
    amount: int
    unit: str
    fee_reserve: int
    state: MeltState
    expiry: int | None = None
    preimage: str = field(default="", repr=False)
    change: tuple[BlindSignature, ...] = ()


@dataclass(frozen=True)
class MintInfo:
    """NUT-06: what the mint says of itself. Display only, but for `nuts`: what it claims to support."""

    name: str
    version: str
    pubkey: str
    description: str
    nuts: frozenset[int]  # supported, of those with a "supported" flag; 4 and 5 where not disabled
    cached: frozenset[str] = frozenset()  # NUT-19: paths whose answers are kept for repetition
    cache_seconds: int | None = 0  # NUT-19: for how long; None: for ever, 0: not at all
    subscriptions: frozenset[str] = frozenset()  # NUT-17 kinds offered for Lightning
    motd: str = ""


@dataclass(frozen=True)
class Transport:
    """NUT-18: a way to hand over a payment."""

    kind: str
    target: str
    tags: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class PaymentRequest:
    """NUT-18: what a receiver asks for. `lock` is (kind, data, tags) of the NUT-10 secret wanted; no transport means in band."""

    id: str = ""
    amount: int | None = None
    unit: str = ""
    single_use: bool | None = None
    mints: tuple[str, ...] = ()
    description: str = ""
    transports: tuple[Transport, ...] = ()
    lock: tuple[str, str, tuple[tuple[str, ...], ...]] | None = None
