"""The simulation itself: a thousand schedules hold every invariant, each label and kind is hit, a seed replays exactly, and what is wrong is seen."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.simulation import invariants
from tests.simulation.__main__ import main, many
from tests.simulation.faults import CALLS, CRASHES, DEEDS, KINDS
from tests.simulation.scenario import Scenario
from tests.simulation.schedule import Play, play, played
from tests.simulation.totals import Totals
from tradeskill.world import LABELS

SCHEDULES = 1000


@pytest.fixture(scope="module")
def totals() -> Totals:
    return many(range(SCHEDULES), workers=2)


def test_a_thousand_schedules_break_no_invariant(totals: Totals) -> None:
    assert totals.broken == {}
    assert totals.schedules == SCHEDULES
    assert totals.paid_jobs > SCHEDULES // 2


def test_every_label_and_every_kind_of_fault_is_hit_often_enough(totals: Totals) -> None:
    assert totals.rare() == []


def test_the_closing_line_says_it_all(totals: Totals) -> None:
    line = json.loads(totals.line())
    assert list(line) == ["schedules", "steps", "paid_jobs", "crashes_by_label", "faults_by_kind", "violations", "seeds"]
    assert set(line["crashes_by_label"]) == set(LABELS)
    assert set(line["faults_by_kind"]) == set(KINDS)
    assert (line["schedules"], line["violations"], line["seeds"]) == (SCHEDULES, 0, [])


def test_a_label_that_is_hit_too_rarely_is_named() -> None:
    totals = Totals(schedules=400)
    totals.crashes = dict.fromkeys(LABELS, 2) | {"seller.lock": 1}  # type: ignore[assignment]  # read like a Counter
    totals.faults = dict.fromkeys(KINDS, 2)  # type: ignore[assignment]  # as above
    assert totals.rare() == ["seller.lock was hit 1 times, 2 are asked for"]
    totals.schedules = 199
    assert totals.rare() == []


@pytest.mark.parametrize("seed", [3, 40, 81, 238])
def test_a_seed_replays_exactly(seed: int) -> None:
    first, second = play(seed), play(seed)
    assert first.trace == second.trace
    assert len(first.trace) > 10
    assert first.digest() != play(seed + 1).digest()


def test_a_seed_replays_exactly_in_another_process() -> None:
    code = "from tests.simulation.schedule import play; print(play(81).digest())"
    root = Path(__file__).parent.parent
    told = {
        subprocess.run([sys.executable, "-c", code], cwd=root, env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True, timeout=60).stdout
        for seed in ("1", "2")
    }
    assert told == {play(81).digest() + "\n"}


def test_a_replay_prints_what_happened_and_ends_with_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("purchase" in line for line in lines)
    assert json.loads(lines[-1])["schedules"] == 1


def test_seeds_go_round_through_every_crash_with_every_kind_of_fault() -> None:
    pairs = {(CRASHES[seed % len(CRASHES)], KINDS[seed % len(KINDS)]) for seed in range(len(CRASHES) * len(KINDS))}
    assert len(pairs) == len(CRASHES) * len(KINDS)
    assert set(CALLS).isdisjoint(DEEDS)


# what is wrong is seen: each invariant, on an honest trade made dishonest


def ended() -> Play:
    """One delivered job, as it rests; its tables are not given back."""
    staged = Play(1, Scenario())
    staged.release = lambda: None  # type: ignore[method-assign]  # looked at afterwards
    assert played(staged).violations == []
    return staged


SPOILS: list[tuple[str, str, str]] = [  # invariant, whose journal, what was done to it
    ("I1", "seller", "UPDATE starts SET attempt = 2"),
    ("I1", "seller", "DELETE FROM starts"),
    ("I2", "seller", "DELETE FROM payments"),
    ("I2", "seller", "UPDATE payments SET amount = '1'"),
    ("I2", "seller", "UPDATE payments SET state = 'refunded', refund_to = 'fake_dev_0123456789abcdef_0000'"),
    ("I3", "seller", "UPDATE payments SET job_id = 'another'"),
    ("I3", "seller", "INSERT INTO invoices SELECT 'twin', rail, network, 'another', address, amount, unit, expires_at, details, 0, 0 FROM invoices"),
    ("I4", "seller", "UPDATE fulfilments SET state = 'failed'"),
    ("I4", "seller", "UPDATE fulfilments SET state = 'started'"),
    ("I4", "seller", "UPDATE payments SET state = 'review'"),
    ("I4", "buyer", "UPDATE purchases SET state = 'waiting'"),
    ("I4", "buyer", "UPDATE purchases SET state = 'disputed'"),
    ("I5", "buyer", "UPDATE reservations SET state = 'released'"),
    ("I5", "buyer", "DELETE FROM reservations"),
    ("I5", "buyer", "UPDATE totals SET value = '0'"),
    ("I5", "buyer", "UPDATE spend_log SET seller = 'another' WHERE seq = 2"),
    ("I5", "buyer", "DELETE FROM spend_log WHERE seq = 3"),
    ("I5", "buyer", "UPDATE purchases SET invoice = NULL"),
    ("I6", "seller", "UPDATE fulfilments SET state = 'quoted'"),
    ("I6", "seller", "UPDATE fulfilments SET fence = 0"),
    ("I6", "seller", "UPDATE meta SET value = '0' WHERE name = 'fence'"),
    ("I6", "buyer", "UPDATE purchases SET state = 'intended'"),
    ("I7", "seller", "UPDATE fulfilments SET result_sha256 = 'other'"),
    ("I7", "seller", "UPDATE fulfilments SET request = replace(request, 'site', 'evil')"),
    ("I7", "buyer", "UPDATE purchases SET result_sha256 = 'other'"),
    ("I8", "seller", "UPDATE fulfilments SET error_message = 'SECRET'"),
    ("I8", "buyer", "UPDATE purchases SET error_message = 'SECRET'"),
]


@pytest.mark.parametrize(("name", "side", "spoil"), SPOILS, ids=[f"{name} {side}: {spoil[:60]}" for name, side, spoil in SPOILS])
def test_an_invariant_that_is_broken_is_named(name: str, side: str, spoil: str) -> None:
    staged = ended()
    raw = (staged.seller_disk if side == "seller" else staged.buyer_disks[0]).table.raw
    raw.execute(spoil.replace("SECRET", staged.stage.secrets[1]))
    told = [text for invariant in invariants.AT_REST for text in invariant(staged.stage)]
    assert any(text.startswith(f"{name}: ") for text in told), told


def test_money_that_went_astray_is_named() -> None:
    staged = ended()
    sends: dict[str, Any] = staged.ledger.stores["buyer0"].sends
    (purpose,) = sends
    staged.ledger.stores["buyer0"].sends = {purpose: sends[purpose], "pay:again": sends[purpose]}
    assert any("two signed sends" in text for text in invariants.i5_one_send(staged.stage))
    stray = sends[purpose].__class__("id", "from", "fake_dev_0123456789abcdef_0000", 1)
    staged.ledger.stores["buyer0"].sends = {purpose: stray}
    assert any("never gave out" in text for text in invariants.i7_signed(staged.stage))
    staged.ledger.stores["seller"].sends["refund:x"] = stray
    assert any("is not owed" in text for text in invariants.i2_exact_sums(staged.stage))


def test_a_secret_in_the_log_is_named() -> None:
    staged = ended()
    staged.texts.append(f"key {staged.stage.secrets[0]}")
    assert any("the log" in text for text in invariants.i8_no_secret(staged.stage))


def test_a_start_before_its_record_is_named() -> None:
    staged = ended()
    (execution,) = staged.machine.started
    assert [text[:2] for text in invariants.started(staged.stage, execution, "another job")] == ["I1"]
    staged.machine.started[execution] = 2
    assert any("ran 2 times" in text for text in invariants.i1_one_start(staged.stage))
