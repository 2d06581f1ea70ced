"""A disk that refuses the seller's journal a write or a sync (FAULTS 18): the worker stops with one line, and a restart loses nothing it promised."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path
from signal import SIGTERM

import pytest

from tests.crash.actors import Actor
from tests.crash.evidence import read_books
from tests.crash.invariants import judge, since_death
from tests.crash.scenarios import SELL
from tests.crash.scene import Ledger, Scene

# system call, error, and which of a thread's calls on the journal is refused
REFUSALS = [
    ("pwrite64", "ENOSPC", 1),
    ("pwrite64", "ENOSPC", 12),
    ("pwrite64", "EIO", 26),
    ("pwrite64", "EIO", 40),
    ("fdatasync", "EIO", 1),
    ("fdatasync", "EIO", 4),
    ("fdatasync", "EIO", 7),
    ("fdatasync", "ENOSPC", 10),
    ("fdatasync", "EIO", 12),
]
AT_ONCE = 3


def strace(call: str, error: str, number: int, path: Path) -> list[str]:
    inject = f"inject={call}:error={error}:when={number}"
    return ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "signal=none", "-e", f"trace={call}", "-P", str(path), "-e", inject]


def _tracing() -> str:
    """Why strace is of no use here; "" when it is."""
    if shutil.which("strace") is None:
        return "the fault injector strace is not installed (see .ci/apt.txt)"
    tried = subprocess.run(["strace", "-f", "-qq", "-o", "/dev/null", "true"], capture_output=True, text=True, check=False, timeout=30)
    return "" if tried.returncode == 0 else f"the fault injector strace may not trace here: {tried.stderr.strip()}"


needs_strace = pytest.mark.skipif(bool(_tracing()), reason=_tracing() or "it works")


@needs_strace
def test_a_refused_write_or_sync_stops_the_worker_with_exit_10_and_a_restart_finishes_the_job(tmp_path: Path) -> None:
    async def run() -> list[str]:
        room = asyncio.Semaphore(AT_ONCE)

        async def one(place: int) -> list[str]:
            async with room, Scene(tmp_path / f"scene-{place}", ledger) as scene:
                found = await _refused(scene, *REFUSALS[place])
                return [f"{REFUSALS[place]}: {text}" for text in found]

        async with Ledger(tmp_path) as ledger:
            return [text for found in await asyncio.gather(*map(one, range(len(REFUSALS)))) for text in found]

    assert asyncio.run(run()) == []


async def _refused(scene: Scene, call: str, error: str, number: int) -> list[str]:
    await scene.fund(scene.buyer_home)
    await _publish(scene)
    buying = asyncio.create_task(scene.buy(scene.wish()))
    prefix = strace(call, error, number, scene.seller_home / "journal.db-wal")
    async with Actor(scene.seller_home, ["sell"], prefix=prefix) as seller:
        code = await seller.ended()
    found = [] if code == 10 else [f"the worker ended with {code}: {seller.said}"]
    errors = [line for line in seller.said.splitlines() if line.startswith("error: ")]
    cause = "full" if (call, error) == ("pwrite64", "ENOSPC") else "SQLITE_IOERR"
    if len(errors) != 1 or "the journal" not in errors[0] or cause not in errors[0] or "Traceback" in seller.said:
        found.append(f"it said {seller.said!r}")
    at_death = read_books(scene.seller_home)
    async with Actor(scene.seller_home, SELL) as seller:
        await seller.line()
        await buying
        seller.send(SIGTERM)
        if await seller.ended():
            found.append(f"the restart ended with {seller.process.returncode}: {seller.said}")
    await scene.gather_money()
    return [*found, *await judge(scene, "delivered"), *since_death(at_death, read_books(scene.seller_home))]


async def _publish(scene: Scene) -> None:
    """The offer is up, and the journal there, before the disk turns bad."""
    async with scene.selling():
        pass
