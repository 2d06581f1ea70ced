"""How tests start a relay of ours: as a process that may be killed, or inside the test's process on a clock of the test. The one place that knows how."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.old_relay import running_old_relay
from tests.postgres import PostgresServer
from tests.relay_wire import Wire
from tradeskill.model import Network
from tradeskill.testing.market_contract import SteppedClock
from tradeskill_plugins.relay.server.aside import relay_aside
from tradeskill_plugins.relay.server.door import DoorSettings
from tradeskill_plugins.relay.server.serving import RelaySettings

PATIENCE = 60.0  # seconds until a relay that does not come up fails the test
_NUMBERS = itertools.count(1)
SERVE = (sys.executable, "-m", "tradeskill", "relay", "serve")


class RelayProcess:
    """`tradeskill relay serve` on one file, started as often as is wanted; from the second start on it is on the same port."""

    def __init__(self, data: Path | str, *options: str, log: Path | None = None) -> None:
        """`data`: a file or a DSN. `log`: where its stderr goes; beside the file if not said."""
        self.data, self.options, self.port, self.url = str(data), options, 0, ""
        self.log = log if log is not None or "://" in str(data) else Path(data).with_suffix(".log")
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> str:
        """The base URL, once it listens."""
        command = [*SERVE, "--port", str(self.port), "--data", self.data, "--json", *self.options]
        with open(self.log or os.devnull, "a") as errors:  # noqa: PTH123  # either of two
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env={**os.environ, "PYTHONWARNINGS": "error"})
        line = self._first_line()
        self.url = str(json.loads(line)["url"])
        self.port = int(self.url.rpartition(":")[2].rstrip("/"))
        return self.url

    def _first_line(self) -> str:
        assert self._process is not None
        assert self._process.stdout is not None
        timer = threading.Timer(PATIENCE, self._process.kill)
        timer.start()
        try:
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        if not line:
            self._process.wait(PATIENCE)
            raise AssertionError(f"the relay did not start: exit {self._process.returncode}\n{self.said()[-3000:]}")
        return line

    def said(self) -> str:
        return self.log.read_text() if self.log and self.log.exists() else ""

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def resident_bytes(self) -> int:
        text = Path(f"/proc/{self.pid}/status").read_text()
        return 1024 * int(next(line.split()[1] for line in text.splitlines() if line.startswith("VmRSS")))

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """Asks it to end; its exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(how)
        try:
            return process.wait(PATIENCE)
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


@contextmanager
def relay_process(data: Path | str, *options: str, log: Path | None = None) -> Iterator[RelayProcess]:
    relay = RelayProcess(data, *options, log=log)
    relay.start()
    try:
        yield relay
    finally:
        relay.stop()


@dataclass(frozen=True)
class Stand:
    """A running relay on a clock that only the test moves. `ours` is false for the double of the old one."""

    url: str
    clock: SteppedClock
    ours: bool

    def wire(self, source: str = "") -> Wire:
        return Wire(self.url, self.clock, source)


def fresh_database(server: PostgresServer) -> str:
    """A database of its own on that server: its DSN, as a relay takes it."""
    name = f"relay_{next(_NUMBERS)}"
    server.run(f"CREATE DATABASE {name}")
    return f"postgresql:///{name}?{urllib.parse.urlencode({'host': server.folder, 'user': 'keeper'})}"


def place_for(kind: str, request: pytest.FixtureRequest) -> Path | str:
    """Where a relay of this kind keeps its data: `postgres`: a database of the session's server, any other: a file in a folder of its own."""
    if kind == "postgres":
        return fresh_database(request.getfixturevalue("postgres"))
    folder: Path = request.getfixturevalue("tmp_path_factory").mktemp(kind)
    return folder / "relay.db"


@contextmanager
def stand(kind: str, data: Path | str, *, limits: bool = False, clock: SteppedClock | None = None, network: Network | None = None) -> Iterator[Stand]:
    """A relay within this process, on a thread of its own: `ours` on the file `data`, `postgres` on the DSN, the `old` one in memory."""
    clock = clock or SteppedClock()
    if kind == "old":
        with running_old_relay(world=clock, limits=limits) as relay:
            yield Stand(relay.url, clock, ours=False)
    else:
        with _within(data, clock, limits, network) as url:
            yield Stand(url, clock, ours=True)


@contextmanager
def _within(data: Path | str, clock: SteppedClock, limits: bool, network: Network | None) -> Iterator[str]:
    off: dict[str, Any] = {} if limits else {"per_ip": None, "per_key": None, "strict": None}
    with relay_aside(RelaySettings(str(data), DoorSettings(port=0), network=network, **off), clock) as url:
        yield url
