"""Runs a plugin's code so that whatever it does there comes out as one error of ours, as far as Python can."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tradeskill.errors import PluginError, TradeskillError

if TYPE_CHECKING:
    import types

__all__ = ["HOOK_SECONDS", "Overdue", "contained", "described", "ended_after", "one_line"]

HOOK_SECONDS = 10.0  # what a hook, or the import of a plugin's module, may take
_AGAIN, _SOON, _PUT_OFF = 1.0, 0.01, 30  # seconds to the next alarm; to one put off; how often one is
_WEAK = ("weakref", "_weakrefset")  # modules whose callbacks are the collector's


@contextlib.contextmanager
def contained(what: str, passes: type[TradeskillError] | tuple[()] = ()) -> Iterator[None]:
    """Run a plugin's code: what it raises becomes a PluginError with that as its cause, what it prints goes to stderr, what hangs is ended.

    What belongs to the whole program is afterwards as it was: working folder, umask, signal handlers, locale, our environment variables.
    """
    with _interrupts() as pressed:
        try:
            with (
                _kept_state(),
                ended_after(HOOK_SECONDS, f"it did not return within {HOOK_SECONDS:g} s: hooks do no I/O, slow work belongs in the object's open()"),
                contextlib.redirect_stdout(sys.stderr),  # `--json` answers are on stdout
            ):
                yield
        except passes:
            raise
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and pressed:
                raise
            raise PluginError(f"{what}: {described(error)}") from error


class Overdue(BaseException):
    """A plugin's code did not return; not an Exception, so that its own handlers do not take it for theirs."""


@contextlib.contextmanager
def ended_after(seconds: float, why: str) -> Iterator[None]:
    """Ends what takes longer, where Python can: in the main thread, with no other alarm set. What waits inside C goes on.

    It rings again and again: an exception may be lost, in a finalizer or to a handler that takes everything.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGALRM) is not signal.SIG_DFL:
        yield
        return

    put_off = 0

    def overdue(number: int, frame: types.FrameType | None) -> None:
        nonlocal put_off
        put_off += 1
        if put_off > _PUT_OFF or not _collecting(frame):
            raise Overdue(why)
        signal.setitimer(signal.ITIMER_REAL, _SOON, _AGAIN)

    signal.signal(signal.SIGALRM, overdue)
    signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN)
    try:
        yield
    finally:
        ringing = True
        while ringing:
            with contextlib.suppress(Overdue):  # rung in this very moment: it had returned
                signal.setitimer(signal.ITIMER_REAL, 0)
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                ringing = False


def _collecting(frame: types.FrameType | None) -> bool:
    """Whether this belongs to the garbage collector, which drops what is raised there. A long collection's alarm comes out in such a place."""
    if frame is not None and frame.f_globals.get("__name__") in _WEAK:
        return True
    callbacks = {getattr(callback, "__code__", None) for callback in gc.callbacks}
    while frame is not None:
        if frame.f_code in callbacks or frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False


@contextlib.contextmanager
def _kept_state() -> Iterator[None]:
    """Files are made where, and for whom, they would have been, and SIGTERM ends what it would have ended."""
    import locale

    folder = _here()
    mask = os.umask(0o077)
    os.umask(mask)
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    language = locale.setlocale(locale.LC_ALL)
    ours = {name: value for name, value in os.environ.items() if name.startswith("TRADESKILL_")}
    try:
        yield
    finally:
        os.umask(mask)
        if folder is not None:
            with contextlib.suppress(OSError):
                os.fchdir(folder)
            os.close(folder)
        if locale.setlocale(locale.LC_ALL) != language:
            with contextlib.suppress(locale.Error):
                locale.setlocale(locale.LC_ALL, language)
        if ours != {name: value for name, value in os.environ.items() if name.startswith("TRADESKILL_")}:
            for name in [name for name in os.environ if name.startswith("TRADESKILL_") and name not in ours]:
                del os.environ[name]
            os.environ.update(ours)
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                if handler is not None and signal.getsignal(number) is not handler:
                    signal.signal(number, handler)


def _here() -> int | None:
    """The working folder, whatever becomes of its name."""
    try:
        return os.open(".", getattr(os, "O_PATH", os.O_RDONLY) | os.O_CLOEXEC)
    except OSError:
        return None


@contextlib.contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Fills the list when Ctrl-C is really pressed, which a plugin's own `raise KeyboardInterrupt` does not."""
    pressed: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield pressed
        return

    def note(number: int, frame: types.FrameType | None) -> None:
        pressed.append(number)
        before(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


def described(error: BaseException) -> str:
    """One line, printable, whatever the exception is made of."""
    try:
        words = " ".join(str(error).split())
    except BaseException:  # noqa: BLE001 - a stranger's __str__
        words = "(its message cannot be shown)"
    text = words if isinstance(error, PluginError) else f"{type(error).__name__}: {words}" if words else type(error).__name__
    return one_line(text if len(text) <= 300 else text[:297] + "...")


def one_line(text: str) -> str:
    """Text from strangers without what a terminal would obey."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
