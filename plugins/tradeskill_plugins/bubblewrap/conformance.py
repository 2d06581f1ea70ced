"""How the conformance kit tries the backend `bubblewrap`: opened as a user would, through its hook, with its executions in a folder of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tradeskill.contracts import Backend, PluginContext, Task
from tradeskill.signing import Identity
from tradeskill.testing.backend_contract import STDIN, BackendContract, Work
from tradeskill.testing.shell_works import SHELL_WORKS
from tradeskill.world import World
from tradeskill_plugins.bubblewrap import tradeskill_open_backend

__all__ = ["BubblewrapKit", "TestBubblewrap"]


class BubblewrapKit:
    """Counts runs over a FIFO, the one thing in a read-only folder that can be written to."""

    isolates = True

    def __init__(self, folder: Path) -> None:
        self.home, self.program, self._runs = folder / "home", folder / "program", 0
        self.program.mkdir()
        os.mkfifo(self.program / "count")
        (self.program / "count").chmod(0o666)  # jobs run as another user
        self.reader = os.open(self.program / "count", os.O_RDWR | os.O_NONBLOCK)

    def backend(self) -> Backend:
        return tradeskill_open_backend({}, PluginContext("bubblewrap", "dev", self.home, World(), Identity(bytes(31) + b"\x01"), lambda: ""))

    def task(self, work: Work, owner: str) -> Task:
        script = f"echo >> /job/program/count; {SHELL_WORKS[work]}"
        return Task(("sh", "-c", script), STDIN, self.program, trusted=True, details={"owner": owner})

    def runs(self) -> int:
        with suppress(BlockingIOError):
            self._runs += len(os.read(self.reader, 4096))
        return self._runs


class TestBubblewrap(BackendContract):
    @pytest.fixture
    def kit(self, tmp_path: Path) -> Iterator[BubblewrapKit]:
        made = BubblewrapKit(tmp_path)
        yield made
        os.close(made.reader)
