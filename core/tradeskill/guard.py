"""Stands before what a third party's plugin opened: what it raises, how long it takes and what it answers reach the flows only as the contract has it.

Foreign exceptions, overdue calls and answers of a wrong type all mean the same: nobody knows what happened. So they become UnknownOutcomeError,
which the flows wait out and ask about; never "failed", and never the end of the worker, which serves other plugins' jobs too.
"""

from __future__ import annotations

import asyncio
import inspect
import types
import typing
from collections.abc import AsyncIterator, Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, Union, get_args, get_origin

from tradeskill.containment import described
from tradeskill.errors import TradeskillError, UnavailableError, UnknownOutcomeError, UntrustedError

if TYPE_CHECKING:
    from tradeskill.plugins import Plugin

__all__ = ["CALL_SECONDS", "MONEY_SECONDS", "fits", "guarded"]

T = TypeVar("T")
CALL_SECONDS: Final = 120.0  # what a call may take ...
MONEY_SECONDS: Final = 900.0  # ... and one that may compute work, or start a machine
_SLOW: Final = frozenset({"pay", "refund", "settle", "collect", "start", "stop", "deliver"})


def guarded(plugin: Plugin, opened: T, kind: Literal["Wallet", "Market", "Backend"]) -> T:
    """The same object to its users, `isinstance` included, with the contract's methods guarded. What comes with tradeskill is trusted as it is."""
    if plugin.shipped:
        return opened
    from tradeskill import contracts

    return typing.cast(T, _Guard(f"plugin {plugin.name} ({plugin.package})", opened, getattr(contracts, kind)))


class _ExitError(Exception):
    """A plugin wanted to end the program."""


async def _stayed(method: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """The call; an exit, which would end the event loop from within a task, is an exception like any other."""
    try:
        return await method(*args, **kwargs)
    except (SystemExit, KeyboardInterrupt) as error:
        raise _ExitError from error


class _Guard:
    def __init__(self, who: str, opened: object, protocol: type) -> None:
        self._who, self._opened, self._protocol = who, opened, protocol

    @property
    def __class__(self) -> Any:
        return type(self._opened)

    @__class__.setter
    def __class__(self, value: Any) -> None:
        raise TypeError(f"{value}: a guard stands before one object for good")

    def __repr__(self) -> str:
        return f"<{self._who}>"

    @cached_property
    def _hints(self) -> dict[str, Any]:
        """What each method of the protocol answers."""
        methods = {name: item for name, item in vars(self._protocol).items() if inspect.isfunction(item) and not name.startswith("_")}
        return {name: typing.get_type_hints(method).get("return", Any) for name, method in methods.items()}

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._opened, name)
        promise = vars(self._protocol).get(name)
        if not inspect.isfunction(promise):
            return value
        if inspect.iscoroutinefunction(promise):
            return self._call(name, value)
        if name in ("watch", "events"):
            return self._hints_of(name, value)
        return self._check(name, value)

    def _call(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            seconds = MONEY_SECONDS if name in _SLOW else CALL_SECONDS
            if name == "wait":  # (execution_id, seconds)
                seconds += float(kwargs.get("seconds", args[1] if len(args) > 1 else 0.0))
            what = f"{self._who}: {name}()"
            try:
                answer = await asyncio.wait_for(_stayed(method, args, kwargs), seconds)
            except TradeskillError:
                raise
            except _ExitError as error:
                raise UnknownOutcomeError(f"{what}: {described(error.__cause__ or error)}") from error.__cause__
            except TimeoutError as error:
                raise UnknownOutcomeError(f"{what} did not return within {seconds:g} s") from error
            except Exception as error:
                raise UnknownOutcomeError(f"{what}: {described(error)}") from error
            if not fits(answer, self._hints[name]):
                raise UnknownOutcomeError(f"{what} answered {_shown(answer)}, which is no answer to it")
            return answer

        return call

    def _check(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        """`check` and `check_address`: what cannot be checked is not trusted."""

        def check(*args: Any, **kwargs: Any) -> Any:
            try:
                answer = method(*args, **kwargs)
            except TradeskillError:
                raise
            except Exception as error:
                raise UntrustedError(f"{self._who}: {name}(): {described(error)}") from error
            if not fits(answer, self._hints[name]):
                raise UntrustedError(f"{self._who}: {name}() answered {_shown(answer)}, which is no answer to it")
            return answer

        return check

    def _hints_of(self, name: str, method: Callable[..., Any]) -> Callable[[], AsyncIterator[str]]:
        async def stream() -> AsyncIterator[str]:
            try:
                async for hint in method():
                    if isinstance(hint, str):
                        yield hint
            except TradeskillError:
                raise
            except Exception as error:
                raise UnavailableError(f"{self._who}: {name}(): {described(error)}") from error

        return stream


def fits(answer: object, hint: Any) -> bool:
    """Whether an answer is of the type that the contract gives it, down to the items of its lists."""
    if hint is Any:
        return True
    if hint is None or hint is type(None):
        return True  # what a call that answers nothing returns is not looked at by anybody
    origin = get_origin(hint)
    if origin is Literal:
        return answer in get_args(hint)
    if origin in (Union, types.UnionType):
        return any(answer is None if part is type(None) else fits(answer, part) for part in get_args(hint))
    if origin in (list, Sequence):
        (part,) = get_args(hint)
        return isinstance(answer, Sequence) and not isinstance(answer, str | bytes) and all(fits(item, part) for item in answer)
    if hint is int:
        return type(answer) is int
    return isinstance(answer, origin or hint)


def _shown(answer: object) -> str:
    """Its type alone: a value of a stranger's could hold anything, its owner's secrets too."""
    return f"a {type(answer).__name__}"
