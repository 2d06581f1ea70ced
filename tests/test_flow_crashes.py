"""A crash before and after every label of both flows: the restart finishes the job, with one start, one payment and one outcome (FAULTS 1-17)."""

from __future__ import annotations

import pytest

from tests.simulation.faults import CRASHES
from tests.simulation.scenario import PRICE, Scenario
from tests.simulation.schedule import Outcome, Play, played
from tradeskill.seller import SellerSettings

BY_HAND = ("sweep", "receive")  # made by the owner, not by the flows
LONG = ("seller.heartbeat", "pay.confirmed")  # not passed while a job is quick
SETTINGS = SellerSettings(quote_ttl_ms=900_000, poll_seconds=5.0, heartbeat_seconds=5.0)


def staged(scenario: Scenario, seed: int = 1) -> tuple[Play, Outcome]:
    play = Play(seed, scenario)
    return play, played(play)


def ends(play: Play) -> list[str]:
    return [text for _, text in play.outcome.trace]


def last_state(play: Play) -> str:
    return next(text.split()[3] for text in reversed(ends(play)) if " purchase " in text and not text.startswith("log"))


@pytest.mark.parametrize("crash", CRASHES, ids=":".join)
def test_a_crash_at_this_label_costs_nothing_but_time(crash: tuple[str, str]) -> None:
    label = crash[1]
    play, outcome = staged(
        Scenario(
            crash=crash,
            work="failed" if label.startswith("refund") else "done",
            work_seconds=(12.0,) if label in LONG else (0.2,),
            settings=SETTINGS,
            collects=label.startswith(BY_HAND),
        )
    )
    assert outcome.violations == []
    assert outcome.crashes[label] == 1
    assert outcome.paid_jobs == 1
    assert last_state(play) == ("refunded" if label.startswith("refund") else "received")
    assert list(play.machine.started.values()) == [1]
    sent = [t.amount for purpose, t in play.ledger.stores["buyer0"].sends.items() if purpose.startswith("pay:")]
    assert sent == [PRICE.value]


@pytest.mark.parametrize("crash", [c for c in CRASHES if not c[1].startswith(("refund", *BY_HAND, "seller.lease-released"))], ids=":".join)
def test_a_crash_again_on_the_way_back_costs_no_more(crash: tuple[str, str]) -> None:
    play, outcome = staged(Scenario(crash=crash, again=0.5, work_seconds=(12.0,), settings=SETTINGS), seed=7)
    assert outcome.violations == []
    assert outcome.crashes[crash[1]] >= 1
    assert sum(outcome.crashes.values()) > 1
    assert last_state(play) == "received"
    assert list(play.machine.started.values()) == [1]
