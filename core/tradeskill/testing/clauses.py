"""Numbered clauses: how a contract's test is marked as one, what was declared off, and which checks a subclass has replaced. Knows no contract."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

__all__ = ["KINDS", "Clause", "clause", "clauses_of", "contract_of", "declared", "lack_of", "replaced"]

F = TypeVar("F", bound=Callable[..., Any])
KINDS: Final[Mapping[str, str]] = {"W": "wallet", "M": "market", "B": "backend", "S": "skill"}  # first letter of a number -> what it is about


@dataclass(frozen=True)
class Clause:
    """One promise of a contract. `unless` names what a plugin may lack (as data, with a reason) so that the test checks what holds instead."""

    number: str
    sentence: str
    unless: str = ""


def clause(number: str, unless: str = "") -> Callable[[F], F]:
    """Mark a contract's test as the clause `number`. Its name is its sentence."""

    def mark(function: F) -> F:
        words = function.__name__.removeprefix("test_").replace("_", " ")
        function.__clause__ = Clause(number, words[0].upper() + words[1:], unless)  # type: ignore[attr-defined]  # read by clauses_of
        return function

    return mark


def clauses_of(kind: type) -> dict[str, Clause]:
    """The clauses of a contract and its subclasses, by the name of their test, in the order of their numbers."""
    found = {name: item.__clause__ for base in kind.__mro__ for name, item in vars(base).items() if isinstance(getattr(item, "__clause__", None), Clause)}
    return dict(sorted(found.items(), key=lambda entry: entry[1].number))


def contract_of(kind: type) -> type | None:
    """The contract that a class of tests keeps: the first of its ancestors that says what is `yours`, so that no subclass can say it anew."""
    return next((base for base in reversed(kind.__mro__) if "yours" in vars(base)), None)


def replaced(kind: type) -> list[str]:
    """What a subclass has put in a contract's place, each in words: its tests and what they are built from. Only what is `yours` may be overridden."""
    contract = contract_of(kind)
    if contract is None or contract is kind:
        return []
    found = []
    for base in contract.__mro__:
        for name, item in vars(base).items():
            if name.startswith("__") or name in contract.yours or inspect.getattr_static(contract, name) is not item:  # type: ignore[attr-defined]  # it has one
                continue
            if inspect.getattr_static(kind, name, None) is not item:
                marked = getattr(item, "__clause__", None)
                found.append(f"{name} ({marked.number})" if isinstance(marked, Clause) else name)
    return sorted(set(found))


def lack_of(found: Clause, values: Mapping[str, object]) -> str:
    """The reason with which a clause is declared off, "" where it is not. `values` are the test's fixtures: one is, or has, `lacks`."""
    for name, value in values.items():
        lacks = value if name == "lacks" else getattr(value, "lacks", None)
        if found.unless and isinstance(lacks, Mapping) and found.unless in lacks:
            return str(lacks[found.unless])
    return ""


def declared(lacks: Mapping[str, str], known: Mapping[str, str]) -> None:
    """AssertionError where something is declared off that no clause knows, or without a reason. `known`: what may be lacking -> what that means."""
    for name, reason in lacks.items():
        assert name in known, f"lacks[{name!r}]: no such thing may be lacking; it may be {', '.join(sorted(known))}"
        assert isinstance(reason, str), f"lacks[{name!r}] takes a reason in words, not {reason!r}"
        assert len(reason.split()) >= 2, f"lacks[{name!r}] says {reason!r}: say why, for whoever chooses the plugin"
