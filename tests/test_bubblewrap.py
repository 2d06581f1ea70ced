"""The bubblewrap backend passes the contract every backend passes, shows a job what it promises and no more, and never runs one with less."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tradeskill.contracts import Backend, Task
from tradeskill.testing.backend_contract import STDIN, BackendContract, Work
from tradeskill.world import World
from tradeskill_plugins.bubblewrap.backend import BubblewrapBackend

pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bwrap is not installed: apt install bubblewrap")

COMMANDS: dict[Work, str] = {
    "echo": "exec cat",
    "forever": "exec sleep 1000",
    "fail": "echo no luck >&2; exit 3",
    "flood": "exec yes",
    "environment": "env",
    "link": "ln -s /etc/passwd $TRADESKILL_OUTPUT/result",
    "hungry": "exec python3 -I -S -c 'x = bytearray(2**30); x[::4096] = bytes(2**18)'",
}


class Kit:
    """Counts runs over a FIFO, the one thing in a read-only folder that can be written to."""

    isolates = True

    def __init__(self, folder: Path) -> None:
        self.home, self.program, self._runs = folder / "executions", folder / "program", 0
        self.program.mkdir()
        os.mkfifo(self.program / "count")
        (self.program / "count").chmod(0o666)
        self.reader = os.open(self.program / "count", os.O_RDWR | os.O_NONBLOCK)

    def backend(self) -> Backend:
        return BubblewrapBackend(self.home, World(), "nobody")

    def task(self, work: Work, owner: str) -> Task:
        return Task(("sh", "-c", f"echo >> /job/program/count; {COMMANDS[work]}"), STDIN, self.program, trusted=True, details={"owner": owner})

    def runs(self) -> int:
        with suppress(BlockingIOError):
            self._runs += len(os.read(self.reader, 4096))
        return self._runs


class TestContract(BackendContract):
    @pytest.fixture
    def kit(self, tmp_path: Path) -> Iterator[Kit]:
        kit = Kit(tmp_path)
        yield kit
        os.close(kit.reader)
