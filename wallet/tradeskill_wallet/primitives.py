"""Nano's pure primitives: keys, addresses, state blocks, signatures and work. No I/O, no state, no network."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Final

from tradeskill.errors import UsageError
from tradeskill.money import MAX_RAW, parse_raw

__all__ = [
    "BURN",
    "GENESIS_HASH",
    "THRESHOLDS",
    "ZERO",
    "StateBlock",
    "Thresholds",
    "decode_address",
    "derive_key",
    "encode_address",
    "parse_hash",
    "parse_work",
    "public_key",
    "sign",
    "verify",
    "work_root",
    "work_valid",
    "work_value",
]

ZERO: Final = bytes(32)
BURN: Final = ZERO  # the account whose public key is zero: nobody can sign for it

# The first block of each network whose ledger is pinned; the node reports it as `version.network_identifier`.
GENESIS_HASH: Final[dict[str, str]] = {
    "dev": "04270D7F11C4B2B472F2854C5A59F2A7E84226CE9ED799DE75744BD7D85FC9D9",
    "live": "991CF190094C00F0B68E2E5F75F6BEE95A2E0BD93CEAA4A6734DB9F19B728948",
}

_PREAMBLE: Final = (6).to_bytes(32, "big")  # marks a state block in what is hashed
_ALPHABET: Final = b"13456789abcdefghijkmnopqrstuwxyz"
_STANDARD: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_TO_NANO: Final = bytes.maketrans(_STANDARD, _ALPHABET)
_FROM_NANO: Final = bytes.maketrans(_ALPHABET, _STANDARD)
_ADDRESS: Final = re.compile(r"(?:nano|xrb)_([13][13456789abcdefghijkmnopqrstuwxyz]{59})", re.ASCII)
_HASH: Final = re.compile(r"[0-9A-Fa-f]{64}", re.ASCII)
_WORK: Final = re.compile(r"[0-9A-Fa-f]{16}", re.ASCII)


@dataclass(frozen=True)
class Thresholds:
    """Smallest work values a network accepts: by the epoch of the account and, at epoch 2, by the kind of block."""

    epoch_1: int  # every block of an account still at epoch 0 or 1
    epoch_2: int  # send and change
    epoch_2_receive: int  # receive, open and epoch

    @property
    def entry(self) -> int:
        """Under this a node refuses a block before it looks at the ledger."""
        return min(self.epoch_1, self.epoch_2, self.epoch_2_receive)

    def needed(self, epoch: int, *, receive: bool) -> int:
        """Threshold of a block whose account (or, for a receive, source) is at `epoch`; `receive` means receive, open or epoch."""
        if epoch < 2:
            return self.epoch_1
        return self.epoch_2_receive if receive else self.epoch_2


_REAL: Final = Thresholds(epoch_1=0xFFFFFFC000000000, epoch_2=0xFFFFFFF800000000, epoch_2_receive=0xFFFFFE0000000000)
THRESHOLDS: Final[dict[str, Thresholds]] = {
    "dev": Thresholds(epoch_1=0xFE00000000000000, epoch_2=0xFFC0000000000000, epoch_2_receive=0xF000000000000000),
    "test": _REAL,
    "live": _REAL,
}


def derive_key(seed: bytes, index: int) -> bytes:
    """Secret key `index` of a 32-byte seed. Raises UsageError when the index is outside 0 to 2^32 - 1."""
    if len(seed) != 32:
        raise UsageError(f"seed has {len(seed)} bytes: it must have 32")
    if not 0 <= index < 1 << 32:
        raise UsageError(f"account index {index} is out of range: 0 to 2^32 - 1")
    return hashlib.blake2b(seed + index.to_bytes(4, "big"), digest_size=32).digest()


def public_key(secret: bytes) -> bytes:
    """The 32-byte public key (the account) of a 32-byte secret key."""
    from nanopy import ext  # heavy: loads the compiled curve only for those who sign

    if len(secret) != 32:
        raise UsageError(f"secret key has {len(secret)} bytes: it must have 32")
    result: bytes = ext.publickey(secret)
    return result


@lru_cache(maxsize=65536)
def encode_address(account: bytes) -> str:
    """`nano_…` of a 32-byte public key: base32 of key and reversed 5-byte blake2b checksum."""
    if len(account) != 32:
        raise UsageError(f"public key has {len(account)} bytes: it must have 32")
    check = hashlib.blake2b(account, digest_size=5).digest()[::-1]
    return "nano_" + base64.b32encode(b"\0\0\0" + account + check).translate(_TO_NANO)[4:].decode()


@lru_cache(maxsize=65536)
def decode_address(text: str) -> bytes:
    """Public key of a `nano_…` or old `xrb_…` address. Raises UsageError on any other form or a wrong checksum."""
    match = _ADDRESS.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise UsageError(f"address {_shown(text)} is not a Nano address: it must be nano_ and 60 characters")
    data = base64.b32decode(b"AAAA" + match.group(1).encode().translate(_FROM_NANO))
    account, check = data[3:35], data[35:]
    if hashlib.blake2b(account, digest_size=5).digest()[::-1] != check:
        raise UsageError(f"address {_shown(text)} has a wrong checksum: a character was mistyped, copy it again")
    return account


def parse_hash(text: object) -> bytes:
    """Exactly 64 hex digits (either case) to 32 bytes; UsageError otherwise. Stricter than the node, which pads short ones."""
    if not isinstance(text, str) or _HASH.fullmatch(text) is None:
        raise UsageError(f"hash {_shown(text)} is not 64 hex digits")
    return bytes.fromhex(text)


def parse_work(text: object) -> str:
    """Exactly 16 hex digits, as lower case; UsageError otherwise."""
    if not isinstance(text, str) or _WORK.fullmatch(text) is None:
        raise UsageError(f"work {_shown(text)} is not 16 hex digits")
    return text.lower()


def sign(secret: bytes, block_hash: bytes, random_bytes: Callable[[int], bytes]) -> bytes:
    """64-byte ed25519-blake2b signature of a 32-byte hash; differs at each call, because 32 fresh random bytes go in."""
    from nanopy import ext

    if len(secret) != 32 or len(block_hash) != 32:
        raise UsageError("secret key and hash must have 32 bytes each")
    result: bytes = ext.sign(secret, block_hash, random_bytes(32))
    return result


def verify(account: bytes, block_hash: bytes, signature: bytes) -> bool:
    """Whether `signature` is the account's own over the hash. A wrong length is False, never an error."""
    from nanopy import ext

    if len(account) != 32 or len(block_hash) != 32 or len(signature) != 64:
        return False
    return bool(ext.verify_signature(signature, account, block_hash))


def work_root(account: bytes, previous: bytes) -> bytes:
    """What work is computed over: `previous`, or the account's public key for its first block."""
    return previous if previous != ZERO else account


def work_value(root: bytes, work: str) -> int:
    """How good 16 hex digits of work are for a root: the bigger the better, compared with a threshold."""
    nonce = int(work, 16).to_bytes(8, "little")
    return int.from_bytes(hashlib.blake2b(nonce + root, digest_size=8).digest(), "little")


def work_valid(root: bytes, work: str, threshold: int) -> bool:
    """Whether the work reaches the threshold."""
    return work_value(root, work) >= threshold


@dataclass(frozen=True)
class StateBlock:
    """One state block. Equal blocks have equal hashes; `signature` (64 bytes) and `work` (16 hex digits) are not hashed and may be empty."""

    account: bytes
    previous: bytes  # ZERO for an account's first block
    representative: bytes
    balance: int  # raw, after this block
    link: bytes  # send: destination account; receive: source block; else ZERO or an epoch's mark
    signature: bytes = b""
    work: str = ""

    def __post_init__(self) -> None:
        for name in ("account", "previous", "representative", "link"):
            if len(getattr(self, name)) != 32:
                raise UsageError(f"block field {name} has {len(getattr(self, name))} bytes: it must have 32")
        if type(self.balance) is not int or not 0 <= self.balance <= MAX_RAW:
            raise UsageError(f"block balance {self.balance!r} is out of range: 0 to 2^128 - 1 raw")

    @cached_property
    def hash(self) -> bytes:
        """The block's 32-byte identity."""
        parts = (_PREAMBLE, self.account, self.previous, self.representative, self.balance.to_bytes(16, "big"), self.link)
        return hashlib.blake2b(b"".join(parts), digest_size=32).digest()

    @property
    def hash_hex(self) -> str:
        """64 upper-case hex digits, as the node writes a hash."""
        return self.hash.hex().upper()

    @property
    def root(self) -> bytes:
        """What this block's work is computed over."""
        return work_root(self.account, self.previous)

    def signed(self, secret: bytes, random_bytes: Callable[[int], bytes]) -> StateBlock:
        """The same block with a signature. Never sign twice what was published: keep the first bytes."""
        return replace(self, signature=sign(secret, self.hash, random_bytes))

    def with_work(self, work: str) -> StateBlock:
        """The same block with work (16 hex digits)."""
        return replace(self, work=parse_work(work))

    def verified(self) -> bool:
        """Whether the account itself signed this block (an epoch block is signed by the network's key instead)."""
        return verify(self.account, self.hash, self.signature)

    def to_json(self) -> dict[str, str]:
        """The `block` of a `process` request with `json_block: "true"`."""
        return {
            "type": "state",
            "account": encode_address(self.account),
            "previous": self.previous.hex().upper(),
            "representative": encode_address(self.representative),
            "balance": str(self.balance),
            "link": self.link.hex().upper(),
            "signature": self.signature.hex().upper(),
            "work": self.work,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, object]) -> StateBlock:
        """The reverse of `to_json`, strict, for blocks a node shows (`link_as_account` is ignored, the hash is recomputed).

        Raises UsageError on a legacy block, a missing field or any other spelling than the node's own.
        """
        if value.get("type") != "state":
            raise UsageError(f"block type {_shown(value.get('type'))} is not state: legacy blocks are not handled")
        signature = value.get("signature", "")
        if not isinstance(signature, str) or (signature and re.fullmatch(r"[0-9A-Fa-f]{128}", signature, re.ASCII) is None):
            raise UsageError(f"signature {_shown(signature)} is not 128 hex digits")
        work = value.get("work", "")
        return cls(
            account=decode_address(_text(value, "account")),
            previous=parse_hash(value.get("previous")),
            representative=decode_address(_text(value, "representative")),
            balance=parse_raw(value.get("balance")),
            link=parse_hash(value.get("link")),
            signature=bytes.fromhex(signature),
            work=parse_work(work) if work != "" else "",
        )


def _text(value: Mapping[str, object], key: str) -> str:
    field = value.get(key)
    if not isinstance(field, str):
        raise UsageError(f"block field {key} is {_shown(field)}: it must be a string")
    return field


def _shown(text: object) -> str:
    shown = repr(text)
    return shown if len(shown) <= 90 else shown[:87] + "..."
