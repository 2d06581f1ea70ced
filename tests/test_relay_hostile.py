"""Requests that nobody sends by mistake: never a 5xx, never a traceback, never a relay that grows. And schemathesis over the relay's own OpenAPI text.

Two ways to break a request: before it is signed (it passes the door, and the rules have to hold), and in its bytes on the wire (it may not even be HTTP).
Every mutation comes from a seed, and a request that is answered wrongly is told in full.
"""

from __future__ import annotations

import os
import random
import re
import select
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.relay_mutations import QUERY_PIECES, broken_before_signing, broken_on_the_wire, samples
from tests.relay_started import RelayProcess, place_for, relay_process
from tests.relay_wire import Floor, Party, Wire

ROOT = Path(__file__).parent.parent
GROWTH = 96 * 2**20  # bytes that a relay may grow by under fire
FRESH = 250  # requests of a thread on the same jobs
PATIENCE = 0.05  # seconds for an answer to bytes that may be no whole request
INSIDE = re.compile(rb"traceback|sqlite3?\.|psycopg|\bselect \b|\binsert into\b|file \"/|tradeskill_plugins", re.IGNORECASE)


@dataclass
class Report:
    requests: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest: float = 0.0
    grown: int = 0


def answer_to(wire: Wire, request: bytes) -> bytes:
    """The first bytes of what comes back: nothing when the relay just hangs up or waits for more."""
    with socket.create_connection((wire.host, wire.port), 20) as connection:
        with suppress(OSError):  # it may hang up while we are still sending; what it said is there all the same
            connection.sendall(request)
        got = b""
        try:
            while len(got) < 65_536 and b"text/event-stream" not in got and not _whole(got):
                if not select.select([connection], [], [], PATIENCE if not got else 2)[0]:
                    break
                more = connection.recv(65_536)
                if not more:
                    break
                got += more
                if got.startswith(b"HTTP/1.1 100 "):  # go on, it says; the answer comes after
                    got = got.partition(b"\r\n\r\n")[2]
        except OSError:
            pass
        return got


def _whole(got: bytes) -> bool:
    head, separator, body = got.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: *([0-9]+)", head)
    return bool(separator and length and len(body) >= int(length[1]))


def bombard(relay: RelayProcess, count: int, seed: int, threads: int = 4) -> Report:
    """`count` broken requests; what came of them."""
    report, lock = Report(), threading.Lock()
    with Wire(relay.url) as wire:
        for sample in samples(Floor.at(wire)):  # warms the relay up, before it is weighed
            if sample.target != "/v1/events":
                wire.call(sample.party, sample.method, sample.target, sample.body)
    before = relay.resident_bytes()

    def fire(number: int) -> None:
        rng = random.Random(seed * 1_000 + number)
        with Wire(relay.url) as wire:
            for n in range(count // threads + (number < count % threads)):
                if n % FRESH == 0:  # what passed all the same has moved its job on
                    good = samples(Floor.at(wire))
                sample = rng.choice(good)
                if rng.random() < 0.75 and sample.target != "/v1/events":
                    request = broken_before_signing(rng, sample, wire)
                    started = time.monotonic()
                    got = _kept_alive(wire, request)
                    report.slowest = max(report.slowest, time.monotonic() - started)  # a hint; two threads may overwrite each other
                else:
                    request = broken_on_the_wire(rng, sample, wire)
                    got = answer_to(wire, request)
                status = got[9:12].decode("latin-1") if got.startswith(b"HTTP/1.") else "none"
                fault = status.startswith("5") or (INSIDE.search(got.partition(b"\r\n\r\n")[2]) is not None and b"/docs" not in request[:30])
                with lock:
                    report.requests += 1
                    report.statuses[status] += 1
                    if fault and len(report.faults) < 20:
                        report.faults.append(f"seed {seed}, {number}.{n}: {request[:1_500]!r} -> {got[:600]!r}")

    with ThreadPoolExecutor(threads) as pool:
        for one in [pool.submit(fire, number) for number in range(threads)]:
            one.result()
    with Wire(relay.url) as wire:
        if wire.send("GET", "/health").status != 200:
            report.faults.append("not healthy afterwards")
    report.grown = relay.resident_bytes() - before
    if report.grown > GROWTH:
        report.faults.append(f"grown by {report.grown} bytes")
    if "Traceback" in relay.said():
        report.faults.append(relay.said()[-3_000:])
    return report


def _kept_alive(wire: Wire, request: bytes) -> bytes:
    """A request whose framing is right, on a connection that is kept; the answer as it would look on the wire."""
    try:
        answer = wire.exchange(request, request.partition(b" ")[0].decode("latin-1"))
    except OSError:
        return b""
    return b"HTTP/1.1 %d X\r\n\r\n" % answer.status + answer.body


def schemathesis(url: str, seconds: int, seed: int, folder: Path, slowest: float = 1.0) -> list[str]:
    """Schemathesis over the relay's own description, every request signed; what it found: 5xx, and answers that took over `slowest` seconds."""
    found = folder / "found.json"
    command = [sys.executable, "-m", "schemathesis.cli", "run", url.rstrip("/") + "/docs/json", "--url", url.rstrip("/"), "--max-time", str(seconds)]
    command += ["--checks", "not_a_server_error", "--max-response-time", str(slowest), "--seed", str(seed), "--no-color", "--continue-on-failure"]
    command += ["--generation-database", "none", "--suppress-health-check", "all", "--warnings", "off"]
    command += ["--report-json-path", str(found), "--exclude-path", "/v1/events"]  # a stream has no end to wait for
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "tests.relay_signing_hook", "TRADESKILL_RELAY_URL": url, "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONWARNINGS", None)
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=seconds + 240)
    if ended.returncode == 0:
        return []
    return [line for line in ended.stdout.splitlines() if line.strip()][-60:] + ended.stderr.splitlines()[-20:]


@pytest.fixture(params=["sqlite", "postgres"])
def relay(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RelayProcess]:
    with relay_process(place_for(request.param, request), "--no-limits", log=tmp_path / "log") as started:
        yield started


def test_no_broken_request_breaks_the_relay(relay: RelayProcess) -> None:
    report = bombard(relay, 1_500, seed=1)
    assert report.faults == []
    assert report.requests == 1_500
    assert set(report.statuses) >= {"200", "400", "401", "404"}


def test_a_query_of_any_kind_is_never_a_5xx(relay: RelayProcess) -> None:
    with Wire(relay.url) as wire:
        party = Party()
        for piece in QUERY_PIECES:
            for target in (f"/v1/offers?{piece}", f"/v1/jobs?{piece}"):
                answer = wire.call(party, "GET", target)
                assert answer.status in (200, 400, 404, 414), (target, answer)


def test_schemathesis_finds_no_server_error_and_nothing_slow(tmp_path: Path) -> None:
    with relay_process(tmp_path / "relay.db", "--no-limits") as relay:
        assert schemathesis(relay.url, 8, 1, tmp_path, slowest=10.0) == []  # the campaign has the machine to itself and asks for 1 s
        assert "Traceback" not in relay.said()
        with Wire(relay.url) as wire:
            assert len(wire.send("GET", "/docs/json").ok["paths"]) >= 15
