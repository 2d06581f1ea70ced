"""Proof of work for the dev ledger: at once for dev thresholds, in another process for real ones."""

from __future__ import annotations

import asyncio
import sys
from hashlib import blake2b
from typing import Final

from tradeskill.errors import UnavailableError

__all__ = ["EASY", "WorkPool", "find_work"]

EASY: Final = 0xFFF0000000000000  # up to here a search takes 4,096 hashes on average: a few milliseconds in this interpreter
_SEARCH: Final = (
    "import os, sys\nfrom nanopy import ext\nprint(f'{ext.work_generate(bytes.fromhex(sys.argv[1]), int(sys.argv[2], 16), os.urandom(128)):016x}')\n"
)


def find_work(root: bytes, threshold: int) -> str:
    """16 hex digits that reach the threshold; counts up from zero, so the same question gets the same answer. Blocks."""
    number = 0
    while int.from_bytes(blake2b(number.to_bytes(8, "little") + root, digest_size=8).digest(), "little") < threshold:
        number += 1
    return f"{number:016x}"


class WorkPool:
    """Searches asked for over RPC, by root, so that they can be cancelled."""

    def __init__(self) -> None:
        self._running: dict[bytes, list[asyncio.subprocess.Process]] = {}

    async def generate(self, root: bytes, threshold: int) -> str | None:
        """Work for the root, or None when `cancel` came first. Raises UnavailableError when the search itself fails."""
        if threshold <= EASY:
            return find_work(root, threshold)
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", _SEARCH, root.hex(), f"{threshold:016x}", stdout=asyncio.subprocess.PIPE)
        self._running.setdefault(root, []).append(process)
        try:
            output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            self._running[root].remove(process)
        if process.returncode is not None and process.returncode < 0:
            return None
        if process.returncode != 0:
            raise UnavailableError(f"work for {root.hex().upper()} failed: the search ended with {process.returncode}")
        return output.decode().strip()

    def cancel(self, root: bytes) -> None:
        """End every search for this root; none running is fine."""
        for process in self._running.get(root, []):
            if process.returncode is None:
                process.kill()

    def close(self) -> None:
        """End all searches."""
        for root in list(self._running):
            self.cancel(root)
