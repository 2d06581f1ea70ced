"""The crash walk, whole: at every label, before and after, a real process dies by SIGKILL and its restart brings the job to its one right end."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.crash.evidence import Books, read_books
from tests.crash.invariants import judge, since_death
from tests.crash.scenarios import NotReachedError, scenario_of, selling
from tests.crash.scene import Ledger, Scene
from tests.crash.walk import matrix, walk
from tradeskill.world import LABELS, World

AT_ONCE = 3  # scenes: they wait more than they compute


def test_a_process_that_dies_at_any_step_is_started_again_and_the_job_ends_right(tmp_path: Path) -> None:
    report = asyncio.run(walk(tmp_path, matrix(), AT_ONCE))
    assert report.violations == []
    assert report.line() == {"labels": len(LABELS), "crashes": 2 * len(LABELS), "finished": 2 * len(LABELS), "violations": []}


def test_every_label_has_a_scene_and_the_matrix_knows_them_all() -> None:
    assert [scenario_of(label) for label in LABELS]
    assert len(set(matrix())) == 2 * len(LABELS)
    for point in matrix():
        World(point)  # UsageError for a point that the program would refuse


def test_a_label_that_the_flow_does_not_pass_is_reported_and_not_skipped(tmp_path: Path) -> None:
    async def play() -> None:
        async with Ledger(tmp_path) as ledger, Scene(tmp_path / "scene", ledger) as scene:
            await selling(scene, "before:sweep.intent")  # a sale alone sweeps nothing

    with pytest.raises(NotReachedError, match=r"before:sweep.intent: nothing died there, the process ended with 0"):
        asyncio.run(play())


# The judge is only worth something if it can tell: one clean sale, then one lie at a time in a copy of its books.


@dataclass
class Sale:
    scene: Scene
    runner: asyncio.Runner

    def judged(self) -> list[str]:
        return self.runner.run(judge(self.scene, "delivered"))


@pytest.fixture(scope="module")
def sale(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sale]:
    folder = tmp_path_factory.mktemp("sale")
    with asyncio.Runner() as runner:
        ledger = Ledger(folder)
        scene = Scene(folder / "scene", runner.run(_entered(ledger)))

        async def play() -> None:
            async with scene:
                await scene.fund(scene.buyer_home)
                async with scene.selling():
                    await scene.buy(scene.wish())
                await scene.gather_money()

        try:
            runner.run(play())
            yield Sale(scene, runner)
        finally:
            runner.run(ledger.__aexit__(None, None, None))


async def _entered(ledger: Ledger) -> Ledger:
    return await ledger.__aenter__()


def test_a_clean_sale_has_no_violations(sale: Sale) -> None:
    assert sale.judged() == []


PAYMENT_TWICE = (
    "INSERT INTO payments SELECT rail, network, 'x', part, invoice_id, job_id, state, amount, unit, received_at, sender, refund_to, refund_id, note,"
    " found_at, updated_at FROM payments"
)
SIGNED_TWICE = (
    "INSERT INTO block SELECT 'AB', account, previous, height, kind, subtype, amount, body, work, purpose, 'dead' FROM block WHERE purpose LIKE 'pay:%'"
)
LIES = {
    "a second start": ("seller", "INSERT INTO starts SELECT job_id, 2, fence, at FROM starts", "committed starts"),
    "an uncounted start": ("seller", "DELETE FROM starts", "0 committed starts"),
    "a result that is not there": ("seller", "UPDATE fulfilments SET result_sha256 = NULL", "lacks its result"),
    "a job left open": ("seller", "UPDATE fulfilments SET state = 'executed'", "fulfilments are"),
    "a raw too few": ("seller", "UPDATE payments SET amount = substr(amount, 2)", "payments are"),
    "a payment that never was": ("seller", PAYMENT_TWICE, "payments are"),
    "an effect forgotten": ("seller", "UPDATE effects SET state = 'failed'", "effects not done"),
    "no fence": ("seller", "UPDATE fulfilments SET fence = 0", "fences"),
    "a fence set back": ("seller", "UPDATE meta SET value = '0' WHERE name = 'fence'", "fences"),
    "a reservation still held": ("buyer", "UPDATE reservations SET state = 'reserved'", "reservations are"),
    "spent counted twice": ("buyer", "UPDATE totals SET value = '2' || substr(value, 2) WHERE name = 'spent:raw'", "totals are"),
    "a purchase still waiting": ("buyer", "UPDATE purchases SET state = 'waiting'", "purchases are"),
    "a foreign address": ("seller wallet", "UPDATE account SET job_id = 'other' WHERE kind = 'invoice'", "does not know"),
    "a second signed payment": ("buyer wallet", SIGNED_TWICE, "signed 2 payments"),
    "a block that is not there": ("buyer wallet", "UPDATE block SET hash = 'CD' WHERE purpose LIKE 'pay:%'", "in both"),
}


@pytest.mark.parametrize("lie", LIES)
def test_the_judge_sees(lie: str, sale: Sale, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    where, statement, words = LIES[lie]
    side, _, wallet = where.partition(" ")
    for name in ("seller", "buyer"):
        original = sale.scene.folder / name
        for path in (Path("journal.db"), Path("wallets/nano/wallet.db")):
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(original / path, tmp_path / name / path)
    with closing(sqlite3.connect(tmp_path / side / ("wallets/nano/wallet.db" if wallet else "journal.db"))) as connection:
        connection.execute("PRAGMA ignore_check_constraints = 1")
        assert connection.execute(statement).rowcount > 0
        connection.commit()
    books = {sale.scene.seller_home: tmp_path / "seller", sale.scene.buyer_home: tmp_path / "buyer"}
    monkeypatch.setattr("tests.crash.invariants.read_books", lambda home: read_books(books[home]))
    assert [text for text in sale.judged() if words in text]


def test_the_judge_sees_a_second_run_of_the_program(sale: Sale, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sale.scene, "ran", lambda: 2)
    assert "the program ran 2 times for 1 jobs" in sale.judged()


def test_the_judge_sees_what_a_death_undid(sale: Sale) -> None:
    before = read_books(sale.scene.seller_home)
    assert since_death(before, before) == []
    held = [{**row, "state": "leased"} for row in before.fulfilments]
    anew = [{**block, "hash": "another"} for block in before.blocks]
    assert "lost from starts" in str(since_death(before, _with(before, starts=[])))
    assert "signed anew" in str(since_death(before, _with(before, blocks=before.blocks + anew)))
    assert "the fence went" in str(since_death(before, _with(before, fence=0)))
    assert "the fence went" in str(since_death(_with(before, fulfilments=held), before))


def _with(books: Books, **changes: object) -> Books:
    return Books(**{**books.__dict__, **changes})  # type: ignore[arg-type]  # field by field as it was
