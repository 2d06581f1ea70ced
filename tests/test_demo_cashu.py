"""`tradeskill demo --rail cashu`: the same demo, paid in ecash of a real mint."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.cli_stage import PATIENCE
from tests.mint import missing


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tradeskill", "demo", *arguments, "--json"], capture_output=True, text=True, timeout=2 * PATIENCE, check=False
    )


@pytest.fixture(scope="module")
def played() -> dict[str, Any]:
    if lacking := missing():
        pytest.skip(lacking)
    done = demo("--rail", "cashu", "--jobs", "2", "--concurrency", "2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("{"), (done.stdout[:500], done.stderr[-2000:])
    return dict(json.loads(done.stdout))


def test_jobs_are_delivered_for_tokens_that_the_mint_calls_spent(played: dict[str, Any]) -> None:
    assert played["delivered"] == 2
    for job in played["jobs"]:
        assert (job["status"], job["confirmed"], job["receipt_verified"]) == ("delivered", True, True)
        assert (job["amount_raw"], job["unit"], job["seller_received_raw"]) == ("21", "sat", "21")
        assert job["invoice_address"].startswith("creqA")
    assert len({job["invoice_address"] for job in played["jobs"]}) == 2


def test_the_seller_holds_what_the_jobs_cost(played: dict[str, Any]) -> None:
    assert played["seller_received_raw"] == played["total_raw"] == "42"


def test_a_rail_that_there_is_none_of_is_named() -> None:
    done = demo("--rail", "gold")
    assert done.returncode == 2
    assert "'gold' is not one of nano, cashu" in done.stderr
