"""Stands before what a third party's plugin opened: what it raises, how long it takes and what it answers reach the flows only as the contract has it.

Foreign exceptions, overdue calls and answers of a wrong type all mean the same: nobody knows what happened. So they become BrokenPluginError,
which is unknown and never "failed": it is asked about again, and after a while shown to the owner. It never ends the worker, which serves
other plugins' jobs too.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import typing
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, TypeVar

from tradeskill.containment import described
from tradeskill.errors import (
    BrokenPluginError,
    NotFoundError,
    PluginError,
    RefusedError,
    StateError,
    TradeskillError,
    UnavailableError,
    UntrustedError,
    UsageError,
)
from tradeskill.fitting import fits
from tradeskill.pluginruns import EndedError, OverlongError, called, within

if TYPE_CHECKING:
    from tradeskill.plugins import Plugin

__all__ = ["CLOSE_SECONDS", "Deadlines", "fits", "guarded"]

T = TypeVar("T")
Kind = Literal["Wallet", "Market", "Backend"]
CLOSE_SECONDS: Final = 10.0  # closing decides nothing
_SLOW: Final = frozenset({"pay", "refund", "settle", "collect", "start", "stop", "deliver"})
# what a call may say of its job; the rest of the tree is about this program, its disk and its secrets, of which a stranger's plugin knows nothing
_SPOKEN: Final = (UsageError, NotFoundError, StateError, RefusedError, UnavailableError, PluginError)

log = logging.getLogger("tradeskill.plugins")


@dataclass(frozen=True)
class Deadlines:
    """Seconds that a call may take; `slow`: one that may move money, compute work or start a machine."""

    call: float = 120.0
    slow: float = 900.0


def guarded(plugin: Plugin, opened: T, kind: Kind, deadlines: Deadlines = Deadlines()) -> T:
    """The same object to its users, `isinstance` included, with the contract's methods guarded. What comes with tradeskill is trusted as it is.

    PluginError where what the contract wants to be there as a value (a wallet's rail and unit) is none.
    """
    if plugin.shipped:
        return opened
    from tradeskill import contracts

    return typing.cast(T, _Guard(f"plugin {plugin.name} ({plugin.package})", opened, kind, getattr(contracts, kind), deadlines))


class _Guard:
    def __init__(self, who: str, opened: object, kind: Kind, protocol: type, deadlines: Deadlines) -> None:
        self._who, self._opened, self._kind, self._protocol, self._deadlines = who, opened, kind, protocol, deadlines
        self._values = {name: self._value(name) for name in inspect.get_annotations(protocol)}

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

    def _value(self, name: str) -> str:
        """Read once: a name that changes would be another rail's."""
        try:
            with within():
                value = getattr(self._opened, name)
        except BaseException as error:
            raise PluginError(f"{self._who}: its {name}: {described(error)}") from error
        if not isinstance(value, str) or not value.isprintable() or not 0 < len(value) <= 64:
            raise PluginError(f"{self._who}: its {name} is {_shown(value)}, not a short word")
        return value

    def __getattr__(self, name: str) -> Any:
        if name in self._values:
            return self._values[name]
        promise = vars(self._protocol).get(name)
        if name == "examine":  # beside the contract, see `contracts.Examinable`
            getattr(self._opened, name)
            return self._call(name)
        if not inspect.isfunction(promise):
            return getattr(self._opened, name)
        if name == "close":
            return self._close
        if inspect.iscoroutinefunction(promise):
            return self._call(name)
        if name in ("watch", "events"):
            return lambda: self._stream(name)
        return self._check(name)

    def _call(self, name: str) -> Callable[..., Any]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            seconds = self._deadlines.slow if name in _SLOW else self._deadlines.call
            if name == "wait":  # (execution_id, seconds)
                seconds += float(kwargs.get("seconds", args[1] if len(args) > 1 else 0.0))
            answer = await self._asked(name, args, kwargs, seconds)
            if not fits(answer, str if name == "examine" else self._hints[name]):
                self._broken(f"{name}() answered {_shown(answer)}, which is no answer to it")
            if name == "invoice" and (answer.rail, answer.job_id, answer.amount) != (self._values["rail"], *_asked_for(*args, **kwargs)):
                self._broken("invoice() answered an invoice for something else than it was asked for")
            return answer

        return call

    async def _asked(self, name: str, args: Any, kwargs: Any, seconds: float | None) -> Any:
        try:
            return await called(lambda *a, **k: getattr(self._opened, name)(*a, **k), args, kwargs, seconds)
        except _SPOKEN:
            raise
        except OverlongError as error:
            self._broken(f"{name}() did not return within {seconds:g} s", error)
        except EndedError as error:
            self._broken(f"{name}(): {described(error.__cause__ or error)}", error.__cause__)
        except TradeskillError as error:
            if name == "open":
                raise
            self._broken(f"{name}(): {described(error)}", error)
        except Exception as error:  # noqa: BLE001  # whatever a stranger's code raises
            self._broken(f"{name}(): {described(error)}", error)

    async def _close(self) -> None:
        """It is over, whatever it says."""
        try:
            await self._asked("close", (), {}, min(CLOSE_SECONDS, self._deadlines.call))
        except TradeskillError as error:
            log.warning("%s", error)

    def _check(self, name: str) -> Callable[..., Any]:
        """`check` and `check_address`: what cannot be checked is not trusted."""

        def check(*args: Any, **kwargs: Any) -> Any:
            try:
                with within():
                    answer = getattr(self._opened, name)(*args, **kwargs)
            except (UntrustedError, UsageError):
                raise
            except BaseException as error:
                raise UntrustedError(f"{self._who}: {name}(): {described(error)}") from error
            if not fits(answer, self._hints[name]):
                raise UntrustedError(f"{self._who}: {name}() answered {_shown(answer)}, which is no answer to it")
            return answer

        return check

    async def _stream(self, name: str) -> AsyncIterator[str]:
        """Hints, of which those that are none are dropped. Whatever ends them but their own end is an outage."""
        try:
            with within():
                hints = aiter(getattr(self._opened, name)())
            while True:
                hint = await called(anext, (hints,))
                if isinstance(hint, str):
                    yield hint
                await asyncio.sleep(0)  # one that never waits lets others come to their turn
        except StopAsyncIteration:
            return
        except (UnavailableError, GeneratorExit, asyncio.CancelledError):
            raise
        except BaseException as error:  # noqa: BLE001  # as above, and what would end the program
            cause = error.__cause__ if isinstance(error, EndedError) else error
            self._broken(f"{name}(): {described(cause or error)}", cause)

    def _broken(self, what: str, error: BaseException | None = None) -> NoReturn:
        raise BrokenPluginError(f"{self._who}: {what}", plugin=self._who, kind=self._kind) from error


def _asked_for(job_id: str, amount: Any, expires_at: int) -> tuple[str, Any]:
    """Of an invoice."""
    return job_id, amount


def _shown(answer: object) -> str:
    """Its type alone: a value of a stranger's could hold anything, its owner's secrets too."""
    return f"a {type(answer).__name__}"
