"""Where a block's work comes from: computed at once where it is cheap (dev), else in a process of its own, or asked from a node. Always checked here."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import sys
from typing import Final, Literal

from tradeskill.errors import UnavailableError, UsageError
from tradeskill.world import World
from tradeskill_wallet.primitives import parse_work, work_valid
from tradeskill_wallet.rpc import Nodes, RpcError

__all__ = ["WorkSource", "cheap"]

CHEAP: Final = 1 << 14  # hashes; about 15 ms at most a second in a thousand
Mode = Literal["local", "node"]


def cheap(threshold: int) -> bool:
    """Whether the work is expected within some milliseconds in plain Python."""
    return (1 << 64) // ((1 << 64) - threshold) <= CHEAP


def compute(root: bytes, threshold: int, start: int) -> str:
    """Count up from `start` until the work fits. Only for cheap thresholds."""
    blake2b = hashlib.blake2b
    nonce = start
    while int.from_bytes(blake2b(nonce.to_bytes(8, "little") + root, digest_size=8).digest(), "little") < threshold:
        nonce = (nonce + 1) & 0xFFFFFFFFFFFFFFFF
    return f"{nonce:016x}"


class WorkSource:
    """Finds work. `find` may be cancelled, which stops the computation; `close` ends the process. The process dies with this one."""

    def __init__(self, world: World, nodes: Nodes, mode: Mode = "local") -> None:
        self._world, self._nodes, self._mode = world, nodes, mode
        self._process: asyncio.subprocess.Process | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()

    def quick(self, root: bytes, threshold: int) -> str | None:
        """Work at once where it is cheap, else None. Safe in any thread."""
        if not cheap(threshold):
            return None
        return compute(root, threshold, int.from_bytes(self._world.random_bytes(8), "little"))

    async def find(self, root: bytes, threshold: int) -> str:
        """16 hex digits that reach `threshold`. A node that cannot or does not deliver is replaced by our own processor."""
        work = self.quick(root, threshold)
        if work is None and self._mode == "node":
            with contextlib.suppress(UnavailableError, UsageError):
                work = await self._ask(root, threshold)
        return work or await self._compute(root, threshold)

    async def close(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            await _end(process)
        await asyncio.gather(*self._ending)

    async def _ask(self, root: bytes, threshold: int) -> str:
        try:
            answer = await self._nodes.call("work_generate", hash=root.hex().upper(), difficulty=f"{threshold:016x}")
        except RpcError as error:
            raise UnavailableError(f"{error}: set `work: local`, or enable control on the node") from error
        work = parse_work(answer.get("work"))
        if not work_valid(root, work, threshold):
            raise UnavailableError(f"the node answered with work {work} that is too weak for root {root.hex()}")
        return work

    async def _compute(self, root: bytes, threshold: int) -> str:
        async with self._turn:
            for _ in range(2):  # a process that died is replaced once
                process = self._process or await self._start()
                assert process.stdin is not None
                assert process.stdout is not None
                try:
                    process.stdin.write(f"{root.hex()} {threshold:016x}\n".encode())
                    await process.stdin.drain()
                    line = await process.stdout.readline()
                except (BrokenPipeError, ConnectionResetError):
                    line = b""
                except asyncio.CancelledError:
                    self._process = None
                    ending = asyncio.create_task(_end(process))
                    self._ending.add(ending)
                    ending.add_done_callback(self._ending.discard)
                    raise
                work = line.decode("ascii", "replace").strip()
                if len(work) == 16 and work_valid(root, parse_work(work), threshold):
                    return work
                self._process = None
                await _end(process)
        raise UnavailableError(f"work for root {root.hex()} could not be computed: the work process failed twice")

    async def _start(self) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-m", "tradeskill_wallet.work_process", stdin=pipe, stdout=pipe, env={}
        )
        return self._process


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.stdin is not None:
        process.stdin.close()  # it ends by itself, and its child with it
    try:
        await asyncio.wait_for(process.wait(), 2.0)
    except TimeoutError:
        process.kill()
        await process.wait()
