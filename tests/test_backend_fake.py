"""The fake backend: it passes the contract every backend passes, and its planned faults do what they say."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from tradeskill.contracts import Backend, ExecutionStatus, Limits, Task
from tradeskill.errors import RefusedError, UnavailableError, UnknownOutcomeError
from tradeskill.model import Result
from tradeskill.testing.backend_contract import STDIN, BackendContract, Work
from tradeskill.testing.fake_backend import FakeBackend, FakeMachine, Plan
from tradeskill.world import World

T = TypeVar("T")
PLANS: dict[Work, Plan] = {
    "echo": Plan(),
    "forever": Plan(end="never"),
    "fail": Plan(end="failed"),
    "flood": Plan(result=Result(bytes(2**20 + 1))),
    "environment": Plan(result=Result(b"PATH=/usr/bin\n")),
    "link": Plan(end="failed", code="output"),
    "hungry": Plan(end="failed", code="limit.memory"),
}


class Kit:
    isolates = True

    def __init__(self) -> None:
        self.machine = FakeMachine(lambda _, task: PLANS[task.argv[0]])

    def backend(self) -> Backend:
        return FakeBackend(self.machine, World())

    def task(self, work: Work, owner: str) -> Task:
        return Task((work,), STDIN, trusted=True, details={"owner": owner})

    def runs(self) -> int:
        return sum(self.machine.started.values())


class TestContract(BackendContract):
    @pytest.fixture
    def kit(self) -> Kit:
        return Kit()


def drive(scenario: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(scenario, 20))


TASK = Task(("x",), b"1")


@pytest.mark.parametrize(("start", "error"), [("refused", RefusedError), ("unavailable", UnavailableError)])
def test_a_start_that_failed_created_nothing(start: Any, error: type[Exception]) -> None:
    async def scenario() -> None:
        machine = FakeMachine(lambda *_: Plan(start=start))
        backend = FakeBackend(machine, World())
        with pytest.raises(error):
            await backend.start("a", TASK, Limits())
        assert (await backend.status("a")).state == "absent"
        assert machine.started == {}

    drive(scenario())


def test_a_start_whose_answer_was_lost_has_run_and_is_not_run_again() -> None:
    async def scenario() -> None:
        machine = FakeMachine(lambda *_: Plan(start="answer_lost"))
        backend = FakeBackend(machine, World())
        with pytest.raises(UnknownOutcomeError):
            await backend.start("a", TASK, Limits())
        await backend.start("a", TASK, Limits())
        assert (await FakeBackend(machine, World()).result("a")).data == b"1"
        assert machine.started == {"a": 1}

    drive(scenario())


def test_an_execution_that_dies_midway_is_lost_and_wakes_who_waits() -> None:
    async def scenario() -> ExecutionStatus:
        machine = FakeMachine(lambda *_: Plan(end="never"))
        backend = FakeBackend(machine, World())
        await backend.start("a", TASK, Limits())
        waiting = asyncio.ensure_future(backend.wait("a", 15))
        asyncio.get_running_loop().call_soon(machine.lose, "a")
        return await waiting

    assert drive(scenario()).state == "lost"


def test_a_planned_loss_comes_after_its_seconds() -> None:
    async def scenario() -> None:
        backend = FakeBackend(FakeMachine(lambda *_: Plan(seconds=0.02, end="lost")), World())
        await backend.start("a", TASK, Limits())
        assert (await backend.status("a")).state == "running"
        assert (await backend.wait("a", 15)).state == "lost"

    drive(scenario())


def test_a_running_execution_shares_its_end_with_every_worker() -> None:
    async def scenario() -> None:
        machine = FakeMachine(lambda *_: Plan(seconds=0.02))
        first, second = FakeBackend(machine, World()), FakeBackend(machine, World())
        await first.start("a", TASK, Limits())
        ends = await asyncio.gather(first.wait("a", 15), second.wait("a", 15))
        assert [end.state for end in ends] == ["finished", "finished"]

    drive(scenario())
