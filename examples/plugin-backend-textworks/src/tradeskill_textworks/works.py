"""What a job may ask for: text in, text out. Pure functions, and the only thing of this backend that a job chooses."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Final

__all__ = ["FOREVER", "WORKS", "BadTextError", "done"]


class BadTextError(ValueError):
    """The input is not what this work takes."""


def _text(data: bytes) -> str:
    """The job's input: a JSON text, or an object with `text`."""
    try:
        value = json.loads(data)
    except ValueError as error:
        raise BadTextError("the input is not JSON") from error
    text = value.get("text") if isinstance(value, dict) else value
    if not isinstance(text, str):
        raise BadTextError('the input is neither a text nor {"text": "..."}')
    return text


def _count(data: bytes) -> bytes:
    words = re.findall(r"\w+", _text(data))
    return json.dumps({"words": len(words), "different": len({word.casefold() for word in words})}).encode()


WORKS: Final[Mapping[str, tuple[Callable[[bytes], bytes], str]]] = {  # name -> what it does, and the media type of what comes out
    "copy": (lambda data: data, "application/json"),
    "upper": (lambda data: _text(data).upper().encode(), "text/plain"),
    "sort": (lambda data: "\n".join(sorted(_text(data).splitlines(), key=str.casefold)).encode(), "text/plain"),
    "count": (_count, "application/json"),
    "repeat": (lambda data: data * 100_000, "application/octet-stream"),
}
FOREVER: Final = "wait"  # does nothing until its time is over, or it is stopped


def done(name: str, data: bytes) -> tuple[bytes, str]:
    """What the work makes of the input, and its media type. BadTextError for an input that it does not take, KeyError for a work that there is none of."""
    function, media_type = WORKS[name]
    return function(data), media_type
