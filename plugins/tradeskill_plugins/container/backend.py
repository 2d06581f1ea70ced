"""ContainerBackend: the backend contract over containers of an engine on this machine."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Final

from tradeskill.contracts import Task
from tradeskill.errors import UnknownOutcomeError
from tradeskill.world import World
from tradeskill_plugins.container.engine import Engine
from tradeskill_plugins.container.records import ContainerExecutions
from tradeskill_plugins.container.settings import Settings
from tradeskill_plugins.executions.backend import SupervisedBackend
from tradeskill_plugins.executions.records import GRACE

__all__ = ["ContainerBackend"]

_STOP_SECONDS: Final = GRACE + 25.0


class ContainerBackend(SupervisedBackend):
    """`home` holds the executions; the image is the program's whole world: the command and all files it names are the image's."""

    def __init__(self, home: Path, world: World, owner: str, settings: Settings) -> None:
        engine = Engine(settings.socket)
        super().__init__(executions := ContainerExecutions(home, owner, settings, engine), world)
        self._containers, self._settings = executions, settings

    def check(self, task: Task) -> None:
        """Any task may run here."""

    async def open(self) -> None:
        """UnavailableError where no engine answers, RefusedError where it cannot shut jobs in, NotFoundError where it lacks the image."""
        await self._world.offload(lambda: self._containers.ready(self._world.now_ms()))

    async def examine(self) -> str:
        about = await self._world.offload(lambda: self._containers.ready(self._world.now_ms()))
        return (
            f"isolation container: {about.name} at {self._settings.socket}, image {self._settings.image}, as {self._settings.user}; "
            f"time, memory{'' if about.swap else ' (but not swap)'}, processes, processor, output and disk are limited (cgroups v{about.cgroups}), "
            "system calls are filtered"
        )

    async def stop(self, execution_id: str) -> None:
        """The watcher is asked and never killed: it alone writes down how the container ended."""
        if (await self.status(execution_id)).state != "running":
            return
        watcher = self._containers.supervisor(execution_id)
        if watcher is None:
            await self._world.offload(lambda: self._containers.end_orphan(execution_id))
        else:
            watcher.signal(signal.SIGTERM)
            await self.wait(execution_id, _STOP_SECONDS)
        if (await self.status(execution_id)).state == "running":
            raise UnknownOutcomeError(f"execution {execution_id} has not ended yet: does the engine at {self._settings.socket} answer? Try again")
