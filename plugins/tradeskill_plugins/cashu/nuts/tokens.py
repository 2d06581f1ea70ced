"""Tokens as they travel, V3 and V4 (NUT-00): written, and read as a stranger's bytes: bounded, strict, each field by its type. Pure.

Reading believes nothing about the mint: `resolve` gives keyset ids their full form against the mint's own list, `verify` checks every proof offline.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final, Literal, TypeVar

from tradeskill.errors import InputError, UntrustedError
from tradeskill.model import Json
from tradeskill_plugins.cashu.nuts import armour, cbor, curve, reading
from tradeskill_plugins.cashu.nuts.errors import TokenError
from tradeskill_plugins.cashu.nuts.keysets import find, short_id
from tradeskill_plugins.cashu.nuts.mint_url import mint_url
from tradeskill_plugins.cashu.nuts.model import MAX_AMOUNT, Dleq, Keyset, KeysetInfo, Proof, Token
from tradeskill_plugins.cashu.nuts.secrets import MAX_SECRET

__all__ = ["MAX_PROOFS", "MAX_TOKEN", "decode", "encode", "resolve", "verify"]

MAX_TOKEN: Final = 256 * 1024  # characters; a proof with its lock and DLEQ takes about 600
MAX_PROOFS: Final = 256
MAX_WITNESS: Final = 4096
MAX_MEMO: Final = 1000
K = TypeVar("K", Keyset, KeysetInfo)


def encode(token: Token, version: Literal[3, 4] = 4) -> str:
    """`token` as text. V4 names keysets of generation 1 by their short ids, and groups proofs by keyset, in the order of the first of each."""
    if version == 3:
        entry: dict[str, Json] = {"mint": token.mint, "proofs": [_v3_proof(proof) for proof in token.proofs]}
        body: dict[str, Json] = {"token": [entry], "unit": token.unit, **({"memo": token.memo} if token.memo else {})}
        return "cashuA" + armour.wrap(json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode())
    groups: dict[str, list[cbor.Cbor]] = {}
    for proof in token.proofs:
        groups.setdefault(short_id(proof.keyset_id), []).append(_v4_proof(proof))
    packed: dict[str, cbor.Cbor] = {"t": [{"i": bytes.fromhex(each), "p": proofs} for each, proofs in groups.items()]}
    packed |= {"d": token.memo} if token.memo else {}
    return "cashuB" + armour.wrap(cbor.dumps({**packed, "m": token.mint, "u": token.unit}))


def decode(text: str, max_length: int = MAX_TOKEN, max_proofs: int = MAX_PROOFS) -> Token:
    """The token in a stranger's text; one mint, one unit, every proof different. TokenError for anything else, in time linear in `max_length`."""
    if len(text) > max_length:
        raise TokenError(f"a token of {len(text)} characters: {max_length} at most are taken")
    bare = text.removeprefix("cashu:")
    try:
        if bare.startswith("cashuA"):
            token = _v3(armour.unwrap(bare[6:]), max_proofs)
        elif bare.startswith("cashuB"):
            token = _v4(armour.unwrap(bare[6:]), max_proofs)
        else:
            raise InputError("it begins neither with cashuA nor with cashuB")
        _check_proofs(token.proofs, max_proofs)
    except InputError as error:
        raise TokenError(f"this is no token that can be taken: {str(error)[:300]}") from error
    return token


def resolve(token: Token, known: Iterable[K]) -> Token:
    """The token with full keyset ids, all of this mint and of the token's unit. TokenError for an unknown, ambiguous or foreign keyset."""
    listed = tuple(known)
    resolved = []
    for proof in token.proofs:
        keyset = find(proof.keyset_id, listed)
        if keyset.unit != token.unit:
            raise TokenError(f"a proof is of keyset {keyset.id} in {keyset.unit}, the token says {token.unit}")
        resolved.append(replace(proof, keyset_id=keyset.id))
    return replace(token, proofs=tuple(resolved))


def verify(proofs: Sequence[Proof], known: Mapping[str, Keyset]) -> None:
    """Offline: each proof has an amount its keyset knows and a DLEQ proof that the mint's key signed it. UntrustedError otherwise.

    It does not say that they are unspent: only a swap does.
    """
    for proof in proofs:
        keyset = known.get(proof.keyset_id)
        key = keyset.keys.get(proof.amount) if keyset is not None else None
        if key is None:
            raise UntrustedError(f"keyset {proof.keyset_id} of this mint has no key for {proof.amount}")
        if proof.dleq is None or not proof.dleq.r:
            raise UntrustedError("a proof comes without its DLEQ proof: it cannot be checked offline")
        try:
            genuine = curve.carol_verifies(proof.dleq, proof.secret, proof.signature, key)
        except InputError as error:
            raise UntrustedError(f"a proof of {proof.amount} is malformed: {error}") from error
        if not genuine:
            raise UntrustedError(f"a proof of {proof.amount} was not signed by keyset {proof.keyset_id} (DLEQ)")


def _check_proofs(proofs: Sequence[Proof], most: int) -> None:
    if not 1 <= len(proofs) <= most:
        raise InputError(f"it has {len(proofs)} proofs: 1 to {most} are taken")
    if len({proof.secret for proof in proofs}) != len(proofs):
        raise InputError("one proof stands in it twice")
    if sum(proof.amount for proof in proofs) > MAX_AMOUNT:
        raise InputError("its amounts together are out of range")


def _v3(data: bytes, most: int) -> Token:
    body = reading.object_of(data, "token")
    entries = reading.rows(body.get("token"), "token", most)
    mints = {mint_url(reading.text(entry.get("mint"), "mint")) for entry in entries}
    if len(mints) != 1:
        raise InputError(f"it is of {len(mints)} mints: one is taken")
    rows = [row for entry in entries for row in reading.rows(entry.get("proofs"), "proofs", most)]
    return Token(
        mint=mints.pop(),
        unit=_unit(body.get("unit", "sat")),  # optional in V3, from when there was only one
        proofs=tuple(_v3_read(row) for row in rows),
        memo=_memo(body.get("memo")),
    )


def _v3_read(row: Mapping[str, Json]) -> Proof:
    dleq = row.get("dleq")
    return Proof(
        amount=reading.amount(row.get("amount"), "amount"),
        keyset_id=reading.keyset_id(row.get("id"), "id"),
        secret=reading.secret(row.get("secret"), MAX_SECRET),
        signature=reading.point(row.get("C"), "C"),
        dleq=None if dleq is None else reading.dleq(dleq, "dleq", with_r=True),
        witness=_witness(row.get("witness")),
    )


def _v3_proof(proof: Proof) -> dict[str, Json]:
    body: dict[str, Json] = {"amount": proof.amount, "id": proof.keyset_id, "secret": proof.secret, "C": proof.signature}
    body |= {"dleq": {"e": proof.dleq.e, "s": proof.dleq.s, "r": proof.dleq.r}} if proof.dleq is not None else {}
    return body | ({"witness": proof.witness} if proof.witness else {})


def _v4(data: bytes, most: int) -> Token:
    body = cbor.loads(data)
    if not isinstance(body, dict):
        raise InputError("it holds no map")
    proofs = []
    for group in reading.rows(body.get("t"), "t", most):
        keyset_id = reading.short_keyset_id(_hex(group.get("i"), "i"))
        proofs += [_v4_read(row, keyset_id) for row in reading.rows(group.get("p"), "p", most)]
    mint, unit = mint_url(reading.text(body.get("m"), "m")), _unit(body.get("u"))
    return Token(mint, unit, tuple(proofs), _memo(body.get("d")))


def _v4_read(row: Mapping[str, object], keyset_id: str) -> Proof:
    dleq = row.get("d")
    return Proof(
        amount=reading.amount(row.get("a"), "a"),
        keyset_id=keyset_id,
        secret=reading.secret(row.get("s"), MAX_SECRET),
        signature=reading.point(_hex(row.get("c"), "c"), "c"),
        dleq=None if dleq is None else reading.dleq({name: _hex(value, name) for name, value in _map(dleq).items()}, "d", with_r=True),
        witness=_witness(row.get("w")),
    )


def _v4_proof(proof: Proof) -> dict[str, cbor.Cbor]:
    body: dict[str, cbor.Cbor] = {"a": proof.amount, "s": proof.secret, "c": bytes.fromhex(proof.signature)}
    body |= {"d": _v4_dleq(proof.dleq)} if proof.dleq is not None else {}
    return body | ({"w": proof.witness} if proof.witness else {})


def _v4_dleq(dleq: Dleq) -> dict[str, cbor.Cbor]:
    return {"e": bytes.fromhex(dleq.e), "s": bytes.fromhex(dleq.s), "r": bytes.fromhex(dleq.r)}


def _unit(value: object) -> str:
    unit = reading.text(value, "unit", 64)
    if not unit or not unit.isascii() or not unit.isalnum():
        raise InputError("unit is no name of letters and digits")
    return unit


def _memo(value: object) -> str:
    return reading.words(value, "memo", MAX_MEMO)


def _witness(value: object) -> str:
    return "" if value is None else reading.text(value, "witness", MAX_WITNESS)


def _hex(value: object, what: str) -> str:
    if not isinstance(value, bytes):
        raise InputError(f"{what} is no byte string")
    return value.hex()


def _map(value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise InputError("d is no map")
    return value
