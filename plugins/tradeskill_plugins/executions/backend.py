"""The backend contract over executions on disk, for every backend that runs commands on this machine: they differ in what shuts a job in.

It waits on process descriptors, so adopted jobs wake it as its own do.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Sequence
from typing import Final, Literal

from tradeskill.contracts import ExecutionStatus, Limits, Task
from tradeskill.errors import NotFoundError, RefusedError, StateError, UnknownOutcomeError, UsageError
from tradeskill.model import Result
from tradeskill.world import World
from tradeskill_plugins.executions.records import GRACE, Executions

__all__ = ["SupervisedBackend"]

_ID: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}", re.ASCII)
_STOP_SECONDS: Final = GRACE + 25.0  # more than the supervisor's own patience


class SupervisedBackend:
    """Runs commands under a supervisor each. Their home may be shared by any number of workers, at once or in turn.

    What it makes of a command: no environment but PATH, HOME, TMPDIR, LANG and TRADESKILL_OUTPUT; stdin from a file; its own empty
    folder to work in; no descriptor but the three; everything it started is dead when it has ended. Files that it left in
    TRADESKILL_OUTPUT are the result, and without any what it printed; neither is a failure (code `output`).
    """

    def __init__(self, executions: Executions, world: World) -> None:
        self._executions, self._world = executions, world

    def check(self, task: Task) -> None:
        """RefusedError where this backend does not run such a task."""
        raise NotImplementedError

    async def open(self) -> None:
        await self._world.offload(lambda: self._executions.prepare(self._world.now_ms()))

    async def close(self) -> None:
        """Nothing is held; running jobs go on without us."""

    async def start(self, execution_id: str, task: Task, limits: Limits) -> Literal["run", "service"]:
        _checked(execution_id)
        self.check(task)
        if not task.argv or any("\0" in word for word in task.argv):
            raise RefusedError(f"execution {execution_id}: {list(task.argv)!r} is not a command")
        if limits.seconds <= 0 or limits.memory <= 0 or limits.output <= 0 or limits.files <= 0:
            raise RefusedError(f"execution {execution_id}: every limit must be above zero ({limits})")

        return await self.launch(execution_id, task, limits)

    async def launch(self, execution_id: str, task: Task, limits: Limits) -> Literal["run", "service"]:
        """As `start`, for a task that was checked."""

        def create_and_launch() -> None:
            self._executions.create(execution_id, task, limits)
            self._executions.launch(execution_id)

        await self._world.offload(create_and_launch)
        return "run"

    async def status(self, execution_id: str) -> ExecutionStatus:
        _checked(execution_id)
        return await self._world.offload(lambda: self._executions.status(execution_id))

    async def wait(self, execution_id: str, seconds: float) -> ExecutionStatus:
        status = await self.status(execution_id)
        if status.state != "running":
            return status
        supervisor = self._executions.supervisor(execution_id)
        pidfd = supervisor.pinned() if supervisor is not None else None
        if pidfd is None:
            await self._world.sleep(min(max(0.0, seconds), 0.2))  # it ended just now; or, rarely, it left behind what does not die
        else:
            loop = asyncio.get_running_loop()
            ended = asyncio.Event()
            loop.add_reader(pidfd, ended.set)
            try:
                await asyncio.wait_for(ended.wait(), max(0.0, seconds))
            except TimeoutError:
                return ExecutionStatus("running")
            finally:
                loop.remove_reader(pidfd)
                os.close(pidfd)
        return await self.status(execution_id)

    async def result(self, execution_id: str) -> Result:
        status = await self.status(execution_id)
        if status.state == "absent":
            raise NotFoundError(f"execution {execution_id} was never started here")
        if status.state != "finished":
            raise StateError(f"execution {execution_id} is {status.state}, it has no result: {status.detail}")
        return await self._world.offload(lambda: self._executions.result(execution_id))

    async def stop(self, execution_id: str) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            if (await self.status(execution_id)).state != "running":
                return
            supervisor = self._executions.supervisor(execution_id)
            if supervisor is not None:
                supervisor.signal(number)
            await self.wait(execution_id, _STOP_SECONDS)
        if (await self.status(execution_id)).state == "running":
            raise UnknownOutcomeError(f"execution {execution_id} does not die, not even by SIGKILL; try again, or look at its processes")

    async def remove(self, execution_id: str) -> None:
        if (await self.status(execution_id)).state == "running":
            raise StateError(f"execution {execution_id} is running: stop it before removing it")
        await self._world.offload(lambda: self._executions.remove(execution_id))

    async def list(self, owner: str) -> Sequence[str]:
        return await self._world.offload(lambda: self._executions.owned(owner))


def _checked(execution_id: str) -> None:
    """It becomes a folder's name."""
    if _ID.fullmatch(execution_id) is None:
        raise UsageError(f"execution id {execution_id!r} must be 1 to 128 letters, digits, dots, dashes or underscores, not beginning with a dot")
