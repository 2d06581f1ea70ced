"""Payment requests (NUT-18): what a receiver asks for, as text that other wallets read too. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tradeskill.errors import InputError
from tradeskill_plugins.cashu.nuts import armour, cbor, reading
from tradeskill_plugins.cashu.nuts.errors import TokenError
from tradeskill_plugins.cashu.nuts.mint_url import mint_url
from tradeskill_plugins.cashu.nuts.model import PaymentRequest, Transport

__all__ = ["MAX_REQUEST", "decode", "encode"]

MAX_REQUEST: Final = 16 * 1024  # characters
Tags = tuple[tuple[str, ...], ...]


def encode(request: PaymentRequest) -> str:
    """creqA…; fields that are not set are left out."""
    body: dict[str, cbor.Cbor] = {}
    body |= {"i": request.id} if request.id else {}
    body |= {"a": request.amount} if request.amount is not None else {}
    body |= {"u": request.unit} if request.unit else {}
    body |= {"s": request.single_use} if request.single_use is not None else {}
    body |= {"m": list(request.mints)} if request.mints else {}
    body |= {"d": request.description} if request.description else {}
    body |= {"t": [_transport(each) for each in request.transports]} if request.transports else {}
    if request.lock is not None:
        kind, data, tags = request.lock
        body["nut10"] = {"k": kind, "d": data, **({"t": _lists(tags)} if tags else {})}
    return "creqA" + armour.wrap(cbor.dumps(body))


def decode(text: str) -> PaymentRequest:
    """The request in a stranger's text. Mints are in their canonical form. TokenError for what is none, for fields of a wrong type and for huge ones."""
    if len(text) > MAX_REQUEST:
        raise TokenError(f"a payment request of {len(text)} characters: {MAX_REQUEST} at most are taken")
    try:
        if not text.startswith("creqA"):
            raise InputError("it does not begin with creqA")
        body = cbor.loads(armour.unwrap(text[5:], both=True))
        if not isinstance(body, dict):
            raise InputError("it holds no map")
        return _read({name: value for name, value in body.items() if value is not None})
    except InputError as error:
        raise TokenError(f"this is no payment request: {str(error)[:300]}") from error


def _read(body: Mapping[str, Any]) -> PaymentRequest:
    mints = body.get("m", [])
    if not isinstance(mints, list) or len(mints) > 100:
        raise InputError("m is no list of at most 100 mints")
    amount = reading.amount(body["a"], "a") if "a" in body else None
    unit = reading.text(body.get("u", ""), "u", 64)
    if amount is not None and not unit:
        raise InputError("it has an amount without a unit")
    return PaymentRequest(
        id=reading.text(body.get("i", ""), "i", 256),
        amount=amount,
        unit=unit,
        single_use=reading.flag(body["s"], "s") if "s" in body else None,
        mints=tuple(mint_url(reading.text(each, "m")) for each in mints),
        description=reading.words(body.get("d"), "d"),
        transports=tuple(_read_transport(row) for row in reading.rows(body.get("t", []), "t", 20)),
        lock=_read_lock(body["nut10"]) if "nut10" in body else None,
    )


def _read_transport(row: Mapping[str, Any]) -> Transport:
    return Transport(reading.text(row.get("t"), "transport", 64), reading.text(row.get("a"), "target"), _read_tags(row.get("g")))


def _read_lock(row: object) -> tuple[str, str, Tags]:
    if not isinstance(row, dict):
        raise InputError("nut10 is no map")
    return reading.text(row.get("k"), "k", 64), reading.text(row.get("d"), "d"), _read_tags(row.get("t"))


def _read_tags(value: object) -> Tags:
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > 32 or not all(isinstance(tag, list) and 1 <= len(tag) <= 32 for tag in value):
        raise InputError("tags are no short list of short lists")
    return tuple(tuple(reading.text(part, "tag", 512) for part in tag) for tag in value)


def _transport(transport: Transport) -> cbor.Cbor:
    body: dict[str, cbor.Cbor] = {"t": transport.kind, "a": transport.target}
    return body | ({"g": _lists(transport.tags)} if transport.tags else {})


def _lists(tags: Tags) -> list[cbor.Cbor]:
    return [list(tag) for tag in tags]
