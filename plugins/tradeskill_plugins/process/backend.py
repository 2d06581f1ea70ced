"""ProcessBackend: the seller's own commands as plain processes, shut in by nothing."""

from __future__ import annotations

from pathlib import Path

from tradeskill.contracts import Task
from tradeskill.errors import RefusedError
from tradeskill.world import World
from tradeskill_plugins.executions.backend import SupervisedBackend
from tradeskill_plugins.executions.records import Executions

__all__ = ["ProcessBackend"]


class ProcessBackend(SupervisedBackend):
    """`home` holds the executions."""

    def __init__(self, home: Path, world: World, owner: str, processes: int = 64) -> None:
        super().__init__(Executions(home, owner, processes), world)

    def check(self, task: Task) -> None:
        if not task.trusted:
            raise RefusedError("the process backend isolates nothing: it runs the seller's own code only; set trusted: true in the offer if it is")

    async def examine(self) -> str:
        return "isolation none: jobs run as this user and read what it reads, so own code only; time, memory, processes and output are limited"
