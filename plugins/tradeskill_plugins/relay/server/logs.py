"""One JSON object a line for what happened, of allowed fields only: never a payload, a key or a signature.

An event's name is the fixed text of the logging call; values go into the fields (`extra=`). A field that is not in the list, or whose value
is not of its kind, is left out. Of a failure only its type and the places it came through are shown: its message may quote what a client sent.
"""

from __future__ import annotations

import json
import logging
import re
import traceback
from collections.abc import Callable, Mapping
from typing import IO, Any, Final

from tradeskill.world import World
from tradeskill_plugins.relay.wire import show_time

__all__ = ["FIELDS", "JsonLines", "json_handler", "request_id"]

_OURS: Final = "tradeskill"  # events of other loggers may be made of anything, so only the logger is named
_EVENT = re.compile(r"[A-Za-z][A-Za-z0-9 ,:;.'%_/-]{0,99}")
_WORD = re.compile(r"[\x21-\x7e]{1,64}")
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,64}")
_LONG_HEX = re.compile(r"[0-9A-Fa-f]{40,}")  # keys, signatures and seeds have 64 digits and more; an id of ours has 32
_LONG_WORD = re.compile(r"[A-Za-z0-9_+/=-]{60,}")  # and in base64 86
_FRAMES: Final = 8


def _word(value: object) -> str | None:
    """An identifier: visible ASCII, at most 64 characters, long secrets cut."""
    return _cut(value) if isinstance(value, str) and _WORD.fullmatch(value) else None


def _key(value: object) -> str | None:
    """A public key, as far as a person needs to tell two apart."""
    return value[:8] if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{8,128}", value) else None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63 else None


def _number(value: object) -> int | float | None:
    return round(value, 3) if isinstance(value, float) and abs(value) < 1e15 else _whole(value)


def _yes_no(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


# What may stand in a line besides time, level, event, error and at.
FIELDS: Final[Mapping[str, Callable[[object], object]]] = {
    "request_id": _word,
    "job_id": _word,
    "offer_id": _word,
    "endpoint": _word,
    "method": _word,
    "status": _whole,
    "code": _word,
    "reason": _word,
    "ms": _number,
    "bytes": _whole,
    "count": _whole,
    "before": _word,
    "after": _word,
    "ip": _word,
    "key": _key,
    "replayed": _yes_no,
    "url": _word,
    "version": _word,
    "pid": _whole,
}


class JsonLines(logging.Formatter):
    """Formats a record as one line of ASCII JSON. Never raises, whatever the record holds."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {"time": show_time(int(record.created * 1000)), "level": record.levelname.lower(), "event": _event(record)}
        for name, kind in FIELDS.items():
            value = record.__dict__.get(name)
            if value is not None and (shown := kind(value)) is not None:
                line[name] = shown
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            line["error"] = _word(type(error).__qualname__) or "error"
            line["at"] = _places(error)
        return json.dumps(line).replace("\x7f", "\\u007f")


def json_handler(stream: IO[str]) -> logging.Handler:
    """A handler that writes such lines to a stream."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    return handler


def request_id(header: bytes | None, world: World) -> str:
    """The client's own id if it has 1 to 64 visible ASCII characters, else 32 new hex digits."""
    if header is not None and _REQUEST_ID.fullmatch(header):
        return header.decode("ascii")
    return world.random_bytes(16).hex()


def _event(record: logging.LogRecord) -> str:
    """The call's fixed text; what is put into it is not shown, nor the text of anybody else's logger."""
    ours = record.name == _OURS or record.name.startswith(f"{_OURS}.")
    if ours and isinstance(record.msg, str) and _EVENT.fullmatch(record.msg):
        return _cut(record.msg)
    return _cut(f"message of {record.name}") if _WORD.fullmatch(record.name) else "message"


def _places(error: BaseException) -> list[str]:
    """`file:line function` of the innermost frames, the last where it was raised. No values."""
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    return [f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in frames]


def _cut(text: str) -> str:
    if len(text) < 40:
        return text
    return _LONG_WORD.sub(lambda match: match.group()[:8] + "~", _LONG_HEX.sub(lambda match: match.group()[:8] + "~", text))
