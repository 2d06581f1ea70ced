"""kill -9 of the relay, or of its database, in the middle of the work: what was acknowledged is there, clients finish, and nothing is done twice.

Each client takes jobs through their whole way and sends every step until it is acknowledged, with the step's own Idempotency-Key and a fresh HTTP nonce.
The relay is killed when so many more steps were acknowledged, that is while the other clients are in the middle of theirs.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.postgres import served
from tests.relay_started import RelayProcess, fresh_database, place_for
from tests.relay_wire import PLAIN_OFFER, Answer, Party, Wire, as_bytes, plain_quote

WAIT = 120.0  # seconds until a client that gets no answer gives up
STEPS = ("jobs", "quote", "accept", "payment", "lock", "deliver")


@dataclass
class Report:
    lifecycles: int = 0
    acknowledged: int = 0
    kills: int = 0
    retries: int = 0
    replayed: int = 0
    violations: list[str] = field(default_factory=list)


@dataclass
class Acknowledged:
    """What a client holds in its hands of one job."""

    answers: dict[str, Any] = field(default_factory=dict)
    fence: int = 0


class Victim(Protocol):
    def kill(self) -> None: ...

    def start(self) -> object: ...


class Ordeal:
    def __init__(self, relay: RelayProcess, victim: Victim, clients: int, lifecycles: int, every: int, seed: int) -> None:
        self.relay, self.victim, self.clients, self.lifecycles, self.every = relay, victim, clients, lifecycles, every
        self.random = random.Random(seed)
        self.report = Report()
        self.changed = threading.Condition()
        self.up, self.over = threading.Event(), threading.Event()
        self.jobs: dict[str, Acknowledged] = {}
        self.taken: dict[str, bytes] = {}  # the last request of each party that was acknowledged, every byte of it
        self.parties: list[tuple[Party, Party]] = [(Party(), Party()) for _ in range(clients)]

    def run(self) -> Report:
        self.relay.start()
        self.up.set()
        with ThreadPoolExecutor(self.clients + 1) as pool:
            killer = pool.submit(self._kill_now_and_then)
            working = [pool.submit(self._client, n) for n in range(self.clients)]
            try:
                for one in working:
                    one.result()
            finally:
                self.over.set()
                with self.changed:
                    self.changed.notify_all()
                killer.result()
        self._judge()
        return self.report

    def violated(self, text: str) -> None:
        with self.changed:
            self.report.violations.append(text)

    # the relay's side

    def _kill_now_and_then(self) -> None:
        while not self.over.is_set():
            target = self.report.acknowledged + self.random.randint(self.every // 2, self.every * 3 // 2)
            with self.changed:
                while self.report.acknowledged < target and not self.over.is_set():
                    self.changed.wait(1.0)
            if self.over.is_set():
                return
            self.up.clear()
            self.victim.kill()
            self.victim.start()
            self.report.kills += 1
            self.up.set()

    # a client's side

    def _client(self, number: int) -> None:
        buyer, seller = self.parties[number]
        share = self.lifecycles // self.clients + (number < self.lifecycles % self.clients)
        with Wire(self.relay.url) as wire:
            wire.reopens = False  # a retry is signed anew, and counted
            offer = self._until_done(wire, seller, "/v1/offers", PLAIN_OFFER, f"offer-{number}").json["offer"]["offer_id"]
            for n in range(share):
                self._lifecycle(wire, buyer, seller, offer, f"{number}-{n}")

    def _lifecycle(self, wire: Wire, buyer: Party, seller: Party, offer: str, name: str) -> None:
        bodies: dict[str, Mapping[str, Any]] = {
            "jobs": {"offer_id": offer, "request_payload": {"name": name}},
            "quote": plain_quote(),
            "accept": {},
            "payment": {"payment_tx_hash": f"{name}-{os.urandom(8).hex()}"},
            "lock": {},
            "deliver": {"result_url": f"https://a.example/{name}"},
        }
        held, job_id = Acknowledged(), ""
        for number, step in enumerate(STEPS):
            party = seller if step in ("quote", "lock", "deliver") else buyer
            target = "/v1/jobs" if step == "jobs" else f"/v1/jobs/{job_id}/{step}"
            body = bodies[step] if step != "deliver" else {**bodies[step], "market_fence": held.fence}
            answer = self._until_done(wire, party, target, body, f"{step}-{name}")
            if answer.status not in (200, 201):
                return
            job = answer.json["job"]
            job_id = job["job_id"]
            if job["revision"] != number + 1:
                self.violated(f"{name} {step}: revision {job['revision']}, {number + 1} steps were taken")
            held.answers[step] = job
            if step == "lock":
                held.fence = answer.json["market_fence"]
            with self.changed:
                self.jobs[job_id] = held
        with self.changed:
            self.report.lifecycles += 1

    def _until_done(self, wire: Wire, party: Party, target: str, body: Mapping[str, Any], key: str) -> Answer:
        """Sent until it is acknowledged. Any other answer than 2xx is a violation: an unanswered try was done wholly, or not at all."""
        raw, deadline, tries = as_bytes(body), time.monotonic() + WAIT, 0
        while True:
            assert time.monotonic() < deadline, f"{target} was not acknowledged in {WAIT:.0f} s"
            assert self.up.wait(WAIT)
            signed = party.headers("POST", target, raw, now_ms=wire.world.now_ms())
            request = wire.request_bytes("POST", target, raw, {**signed, "idempotency-key": key})
            try:
                answer = wire.exchange(request, "POST")
            except OSError:
                tries += 1
                continue
            if answer.status != 503:
                break
            tries += 1  # it cannot reach its database, and does not know what became of the step
            time.sleep(0.05)
        with self.changed:
            self.report.acknowledged += 1
            self.report.retries += tries
            self.report.replayed += answer.headers.get("idempotency-replayed") == "true"
            self.changed.notify_all()
        if answer.status not in (200, 201):
            self.violated(f"{target} after {tries} lost answers: {answer}")
        elif tries == 0 and answer.headers.get("idempotency-replayed") == "true":
            self.violated(f"{target} was replayed at the first try")
        elif tries or self.random.random() < 0.05:
            for once in (self.taken.get(party.key), request):  # the first of them by a relay that is dead now
                if once is not None:
                    self._send_again(wire, once, target)
        self.taken[party.key] = request
        return answer

    def _send_again(self, wire: Wire, request: bytes, target: str) -> None:
        """The same bytes as one that was taken, nonce and all: refused."""
        try:
            again = wire.exchange(request, "POST")
        except OSError:
            return
        if again.code != "auth.nonce_replay" and again.status != 503:
            self.violated(f"the exact bytes of a request were taken twice, after {target}: {again}")

    # what is there in the end

    def _judge(self) -> None:
        self.victim.kill()  # once more, with nobody at work
        self.victim.start()
        with Wire(self.relay.url) as wire:
            deadline = time.monotonic() + WAIT
            while wire.send("GET", "/ready").status != 200:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        with Wire(self.relay.url) as wire:
            seen: dict[str, Any] = {}
            for buyer, seller in self.parties:
                for party, role in ((buyer, "buyer"), (seller, "seller")):
                    cursor = ""
                    while True:
                        page = wire.get(party, f"/v1/jobs?limit=100&cursor={cursor}").ok
                        for job in page["jobs"]:
                            if seen.setdefault(job["job_id"], job) != job:
                                self.violated(f"{role} is shown another job {job['job_id']}")
                        cursor = page["cursor"]
                        if not page["more"]:
                            break
        for job_id, held in self.jobs.items():
            last = list(held.answers.values())[-1]
            if seen.get(job_id) != last:
                self.violated(f"acknowledged: {last}; there is: {seen.get(job_id)}")
        for job_id in seen.keys() - self.jobs.keys():
            self.violated(f"job {job_id} is one that nobody was told of")
        names = Counter(json.dumps(job["request_payload"]) for job in seen.values())
        self.report.violations += [f"{count} jobs for request {name}" for name, count in names.items() if count > 1]
        fences = Counter(held.fence for held in self.jobs.values() if held.fence)
        self.report.violations += [f"fence {fence} was given {count} times" for fence, count in fences.items() if count > 1]


def ordeal(data: Path | str, log: Path, *, lifecycles: int, clients: int, every: int, seed: int, victim: Victim | None = None) -> Report:
    """The whole trial on `data`, a file or a DSN; the relay, or the `victim` it needs, is killed about every `every` acknowledged steps."""
    relay = RelayProcess(data, "--no-limits", log=log)
    try:
        report = Ordeal(relay, victim or relay, clients, lifecycles, every, seed).run()
        exit_code = relay.stop()
        if exit_code != 0:
            report.violations.append(f"exit {exit_code} after SIGTERM")
    finally:
        relay.kill()
    if "Traceback" in relay.said():
        report.violations.append(relay.said()[-2000:])
    return report


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_relay_that_is_killed_forgets_nothing_and_does_nothing_twice(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    place = place_for(kind, request)
    report = ordeal(place, tmp_path / "log", lifecycles=24, clients=4, every=40, seed=1)
    assert report.violations == []
    assert report.lifecycles == 24
    assert report.kills >= 2
    assert report.retries > 0
    if isinstance(place, Path):
        with closing(sqlite3.connect(place)) as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.usefixtures("postgres")  # it knows whether there is a PostgreSQL to be had; this one is killed, so it is another
def test_a_database_that_is_killed_costs_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    with served() as server:
        report = ordeal(fresh_database(server), tmp_path / "log", lifecycles=16, clients=4, every=40, seed=2, victim=server)
        assert (report.violations, report.lifecycles) == ([], 16)
        assert report.kills >= 1
        assert report.retries > 0
