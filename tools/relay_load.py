"""The load on a relay, in a process of its own: one JSON command a line on stdin, one JSON answer a line on stdout. Used by relay_bench.py.

Raw sockets, one request under way on each connection, every request signed before its stretch of time begins. A job's id is known only once
it was requested, so lifecycles run in rounds of two timed stretches: all requests of jobs, then (signed meanwhile, untimed) the five other
steps of each. Whatever answers otherwise than it must ends the process.
"""

from __future__ import annotations

import json
import os
import re
import selectors
import socket
import sys
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tradeskill.signing import Identity
from tradeskill_plugins.relay.signed_http import sign_request

LENGTH = re.compile(rb"\r\ncontent-length: ([0-9]+)\r\n")
ADDRESS = "nano_1111111111111111111111111111111111111111111111111111hifc8npp"
PAYLOAD = {"url": "https://example.org/a/page/of/some/length.html", "format": "markdown", "links": True}


@dataclass
class Stretch:
    """What one stretch of time, or several of one kind, took."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0  # of the server and of the database's processes
    latencies: list[float] = field(default_factory=list)

    def figures(self, units: int) -> dict[str, Any]:
        ordered = sorted(self.latencies)
        return {
            "units": units,
            "seconds": self.seconds,
            "requests": len(ordered),
            "cpu_ms": self.cpu_seconds * 1000 / len(ordered),
            "latencies_ms": [round(value * 1000, 4) for value in ordered],
        }


class Party:
    def __init__(self, seed: bytes) -> None:
        self.seed, self.key = seed, Identity(seed).key


class Load:
    def __init__(self, port: int, pids: Sequence[int]) -> None:
        self._port, self._pids = port, pids
        self._sockets: list[socket.socket] = []
        self._offers: list[tuple[Party, Party, str]] = []  # buyer, seller, offer; one of each a connection

    def no_ops(self, connections: int, each: int) -> dict[str, Any]:
        """Signed, well-formed, for a job that nobody knows: 404, and the nonce is on disk."""
        self._open(connections)
        requests = [[self._post(Party(os.urandom(32)), f"/v1/jobs/{uuid.uuid4()}/accept", {}) for _ in range(each)] for _ in range(connections)]
        stretch = Stretch()
        self._run(requests, 404, stretch)
        return stretch.figures(connections * each)

    def lifecycles(self, connections: int, each: int, keyed: bool) -> dict[str, Any]:
        """`each` on every connection. `keyed`: every request has an Idempotency-Key, so its answer is kept."""
        self._open(connections)
        self._put_up(connections)
        stretch = Stretch()
        jobs = []
        for buyer, _, offer in self._of(connections):
            jobs.append([self._post(buyer, "/v1/jobs", {"offer_id": offer, "request_payload": PAYLOAD}, keyed) for _ in range(each)])
        answers = self._run(jobs, 201, stretch)
        steps: list[list[bytes]] = []
        for (buyer, seller, _), made in zip(self._of(connections), answers, strict=True):
            steps.append([])
            for answer in made:
                steps[-1] += self._steps(buyer, seller, json.loads(answer)["job"]["job_id"], keyed)
        last = self._run(steps, 200, stretch)
        if not all(json.loads(answers[-1])["job"]["status"] == "delivered" for answers in last):
            raise SystemExit("relay_load: a lifecycle did not end delivered")
        return stretch.figures(connections * each)

    def gets(self, target: str, each: int, seed: str | None, holds: str) -> dict[str, Any]:
        """One after the other on one connection; signed where a seed is given."""
        self._open(1)
        party = None if seed is None else Party(bytes.fromhex(seed))
        stretch = Stretch()
        answers = self._run([[self._get(target, party) for _ in range(each)]], 200, stretch)
        if holds.encode() not in answers[0][-1]:
            raise SystemExit(f"relay_load: {holds!r} is not in the answer to {target}: {answers[0][-1][:300]!r}")
        return {**stretch.figures(each), "bytes": len(answers[0][-1])}

    def after_changes(self, target: str, each: int) -> dict[str, Any]:
        """As `gets`, but a new offer is put up (untimed) before each."""
        self._open(1)
        stretch = Stretch()
        for _ in range(each):
            self._run([[self._offer(Party(os.urandom(32)))]], 201, Stretch())
            self._run([[self._get(target, None)]], 200, stretch)
        return stretch.figures(each)

    # requests

    def _put_up(self, connections: int) -> None:
        while len(self._offers) < connections:
            buyer, seller = Party(os.urandom(32)), Party(os.urandom(32))
            answer = self._run([[self._offer(seller)]], 201, Stretch())[0][0]
            self._offers.append((buyer, seller, json.loads(answer)["offer"]["offer_id"]))

    def _of(self, connections: int) -> list[tuple[Party, Party, str]]:
        return self._offers[:connections]

    def _offer(self, seller: Party) -> bytes:
        return self._post(seller, "/v1/offers", {"title": "Web page to Markdown", "description": "Any page", "tags": ["web"], "pricing_mode": "quote"})

    def _steps(self, buyer: Party, seller: Party, job_id: str, keyed: bool) -> list[bytes]:
        job = f"/v1/jobs/{job_id}"
        return [
            self._post(seller, f"{job}/quote", {"quote_amount_raw": "1000000000000000000000000000", "quote_invoice_address": ADDRESS}, keyed),
            self._post(buyer, f"{job}/accept", {}, keyed),
            self._post(buyer, f"{job}/payment", {"payment_tx_hash": os.urandom(32).hex()}, keyed),
            self._post(seller, f"{job}/lock", {}, keyed),
            self._post(seller, f"{job}/deliver", {"result_url": f"https://example.org/results/{job_id}"}, keyed),
        ]

    def _post(self, party: Party, target: str, body: dict[str, Any], keyed: bool = False) -> bytes:
        text = json.dumps(body, separators=(",", ":")).encode()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(text)), **_signed(party, "POST", target, text)}
        if keyed:
            headers["Idempotency-Key"] = str(uuid.uuid4())
        return _head("POST", target, headers) + text

    def _get(self, target: str, party: Party | None) -> bytes:
        return _head("GET", target, {} if party is None else _signed(party, "GET", target, b""))

    # the wire

    def _open(self, connections: int) -> None:
        """New ones: a relay takes a bounded number of requests from each."""
        for old in self._sockets:
            old.close()
        self._sockets.clear()
        while len(self._sockets) < connections:
            opened = socket.create_connection(("127.0.0.1", self._port))
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets.append(opened)

    def _run(self, queues: Sequence[Sequence[bytes]], status: int, stretch: Stretch) -> list[list[bytes]]:
        """Each queue over a connection of its own; the bodies of the answers."""
        expected = b"HTTP/1.1 %d " % status
        bodies: list[list[bytes]] = [[] for _ in queues]
        latencies = stretch.latencies
        left = len(queues)
        with selectors.EpollSelector() as selector:
            cpu, began = self._cpu(), time.perf_counter()
            sent = [began] * len(queues)
            for number, queue in enumerate(queues):
                selector.register(self._sockets[number], selectors.EVENT_READ, number)
                self._sockets[number].sendall(queue[0])
            while left:
                for entry, _ in selector.select(60):
                    number = entry.data
                    body = _answer(self._sockets[number], expected)
                    now = time.perf_counter()
                    latencies.append(now - sent[number])
                    done = bodies[number]
                    done.append(body)
                    if len(done) < len(queues[number]):
                        sent[number] = now
                        self._sockets[number].sendall(queues[number][len(done)])
                    else:
                        left -= 1
            stretch.seconds += time.perf_counter() - began
            stretch.cpu_seconds += self._cpu() - cpu
        return bodies

    def _cpu(self) -> float:
        return sum(_nanoseconds(pid) for pid in self._pids) / 1e9


def _head(method: str, target: str, headers: dict[str, str]) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: 127.0.0.1", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _signed(party: Party, method: str, target: str, body: bytes) -> dict[str, str]:
    return sign_request(party.seed, method, target.encode(), body, timestamp=int(time.time()), nonce=os.urandom(16).hex())


def _answer(connection: socket.socket, expected: bytes) -> bytes:
    """One whole answer's body. The server sends each in one piece, so waiting here for the rest holds nobody up."""
    data = connection.recv(262_144)
    while (end := data.find(b"\r\n\r\n")) < 0 or len(data) < end + 4 + _length(data, end):
        more = connection.recv(262_144)
        if not more:
            raise SystemExit(f"relay_load: the relay hung up after {data[:200]!r}")
        data += more
    if not data.startswith(expected):
        raise SystemExit(f"relay_load: wanted {expected!r}, got {data[:1000]!r}")
    return data[end + 4 :]


def _length(data: bytes, end: int) -> int:
    match = LENGTH.search(data, 0, end + 2)
    if match is None:
        raise SystemExit(f"relay_load: no length in {data[:300]!r}")
    return int(match[1])


def _nanoseconds(pid: int) -> int:
    """CPU time of a process and of its children, such as a database's sessions."""
    found = 0
    for name in (str(pid), *Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
        for thread in Path(f"/proc/{name}/task").glob("*/schedstat"):
            with suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
                found += int(thread.read_text().split()[0])
    return found


def main() -> None:
    load: Load | None = None
    for line in sys.stdin:
        command = json.loads(line)
        what = command.pop("do")
        if what == "connect":
            load = Load(**command)
            print("{}", flush=True)
        else:
            print(json.dumps(getattr(load, what)(**command)), flush=True)


if __name__ == "__main__":
    main()
