"""Processes of the `tradeskill` command: started with a home of their own, waited for with a bound, ended by pid."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SECONDS = 60.0  # for anything one actor does; a machine shared by many is slow
PASSWORD = "only for tests"


class Actor:
    """`async with Actor(home, ["sell", "--json"]) as seller`. What it wrote on stderr lies beside its home."""

    def __init__(self, home: Path, arguments: Sequence[str], *, crash_at: str = "", prefix: Sequence[str] = ()) -> None:
        self._home, self._command = home, [*prefix, sys.executable, "-m", "tradeskill", *arguments]
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TRADESKILL_")},
            "TRADESKILL_HOME": str(home),
            "TRADESKILL_PASSWORD_FILE": str(home.parent / "password"),
            **({"TRADESKILL_CRASH_AT": crash_at} if crash_at else {}),
        }
        self._log = home.parent / f"{home.name}.log"
        self.printed: list[dict[str, Any]] = []
        self._reading = asyncio.Lock()

    async def __aenter__(self) -> Actor:
        with self._log.open("ab") as log:
            self._log_start = log.tell()
            self.process = await asyncio.create_subprocess_exec(
                *self._command, env=self._environment, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=log, limit=1 << 22
            )
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
            self.process.send_signal(signal.SIGCONT)
        await self.ended()

    async def line(self) -> dict[str, Any]:
        """The next line of JSON; {} when it ended first."""
        assert self.process.stdout is not None
        async with self._reading, asyncio.timeout(SECONDS):
            text = await self.process.stdout.readline()
        if not text:
            return {}
        value: dict[str, Any] = json.loads(text)
        self.printed.append(value)
        return value

    async def ended(self) -> int:
        """Its exit code, minus the signal's number where one killed it."""
        while await self.line():
            pass
        async with asyncio.timeout(SECONDS):
            return await self.process.wait()

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    @property
    def said(self) -> str:
        """What this process wrote on stderr."""
        return self._log.read_bytes()[self._log_start :].decode("utf-8", "replace")
