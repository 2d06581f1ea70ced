"""A stranger's JSON Schema as a judge that comes to an end: its steps are counted, its size is bounded, its regular expressions are left to its seller."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from tradeskill.errors import InputError
from tradeskill.model import Json
from tradeskill.signing import canonical, parse_json

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

__all__ = ["MAX_SCHEMA", "MAX_STEPS", "first_error"]

MAX_SCHEMA: Final = 65_536  # canonical bytes, which is all that fits into an offer
MAX_STEPS: Final = 50_000  # keywords applied; references can double at every level, so no size bounds them
_LEFT: ContextVar[list[int]] = ContextVar("steps left")
# Python's expressions can take for ever, and cannot be stopped. What depends on one is not judged either.
_UNJUDGED: Final = frozenset({"pattern", "patternProperties", "unevaluatedProperties", "unevaluatedItems"})


def first_error(schema: Mapping[str, Json], value: Json) -> ValidationError | None:
    """What does not fit, None when nothing is found. InputError when the schema is too large or takes too long; else as jsonschema raises.

    Patterns are not looked at: whoever wrote them judges by them, before any money moves.
    """
    from jsonschema.exceptions import best_match

    text = canonical(schema)
    if len(text) > MAX_SCHEMA:
        raise InputError(f"the offer's input schema is {len(text)} bytes: {MAX_SCHEMA} at most; ask its seller to mend it")
    with _counted():
        found: ValidationError | None = best_match(_judge(text).iter_errors(value))
        return found


@contextmanager
def _counted() -> Iterator[None]:
    token = _LEFT.set([MAX_STEPS])
    try:
        yield
    finally:
        _LEFT.reset(token)


@lru_cache(maxsize=64)  # checking a schema takes a hundred times as long as checking a value by it
def _judge(schema: bytes) -> Any:
    from jsonschema.exceptions import SchemaError, best_match
    from referencing.jsonschema import EMPTY_REGISTRY

    value, bounded = parse_json(schema, "the offer's input schema"), _bounded()
    error = best_match(bounded(bounded.META_SCHEMA).iter_errors(value))
    if error is not None:
        raise SchemaError.create_from(error)
    return bounded(value, registry=EMPTY_REGISTRY)


@lru_cache(maxsize=1)
def _bounded() -> Any:
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend

    keywords: Mapping[str, Any] = Draft202012Validator.VALIDATORS
    return extend(  # type: ignore[no-untyped-call]  # jsonschema leaves it untyped
        Draft202012Validator, {name: _step(name, keyword) for name, keyword in keywords.items()}
    )


def _step(name: str, keyword: Callable[..., Any]) -> Callable[..., Any]:
    def counted(validator: Any, value: Any, instance: Any, schema: Any) -> Any:
        left = _LEFT.get()
        left[0] -= 1
        if left[0] < 0:
            raise InputError(f"the offer's input schema takes more than {MAX_STEPS} steps to check: ask its seller to mend it")
        if name in _UNJUDGED or (name == "additionalProperties" and "patternProperties" in schema):
            return ()
        return keyword(validator, value, instance, schema)

    return counted
