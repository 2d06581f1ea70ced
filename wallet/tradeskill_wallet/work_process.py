"""A process of its own that computes work: `python -I -m tradeskill_wallet.work_process`, one `ROOT THRESHOLD` line in, one line of work out.

The computation never lets go of its interpreter, so it runs in a forked child; this process only listens: a line `cancel` ends the child, the end of
its input (its parent closed the pipe, or died) ends both.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import sys
from typing import Final

__all__ = ["main"]

CANCEL: Final = b"cancel"


def main() -> int:
    listener = selectors.DefaultSelector()
    listener.register(0, selectors.EVENT_READ)
    pending, child, answers = b"", 0, -1
    try:
        while True:
            for key, _ in listener.select():
                if key.fd == 0:
                    data = os.read(0, 4096)
                    if not data:
                        return 0
                    *lines, pending = (pending + data).split(b"\n")
                    for line in lines:
                        if child:
                            _stop(child)
                            listener.unregister(answers)
                            os.close(answers)
                            child = 0
                        if line == CANCEL:
                            os.write(1, b"canceled\n")
                            continue
                        root, _, threshold = line.decode("ascii").partition(" ")
                        child, answers = _start(bytes.fromhex(root), int(threshold, 16))
                        listener.register(answers, selectors.EVENT_READ)
                elif child:
                    answer = os.read(answers, 64)
                    listener.unregister(answers)
                    os.close(answers)
                    os.waitpid(child, 0)
                    child = 0
                    os.write(1, answer or b"failed\n")
    finally:
        if child:
            _stop(child)


def _start(root: bytes, threshold: int) -> tuple[int, int]:
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        return child, reader
    try:  # the child: its only ways out are the two exits below
        os.close(0)
        _die_with_parent()
        from nanopy import ext

        os.write(writer, f"{ext.work_generate(root, threshold, os.urandom(128)):016x}\n".encode())
        os._exit(0)
    finally:
        os._exit(1)


def _die_with_parent() -> None:
    """Where the kernel can (Linux), end this process when its parent is killed without a chance to say so."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _stop(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


if __name__ == "__main__":
    sys.exit(main())
