"""A backend without processes or disk: what each execution does is planned by the test, time is the world's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tradeskill.contracts import ExecutionStatus, Limits, Task
from tradeskill.errors import NotFoundError, RefusedError, StateError, UnavailableError, UnknownOutcomeError
from tradeskill.model import Result
from tradeskill.world import World

__all__ = ["FakeBackend", "FakeMachine", "Plan"]


@dataclass(frozen=True)
class Plan:
    """What one execution will do, and how its `start` answers.

    `end` comes `seconds` after the start: `finished` with `result` (default: its stdin), `failed` with `code`, or `lost`;
    `never` ends only by its limit or by `stop`. `start`: `refused` and `unavailable` create nothing, `answer_lost` creates it and
    then raises UnknownOutcomeError.
    """

    seconds: float = 0.0
    end: Literal["finished", "failed", "lost", "never"] = "finished"
    result: Result | None = None
    code: str = "exit"
    detail: str = ""
    start: Literal["ok", "refused", "unavailable", "answer_lost"] = "ok"


@dataclass
class _Execution:
    task: Task
    owner: str
    plan: Plan
    ends_at: float
    outcome: ExecutionStatus
    stopped: bool = False
    waiters: set[asyncio.Event] = field(default_factory=set)


def _at_once(execution_id: str, task: Task) -> Plan:
    return Plan()


class FakeMachine:
    """Where fake executions live. It outlives the backends opened on it, as a machine outlives its workers.

    `plan` is asked at every `start` that would create. `started` counts the runs of each id over the machine's whole life, so that
    a test can assert that none is above one; `removed` ids keep their count.
    """

    def __init__(self, plan: Callable[[str, Task], Plan] = _at_once) -> None:
        self.plan = plan
        self.started: dict[str, int] = {}
        self.executions: dict[str, _Execution] = {}

    def lose(self, execution_id: str) -> None:
        """Kill one running execution without an outcome, as `kill -9` on its supervisor would. No effect once it ended."""
        execution = self.executions[execution_id]
        execution.outcome = ExecutionStatus("lost", "killed by the test")
        self.end_now(execution)

    def end_now(self, execution: _Execution) -> None:
        execution.stopped = True
        for waiter in list(execution.waiters):
            waiter.set()


class FakeBackend:
    """One worker's view of a FakeMachine. `owner` stands in where a task names none."""

    def __init__(self, machine: FakeMachine, world: World, owner: str = "") -> None:
        self._machine = machine
        self._world = world
        self._owner = owner

    async def open(self) -> None:
        return None

    async def close(self) -> None:
        return None

    async def start(self, execution_id: str, task: Task, limits: Limits) -> Literal["run", "service"]:
        if execution_id in self._machine.executions:
            return "run"
        plan = self._machine.plan(execution_id, task)
        if plan.start == "refused":
            raise RefusedError(f"execution {execution_id}: this task may not run here (planned)")
        if plan.start == "unavailable":
            raise UnavailableError(f"execution {execution_id}: the backend cannot be reached (planned)")
        seconds, outcome = _fate(plan, task, limits)
        owner = str((task.details or {}).get("owner", self._owner))
        self._machine.started[execution_id] = self._machine.started.get(execution_id, 0) + 1
        self._machine.executions[execution_id] = _Execution(task, owner, plan, self._world.monotonic() + seconds, outcome)
        if plan.start == "answer_lost":
            raise UnknownOutcomeError(f"execution {execution_id}: the answer to its start was lost (planned); ask for its status")
        return "run"

    async def status(self, execution_id: str) -> ExecutionStatus:
        execution = self._machine.executions.get(execution_id)
        if execution is None:
            return ExecutionStatus("absent")
        if execution.stopped or self._world.monotonic() >= execution.ends_at:
            return execution.outcome
        return ExecutionStatus("running")

    async def wait(self, execution_id: str, seconds: float) -> ExecutionStatus:
        execution = self._machine.executions.get(execution_id)
        status = await self.status(execution_id)
        if execution is None or status.state != "running":
            return status
        ended = asyncio.Event()
        execution.waiters.add(ended)
        left = max(0.0, min(seconds, execution.ends_at - self._world.monotonic()))
        try:
            await asyncio.wait_for(ended.wait(), left)
        except TimeoutError:
            pass
        finally:
            execution.waiters.discard(ended)
        return await self.status(execution_id)

    async def result(self, execution_id: str) -> Result:
        status = await self.status(execution_id)
        if status.state == "absent":
            raise NotFoundError(f"execution {execution_id} was never started here")
        if status.state != "finished":
            raise StateError(f"execution {execution_id} is {status.state}, it has no result")
        execution = self._machine.executions[execution_id]
        return execution.plan.result or Result(execution.task.stdin, "application/json")

    async def stop(self, execution_id: str) -> None:
        execution = self._machine.executions.get(execution_id)
        if execution is not None and (await self.status(execution_id)).state == "running":
            execution.outcome = ExecutionStatus("failed", "stopped on request", "stopped")
            self._machine.end_now(execution)

    async def remove(self, execution_id: str) -> None:
        if (await self.status(execution_id)).state == "running":
            raise StateError(f"execution {execution_id} is running: stop it before removing it")
        self._machine.executions.pop(execution_id, None)

    async def list(self, owner: str) -> Sequence[str]:
        return sorted(name for name, execution in self._machine.executions.items() if execution.owner == owner)


def _fate(plan: Plan, task: Task, limits: Limits) -> tuple[float, ExecutionStatus]:
    """How long it will run and how it will end, limits included. Like any backend's, a limit comes before what the command wants."""
    if plan.end == "never" or plan.seconds > limits.seconds:
        return limits.seconds, ExecutionStatus("failed", f"ran longer than {limits.seconds} s", "limit.time")
    if plan.end == "finished":
        data = plan.result.data if plan.result else task.stdin
        if len(data) > limits.output:
            return plan.seconds, ExecutionStatus("failed", f"{len(data)} bytes of output, {limits.output} allowed", "limit.output")
        return plan.seconds, ExecutionStatus("finished", plan.detail)
    return plan.seconds, ExecutionStatus(plan.end, plan.detail, plan.code if plan.end == "failed" else "")
