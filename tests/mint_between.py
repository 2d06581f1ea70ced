"""What stands between a wallet and its mint when things go wrong: it forwards, and on request loses, delays, spoils or forges answers."""

from __future__ import annotations

import http.client
import json
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Fault = Callable[["Passing"], None]
PATIENCE = 60.0


class Between:
    """A URL that is the mint, but for the faults planned for a path. `seen` are the (method, path, body) that came in, `passed` those that went on.

    `keeps` makes it answer a repeated POST with what the mint answered first (NUT-19), which the tests' mint cannot.
    """

    def __init__(self, url: str, keeps: bool = False) -> None:
        self.target = url.removeprefix("http://")
        self.seen: list[tuple[str, str, bytes]] = []
        self.passed: list[tuple[str, str, bytes]] = []
        self.keeps = keeps
        self.kept: dict[tuple[str, bytes], bytes] = {}
        self._planned: dict[str, deque[Fault]] = {}
        self._always: dict[str, Fault] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.released = threading.Event()
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def plan(self, path: str, *faults: Fault) -> None:
        """For the next requests whose path begins so, in order; later ones pass."""
        self._planned.setdefault(path, deque()).extend(faults)

    def always(self, path: str, fault: Fault | None) -> None:
        """For every request whose path begins so, until it is None."""
        self._always.pop(path, None)
        if fault is not None:
            self._always[path] = fault

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(PATIENCE)

    def fault_for(self, path: str) -> Fault | None:
        for start, planned in self._planned.items():
            if path.startswith(start) and planned:
                return planned.popleft()
        return next((fault for start, fault in self._always.items() if path.startswith(start)), None)


class Passing:
    """One request on its way. A fault reads it, may `forward` it, and may `answer`; one that does not answer closes the connection."""

    def __init__(self, between: Between, method: str, path: str, body: bytes, handler: Any) -> None:
        self.between, self.method, self.path, self.body, self._handler = between, method, path, body, handler

    def forward(self) -> tuple[int, bytes]:
        """The mint's own status and answer."""
        self.between.passed.append((self.method, self.path, self.body))
        kept = self.between.kept.get((self.path, self.body)) if self.between.keeps else None
        if kept is not None:
            return 200, kept
        connection = http.client.HTTPConnection(self.between.target, timeout=PATIENCE)
        try:
            connection.request(self.method, self.path, self.body or None, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            status, data = answer.status, answer.read()
        finally:
            connection.close()
        if self.method == "POST" and status == 200:
            self.between.kept[self.path, self.body] = data
        return status, data

    def answer(self, status: int, data: bytes) -> None:
        self._handler.reply(status, data)

    def write(self, data: bytes) -> None:
        """Bytes on the connection, as they are. OSError once the other side has gone."""
        self._handler.wfile.write(data)


def passes(passing: Passing) -> None:
    """No fault."""
    passing.answer(*passing.forward())


def unsent(passing: Passing) -> None:
    """The connection ends before the mint hears of it."""


def lost(passing: Passing) -> None:
    """The mint did it; its answer never comes."""
    passing.forward()


def hangs(passing: Passing) -> None:
    """The mint did it; the connection stays open and silent until the test ends."""
    passing.forward()
    passing.between.released.wait(PATIENCE)


def twice(passing: Passing) -> None:
    """The request reaches the mint two times; the second answer comes back."""
    passing.forward()
    passing.answer(*passing.forward())


def says(status: int, data: bytes) -> Fault:
    """The mint did it; something else is answered."""

    def fault(passing: Passing) -> None:
        passing.forward()
        passing.answer(status, data)

    return fault


def refuses(status: int, data: bytes) -> Fault:
    """The mint hears nothing; this is answered."""
    return lambda passing: passing.answer(status, data)


def forges(change: Callable[[Any], Any]) -> Fault:
    """The mint did it; its JSON comes back as `change` makes it."""

    def fault(passing: Passing) -> None:
        status, data = passing.forward()
        passing.answer(status, json.dumps(change(json.loads(data))).encode())

    return fault


@contextmanager
def between(url: str, keeps: bool = False) -> Iterator[Between]:
    """One that is gone afterwards."""
    made = Between(url, keeps)
    try:
        yield made
    finally:
        made.close()


def _handler(owner: Between) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._pass(b"")

        def do_POST(self) -> None:
            self._pass(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
            """Quietly."""

        def _pass(self, body: bytes) -> None:
            owner.seen.append((self.command, self.path, body))
            self.close_connection = True
            try:
                (owner.fault_for(self.path) or passes)(Passing(owner, self.command, self.path, body, self))
            except OSError:  # the mint is down, or the wallet has gone: the connection just ends
                return

        def reply(self, status: int, data: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(data)

    return Handler
