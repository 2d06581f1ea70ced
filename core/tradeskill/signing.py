"""Signed bytes: `tradeskill/<kind>/1\\n` + RFC 8785 JSON, ed25519. Small-order keys are refused (PyNaCl does so). See docs/protocol.md."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Final, cast

import rfc8785
from nacl.exceptions import CryptoError
from nacl.signing import SigningKey, VerifyKey

from tradeskill.errors import InputError, UntrustedError
from tradeskill.model import Json, SignedDocument

__all__ = [
    "KINDS",
    "Identity",
    "canonical",
    "digest",
    "document_from_json",
    "document_hash",
    "document_to_json",
    "parse_json",
    "value_hash",
    "verify_document",
    "verify_signed_bytes",
]

KINDS: Final = ("offer", "request", "quote", "receipt", "countersign")
MAX_DEPTH: Final = 64
_KEY = re.compile(r"[0-9a-f]{64}", re.ASCII)
_SIGNATURE = re.compile(r"[0-9a-f]{128}", re.ASCII)
_MARK: Final = b"tradeskill/"


def canonical(value: Json | Mapping[str, Json]) -> bytes:
    """RFC 8785 bytes of a JSON value. InputError on NaN, lone surrogates, integers of 2^53 and more (write them as strings)."""
    try:
        return rfc8785.dumps(cast(Any, value))
    except (rfc8785.CanonicalizationError, UnicodeEncodeError, RecursionError) as error:
        raise InputError(f"value has no canonical JSON form: {error}; write large integers as strings") from error


def digest(data: bytes) -> str:
    """sha256, 64 lowercase hex."""
    return hashlib.sha256(data).hexdigest()


def value_hash(value: Json | Mapping[str, Json]) -> str:
    """sha256 of the canonical JSON of `value`."""
    return digest(canonical(value))


def parse_json(text: str | bytes, what: str = "JSON") -> Json:
    """Strict JSON: duplicate keys, NaN, infinities, lone surrogates and nesting over 64 are refused with InputError."""
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        value: Json = json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except RecursionError as error:
        raise InputError(f"{what} is nested too deeply: {MAX_DEPTH} levels at most") from error
    except ValueError as error:
        raise InputError(f"{what} is not valid JSON: {error}") from error
    _check(value, what, 0)
    return value


def _no_duplicates(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"duplicate key {next(n for n in names if names.count(n) > 1)!r}")
    return result


def _no_constant(name: str) -> Json:
    raise ValueError(f"{name} is not JSON")


def _check(value: Json, what: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise InputError(f"{what} is nested too deeply: {MAX_DEPTH} levels at most")
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        raise InputError(f"{what} holds a number outside the range of a double")
    if isinstance(value, str) and not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
        raise InputError(f"{what} holds a lone surrogate")
    if isinstance(value, list):
        for item in value:
            _check(item, what, depth + 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            _check(key, what, depth + 1)
            _check(item, what, depth + 1)


class Identity:
    """An ed25519 identity key; never a wallet key. `key` is the public half, 64 hex."""

    def __init__(self, seed: bytes) -> None:
        self._signer = SigningKey(seed)
        self.key: str = self._signer.verify_key.encode().hex()

    def __repr__(self) -> str:
        return f"Identity({self.key})"

    def sign(self, kind: str, body: Mapping[str, Json]) -> SignedDocument:
        return SignedDocument(kind, dict(body), self.key, self._signer.sign(_message(kind, body)).signature.hex())

    def sign_bytes(self, message: bytes) -> str:
        """128 hex over bytes that are no document, such as a request's canonical string. InputError where they could pass for a document's."""
        if message.startswith(_MARK):
            raise InputError("these bytes begin as a signed document does: only `sign` makes those")
        return self._signer.sign(message).signature.hex()


def verify_signed_bytes(message: bytes, key: str, signature: str, what: str) -> None:
    """UntrustedError unless `key` signed these bytes with `Identity.sign_bytes`; `what` is their name in the message."""
    if message.startswith(_MARK) or _KEY.fullmatch(key) is None or _SIGNATURE.fullmatch(signature) is None:
        raise UntrustedError(f"{what} has a malformed key or signature")
    try:
        VerifyKey(bytes.fromhex(key)).verify(message, bytes.fromhex(signature))
    except (CryptoError, ValueError) as error:
        raise UntrustedError(f"{what}: the signature by {key} does not verify") from error


def verify_document(document: SignedDocument, kind: str, key: str | None = None) -> Mapping[str, Json]:
    """The body, once its signature, its kind and (when given) its signer are right; UntrustedError otherwise."""
    if document.kind != kind or kind not in KINDS:
        raise UntrustedError(f"a signed {kind} was expected, this is a {document.kind!r}")
    if _KEY.fullmatch(document.key) is None or _SIGNATURE.fullmatch(document.signature) is None:
        raise UntrustedError(f"{kind} has a malformed key or signature")
    if key is not None and document.key != key:
        raise UntrustedError(f"{kind} is signed by {document.key}, not by {key}")
    try:
        VerifyKey(bytes.fromhex(document.key)).verify(_message(kind, document.body), bytes.fromhex(document.signature))
    except (CryptoError, ValueError, InputError) as error:
        raise UntrustedError(f"{kind} signature by {document.key} does not verify") from error
    return document.body


def document_hash(document: SignedDocument) -> str:
    """Names a document by what was signed (never by its signature): sha256 of the signed bytes and the signer's key."""
    return digest(_message(document.kind, document.body) + b"\n" + document.key.encode())


def document_to_json(document: SignedDocument) -> dict[str, Json]:
    return {"kind": document.kind, "body": dict(document.body), "key": document.key, "signature": document.signature}


def document_from_json(value: Json) -> SignedDocument:
    """Shape only, no signature check. UntrustedError on any other shape."""
    if isinstance(value, dict) and set(value) == {"kind", "body", "key", "signature"}:
        kind, body, key, signature = value["kind"], value["body"], value["key"], value["signature"]
        if isinstance(kind, str) and isinstance(body, dict) and isinstance(key, str) and isinstance(signature, str):
            return SignedDocument(kind, body, key, signature)
    raise UntrustedError("not a signed document: expected an object with kind, body, key and signature")


def _message(kind: str, body: Mapping[str, Json]) -> bytes:
    return _MARK + f"{kind}/1\n".encode() + canonical(body)
