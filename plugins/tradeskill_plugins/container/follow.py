"""A container's stdin and what it prints: fed and read without ever waiting for it, counted, kept up to a bound, read again when in doubt."""

from __future__ import annotations

import os
import select
import socket
from pathlib import Path
from typing import Final

from tradeskill_plugins.container.engine import Engine
from tradeskill_plugins.container.frames import STDOUT, Frames

__all__ = ["Following"]

_TAIL: Final = 16 * 1024  # of stderr, for the seller's log
_MOST_STDERR: Final = 2**20  # besides as much as the output may be; nobody reads it
_CHUNK: Final = 1 << 16


class Following:
    """stdout goes to the folder's file `stdout`, one byte past `most` at the most. `overrun` says so when either stream is too long."""

    def __init__(self, folder: Path, most: int) -> None:
        self._stdout = os.open(folder / "stdout", os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._most = most
        self._socket: socket.socket | None = None
        self._input = memoryview(b"")
        self.fed = False
        self._restart()

    @property
    def open(self) -> bool:
        return self._socket is not None

    def attach(self, engine: Engine, name: str, stdin: bytes) -> None:
        """Before the start, so that nothing is missed."""
        self._socket = engine.attach(name)
        self._socket.setblocking(False)
        self._input = memoryview(stdin)

    def step(self, seconds: float, wake: int) -> None:
        """Feed and read what is possible, waiting at most so long or until `wake` can be read. `fed` once its input is in, or not wanted."""
        assert self._socket is not None
        poller = select.poll()
        poller.register(wake, select.POLLIN)
        poller.register(self._socket, select.POLLIN | (0 if self.fed else select.POLLOUT))
        for descriptor, event in poller.poll(max(1, int(seconds * 1000))):
            if descriptor == wake:
                continue
            if not self.fed:
                self._feed()
            if event & (select.POLLIN | select.POLLHUP | select.POLLERR):
                self._read()

    def read_log(self, engine: Engine, name: str) -> None:
        """All that it printed so far, from the engine's log, in the place of what was read before."""
        self.detach()
        self._restart()
        with engine.logs(name) as chunks:
            for chunk in chunks:
                self._take(chunk)
                if self.overrun:
                    return

    def catch_up(self, engine: Engine, name: str) -> None:
        """Once it ended: read the engine's log where that has more output than came. A stream that broke off looks like one that ended.

        What came is preferred: Docker's log ends a last line that has no end.
        """
        frames, logged, last = Frames(), 0, b""
        with engine.logs(name) as chunks:
            for chunk in chunks:
                for part in (part for stream, part in frames.feed(chunk) if stream == STDOUT):
                    logged, last = logged + len(part), part[-1:]
        ended_line = last == b"\n" and self._last not in (b"", b"\n")
        if logged > self._printed + ended_line:
            self.read_log(engine, name)

    def detach(self) -> None:
        """Podman does not end a container while somebody is attached and does not read."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def sync(self) -> None:
        os.fsync(self._stdout)

    def close(self) -> None:
        self.detach()
        os.close(self._stdout)

    def _restart(self) -> None:
        os.ftruncate(self._stdout, 0)
        os.lseek(self._stdout, 0, os.SEEK_SET)
        self._frames = Frames()
        self._printed = self._complained = 0
        self.tail = self._last = b""
        self.overrun = ""

    def _feed(self) -> None:
        assert self._socket is not None
        try:
            while self._input:
                self._input = self._input[self._socket.send(self._input[:_CHUNK]) :]
            self._socket.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            return
        except OSError:  # it ended, or wants no input
            pass
        self.fed = True

    def _read(self) -> None:
        assert self._socket is not None
        try:
            data = self._socket.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._take(data)
        else:
            self.detach()

    def _take(self, data: bytes) -> None:
        for stream, part in self._frames.feed(data):
            if stream == STDOUT:
                room = self._most + 1 - self._printed
                self._printed += len(part)
                self._last = part[-1:]
                if room > 0:
                    _write_all(self._stdout, part[:room])
            else:
                self._complained += len(part)
                self.tail = (self.tail + part)[-_TAIL:]
        if self._printed > self._most:
            self.overrun = f"printed more than {self._most} bytes"
        elif self._complained > self._most + _MOST_STDERR:
            self.overrun = f"printed more than {self._most + _MOST_STDERR} bytes to stderr"


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
