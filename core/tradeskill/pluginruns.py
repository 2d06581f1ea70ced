"""Runs one call of an object that a stranger's plugin made: step by step, within its time, and ended when its caller is.

Python has no way to stop code that does not want to. What is done here: the call is told to end; what does not, is left behind; a step
that holds up the event loop is interrupted, in the main thread, unless it waits inside C. A task or thread of the plugin's own is not seen here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from typing import Any, Final

from tradeskill.containment import Overdue, ended_after

__all__ = ["GRACE_SECONDS", "STEP_SECONDS", "EndedError", "OverlongError", "PassingThrough", "called", "within"]

STEP_SECONDS = 10.0  # what a call may do without letting the event loop, and with it all other jobs, go on
GRACE_SECONDS: Final = 5.0  # what a call may take to end once it was told to
_HELD_UP: Final = "it held up all other work for {seconds:g} s: what computes or waits for long belongs in `world.offload`"


class EndedError(Exception):
    """A plugin wanted to end the program or the task, or was interrupted. Its cause says which."""


class PassingThrough(Exception):  # noqa: N818  # no error: a question, say, that our code below the plugin's has for our code above it
    """Goes through a stranger's code as it is."""


class OverlongError(Exception):
    """It did not return within its time."""


class _Steps:
    """Awaits a plugin's call. Once `left` it is not gone on with, whatever it does about it."""

    def __init__(self, call: Coroutine[Any, Any, Any]) -> None:
        self._call = call
        self.left = False

    def __await__(self) -> Generator[Any, Any, Any]:
        thrown: BaseException | None = None
        while True:
            try:
                with within():
                    waits_for = self._call.send(None) if thrown is None else self._call.throw(thrown)
            except StopIteration as ended:
                return ended.value
            try:
                yield waits_for
            except BaseException as error:  # it is for the call to know
                if self.left or isinstance(error, GeneratorExit):
                    self.close()
                    raise
                thrown = error
            else:
                thrown = None


    def close(self) -> None:
        """It is not gone on with, whether it ever began or not."""
        with suppress(Exception), within():
            self._call.close()


def within() -> Any:
    """Interrupts what does not let go of the event loop for STEP_SECONDS, where Python can."""
    return ended_after(STEP_SECONDS, _HELD_UP.format(seconds=STEP_SECONDS))


async def called(method: Callable[..., Any], args: Any = (), kwargs: Any = None, seconds: float | None = None) -> Any:
    """What the call answers or raises. OverlongError when it takes longer than `seconds`, EndedError for whatever is meant to end more than the call.

    When the caller is cancelled, the call is, and is waited for no longer than it has to be.
    """
    steps = _Steps(_stayed(method, args, kwargs or {}))
    task = asyncio.ensure_future(_awaited(steps))
    try:
        await asyncio.wait({task}, timeout=seconds)
    except asyncio.CancelledError:
        await _end(task, steps)
        raise
    if not task.done():
        await _end(task, steps)
        raise OverlongError
    try:
        return task.result()
    except Overdue as error:  # interrupted in the very moment in which it ended
        raise EndedError from error


async def _awaited(steps: _Steps) -> Any:
    return await steps


async def _stayed(method: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    try:
        return await method(*args, **kwargs)
    except Exception:
        raise
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise EndedError from error  # it was not told to: our task would end, and nobody would notice
    except BaseException as error:
        raise EndedError from error


async def _end(task: asyncio.Task[Any], steps: _Steps) -> None:
    task.cancel()
    await asyncio.wait({task}, timeout=GRACE_SECONDS)
    if not task.done():
        steps.left = True
        task.cancel()
        await asyncio.wait({task}, timeout=GRACE_SECONDS)
    if task.done():
        steps.close()
    if task.done() and not task.cancelled():
        task.exception()  # else it is reported as never looked at
