"""How the conformance kit tries the backend `process`: opened as a user would, through its hook, with its executions in a folder of their own."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tradeskill.contracts import Backend, PluginContext, Task
from tradeskill.signing import Identity
from tradeskill.testing.backend_contract import STDIN, BackendContract, Work
from tradeskill.testing.shell_works import SHELL_WORKS
from tradeskill.world import World
from tradeskill_plugins.process import tradeskill_open_backend

__all__ = ["ProcessKit", "TestProcess"]


class ProcessKit:
    """Each command first writes a line to a file beside the executions."""

    isolates = False

    def __init__(self, folder: Path) -> None:
        self.home, self.count = folder / "home", folder / "count"

    def backend(self) -> Backend:
        return tradeskill_open_backend({}, PluginContext("process", "dev", self.home, World(), Identity(bytes(31) + b"\x01"), lambda: ""))

    def task(self, work: Work, owner: str) -> Task:
        script = f"echo run >> {shlex.quote(str(self.count))}; {SHELL_WORKS[work]}"
        return Task(("sh", "-c", script), STDIN, trusted=True, details={"owner": owner})

    def runs(self) -> int:
        return len(self.count.read_text().split()) if self.count.exists() else 0


class TestProcess(BackendContract):
    @pytest.fixture
    def kit(self, tmp_path: Path) -> ProcessKit:
        return ProcessKit(tmp_path)
