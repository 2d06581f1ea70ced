"""A JSON object, strictly read, with the exact text of each of its values: what was signed or sent must come back as it came."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Final

from tradeskill.errors import InputError
from tradeskill.model import Json
from tradeskill.signing import parse_json

__all__ = ["Member", "NotAnObjectError", "members"]

_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER: Final = json.JSONDecoder()


class NotAnObjectError(InputError):
    """Good JSON, but no object."""

    code = "usage.input.object"


@dataclass(frozen=True)
class Member:
    """One value of an object. `text`: its own characters, as they stood."""

    value: Json
    text: str


def members(data: bytes, what: str = "body") -> dict[str, Member]:
    """The members of the one JSON object in `data`, in order. InputError on what `parse_json` refuses and on NUL, NotAnObjectError on other values."""
    value = parse_json(data, what)
    if not isinstance(value, dict):
        raise NotAnObjectError(f"{what} must be a JSON object")
    text = data.decode()
    if "\\u0000" in text and _holds_nul(value):
        raise InputError(f"{what} holds a NUL character")
    if not value:
        return {}
    # the text is known to be one strict object, so positions are all that is looked for
    found: dict[str, Member] = {}
    at = _skip(text, _skip(text, 0) + 1)
    while True:
        key, at = _DECODER.raw_decode(text, at)
        start = _skip(text, _skip(text, at) + 1)
        end = _end(text, start)
        found[key] = Member(value[key], text[start:end])
        at = _skip(text, end)
        if text[at] == "}":
            return found
        at = _skip(text, at + 1)


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match is not None
    return match.end()


def _end(text: str, start: int) -> int:
    return _DECODER.raw_decode(text, start)[1]


def _holds_nul(value: Json) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, list):
        return any(_holds_nul(item) for item in value)
    if isinstance(value, dict):
        return any("\0" in key or _holds_nul(item) for key, item in value.items())
    return False
