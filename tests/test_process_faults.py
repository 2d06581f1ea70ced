"""Workers and buyers as processes that are killed, stopped, asked to end, or doubled (FAULTS 9, 16, 21, 28, 30, 78, 85)."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM

from tests.crash.actors import SECONDS, Actor
from tests.crash.evidence import Books, read_books, rows
from tests.crash.invariants import judge, since_death
from tests.crash.scenarios import SELL, hire_command
from tests.crash.scene import FUNDS, PRICE, Ledger, Scene
from tradeskill.config import CONFIG_FILE
from tradeskill.strictyaml import dump_yaml, read_yaml


def play(folder: Path, story: Callable[[Scene], Awaitable[None]]) -> None:
    """One scene on a ledger of its own."""

    async def run() -> None:
        async with Ledger(folder) as ledger, Scene(folder / "scene", ledger) as scene:
            await scene.fund(scene.buyer_home)
            async with asyncio.timeout(3 * SECONDS):
                await story(scene)

    asyncio.run(run())


async def ready(seller: Actor) -> Actor:
    assert await seller.line(), seller.said
    return seller


async def drained(seller: Actor) -> None:
    seller.send(SIGTERM)
    assert await seller.ended() == 0, seller.said


async def over(scene: Scene, jobs: int = 1, kept: int = 0) -> None:
    await scene.gather_money()
    assert await judge(scene, "delivered", jobs, kept) == []


async def stopped(worker: Actor, scene: Scene) -> None:
    """Stop it between two commits: one that sleeps inside a commit holds the file, and others can only wait."""
    files = [scene.seller_home / "journal.db", scene.seller_home / "wallets" / "nano" / "wallet.db", scene.folder / "market.db"]
    for _ in range(100):
        worker.send(SIGSTOP)
        await asyncio.to_thread(os.waitid, os.P_PID, worker.process.pid, os.WSTOPPED | os.WNOWAIT)
        if all(map(is_free, files)):
            return
        worker.send(SIGCONT)
    raise AssertionError("the worker never pauses between commits")


def is_free(database: Path) -> bool:
    with closing(sqlite3.connect(database, timeout=0, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        except sqlite3.OperationalError:
            return False
    return True


def supervisors(scene: Scene) -> dict[str, int]:
    """Execution -> process that watches it."""
    home = scene.seller_home / "backends" / "process"
    return {path.parent.name: json.loads(path.read_bytes())["pid"] for path in home.glob("[!.]*/supervisor.json")}


def unchanged(books: Books) -> object:
    return (books.fence, books.starts, books.fulfilments, books.payments, books.results, books.effects)


# FAULTS 9, 85: the execution outlives its worker


def test_a_worker_killed_while_the_work_runs_is_followed_by_one_that_adopts_it(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        async with Actor(scene.seller_home, SELL) as first:
            await ready(first)
            buying = asyncio.create_task(scene.buy(scene.wish(gated=True)))
            await scene.at_gate()
            running = supervisors(scene)
            first.send(SIGKILL)
            assert await first.ended() == -SIGKILL
        at_death = read_books(scene.seller_home)
        assert [row["state"] for row in at_death.fulfilments] == ["started"]
        async with Actor(scene.seller_home, [*SELL, "--verbose"]) as second:
            await ready(second)
            await second.says(f"under fence {at_death.fence + 1}")
            assert supervisors(scene) == running  # the same process, not a new one
            scene.open_gate()
            assert (await buying).state == "received"
            await drained(second)
        await over(scene)
        assert since_death(at_death, read_books(scene.seller_home)) == []

    play(tmp_path, story)


# FAULTS 28, 30: a worker that slept past its lease


def test_a_worker_stopped_past_its_lease_wakes_up_to_change_nothing(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        async with Actor(scene.seller_home, [*SELL, "--verbose"]) as sleeper:
            await ready(sleeper)
            buying = asyncio.create_task(scene.buy(scene.wish(gated=True)))
            await scene.at_gate()
            await stopped(sleeper, scene)
            asleep = read_books(scene.seller_home)
            async with Actor(scene.seller_home, [*SELL, "--verbose"]) as other:
                await ready(other)
                await other.says(f"under fence {asleep.fence + 1}")
                scene.open_gate()
                purchase = await buying
                await drained(other)
            before = read_books(scene.seller_home)
            sleeper.send(SIGCONT)
            await sleeper.says(f"execute {purchase.job_id}: ")  # why it goes no further
            await drained(sleeper)
        after = read_books(scene.seller_home)
        assert unchanged(after) == unchanged(before)
        assert len(rows(scene.folder / "market.db", "SELECT 1 FROM jobs WHERE state = 'delivered'")) == 1
        await over(scene, kept=1)

    play(tmp_path, story)


# FAULTS 21: being asked to end, once and twice


def test_sigterm_finishes_what_is_paid_and_quotes_nothing_new(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        async with Actor(scene.seller_home, ["sell"]) as first:
            await first.says("selling")
            buying = asyncio.create_task(scene.buy(scene.wish(gated=True)))
            await scene.at_gate()
            first.send(SIGTERM)
            await first.says("finishing what is paid")
            async with scene.profile(scene.buyer_home) as profile:
                buyer = await profile.buyer()
                offer = (await (await profile.market()).search())[0]
                late = await buyer.intend(offer, scene.wish(text="too late"), caps=offer.prices)
                await buyer.drive(late.purchase_id, ("requested",))
            scene.open_gate()
            assert (await buying).state == "received"
            assert await first.ended() == 0
        assert len(read_books(scene.seller_home).fulfilments) == 1
        async with Actor(scene.seller_home, SELL) as second:
            await ready(second)
            assert (await scene.buy(scene.wish(text="too late"))).purchase_id == late.purchase_id
            await drained(second)
        await over(scene, jobs=2)

    play(tmp_path, story)


def test_a_second_sigterm_ends_at_once_and_a_restart_goes_on_as_after_a_crash(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        async with Actor(scene.seller_home, ["sell"]) as first:
            await first.says("selling")
            buying = asyncio.create_task(scene.buy(scene.wish(gated=True)))
            await scene.at_gate()
            first.send(SIGTERM)
            await first.says("finishing what is paid")
            first.send(SIGTERM)
            assert await first.ended() == 0  # the gate is still closed: it did not wait for the work
        at_death = read_books(scene.seller_home)
        assert [row["state"] for row in at_death.fulfilments] == ["started"]
        running = supervisors(scene)
        scene.open_gate()
        async with Actor(scene.seller_home, SELL) as second:
            await ready(second)
            assert (await buying).state == "received"
            await drained(second)
        assert len(running) == 1
        await over(scene)
        assert since_death(at_death, read_books(scene.seller_home)) == []

    play(tmp_path, story)


# FAULTS 16, 78: the buyer


def test_a_buyer_killed_while_waiting_goes_on_with_the_same_purchase_and_pays_nothing_more(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        command = hire_command(scene.wish(gated=True))
        async with scene.selling():
            async with Actor(scene.buyer_home, command) as first:
                await scene.at_gate()
                first.send(SIGKILL)
                assert await first.ended() == -SIGKILL
            at_death = read_books(scene.buyer_home)
            assert at_death.purchases[0]["state"] in ("submitted", "waiting")
            scene.open_gate()
            async with Actor(scene.buyer_home, command) as again:
                answer = await again.line()
                assert await again.ended() == 0, again.said
        assert answer["purchase_id"] == at_death.purchases[0]["purchase_id"]
        assert answer["result"]["text"] == "HELLO"
        await over(scene)
        assert since_death(at_death, read_books(scene.buyer_home)) == []

    play(tmp_path, story)


def test_two_buyers_of_one_profile_with_one_wish_pay_once_and_both_get_the_result(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        command = hire_command(scene.wish())
        async with scene.selling(), Actor(scene.buyer_home, command) as one, Actor(scene.buyer_home, command) as other:
            answers = await asyncio.gather(one.line(), other.line())
            assert [await one.ended(), await other.ended()] == [0, 0], one.said + other.said
        assert [answer["result"]["text"] for answer in answers] == ["HELLO", "HELLO"]
        assert len({answer["purchase_id"] for answer in answers}) == 1
        await over(scene)

    play(tmp_path, story)


def test_twenty_purchases_of_two_processes_never_exceed_the_total_cap(tmp_path: Path) -> None:
    affordable = 7

    async def story(scene: Scene) -> None:
        config = scene.buyer_home / CONFIG_FILE
        config.write_text(dump_yaml({**read_yaml(config), "buyer": {"cap_total": f"{affordable * PRICE + PRICE // 2} raw"}}))
        async with scene.profile(scene.buyer_home) as profile:  # every change of a total leaves a trace
            await profile.journal.write(lambda tx: len([tx.execute(statement) for statement in TRACE]))
        wishes = [json.dumps(scene.wish(text=f"wish {number}")) for number in range(20)]
        async with scene.selling():
            async with scene.profile(scene.buyer_home) as profile:
                offer = (await (await profile.market()).search())[0].offer_id
            halves = [Actor(scene.buyer_home, [offer, *part], module="tests.crash.bulk") for part in (wishes[:10], wishes[10:])]
            async with halves[0], halves[1]:
                ends = [line for lines in await asyncio.gather(halves[0].lines(), halves[1].lines()) for line in lines]
                assert [await half.ended() for half in halves] == [0, 0], halves[0].said + halves[1].said
        assert sorted((end["state"], end["code"]) for end in ends) == [("abandoned", "refused.policy")] * 13 + [("received", None)] * affordable
        total = {"spent:raw": 0, "reserved:raw": 0}
        highest = 0
        for row in rows(scene.buyer_home / "journal.db", "SELECT name, value FROM traced ORDER BY rowid"):
            total[row["name"]] = int(row["value"])
            highest = max(highest, sum(total.values()))
        assert highest == affordable * PRICE
        await scene.gather_money()
        assert await scene.held(scene.seller_home) == affordable * PRICE
        assert await scene.held(scene.buyer_home) == FUNDS - affordable * PRICE
        assert scene.ran() == affordable
        assert len(read_books(scene.buyer_home).block("pay:")) == affordable

    play(tmp_path, story)


TRACE = (
    "CREATE TABLE traced (name TEXT, value TEXT)",
    "CREATE TRIGGER inserted AFTER INSERT ON totals BEGIN INSERT INTO traced VALUES (new.name, new.value); END",
    "CREATE TRIGGER updated AFTER UPDATE ON totals BEGIN INSERT INTO traced VALUES (new.name, new.value); END",
)
