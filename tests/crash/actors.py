"""Processes of this project: started with a home of their own, listened to, waited for with a bound, ended by pid."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

SECONDS = 60.0  # for anything one actor does; a machine shared by many is slow
PASSWORD = "only for tests"
ROOT = Path(__file__).parents[2]


class Actor:
    """`async with Actor(home, ["sell", "--json"]) as seller`. `prefix`: a program that runs it, such as strace."""

    def __init__(self, home: Path, arguments: Sequence[str], *, crash_at: str = "", prefix: Sequence[str] = (), module: str = "tradeskill") -> None:
        self._command = [*prefix, sys.executable, "-m", module, *arguments]
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TRADESKILL_")},
            "TRADESKILL_HOME": str(home),
            "TRADESKILL_PASSWORD_FILE": str(home.parent / "password"),
            **({"TRADESKILL_CRASH_AT": crash_at} if crash_at else {}),
        }
        self.said = ""  # on stderr, so far
        self._heard = asyncio.Condition()
        self._reading = asyncio.Lock()

    async def __aenter__(self) -> Actor:
        pipe = asyncio.subprocess.PIPE
        self.process = await asyncio.create_subprocess_exec(
            *self._command,
            cwd=ROOT,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe,
            limit=1 << 22,
            start_new_session=True,
        )
        self._listening = asyncio.create_task(self._listen())
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self.process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)  # its own session, so nobody else's
        await self.ended()

    async def _listen(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            async with self._heard:
                self.said += line.decode("utf-8", "replace")
                self._heard.notify_all()

    async def says(self, words: str) -> None:
        """Wait until these words were on stderr."""
        try:
            async with self._heard, asyncio.timeout(SECONDS):
                await self._heard.wait_for(lambda: words in self.said)
        except TimeoutError as error:
            raise AssertionError(f"{words!r} was not said within {SECONDS:g} s, only: {self.said}") from error

    async def line(self) -> dict[str, Any]:
        """The next line of JSON on stdout; {} when it ended first."""
        assert self.process.stdout is not None
        async with self._reading, asyncio.timeout(SECONDS):
            text = await self.process.stdout.readline()
        if not text:
            return {}
        value: dict[str, Any] = json.loads(text)
        return value

    async def lines(self) -> list[dict[str, Any]]:
        """What is left to come on stdout."""
        found = []
        while line := await self.line():
            found.append(line)
        return found

    async def ended(self) -> int:
        """Its exit code, minus the signal's number where one killed it."""
        await self.lines()
        async with asyncio.timeout(SECONDS):
            await self._listening
            return await self.process.wait()

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)
