"""A mint's answers as values, believed only where they can be checked: count, order, amounts, keysets, and the DLEQ proof of each signature. Pure.

Every function raises UntrustedError for an answer that is not what was asked for: the mint lies or is broken, what it did is not known, and the
request must be kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar, cast

from tradeskill.errors import InputError, UntrustedError
from tradeskill_plugins.cashu.nuts import curve, reading
from tradeskill_plugins.cashu.nuts.model import (
    BlindSignature,
    Dleq,
    Keyset,
    KeysetInfo,
    MeltQuote,
    MeltState,
    MintInfo,
    MintQuote,
    MintState,
    Output,
    Proof,
    ProofState,
    SpendState,
)

__all__ = ["change", "info", "keys", "keysets", "melt_quote", "mint_quote", "proofs", "quote_id", "restored", "states"]

MAX_KEYSETS = 1000
T = TypeVar("T")


@contextmanager
def _lies(what: str) -> Iterator[None]:
    """A mint's answer that cannot be read is as bad as one that is wrong."""
    try:
        yield
    except InputError as error:
        raise UntrustedError(f"the mint's answer to {what} cannot be taken: {str(error)[:300]}") from error


def proofs(wanted: Sequence[Output], answer: bytes, known: Mapping[str, Keyset], what: str = "swap") -> tuple[Proof, ...]:
    """NUT-03, 04: what was asked for, signed: one proof an output, in their order."""
    with _lies(what):
        signatures = _signatures(reading.object_of(answer, what).get("signatures"), "signatures")
        if len(signatures) != len(wanted):
            raise UntrustedError(f"the mint answered {what} with {len(signatures)} signatures for {len(wanted)} outputs")
        for output, signature in zip(wanted, signatures, strict=True):
            if signature.amount != output.amount:
                raise UntrustedError(f"the mint signed {signature.amount} for an output of {output.amount} in {what}")
        return tuple(_proof(*pair, known) for pair in zip(wanted, signatures, strict=True))


def change(blanks: Sequence[Output], quote: MeltQuote, known: Mapping[str, Keyset]) -> tuple[Proof, ...]:
    """NUT-08: what a paid melt gave back, on the first of its blank outputs; the mint chose the amounts."""
    with _lies("melt"):
        if len(quote.change) > len(blanks):
            raise UntrustedError(f"the mint gave change on {len(quote.change)} outputs: {len(blanks)} were sent")
        return tuple(_proof(*pair, known) for pair in zip(blanks, quote.change, strict=False))


def restored(wanted: Sequence[Output], answer: bytes, known: Mapping[str, Keyset]) -> dict[int, Proof]:
    """NUT-09: of `wanted`, by their place, those that the mint had signed. Whether they are spent is another question (`states`)."""
    with _lies("restore"):
        body = reading.object_of(answer, "restore")
        messages = reading.rows(body.get("outputs"), "outputs", len(wanted))
        signatures = _signatures(body.get("signatures"), "signatures")
        if len(messages) != len(signatures):
            raise UntrustedError(f"the mint restored {len(signatures)} signatures for {len(messages)} outputs")
        places = {output.point: place for place, output in enumerate(wanted)}
        found: dict[int, Proof] = {}
        for message, signature in zip(messages, signatures, strict=True):
            place = places.get(reading.text(message.get("B_"), "B_"))
            if place is None or place in found:
                raise UntrustedError("the mint restored an output that was not asked for, or one twice")
            found[place] = _proof(wanted[place], signature, known)
        return found


def states(ys: Sequence[str], answer: bytes) -> tuple[ProofState, ...]:
    """NUT-07: the state of each Y that was asked for, in that order."""
    with _lies("checkstate"):
        rows = reading.rows(reading.object_of(answer, "checkstate").get("states"), "states", len(ys))
        if [row.get("Y") for row in rows] != list(ys):
            raise UntrustedError("the mint answered checkstate with other proofs than were asked for")
        return tuple(
            ProofState(y, cast(SpendState, _one_of(row.get("state"), ("UNSPENT", "PENDING", "SPENT"))), reading.text(row.get("witness") or "", "witness"))
            for y, row in zip(ys, rows, strict=True)
        )


def keysets(answer: bytes) -> tuple[KeysetInfo, ...]:
    """NUT-02: the list; entries of generations not spoken here are left out, they may stand beside ours."""
    with _lies("keysets"):
        rows = reading.rows(reading.object_of(answer, "keysets").get("keysets"), "keysets", MAX_KEYSETS)
        found = [_keyset_info(row) for row in rows if _spoken(row.get("id"))]
        if len({each.id for each in found}) != len(found):
            raise UntrustedError("the mint lists one keyset twice")
        return tuple(found)


def keys(answer: bytes, keyset_id: str) -> dict[int, str]:
    """NUT-01: the keys of one keyset, not yet checked against its id (`keysets.keyset` does)."""
    with _lies("keys"):
        rows = reading.rows(reading.object_of(answer, "keys").get("keysets"), "keysets", MAX_KEYSETS)
        found = [row.get("keys") for row in rows if row.get("id") == keyset_id]
        if len(found) != 1 or not isinstance(found[0], dict):
            raise UntrustedError(f"the mint has no keys for keyset {keyset_id}")
        return {_denomination(name): reading.point(key, f"key for {name[:20]}") for name, key in found[0].items()}


def mint_quote(answer: bytes) -> MintQuote:
    """NUT-04, 23. Amount and unit must be in it; mints before 2025 left them out."""
    with _lies("mint quote"):
        body = reading.object_of(answer, "mint quote")
        return MintQuote(
            id=quote_id(body.get("quote")),
            request=reading.text(body.get("request"), "request"),
            amount=reading.amount(body.get("amount"), "amount"),
            unit=reading.text(body.get("unit"), "unit", 64),
            state=cast(MintState, _one_of(body.get("state"), ("UNPAID", "PAID", "ISSUED", "PENDING"))),
            expiry=_optional(body.get("expiry"), lambda value: reading.number(value, "expiry")),
            pubkey=_optional(body.get("pubkey") or None, lambda value: reading.point(value, "pubkey")) or "",
        )


def melt_quote(answer: bytes) -> MeltQuote:
    """NUT-05, 08, 23: a quote, and a melt's answer."""
    with _lies("melt quote"):
        body = reading.object_of(answer, "melt quote")
        return MeltQuote(
            id=quote_id(body.get("quote")),
            request=reading.text(body.get("request"), "request"),
            amount=reading.amount(body.get("amount"), "amount"),
            unit=reading.text(body.get("unit"), "unit", 64),
            fee_reserve=reading.number(body.get("fee_reserve"), "fee_reserve"),
            state=cast(MeltState, _one_of(body.get("state"), ("UNPAID", "PENDING", "PAID"))),
            expiry=_optional(body.get("expiry"), lambda value: reading.number(value, "expiry")),
            preimage=reading.text(body.get("payment_preimage") or "", "payment_preimage"),
            change=_signatures(body.get("change") or [], "change"),
        )


def info(answer: bytes) -> MintInfo:
    """NUT-06: what is claimed; missing parts are read as "not supported"."""
    with _lies("info"):
        body = reading.object_of(answer, "info")
        nuts = body.get("nuts")
        if not isinstance(nuts, dict):
            raise InputError("nuts is no object")
        cache, sockets = nuts.get("19"), nuts.get("17")
        paths = reading.rows(cache.get("cached_endpoints") or [], "cached_endpoints", 100) if isinstance(cache, dict) else []
        ttl = cache.get("ttl") if isinstance(cache, dict) else 0
        offered = reading.rows(sockets.get("supported") or [], "17", 100) if isinstance(sockets, dict) else []
        return MintInfo(
            name=reading.words(body.get("name"), "name"),
            version=reading.words(body.get("version"), "version"),
            pubkey=reading.words(body.get("pubkey"), "pubkey"),
            description=reading.words(body.get("description"), "description"),
            nuts=frozenset(int(name) for name, value in nuts.items() if name.isascii() and name.isdigit() and len(name) < 4 and _claimed(value)),
            cached=frozenset(reading.text(row.get("path"), "path") for row in paths),
            cache_seconds=_optional(ttl, lambda value: reading.number(value, "ttl")),
            subscriptions=frozenset(
                reading.text(kind, "command")
                for row in offered
                if row.get("method") == "bolt11"
                for kind in cast("list[object]", row.get("commands") if isinstance(row.get("commands"), list) else [])
            ),
            motd=reading.words(body.get("motd"), "motd"),
        )


def _proof(output: Output, signature: BlindSignature, known: Mapping[str, Keyset]) -> Proof:
    """Unblinded, once the DLEQ proof shows that the published key for that amount made it."""
    keyset = known.get(output.keyset_id)
    key = keyset.keys.get(signature.amount) if keyset is not None else None
    if signature.keyset_id != output.keyset_id or key is None:
        raise UntrustedError(f"the mint signed {signature.amount} with keyset {signature.keyset_id}: {output.keyset_id} was asked for")
    if signature.dleq is None or not curve.alice_verifies(signature.dleq, output.point, signature.point, key):
        raise UntrustedError(f"the mint cannot show that it signed {signature.amount} with its key of keyset {keyset.id if keyset else ''} (DLEQ)")
    dleq = Dleq(signature.dleq.e, signature.dleq.s, output.r)
    return Proof(signature.amount, output.keyset_id, output.secret, curve.unblind(signature.point, output.r, key), dleq)


def _signatures(value: object, what: str) -> tuple[BlindSignature, ...]:
    return tuple(
        BlindSignature(
            reading.amount(row.get("amount"), "amount"),
            reading.keyset_id(row.get("id"), "id"),
            reading.point(row.get("C_"), "C_"),
            _optional(row.get("dleq"), lambda each: reading.dleq(each, "dleq", with_r=False)),
        )
        for row in reading.rows(value, what, 1000)
    )


def _keyset_info(row: Mapping[str, object]) -> KeysetInfo:
    return KeysetInfo(
        id=reading.keyset_id(row.get("id"), "id"),
        unit=reading.text(row.get("unit"), "unit", 64),
        active=reading.flag(row.get("active"), "active"),
        fee_ppk=_optional(row.get("input_fee_ppk"), lambda value: reading.number(value, "input_fee_ppk")) or 0,
        final_expiry=_optional(row.get("final_expiry"), lambda value: reading.number(value, "final_expiry")),
    )


def _spoken(value: object) -> bool:
    return isinstance(value, str) and ((len(value) == 16 and value.startswith("00")) or (len(value) == 66 and value.startswith("01")))


def _denomination(name: str) -> int:
    if not (name.isascii() and name.isdigit() and len(name) <= 20 and not name.startswith("0")):
        raise InputError(f"{name[:20]!r} is no amount")
    return int(name)


def quote_id(value: object) -> str:
    """A quote's id, once it can stand in a URL's path and lead nowhere else; else InputError."""
    name = reading.text(value, "quote", 256)
    if not name or not all(c.isascii() and (c.isalnum() or c in "-_") for c in name):
        raise InputError("quote is no id of letters, digits, - and _")
    return name


def _claimed(value: object) -> bool:
    return isinstance(value, dict) and (value.get("supported") not in (None, False, []) if "supported" in value else value.get("disabled") is not True)


def _optional(value: object, read: Callable[[object], T]) -> T | None:
    return None if value is None else read(value)


def _one_of(value: object, names: tuple[str, ...]) -> str:
    if value not in names:
        raise InputError(f"state is {str(value)[:40]!r}: {', '.join(names)} are known")
    return str(value)
