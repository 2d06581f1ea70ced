"""The relay's section of `make bench` at its smallest size, by the real programs on both databases. Its figures mean nothing here; their shape does."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import postgres

ROOT = Path(__file__).parent.parent
PATIENCE = 240.0
RATES = ("lifecycles_per_s", "keyed_lifecycles_per_s", "no_ops_per_s", "cpu_ms_a_request", "cpu_ms_a_no_op")
LISTS = {
    "offers_page",
    "offers_two_tags",
    "offers_q_common",
    "offers_q_rare",
    "offers_page_after_a_change",
    "offers_q_common_after_a_change",
    "jobs_page",
    "changes_cursor",
    "changes_updated_after",
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one run printed. Files, not pipes: what a killed run started may hold a pipe open."""
    folder = tmp_path_factory.mktemp("bench")
    with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
        command = [sys.executable, str(ROOT / "tools" / "bench.py"), "--size", "shape", "--only", "relay"]
        program = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True)
        try:
            assert program.wait(PATIENCE) == 0, (folder / "err").read_text()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)
            program.wait(10)
    figures: dict[str, Any] = json.loads((folder / "out").read_text())["relay"]
    return figures


def databases(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [found["sqlite"]] if postgres.missing() else [found["sqlite"], found["postgresql"]]


def test_both_databases_have_all_their_figures(found: dict[str, Any]) -> None:
    assert set(found) == {"rows", "sqlite", "postgresql"}
    for figures in databases(found):
        assert set(figures) == {"at_1", "at_16", "lists"}
        assert set(figures["lists"]) == LISTS
    assert not postgres.missing() or found["postgresql"] == {"absent": postgres.missing()}


def test_every_rate_is_of_something_that_happened(found: dict[str, Any]) -> None:
    for figures in databases(found):
        for at, requests in (("at_1", 4 * 6), ("at_16", 16 * 6)):
            assert all(figures[at][name] > 0 for name in RATES)
            assert figures[at]["request_ms"]["n"] == requests
            assert 0 < figures[at]["request_ms"]["p50"] <= figures[at]["request_ms"]["p99"]


def test_every_ratio_is_that_of_the_figures_beside_it(found: dict[str, Any]) -> None:
    for figures in databases(found):
        for at in ("at_1", "at_16"):
            share = figures[at]["lifecycles_per_s"] / (figures[at]["no_ops_per_s"] / 6)
            assert figures[at]["lifecycles_to_sixth_of_no_ops"] == pytest.approx(share, rel=0.02)
        for name, one in figures["lists"].items():
            assert one["many_to_few"] == pytest.approx(one["many_ms"] / one["few_ms"], rel=0.02), name
