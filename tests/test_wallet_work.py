"""work: found where it is cheap, in a process of its own, or at a node; checked always; stopped when nobody wants it any more."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, cast

import pytest

from tradeskill.errors import UnavailableError
from tradeskill.model import Json
from tradeskill.world import World
from tradeskill_wallet.primitives import THRESHOLDS, work_valid
from tradeskill_wallet.rpc import Nodes, RpcError
from tradeskill_wallet.work import WorkSource, cheap

DEV = THRESHOLDS["dev"].epoch_2
SOME = 0xFFFF800000000000  # some ten milliseconds, too many for the event loop
NEVER = 0xFFFFFFFFFFFFFFF0  # longer than any test


class NodeDouble:
    """Answers work_generate with what it is told."""

    def __init__(self, answer: dict[str, Json] | Exception) -> None:
        self.answer = answer
        self.asked: list[dict[str, Json]] = []

    async def call(self, action: str, **params: Json) -> dict[str, Json]:
        assert action == "work_generate"
        self.asked.append(params)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def source(answer: dict[str, Json] | Exception | None = None) -> tuple[WorkSource, NodeDouble]:
    node = NodeDouble(answer or {})
    return WorkSource(World(), cast(Nodes, node), "local" if answer is None else "node"), node


def run(body: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(body(), 30))


def gone(pid: int) -> bool:
    """Whether a process ended (or waits, dead, for its parent)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("Z", "X")
    except OSError:
        return True


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def until(condition: Callable[[], bool]) -> None:
    """Looks again at each turn of the event loop, for as long as the test may take."""
    while not condition():
        await asyncio.to_thread(os.sched_yield)


def test_dev_work_is_found_at_once_and_fits_its_root() -> None:
    async def body() -> None:
        work, node = source()
        for _ in range(5):
            root = os.urandom(32)
            assert work_valid(root, await work.find(root, DEV), DEV)
        assert work._process is None
        assert node.asked == []

    run(body)


def test_real_thresholds_are_never_computed_on_the_event_loop() -> None:
    assert cheap(DEV)
    assert not cheap(THRESHOLDS["live"].epoch_2)
    assert not cheap(THRESHOLDS["live"].epoch_2_receive)
    assert source()[0].quick(bytes(32), THRESHOLDS["live"].epoch_2_receive) is None


def test_heavy_work_runs_in_a_process_of_its_own_while_the_loop_goes_on() -> None:
    async def body() -> None:
        work, _ = source()
        roots = [os.urandom(32) for _ in range(3)]
        found = await asyncio.gather(*(work.find(root, SOME) for root in roots))
        assert all(work_valid(root, result, SOME) for root, result in zip(roots, found, strict=True))
        assert work._process is not None
        pid = work._process.pid
        assert pid != os.getpid()
        await work.close()
        await work.close()
        assert gone(pid)

    run(body)


def test_cancelling_stops_the_computation_and_the_next_one_works() -> None:
    async def body() -> None:
        work, _ = source()
        task = asyncio.create_task(work.find(bytes(32), NEVER))
        await until(lambda: work._process is not None and len(children(work._process.pid)) == 1)
        assert work._process is not None
        pid, (grandchild,) = work._process.pid, children(work._process.pid)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: gone(pid) and gone(grandchild))
        assert work_valid(bytes(32), await work.find(bytes(32), SOME), SOME)
        await work.close()

    run(body)


def test_a_work_process_that_died_is_replaced() -> None:
    async def body() -> None:
        work, _ = source()
        await work.find(os.urandom(32), SOME)
        assert work._process is not None
        work._process.kill()
        await work._process.wait()
        root = os.urandom(32)
        assert work_valid(root, await work.find(root, SOME), SOME)
        await work.close()

    run(body)


def test_the_work_process_and_its_child_die_with_their_parent() -> None:
    command = [sys.executable, "-I", "-m", "tradeskill_wallet.work_process"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(f"{bytes(32).hex()} {NEVER:016x}\n".encode())
        process.stdin.flush()
        deadline = time.monotonic() + 20
        while not children(process.pid):
            assert time.monotonic() < deadline
        (child,) = children(process.pid)
        process.stdin.close()  # what the kernel does when the parent is killed
        assert process.wait(20) == 0
        assert gone(child)


def test_a_new_line_or_cancel_replaces_what_is_being_computed() -> None:
    command = [sys.executable, "-I", "-m", "tradeskill_wallet.work_process"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{bytes(32).hex()} {NEVER:016x}\n{bytes(32).hex()} {DEV:016x}\n".encode())
        process.stdin.flush()
        assert work_valid(bytes(32), process.stdout.readline().decode().strip(), DEV)
        process.stdin.write(f"{bytes(32).hex()} {NEVER:016x}\ncancel\n".encode())
        process.stdin.flush()
        assert process.stdout.readline() == b"canceled\n"
        process.stdin.close()
        assert process.wait(20) == 0


def test_a_nodes_good_work_is_taken() -> None:
    async def body() -> None:
        root = os.urandom(32)
        good, _ = source()
        result = await good.find(root, SOME)
        await good.close()
        work, node = source({"work": result})
        assert await work.find(root, SOME) == result
        assert node.asked == [{"hash": root.hex().upper(), "difficulty": f"{SOME:016x}"}]
        assert work._process is None

    run(body)


BAD: list[dict[str, Json] | Exception] = [
    {"work": "0" * 16}, {"work": "zz"}, {"work": 5}, {"hash": "x"}, UnavailableError("gone"), RpcError("work_generate", "RPC control is disabled", "http://x"),
]  # fmt: skip


@pytest.mark.parametrize("answer", BAD, ids=str)
def test_a_node_that_gives_no_or_too_weak_work_is_replaced_by_our_own_processor(answer: dict[str, Json] | Exception) -> None:
    async def body() -> None:
        work, node = source(answer)
        root = os.urandom(32)
        assert work_valid(root, await work.find(root, SOME), SOME)
        assert len(node.asked) == 1
        await work.close()

    run(body)
