"""A stranger's JSON or CBOR, field by field: each reader returns the type it names or raises InputError with the field's name. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tradeskill.errors import InputError
from tradeskill.model import Json
from tradeskill.signing import parse_json
from tradeskill_plugins.cashu.nuts import curve
from tradeskill_plugins.cashu.nuts.keysets import check_id
from tradeskill_plugins.cashu.nuts.model import MAX_AMOUNT, Dleq

__all__ = ["amount", "dleq", "flag", "keyset_id", "number", "object_of", "point", "rows", "secret", "short_keyset_id", "text", "words"]

MAX_TEXT = 4096


def object_of(data: bytes, what: str) -> Mapping[str, Json]:
    """Strict JSON (no duplicate keys, bounded depth) that is an object."""
    value = parse_json(data, what)
    if not isinstance(value, dict):
        raise InputError(f"{what} is {type(value).__name__}, not an object")
    return value


def rows(value: object, what: str, at_most: int) -> Sequence[Mapping[str, Any]]:
    """A list of objects."""
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise InputError(f"{what} is no list of objects")
    if len(value) > at_most:
        raise InputError(f"{what} has {len(value)} entries: {at_most} at most are taken")
    return value


def text(value: object, what: str, at_most: int = MAX_TEXT) -> str:
    if not isinstance(value, str) or len(value) > at_most:
        raise InputError(f"{what} is no text of at most {at_most} characters")
    return value


def words(value: object, what: str, at_most: int = 500) -> str:
    """Text for people, of a stranger: "" where it is missing, long text cut, what cannot be printed made a space."""
    if value is None:
        return ""
    return "".join(c if c.isprintable() else " " for c in text(value, what, 2**20)[:at_most])


def secret(value: object, at_most: int) -> str:
    """A proof's secret. Never in a message."""
    found = text(value, "secret", at_most)
    if not found or any("\ud800" <= c <= "\udfff" for c in found):
        raise InputError("secret is empty or no Unicode text")
    return found


def number(value: object, what: str, least: int = 0, most: int = MAX_AMOUNT) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise InputError(f"{what} is no whole number from {least} to {most}")
    return value


def flag(value: object, what: str) -> bool:
    if not isinstance(value, bool):
        raise InputError(f"{what} is neither true nor false")
    return value


def amount(value: object, what: str) -> int:
    """More than nothing."""
    return number(value, what, 1)


def point(value: object, what: str) -> str:
    return curve.check_point(text(value, what), what)


def keyset_id(value: object, what: str) -> str:
    return check_id(text(value, what))


def short_keyset_id(value: str) -> str:
    """A full id, or the first 16 hex of one of generation 1."""
    if len(value) == 16 and value.startswith("01"):
        return value
    return check_id(value)


def dleq(value: object, what: str, with_r: bool) -> Dleq:
    """NUT-12's {e, s} or, where `with_r`, {e, s, r}."""
    if not isinstance(value, dict):
        raise InputError(f"{what} is no object")
    e, s = (curve.check_scalar(text(value.get(name), f"{what} {name}"), f"{what} {name}") for name in ("e", "s"))
    return Dleq(e, s, curve.check_scalar(text(value.get("r"), f"{what} r"), f"{what} r") if with_r else "")
