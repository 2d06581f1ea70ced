"""Whether what a stranger's plugin answers is of the type that its contract gives it, down to the fields of each value. Pure; never raises."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, Literal, Union, get_args, get_origin

from tradeskill.money import Amount

__all__ = ["fits", "is_json"]

_MOST: Final = 2**53  # of a number that is stored and signed; amounts have a class of their own


def fits(answer: object, hint: Any) -> bool:
    """What is not of the type counts as no answer; so does what cannot be looked at to the end, or neither stored nor signed."""
    try:
        return _fits(answer, hint)
    except Exception:  # noqa: BLE001  # its attributes are a stranger's code, and it may be nested without end
        return False


def _fits(answer: Any, hint: Any) -> bool:
    if hint is None or hint is type(None):
        return True  # what a call that answers nothing returns is not looked at by anybody
    origin = get_origin(hint)
    if hint is Any or hint is object:
        return True
    if origin is Literal:
        return type(answer) in (str, int, bool) and answer in get_args(hint)
    if origin in (Union, types.UnionType):
        return any(answer is None if part is type(None) else _fits(answer, part) for part in get_args(hint))
    if origin is not None and issubclass(origin, Mapping):  # of JSON: no contract answers another
        return isinstance(answer, Mapping) and is_json(dict(answer))
    if origin is not None and issubclass(origin, Sequence):
        part = get_args(hint)[0]
        return isinstance(answer, tuple if origin is tuple else Sequence) and not isinstance(answer, str | bytes) and all(_fits(item, part) for item in answer)
    if hint is Amount:
        return isinstance(answer, Amount) and type(answer.value) is int and _is_text(answer.unit) and answer == Amount(answer.value, answer.unit)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return isinstance(answer, hint) and all(_fits(getattr(answer, name), inner) for name, inner in _fields(hint).items())
    if hint in (bool, bytes):
        return type(answer) is hint
    return is_json(answer) and (isinstance(answer, hint) or (hint is float and type(answer) is int)) and not (hint is int and type(answer) is bool)


@lru_cache(maxsize=64)
def _fields(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def is_json(value: Any) -> bool:
    """Whether it can be written as JSON that is read the same everywhere. RecursionError where it is nested without end."""
    if value is None or isinstance(value, bool):
        return True
    if isinstance(value, str):
        return _is_text(value)
    if isinstance(value, int):
        return -_MOST < value < _MOST
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(_is_text(key) and is_json(item) for key, item in value.items())
    return isinstance(value, list) and all(is_json(item) for item in value)


def _is_text(value: Any) -> bool:
    """As UTF-8 has it: half of a surrogate pair can be neither stored nor signed."""
    return isinstance(value, str) and value.encode().decode() == value
