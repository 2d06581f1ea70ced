"""Lets a test process that is root go on as an ordinary user, for whom the interpreter and the checkout stay readable wherever they lie."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

__all__ = ["UID", "become"]

UID = 54_321  # nobody's

_NEWNS, _BIND, _REC, _PRIVATE = 0x00020000, 0x1000, 0x4000, 1 << 18


def become(uid: int, *needed: Path) -> None:
    """For good. Folders above what is needed that others may not enter are covered, in a mount namespace of this process's own.

    The new user has no groups and sees nothing of what is covered.
    """
    libc = ctypes.CDLL(None, use_errno=True)

    def call(name: str, *arguments: bytes | int | None) -> None:
        if getattr(libc, name)(*(ctypes.c_ulong(word) if isinstance(word, int) else word for word in arguments)) != 0:
            raise OSError(ctypes.get_errno(), name)

    call("unshare", _NEWNS)
    call("mount", b"none", b"/", None, _REC | _PRIVATE, None)
    kept = [path.resolve() for path in (Path(sys.base_prefix), Path(sys.prefix), Path(__file__).parent.parent, *needed)]
    opened = {path: os.open(path, os.O_PATH) for path in kept}
    closed = {above for path in kept for above in reversed(path.parents) if not above.stat().st_mode & 0o001}
    for above in sorted(closed):
        if not any(other in closed for other in above.parents):
            call("mount", b"tmpfs", str(above).encode(), b"tmpfs", 0, b"mode=0755")
    for path in kept:
        if closed & set(path.parents):
            path.mkdir(parents=True, exist_ok=True)
            call("mount", f"/proc/self/fd/{opened[path]}".encode(), str(path).encode(), None, _BIND | _REC, None)
    for handle in opened.values():
        os.close(handle)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    libc.prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE, which changing the user has cleared: an ordinary user's process has it
