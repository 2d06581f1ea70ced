"""How the node reads and writes JSON and numbers: every value a string, lenient hex, empty lists as "". Pure."""

from __future__ import annotations

import json
import re
from typing import Final

from tradeskill.errors import UsageError
from tradeskill.money import MAX_RAW
from tradeskill_wallet.primitives import decode_address

__all__ = [
    "MAX_NESTING",
    "BadJSON",
    "Tree",
    "decode_account",
    "decode_amount",
    "decode_bool",
    "decode_hash",
    "decode_hex",
    "decode_u64",
    "decode_unsigned",
    "dump",
    "nests_too_deep",
    "parse",
    "text_of",
]

# An answer: strings, lists and maps of them. Numbers and booleans are written as strings, as the node does.
Tree = str | list["Tree"] | dict[str, "Tree"]

MAX_NESTING: Final = 20

_HEX: Final = re.compile(r"\s*[+]?(?:0[xX])?([0-9A-Fa-f]+)", re.ASCII)
_DECIMAL: Final = re.compile(r"\s*[+]?([0-9]+)", re.ASCII)
_SIGNED: Final = re.compile(r"\s*([+-]?)([0-9]+)", re.ASCII)
_SIGNED_HEX: Final = re.compile(r"\s*([+-]?)(?:0[xX])?([0-9A-Fa-f]+)", re.ASCII)
_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "/": "\\/", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_UNSAFE: Final = re.compile(r'["\\/\x00-\x1f]')
_U64: Final = 1 << 64


class BadJSON(ValueError):  # noqa: N818 -- named for what it is: the node has one answer for it, "Unable to parse JSON"
    """Not JSON, or a required field is missing."""


def nests_too_deep(body: str) -> bool:
    """The node's guard, before parsing: it counts opening brackets of both kinds, wherever they stand."""
    return body.count("[") + body.count("{") > MAX_NESTING


def _first_wins(pairs: list[tuple[str, Tree]]) -> dict[str, Tree]:
    return {key: _scalar(value) for key, value in reversed(pairs)}


def _scalar(value: object) -> Tree:
    if value is True:
        return "true"
    if value is False:
        return "false"
    if value is None:
        return "null"
    if isinstance(value, list):
        return [_scalar(item) for item in value]
    return value  # type: ignore[return-value] # a string, or a map that was already converted


def _no_constant(text: str) -> str:
    raise BadJSON(text)


def parse(body: str) -> Tree:
    """JSON text to strings, lists and maps; numbers keep their spelling, of a repeated key the first counts. Raises BadJSON."""
    try:
        return _scalar(json.loads(body, object_pairs_hook=_first_wins, parse_int=str, parse_float=str, parse_constant=_no_constant))
    except (ValueError, RecursionError) as error:
        raise BadJSON(str(error)) from error


def text_of(value: Tree) -> str:
    """What the node sees when it asks a list or a map for its text: nothing."""
    return value if isinstance(value, str) else ""


def _quoted(text: str) -> str:
    if _UNSAFE.search(text) is None:
        return f'"{text}"'
    return '"' + _UNSAFE.sub(lambda match: _ESCAPES.get(match.group(), f"\\u{ord(match.group()):04X}"), text) + '"'


def _write(value: Tree, indent: str, out: list[str]) -> None:
    if isinstance(value, str):
        out.append(_quoted(value))
    elif not value:
        out.append('""')
    elif isinstance(value, dict):
        inner = indent + "    "
        separator = "{\n"
        for key, item in value.items():
            out.append(f"{separator}{inner}{_quoted(key)}: ")
            _write(item, inner, out)
            separator = ",\n"
        out.append(f"\n{indent}}}")
    else:
        inner = indent + "    "
        separator = "[\n"
        for item in value:
            out.append(separator + inner)
            _write(item, inner, out)
            separator = ",\n"
        out.append(f"\n{indent}]")


def dump(value: Tree) -> str:
    """The node's JSON text: four blanks of indent, a final newline, `""` for whatever is empty inside."""
    out: list[str] = []
    _write(value, "", out)
    out.append("\n")
    return "".join(out)


def decode_bool(text: str | None) -> bool | None:
    """`true`, `false`, `1`, `0`; anything else is as if it were not given."""
    return {"true": True, "1": True, "false": False, "0": False}.get(text) if text is not None else None


def decode_hex(text: str, size: int) -> bytes | None:
    """Up to `size` bytes of hex, short ones padded with zeros on the left; None when the node would refuse it."""
    if not text or len(text) > 2 * size:
        return None
    if len(text) == 2 * size:
        try:
            return bytes.fromhex(text) if text.isalnum() else None
        except ValueError:
            return None
    match = _HEX.fullmatch(text)
    return int(match.group(1), 16).to_bytes(size, "big") if match else None


def decode_hash(text: str) -> bytes | None:
    """A block hash, key or link as the node reads one."""
    return decode_hex(text, 32)


def decode_u64(text: str) -> int | None:
    """Work or a difficulty: at most 16 characters of hex."""
    match = _SIGNED_HEX.fullmatch(text) if 0 < len(text) <= 16 else None
    if match is None:
        return None
    value = int(match.group(2), 16)
    return -value % _U64 if match.group(1) == "-" else value


def decode_amount(text: str) -> int | None:
    """Raw in decimal: no leading zero, at most 39 characters and 2^128 - 1; a leading blank passes, as at the node."""
    if len(text) > 39 or (len(text) > 1 and text[0] == "0"):
        return None
    if not text:
        return 0
    match = _DECIMAL.fullmatch(text)
    if match is None or (len(match.group(1)) > 1 and match.group(1)[0] == "0"):
        return None
    value = int(match.group(1))
    return value if value <= MAX_RAW else None


def decode_unsigned(text: str) -> int | None:
    """A count or an offset: a minus sign wraps around, so `-1` means all."""
    match = _SIGNED.fullmatch(text)
    if match is None or len(match.group(2)) > 20 or int(match.group(2)) >= _U64:
        return None
    value = int(match.group(2))
    return -value % _U64 if match.group(1) == "-" else value


def decode_account(text: str) -> bytes | None:
    """Public key of an address in any spelling the node accepts (`nano_`, `xrb_`, and both with a hyphen)."""
    try:
        return decode_address(text.replace("-", "_", 1))
    except UsageError:
        return None
