"""One intent, one payment: repeated, at once from several processes of a profile, with processes killed on the way."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cli_stage import PATIENCE, SHOUT, Home, Stage

PROCESSES, AT_ONCE, RETRIES = 4, 25, 50
PRICE = 10**27


@dataclass
class Shop:
    buyer: Home
    seller: Home

    def wish(self, text: str, **more: Any) -> dict[str, Any]:
        return {"offer_id": "intent", "input": {"text": text}, "max": "0.01 XNO", **more}

    def balance(self) -> int:
        return int(self.buyer.json("wallet", "balance")["available_raw"])

    def delivered(self) -> int:
        return len(self.seller.run("call", "seller.list_jobs", '{"states": ["delivered"]}').ok().json)


@pytest.fixture(scope="module")
def shop(stage: Stage) -> Iterator[Shop]:
    seller, buyer = stage.profile("intent-seller"), stage.funded("intent-buyer")
    config = stage.config("intent-offers", [{**SHOUT, "name": "intent", "title": "Intent", "tags": []}])
    with seller.selling(config):
        yield Shop(buyer, seller)


def started(shop: Shop, wish: dict[str, Any], times: int, **environment: str) -> subprocess.Popen[str]:
    password = shop.buyer.environment["TRADESKILL_PASSWORD_FILE"]
    command = [sys.executable, str(Path(__file__).parent / "hirer.py"), str(shop.buyer.path), password, json.dumps(wish), str(times)]
    return subprocess.Popen(command, env={**shop.buyer.environment, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> list[list[str]]:
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    return list(json.loads(out.splitlines()[-1]))


def test_a_hundred_identical_calls_at_once_from_four_processes_that_are_killed_on_the_way_pay_once(shop: Shop) -> None:
    """S41: crowds and kills."""
    before, done, wish = shop.balance(), shop.delivered(), shop.wish("a hundred at once")
    for step in ("after:buyer.quote-verified", "after:buyer.reserved", "after:pay.block-stored"):  # each dies there by kill -9, the next goes on
        doomed = started(shop, wish, 3, TRADESKILL_CRASH_AT=step)
        doomed.communicate(timeout=PATIENCE)
        assert doomed.returncode == -signal.SIGKILL
    crowd = [started(shop, wish, AT_ONCE) for _ in range(PROCESSES)]
    for process in crowd[:2]:
        assert process.stdout is not None
        assert process.stdout.readline() == "calling\n"
        process.kill()
        process.communicate(timeout=PATIENCE)
    crowd = [*crowd[2:], started(shop, wish, AT_ONCE), started(shop, wish, AT_ONCE)]
    answers = [ended(process) for process in crowd]
    assert {len(answer) for answer in answers} == {1}
    assert len({tuple(answer[0]) for answer in answers}) == 1
    assert answers[0][0][0] == "received"
    assert before - shop.balance() == PRICE
    assert shop.delivered() - done == 1


def test_fifty_retries_return_the_old_result_and_name_the_argument_that_buys_anew(shop: Shop) -> None:
    """S40: repeats."""
    before, wish = shop.balance(), shop.wish("fifty times")
    first = shop.buyer.run("call", "buyer.hire", json.dumps(wish)).ok().json
    assert (first["repeated"], first["result"]["text"]) == (False, "FIFTY TIMES\n")
    for _ in range(RETRIES):
        again = shop.buyer.run("call", "buyer.hire", json.dumps(wish)).ok().json
        assert again == {**first, "repeated": True}
    assert first["bought_at"].startswith("20")
    assert before - shop.balance() == PRICE
    anew = shop.buyer.run("call", "buyer.hire", json.dumps({**wish, first["again"]: "once more"})).ok().json
    assert (anew["repeated"], anew["purchase_id"] == first["purchase_id"]) == (False, False)
    assert before - shop.balance() == 2 * PRICE


def test_what_was_bought_is_returned_by_its_offer_s_id_when_the_offer_is_on_no_market_any_more(shop: Shop) -> None:
    wish = shop.wish("for ever")
    first = shop.buyer.run("call", "buyer.hire", json.dumps(wish)).ok().json
    config = (shop.buyer.path / "config.yaml").read_text()
    moved = config.replace("market.db", "another-market.db")
    assert moved != config
    try:
        (shop.buyer.path / "config.yaml").write_text(moved)
        again = shop.buyer.run("call", "buyer.hire", json.dumps({**wish, "offer_id": first["offer_id"]})).ok().json
    finally:
        (shop.buyer.path / "config.yaml").write_text(config)
    assert again == {**first, "repeated": True}
