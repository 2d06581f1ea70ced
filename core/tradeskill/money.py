"""Money: a bounded int and its unit; decimal strings at the edges, never a float."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from tradeskill.errors import AmountError

__all__ = ["MAX_RAW", "UNITS", "Amount", "format_amount", "format_amounts", "in_unit", "parse_amount", "parse_amounts", "parse_raw", "total"]

MAX_RAW = 2**128 - 1
_RAW = re.compile(r"(?:0|[1-9][0-9]{0,38})", re.ASCII)
_DECIMAL = re.compile(r"(0|[1-9][0-9]{0,38})(?:\.([0-9]{1,38}))?", re.ASCII)

# unit a person writes -> (unit the journal keeps, decimal places)
UNITS: dict[str, tuple[str, int]] = {"XNO": ("raw", 30), "raw": ("raw", 0), "sat": ("sat", 0), "msat": ("msat", 0)}


@dataclass(frozen=True, order=False)
class Amount:
    """`value` smallest units of `unit` (`raw`, `sat`, `msat`); 0 <= value <= 2^128 - 1."""

    value: int
    unit: str

    def __post_init__(self) -> None:
        if type(self.value) is not int or not 0 <= self.value <= MAX_RAW:
            raise AmountError(f"amount {self.value!r} is out of range: 0 to 2^128 - 1")

    def __str__(self) -> str:
        return format_amount(self)


def parse_raw(text: object) -> int:
    """Canonical digits (`0` or no leading zero, at most 39) to an int up to 2^128 - 1. Raises AmountError on anything else."""
    if not isinstance(text, str) or _RAW.fullmatch(text) is None:
        raise AmountError(f"amount {_shown(text)} is not plain digits: write it like 1000")
    value = int(text)
    if value > MAX_RAW:
        raise AmountError(f"amount {text} is above 2^128 - 1")
    return value


def parse_amount(text: object) -> Amount:
    """`"0.001 XNO"`, `"5 raw"`, `"21 sat"` to an Amount. No sign, exponent, blank edge, or unit left out."""
    if not isinstance(text, str) or text.count(" ") != 1:
        raise AmountError(f'amount {_shown(text)} is not "NUMBER UNIT": write it like "0.001 XNO" or "5 raw"')
    number, unit = text.split(" ")
    if unit not in UNITS:
        raise AmountError(f"amount {_shown(text)} has an unknown unit: use one of {', '.join(UNITS)}")
    base, places = UNITS[unit]
    match = _DECIMAL.fullmatch(number)
    if match is None:
        raise AmountError(f'amount {_shown(text)} is not a plain decimal: write it like "0.001 {unit}"')
    whole, fraction = match.group(1), match.group(2) or ""
    if len(fraction) > places:
        raise AmountError(f"amount {_shown(text)} has more than {places} decimal places")
    value = int(whole) * 10**places + int(fraction.ljust(places, "0") or "0")
    if value > MAX_RAW:
        raise AmountError(f"amount {_shown(text)} is above 2^128 - 1 raw")
    return Amount(value, base)


def parse_amounts(text: object) -> tuple[Amount, ...]:
    """`"0.001 XNO or 21 sat"`: amounts in different units, as `format_amounts` writes them. AmountError as `parse_amount`, and where a unit comes twice."""
    amounts = tuple(parse_amount(part) for part in text.split(" or ")) if isinstance(text, str) else (parse_amount(text),)
    if len({amount.unit for amount in amounts}) != len(amounts):
        raise AmountError(f"amount {_shown(text)} names a unit twice: write each once")
    return amounts


def format_amount(amount: Amount) -> str:
    """For people: raw as XNO, other units as they are. `parse_amount` reads it back to the same amount."""
    if amount.unit != "raw":
        return f"{amount.value} {amount.unit}"
    whole, fraction = divmod(amount.value, 10**30)
    tail = f"{fraction:030d}".rstrip("0")
    return f"{whole}.{tail} XNO" if tail else f"{whole} XNO"


def in_unit(amounts: Iterable[Amount], unit: str) -> Amount | None:
    """The first of `amounts` that is in `unit`."""
    return next((amount for amount in amounts if amount.unit == unit), None)


def format_amounts(amounts: Iterable[Amount]) -> str:
    """For people: `0.001 XNO or 21 sat`."""
    return " or ".join(format_amount(amount) for amount in amounts)


def total(values: list[int]) -> int:
    """Exact sum; raises AmountError above 2^128 - 1 instead of wrapping or going to float."""
    result = sum(values)
    if result > MAX_RAW:
        raise AmountError("sum is above 2^128 - 1")
    return result


def _shown(text: object) -> str:
    shown = repr(text)
    return shown if len(shown) <= 60 else shown[:57] + "..."
