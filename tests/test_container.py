"""The container backend passes the contract every backend passes, on a real engine; jobs get what is promised and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import pytest

from tests.podman import Engine
from tradeskill.contracts import Backend, Limits, Task
from tradeskill.testing.backend_contract import STDIN, BackendContract, Work
from tradeskill.world import World
from tradeskill_plugins.container.backend import ContainerBackend
from tradeskill_plugins.container.settings import Settings

T = TypeVar("T")
LIMITS = Limits(seconds=30, memory=128 * 2**20, output=2**20)
COMMANDS: dict[Work, str] = {
    "echo": "exec cat",
    "forever": "exec sleep 1000",
    "fail": "echo no luck >&2; exit 3",
    "flood": "exec yes",
    "environment": "exec env",
    "link": 'ln -s /etc/passwd "$TRADESKILL_OUTPUT/result"',
    "hungry": "exec python3 -I -S -c 'x = bytearray(2**30); x[::4096] = bytes(2**18)'",
}


class Kit:
    isolates = True

    def __init__(self, home: Path, engine: Engine) -> None:
        self.home, self.engine = home, engine

    def backend(self) -> Backend:
        return ContainerBackend(self.home, World(), "nobody", Settings(self.engine.image, self.engine.socket))

    def task(self, work: Work, owner: str) -> Task:
        return Task(("sh", "-c", COMMANDS[work]), STDIN, trusted=True, details={"owner": owner})

    def runs(self) -> int:
        return self.engine.starts(f"tradeskill-{(self.home / 'instance').read_text()}-")


class TestContract(BackendContract):
    @pytest.fixture
    def kit(self, tmp_path: Path, podman: Engine) -> Kit:
        return Kit(tmp_path, podman)
