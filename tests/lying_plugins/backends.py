"""Backends that lie, each in one way, over the honest one in memory. A class's docstring says what its backend does."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

import pytest

from tests.test_backend_fake import Kit as HonestKit
from tradeskill.contracts import Backend, ExecutionStatus, Limits, Task
from tradeskill.errors import StateError
from tradeskill.model import Result
from tradeskill.testing.backend_contract import BackendContract
from tradeskill.testing.fake_backend import FakeBackend, FakeMachine
from tradeskill.world import World


class Impatient(FakeBackend):
    """Honest, but never waits for long, so that a lie about an end is not waited for."""

    async def wait(self, execution_id: str, seconds: float) -> ExecutionStatus:
        return await super().wait(execution_id, min(seconds, 1.0))


class Kit(HonestKit):
    def __init__(self, kind: type[FakeBackend], isolates: bool, forgets: bool) -> None:
        super().__init__()
        self.isolates, self._kind, self._forgets, self._machines = isolates, kind, forgets, [self.machine]

    def backend(self) -> Backend:
        if self._forgets:
            self._machines.append(FakeMachine(self.machine.plan))
        return self._kind(self._machines[-1], World())

    def runs(self) -> int:
        return sum(sum(machine.started.values()) for machine in self._machines)


class Lying(BackendContract):
    liar: ClassVar[type[FakeBackend]] = Impatient
    isolates: ClassVar[bool] = True
    forgets: ClassVar[bool] = False

    @pytest.fixture
    def kit(self) -> Kit:
        return Kit(self.liar, self.isolates, self.forgets)


class TestHonest(Lying):
    """The backend that all the others are made of."""


class TestStartsTwice(Lying):
    """A second start of an id runs it again."""

    class liar(Impatient):  # noqa: N801 - it stands for the attribute of that name
        async def start(self, execution_id: str, task: Task, limits: Limits) -> Literal["run", "service"]:
            self._machine.executions.pop(execution_id, None)
            return await super().start(execution_id, task, limits)


class TestLeaksTheEnvironment(Lying):
    """A job inherits all that the seller's shell has set."""

    class liar(Impatient):  # noqa: N801 - as above
        async def result(self, execution_id: str) -> Result:
            found = await super().result(execution_id)
            known = self._machine.executions[execution_id].task.argv == ("environment",)
            return Result("\n".join(f"{name}={value}" for name, value in os.environ.items()).encode()) if known else found


class TestIgnoresTheTimeLimit(Lying):
    """A job may run for as long as it likes."""

    class liar(Impatient):  # noqa: N801 - as above
        async def start(self, execution_id: str, task: Task, limits: Limits) -> Literal["run", "service"]:
            return await super().start(execution_id, task, replace(limits, seconds=1e6))


class TestIgnoresTheOutputLimit(Lying):
    """A job may print as much as it likes."""

    class liar(Impatient):  # noqa: N801 - as above
        async def start(self, execution_id: str, task: Task, limits: Limits) -> Literal["run", "service"]:
            return await super().start(execution_id, task, replace(limits, output=2**40))


class TestIgnoresTheMemoryLimit(Lying):
    """A job may take as much memory as it likes."""

    class liar(Impatient):  # noqa: N801 - as above
        async def status(self, execution_id: str) -> ExecutionStatus:
            found = await super().status(execution_id)
            return ExecutionStatus("finished") if found.code == "limit.memory" else found


class TestFollowsALink(Lying):
    """A job's output is what the link that it left points at."""

    class liar(Impatient):  # noqa: N801 - as above
        async def result(self, execution_id: str) -> Result:
            if execution_id in self._machine.executions and self._machine.executions[execution_id].task.argv == ("link",):
                return Result(Path("/etc/passwd").read_bytes())  # noqa: ASYNC240 - what the lie is about
            return await super().result(execution_id)


class TestForgetsAfterARestart(Lying):
    """A worker that starts anew knows nothing of the one before."""

    forgets = True


class TestChangesAResult(Lying):
    """A result that is asked for again is another."""

    class liar(Impatient):  # noqa: N801 - as above
        asked: ClassVar[set[int]] = set()

        async def result(self, execution_id: str) -> Result:
            found = await super().result(execution_id)
            again, _ = id(self) in self.asked, self.asked.add(id(self))
            return replace(found, data=found.data + b" ") if again else found


class TestRunsAnythingWithoutIsolation(Lying):
    """Strangers' programs run, though nothing keeps them in."""

    isolates = False


class TestListsOthersJobs(Lying):
    """Everybody's executions are everybody's."""

    class liar(Impatient):  # noqa: N801 - as above
        async def list(self, owner: str) -> Sequence[str]:
            return sorted(self._machine.executions)


class TestStopsNothing(Lying):
    """What was told to stop goes on."""

    class liar(Impatient):  # noqa: N801 - as above
        async def stop(self, execution_id: str) -> None:
            return None


class TestThrowsAResultAwayOnStop(Lying):
    """Stopping what has ended undoes it."""

    class liar(Impatient):  # noqa: N801 - as above
        async def stop(self, execution_id: str) -> None:
            await super().stop(execution_id)
            execution = self._machine.executions.get(execution_id)
            if execution is not None:
                execution.outcome = ExecutionStatus("failed", "stopped", "stopped")
                self._machine.end_now(execution)


class TestRemovesWhatRuns(Lying):
    """A running execution can be forgotten."""

    class liar(Impatient):  # noqa: N801 - as above
        async def remove(self, execution_id: str) -> None:
            try:
                await super().remove(execution_id)
            except StateError:
                self._machine.executions.pop(execution_id)


class TestCallsAFailureFinished(Lying):
    """A command that fails has finished too."""

    class liar(Impatient):  # noqa: N801 - as above
        async def status(self, execution_id: str) -> ExecutionStatus:
            found = await super().status(execution_id)
            return ExecutionStatus("finished") if found.code == "exit" else found
