"""How the conformance kit tries this backend: opened as a user would, through its hook, on a machine of its own for every test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pytest
from tradeskill.contracts import Backend, PluginContext, Task
from tradeskill.signing import Identity
from tradeskill.testing.backend_contract import STDIN, BackendContract, Work
from tradeskill.world import World

from tradeskill_textworks import tradeskill_open_backend
from tradeskill_textworks.backend import runs_in


class Kit:
    """One machine; `backend()` is asked again for a worker that was restarted."""

    isolates = True
    lacks: ClassVar[Mapping[str, str]] = {
        "environment": "its works are functions, which have no environment",
        "link": "its works write no files",
        "memory": "its works take no more than their input, many times over",
    }
    commands: ClassVar[Mapping[Work, str]] = {"echo": "copy", "forever": "wait", "fail": "upper", "flood": "repeat"}  # STDIN is no text: upper fails

    def __init__(self, home: Path) -> None:
        self.home = home

    def backend(self) -> Backend:
        return tradeskill_open_backend({}, PluginContext("textworks", "dev", self.home, World(), Identity(bytes(31) + b"\x01"), lambda: "password"))

    def task(self, work: Work, owner: str) -> Task:
        return Task((self.commands[work],), STDIN, trusted=True, details={"owner": owner})

    def runs(self) -> int:
        return runs_in(self.home)


class TestTextworks(BackendContract):
    @pytest.fixture
    def kit(self, tmp_path: Path) -> Kit:
        return Kit(tmp_path)
