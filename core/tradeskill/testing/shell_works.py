"""What the backend contract asks of a backend that runs commands, as lines for a shell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tradeskill.testing.backend_contract import OUTSIDE, Work

__all__ = ["SHELL_WORKS"]

SHELL_WORKS: Final[Mapping[Work, str]] = {
    "echo": "exec cat",
    "forever": "exec sleep 1000",
    "fail": "echo no luck >&2; exit 3",
    "flood": "exec yes",
    "environment": "exec env",
    "link": f'ln -s {OUTSIDE} "$TRADESKILL_OUTPUT/result"',
    "hungry": "exec python3 -I -S -c 'x = bytearray(2**30); x[::4096] = bytes(2**18)'",
}
