"""The outside as an argument: clock, randomness, threads and crash points. Tests and the simulation pass their own."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from tradeskill.errors import UsageError

__all__ = ["LABELS", "World", "crash_spec"]

T = TypeVar("T")

# The crash matrix: every durable or visible step of both flows. `TRADESKILL_CRASH_AT=before:LABEL` or `after:LABEL`.
LABELS: Final[tuple[str, ...]] = (
    "seller.index-reserved",
    "seller.quote-stored",
    "seller.quote-sent",
    "seller.hint-seen",
    "seller.confirmed",
    "seller.paid-committed",
    "seller.lock",
    "seller.start-intent",
    "seller.backend-create",
    "seller.accepted",
    "seller.heartbeat",
    "seller.finished",
    "seller.collected",
    "seller.blob-fsynced",
    "seller.result-committed",
    "seller.receipt-signed",
    "seller.deliver-sent",
    "seller.ack-received",
    "seller.ack-committed",
    "seller.lease-released",
    *(f"{kind}.{step}" for kind in ("receive", "sweep", "refund", "pay") for step in ("intent", "block-stored", "published", "confirmed")),
    "buyer.quote-verified",
    "buyer.reserved",
    "buyer.result-verified",
    "buyer.ack",
)


def crash_spec(text: str) -> tuple[str, str]:
    """`before:seller.lock` -> ("before", "seller.lock"). Raises UsageError on an unknown label."""
    when, _, label = text.partition(":")
    if when not in ("before", "after") or label not in LABELS:
        raise UsageError(f"TRADESKILL_CRASH_AT={text!r} is not before:LABEL or after:LABEL; labels: {', '.join(LABELS)}")
    return when, label


class World:
    """Real clock, real randomness, real threads. Every flow takes one; nothing below asks the system itself."""

    def __init__(self, crash_at: str | None = None) -> None:
        self._crash = crash_spec(crash_at) if crash_at else None

    def now_ms(self) -> int:
        """Wall clock, milliseconds since the epoch. May jump; leases count `monotonic` instead."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Seconds, never backwards; the event loop's own clock."""
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def random_bytes(self, count: int) -> bytes:
        return os.urandom(count)

    async def offload(self, function: Callable[[], T]) -> T:
        """Run blocking work (fsync, hashing) off the event loop; the simulation runs it in place."""
        return await asyncio.get_running_loop().run_in_executor(None, function)

    @contextmanager
    def step(self, label: str) -> Iterator[None]:
        """Name a step of the crash matrix around the lines that take it."""
        assert label in LABELS, label
        self.crash("before", label)
        yield
        self.crash("after", label)

    def crash(self, when: str, label: str) -> None:
        if self._crash == (when, label):
            os.kill(os.getpid(), signal.SIGKILL)
