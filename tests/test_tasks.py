"""Tasks a worker keeps going: one a name, outages waited out, the first bug ends all, and nothing is left behind."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tradeskill.errors import StorageError, UnavailableError
from tradeskill.tasks import LAST_DELAY, Tasks
from tradeskill.testing.virtual_time import VirtualWorld, run_virtual


class Bench:
    def __init__(self) -> None:
        self.world = VirtualWorld()
        self.tasks = Tasks(self.world, logging.getLogger("test"))
        self.told: list[Any] = []

    def says(self, what: Any, seconds: float = 0.0) -> Callable[[], Coroutine[Any, Any, None]]:
        async def say() -> None:
            await self.world.sleep(seconds)
            self.told.append(what)

        return say

    async def run(self, seconds: float) -> None:
        end = self.world.monotonic() + seconds
        await self.tasks.until(lambda: end - self.world.monotonic() if self.world.monotonic() < end else None)


def play(main: Callable[[Bench], Coroutine[Any, Any, None]]) -> None:
    async def staged() -> None:
        await main(Bench())

    run_virtual(staged())


def test_asked_again_while_it_runs_a_task_runs_once_more() -> None:
    async def main(bench: Bench) -> None:
        for _ in range(5):
            bench.tasks.spawn("a", bench.says("ran", 1.0))
        await bench.run(10.0)
        assert bench.told == ["ran", "ran"]

    play(main)


def test_a_task_for_once_is_not_asked_again_while_it_runs() -> None:
    async def main(bench: Bench) -> None:
        for _ in range(5):
            bench.tasks.spawn_once("a", bench.says("ran", 1.0))
        await bench.run(10.0)
        assert bench.told == ["ran"]

    play(main)


def test_a_loop_waits_outages_out_with_growing_pauses_and_starts_anew_after_a_good_time() -> None:
    async def main(bench: Bench) -> None:
        async def body() -> None:
            bench.told.append(bench.world.monotonic())
            if len(bench.told) == 12:
                await bench.world.sleep(LAST_DELAY + 1)
            raise UnavailableError("away")

        bench.tasks.loop("a", body)
        await bench.run(200.0)
        pauses = [later - earlier for earlier, later in zip(bench.told, bench.told[1:], strict=False)]
        assert pauses[0] == pytest.approx(0.1)
        assert pauses[:7] == sorted(pauses[:7])
        assert pauses[9] == pytest.approx(LAST_DELAY)
        assert pauses[11] == pytest.approx(LAST_DELAY + 1 + 0.1)

    play(main)


def test_patience_brings_the_value_at_last() -> None:
    async def main(bench: Bench) -> None:
        async def call() -> str:
            bench.told.append("tried")
            if len(bench.told) < 4:
                raise UnavailableError("away")
            return "there"

        assert await bench.tasks.patiently("it", call) == "there"
        assert bench.world.monotonic() == pytest.approx(0.1 + 0.2 + 0.4)

    play(main)


@pytest.mark.parametrize("error", [ZeroDivisionError("a bug"), StorageError("the disk")])
def test_the_first_error_of_a_task_stops_all_and_is_raised(error: Exception) -> None:
    async def main(bench: Bench) -> None:
        async def breaks() -> None:
            await bench.world.sleep(1.0)
            raise error

        bench.tasks.spawn("a", breaks)
        bench.tasks.spawn("b", bench.says("too late", 5.0))
        with pytest.raises(type(error), match=str(error)):
            await bench.run(10.0)
        assert bench.world.monotonic() == pytest.approx(1.0)
        assert bench.told == []

    play(main)


def test_after_the_end_nothing_runs_and_nothing_can_be_started() -> None:
    async def main(bench: Bench) -> None:
        before = len(asyncio.all_tasks())

        async def asks_again() -> None:
            try:
                await bench.world.sleep(5.0)
            except asyncio.CancelledError:
                bench.tasks.spawn("c", bench.says("started while stopping"))
                raise

        bench.tasks.spawn("a", asks_again)
        bench.tasks.spawn("b", bench.says("b"))
        bench.tasks.spawn("b", bench.says("b"))
        bench.tasks.end()
        await bench.run(10.0)
        bench.tasks.spawn("d", bench.says("d"))
        await bench.world.sleep(10.0)
        assert bench.told == []
        assert len(asyncio.all_tasks()) == before

    play(main)


def test_a_nudge_asks_at_once_whether_it_is_done() -> None:
    async def main(bench: Bench) -> None:
        done: list[bool] = []

        async def finishes() -> None:
            await bench.world.sleep(1.0)
            done.append(True)
            bench.tasks.nudge()

        bench.tasks.spawn("a", finishes)
        await bench.tasks.until(lambda: None if done else 3600.0)
        assert bench.world.monotonic() == pytest.approx(1.0)

    play(main)


def test_waiting_ends_with_the_event_or_with_the_time_and_clears_the_event() -> None:
    async def main(bench: Bench) -> None:
        event = asyncio.Event()
        await bench.tasks.wait(event, 2.0)
        assert bench.world.monotonic() == pytest.approx(2.0)
        event.set()
        await bench.tasks.wait(event, 2.0)
        assert bench.world.monotonic() == pytest.approx(2.0)
        assert not event.is_set()

    play(main)
