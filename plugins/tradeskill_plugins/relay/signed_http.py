"""Signed requests: the canonical string, the four headers, how they are made and judged. Pure; server and client stand on it.

Source: the relay protocol `/v1`, docs/relay.md. A signature covers method, raw target, time, nonce and body.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from nacl.exceptions import CryptoError
from nacl.signing import SigningKey, VerifyKey

__all__ = ["HEADERS", "MAX_SKEW", "Claimed", "WrongSignature", "canonical_string", "claimed", "sign_request", "verify"]

HEADERS: Final = ("x-molt-pubkey", "x-molt-timestamp", "x-molt-nonce", "x-molt-signature")
MAX_SKEW: Final = 60  # seconds, either way
_KEY = re.compile(rb"[0-9a-f]{64}")
_NONCE = re.compile(rb"[0-9a-f]{32,64}")
_SIGNATURE = re.compile(rb"[0-9a-f]{128}")
_TIME = re.compile(rb"[0-9]{1,12}")


class WrongSignature(Exception):  # noqa: N818  # it names what is wrong with a request, and is an answer more than a fault
    """The request is not signed as it must be. `str()` says what is wrong, without the values."""


@dataclass(frozen=True)
class Claimed:
    """What the four headers say, well-formed and not yet verified."""

    key: str
    timestamp: int
    nonce: str
    signature: str


def canonical_string(method: str, target: bytes, timestamp: bytes, nonce: bytes, body: bytes) -> bytes:
    """The signed bytes. `target`: exactly as on the wire, with the query and even a bare trailing `?`."""
    return b"\n".join((method.upper().encode(), target, timestamp, nonce, hashlib.sha256(body).hexdigest().encode()))


def sign_request(seed: bytes, method: str, target: bytes, body: bytes, *, timestamp: int, nonce: str) -> dict[str, str]:
    """The four headers for one request, by the ed25519 key of `seed`. A nonce (32 to 64 lowercase hex) is used once."""
    signer = SigningKey(seed)
    signed = signer.sign(canonical_string(method, target, str(timestamp).encode(), nonce.encode(), body)).signature.hex()
    return dict(zip(HEADERS, (signer.verify_key.encode().hex(), str(timestamp), nonce, signed), strict=True))


def claimed(headers: Mapping[bytes, bytes]) -> Claimed:
    """The headers' claim, checked in the protocol's order: key · time and nonce there · signature · nonce · time. WrongSignature otherwise.

    `headers`: lowercase names; a header that was sent twice must not be in there at all.
    """
    key, timestamp, nonce, signature = (headers.get(name.encode(), b"") for name in HEADERS)
    if not _KEY.fullmatch(key):
        raise WrongSignature("X-Molt-PubKey must be 64 lowercase hex digits, once")
    if not timestamp or not nonce:
        raise WrongSignature("X-Molt-Timestamp and X-Molt-Nonce must be sent, once each")
    if not _SIGNATURE.fullmatch(signature):
        raise WrongSignature("X-Molt-Signature must be 128 lowercase hex digits, once")
    if not _NONCE.fullmatch(nonce):
        raise WrongSignature("X-Molt-Nonce must be 32 to 64 lowercase hex digits")
    if not _TIME.fullmatch(timestamp):
        raise WrongSignature("X-Molt-Timestamp must be whole unix seconds")
    return Claimed(key.decode(), int(timestamp), nonce.decode(), signature.decode())


def verify(claim: Claimed, method: str, target: bytes, timestamp: bytes, body: bytes) -> None:
    """WrongSignature unless the key signed exactly this request. `timestamp`: the header's own bytes. Keys of small order never verify."""
    try:
        _key(claim.key).verify(canonical_string(method, target, timestamp, claim.nonce.encode(), body), bytes.fromhex(claim.signature))
    except (CryptoError, ValueError) as error:
        raise WrongSignature("the signature does not fit the request: sign METHOD, raw target, time, nonce and sha256 of the raw body") from error


@lru_cache(maxsize=4096)
def _key(key: str) -> VerifyKey:
    return VerifyKey(bytes.fromhex(key))
