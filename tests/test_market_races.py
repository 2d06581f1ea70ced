"""Real threads and real processes on one market file: of calls that exclude each other one wins, and none is lost.

Run as a program, this file is one of the processes: it opens the market, says so, and then obeys one JSON order a line.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tradeskill.agreement import read_request, sign_offer, sign_quote, sign_request
from tradeskill.errors import StateError, TradeskillError
from tradeskill.model import Delivery, Invoice, Job, JobError, Result
from tradeskill.money import Amount
from tradeskill.signing import Identity
from tradeskill.world import World
from tradeskill_plugins.market.embedded import EmbeddedMarket
from tradeskill_plugins.market.store import Store, open_file, open_postgres

BUYER, SELLER = Identity(b"b" * 32), Identity(b"s" * 32)
TRIALS = 25
WAIT = 60.0  # seconds until a stuck test gives up


class Clerk:
    """One identity's market with blocking calls, in its own thread or process."""

    def __init__(self, place: Path | str, identity: Identity) -> None:
        """`place`: a file, or where a PostgreSQL is and the schema there."""
        self.world, self.identity, self.runner = World(), identity, asyncio.Runner()
        self.market = EmbeddedMarket(lambda: opened(place, self.world), identity, self.world)
        self.runner.run(self.market.open())

    def close(self) -> None:
        self.runner.run(self.market.close())
        self.runner.close()

    def call(self, name: str, job_id: str = "", argument: str = "", fence: int | None = None) -> Any:
        market = self.market
        made = {
            "publish": lambda: market.publish(offer_document(argument)),
            "cancel": lambda: market.cancel(job_id, argument),
            "accept": lambda: market.accept(job_id),
            "pay": lambda: market.submit_payment(job_id, "nano", argument),
            "lock": lambda: market.lock(job_id),
            "deliver": lambda: market.deliver(job_id, Delivery(Result(argument.encode())), fence),
            "fail": lambda: market.deliver(job_id, Delivery(error=JobError("exit", argument)), fence),
            "quote": lambda: self.quote(job_id, argument),
            "request": lambda: market.request(sign_request(BUYER, OFFER, input_value=1, refund_to={}, nonce=argument, created_at=0)),
            "lifecycle": lambda: self.lifecycles(job_id, int(argument)),
        }[name]
        return self.runner.run(made())

    async def quote(self, job_id: str, nonce: str) -> Job:
        request = read_request((await self.market.get(job_id)).request, BUYER.key)
        invoice = Invoice("nano", "dev", "i", job_id, "a", Amount(5, "raw"), 0)
        expires_at = self.world.now_ms() + 600_000
        return await self.market.quote(job_id, sign_quote(self.identity, request, job_id=job_id, invoices=[invoice], expires_at=expires_at, nonce=nonce))

    async def lifecycles(self, name: str, count: int) -> int:
        """`count` transactions that read before they write: request and cancel in turn."""
        for n in range(count // 2):
            document = sign_request(BUYER, OFFER, input_value=n, refund_to={}, nonce=f"{name}-{n}", created_at=0)
            job = await self.market.request(document)
            await self.market.cancel(job.job_id)
        return count


def opened(place: Path | str, world: World) -> Store:
    if isinstance(place, Path):
        return open_file(place, world)
    dsn, name = place.split("|")
    return open_postgres(dsn, world, name=name)


def offer_document(offer_id: str = "o") -> Any:
    return sign_offer(
        SELLER,
        offer_id=offer_id,
        network="dev",
        title="t",
        description="d",
        tags=[],
        prices=(),
        input_schema={},
        pure=True,
        trusted=True,
        created_at=0,
    )


def _offer() -> Any:
    from tradeskill.agreement import read_offer

    return read_offer(offer_document())


OFFER = _offer()
Order = tuple[str, str, str]  # who, call, argument
CONTESTS: dict[str, tuple[str, tuple[Order, Order]]] = {
    "cancel against pay": ("accepted", (("buyer", "cancel", ""), ("buyer", "pay", "{}"))),
    "cancel against lock": ("paid", (("buyer", "cancel", ""), ("seller", "lock", ""))),
    "two quotes": ("requested", (("seller", "quote", "a"), ("seller", "quote", "b"))),
    "two payments": ("accepted", (("buyer", "pay", "{}-a"), ("buyer", "pay", "{}-b"))),
    "deliver against deliver-error": ("running", (("seller", "deliver", "done"), ("seller", "fail", "broken"))),
}


def prepare(buyer: Clerk, seller: Clerk, state: str, nonce: str) -> tuple[str, int | None]:
    """A job in `state` and its market fence."""
    job_id = buyer.call("request", argument=nonce).job_id
    for name, who, call in (("quoted", seller, "quote"), ("accepted", buyer, "accept"), ("paid", buyer, "pay"), ("running", seller, "lock")):
        if state == "requested":
            break
        answer = who.call(call, job_id, f"paid-{nonce}")
        if name == state:
            return job_id, answer.market_fence
    return job_id, None


def test_of_two_threads_one_wins_every_contest(tmp_path: Path) -> None:
    hold_contests(tmp_path / "m.db", TRIALS)


def hold_contests(place: Path | str, trials: int) -> None:
    """AssertionError unless each contest has one winner, every time."""
    buyer, seller = Clerk(place, BUYER), Clerk(place, SELLER)
    rivals = [{"buyer": Clerk(place, BUYER), "seller": Clerk(place, SELLER)} for _ in range(2)]
    seller.call("publish", argument="o")
    for title, (state, orders) in CONTESTS.items():
        jobs = [prepare(buyer, seller, state, f"{title}-{n}") for n in range(trials)]
        barrier = threading.Barrier(2)
        outcomes: list[list[bool]] = [[], []]

        def compete(side: int, orders: Any = orders, jobs: Any = jobs, barrier: Any = barrier, outcomes: Any = outcomes) -> None:
            who, call, argument = orders[side]
            for job_id, fence in jobs:
                barrier.wait(WAIT)
                try:
                    rivals[side][who].call(call, job_id, argument.format(job_id), fence)
                    outcomes[side].append(True)
                except StateError:  # any other error is missed in the count below
                    outcomes[side].append(False)

        threads = [threading.Thread(target=compete, args=(side,)) for side in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT)
        assert [sum(pair) for pair in zip(*outcomes, strict=True)] == [1] * trials, title
    for clerk in (buyer, seller, *rivals[0].values(), *rivals[1].values()):
        clerk.close()


def test_of_eight_processes_one_takes_the_lock(tmp_path: Path) -> None:
    file = tmp_path / "m.db"
    buyer, seller = Clerk(file, BUYER), Clerk(file, SELLER)
    seller.call("publish", argument="o")
    jobs = [prepare(buyer, seller, "paid", f"n-{n}")[0] for n in range(TRIALS)]
    with processes(file, "seller", 8) as clerks:
        fences = []
        for job_id in jobs:
            answers = together(clerks, [{"call": "lock", "job_id": job_id}] * 8)
            assert all(answer["ok"] for answer in answers), answers
            assert len({answer["fence"] for answer in answers}) == 1, "one take, seven renewals of it"
            fences.append(answers[0]["fence"])
    assert fences == sorted(set(fences))
    buyer.close()
    seller.close()


def test_four_processes_read_then_write_two_hundred_times_and_none_fails(tmp_path: Path) -> None:
    file = tmp_path / "m.db"
    seller = Clerk(file, SELLER)
    seller.call("publish", argument="o")
    with processes(file, "buyer", 4) as clerks:
        answers = together(clerks, [{"call": "lifecycle", "job_id": f"p{n}", "argument": "50"} for n in range(4)])
    assert [answer["ok"] for answer in answers] == [True] * 4, answers
    found, cursor = [], ""
    while True:
        page = seller.runner.run(seller.market.changes(cursor))
        found += [(job.state, job.revision) for job in page.jobs]
        cursor = page.cursor
        if not page.more:
            break
    assert found == [("canceled", 2)] * 100
    seller.close()


def test_four_processes_open_a_new_file_at_once(tmp_path: Path) -> None:
    """Migrations read inside their transaction what is pending, so none runs twice."""
    gate = threading.Barrier(4)
    failures: list[BaseException] = []

    def first(n: int) -> None:
        gate.wait(WAIT)
        try:
            for trial in range(5):
                open_file(tmp_path / f"m{trial}.db", World()).close()
        except BaseException as error:  # noqa: BLE001  # reported below
            failures.append(error)

    threads = [threading.Thread(target=first, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert failures == []
    with processes(tmp_path / "new.db", "buyer", 4):
        pass


def test_what_was_acknowledged_survives_a_killed_process(tmp_path: Path) -> None:
    file = tmp_path / "m.db"
    seller = Clerk(file, SELLER)
    seller.call("publish", argument="o")
    acknowledged = []
    for trial in range(3):
        with processes(file, "buyer", 1) as (clerk,):
            for n in range(20):
                answer = together([clerk], [{"call": "request", "argument": f"{trial}-{n}"}])[0]
                acknowledged.append(answer["job_id"])
            assert clerk.stdin is not None
            clerk.stdin.write(json.dumps({"call": "lifecycle", "job_id": f"cut-{trial}", "argument": "1000"}) + "\n")
            clerk.stdin.flush()
            # dies somewhere in its next thousand commits
            seller.runner.run(_changed(seller.market, len(acknowledged) + 5))
            clerk.kill()
            clerk.wait(WAIT)
        assert set(acknowledged) <= seller.runner.run(_changed(seller.market, len(acknowledged) + 5))
    store: Store = seller.market._opened()
    assert store.read(lambda book: book._db.execute("PRAGMA integrity_check").fetchone()[0]) == "ok"
    seller.close()


async def _changed(market: EmbeddedMarket, at_least: int) -> set[str]:
    """All job ids, once there are `at_least` so many."""
    async with asyncio.timeout(WAIT):
        while True:
            found: set[str] = set()
            cursor = ""
            while True:
                page = await market.changes(cursor, 1000)
                found |= {job.job_id for job in page.jobs}
                cursor = page.cursor
                if not page.more:
                    break
            if len(found) >= at_least:
                return found


@contextmanager
def processes(place: Path | str, who: str, count: int) -> Iterator[list[subprocess.Popen[str]]]:
    made = [
        subprocess.Popen([sys.executable, "-W", "error", __file__, str(place), who], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    try:
        for process in made:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline()) == {"ready": True}
        yield made
    finally:
        for process in made:
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                process.stdin.close()
                process.wait(10)
            except (BrokenPipeError, subprocess.TimeoutExpired):
                process.kill()
                process.wait(10)
            process.stdout.close()


def together(clerks: list[subprocess.Popen[str]], orders: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Everybody starts at the same moment of the wall clock, a little ahead."""
    start = time.time() + 0.02
    for clerk, order in zip(clerks, orders, strict=True):
        assert clerk.stdin is not None
        clerk.stdin.write(json.dumps({**order, "at": start}) + "\n")
        clerk.stdin.flush()
    answers = []
    for clerk in clerks:
        assert clerk.stdout is not None
        answers.append(json.loads(clerk.stdout.readline()))
    return answers


def main(place: Path | str, who: str) -> None:
    clerk = Clerk(place, BUYER if who == "buyer" else SELLER)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        while time.time() < order.get("at", 0.0):
            pass
        try:
            answer = clerk.call(order["call"], order.get("job_id", ""), order.get("argument", ""), order.get("fence"))
            report = {"ok": True, "fence": getattr(answer, "market_fence", None), "job_id": getattr(answer, "job_id", "")}
        except TradeskillError as error:
            report = {"ok": False, "error": f"{error.code}: {error}"}
        print(json.dumps(report), flush=True)
    clerk.close()


if __name__ == "__main__":
    main(sys.argv[1] if "|" in sys.argv[1] else Path(sys.argv[1]), sys.argv[2])
