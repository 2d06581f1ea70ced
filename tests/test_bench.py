"""`make bench` measures what it says: every section at its smallest size, by the real program. The figures mean nothing here; their shape does."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.mint import missing as mint_missing
from tests.podman import missing as engine_missing

ROOT = Path(__file__).parent.parent
BENCH = ROOT / "tools" / "bench.py"
TOGETHER = (("cli", "journal", "work", "ledger"), ("seller", "cashu"), ("demo", "mcp", "backends"))  # three programs at once: only the shape counts
PATIENCE = 120.0

SPREAD = {"median": float, "p95": float, "n": int}
SHAPE: dict[str, dict[str, Any]] = {
    "cli": {
        **{f"{name}_ms": SPREAD for name in ("python_pass", "version", "typer_program", "offers")},
        "version_to_python_pass": float,
        "offers_to_typer_program": float,
    },
    "mcp": {"what": str, "ours_cpu_ms": float, "bare_cpu_ms": float, "ours_to_bare": float},
    "seller": {
        "what": str,
        "poll_seconds": float,
        "at_once": int,
        "hints_ms": {"recorded": SPREAD, "running": SPREAD},
        "polling_ms": {"recorded": SPREAD, "running": SPREAD},
        "polling_to_hints": float,
    },
    "journal": {
        "alone_per_s": float,
        "grouped_per_s": float,
        "writers": int,
        "fsync_per_s": float,
        "grouped_to_alone": float,
        "alone_to_fsync": float,
        "grouped_to_fsync": float,
    },
    "work": {
        "hashes_expected": int,
        "chance_error": float,
        "wallet_hashes_per_s": int,
        "nanopy_hashes_per_s": int,
        "wallet_to_nanopy": float,
        "dev_send_ms": float,
    },
    "demo": {"jobs": int, "delivered": int, "concurrency": int, "total_ms": int, "job_ms": SPREAD, "jobs_per_s": float},
    "ledger": {"no_op_per_s": float, "block_info_per_s": float, "process_per_s": float, "block_info_to_no_op": float, "process_to_no_op": float},
}
if shutil.which("bwrap"):
    SHAPE["backends"] = {"what": str, **{f"{name}_ms": SPREAD for name in ("bare", "process", "bubblewrap")}, "bubblewrap_to_process": float}
else:
    SHAPE["backends"] = {"what": str, "bubblewrap": str, "bare_ms": SPREAD, "process_ms": SPREAD}
if engine_missing():
    SHAPE["backends"]["container"] = str
else:
    SHAPE["backends"] |= {"container_ms": SPREAD, "container_to_process": float}
if mint_missing():
    SHAPE["cashu"] = {"absent": str}
else:
    CASHU = ("swap", "receive", "pay", "minted", "melt")
    SHAPE["cashu"] = {"what": str, **{f"{name}_ms": SPREAD for name in CASHU}, "receive_to_swap": float, "pay_to_swap": float}
# ratio -> the two figures of its section that it came from
RATIOS = {
    ("cli", "version_to_python_pass"): ("version_ms.median", "python_pass_ms.median"),
    ("cli", "offers_to_typer_program"): ("offers_ms.median", "typer_program_ms.median"),
    ("seller", "polling_to_hints"): ("polling_ms.recorded.median", "hints_ms.recorded.median"),
    ("journal", "grouped_to_alone"): ("grouped_per_s", "alone_per_s"),
    ("journal", "alone_to_fsync"): ("alone_per_s", "fsync_per_s"),
    ("journal", "grouped_to_fsync"): ("grouped_per_s", "fsync_per_s"),
    ("work", "wallet_to_nanopy"): ("wallet_hashes_per_s", "nanopy_hashes_per_s"),
    ("ledger", "block_info_to_no_op"): ("block_info_per_s", "no_op_per_s"),
    ("mcp", "ours_to_bare"): ("ours_cpu_ms", "bare_cpu_ms"),
    ("ledger", "process_to_no_op"): ("process_per_s", "no_op_per_s"),
    **{
        ("backends", f"{name}_to_process"): (f"{name}_ms.median", "process_ms.median")
        for name in ("bubblewrap", "container")
        if f"{name}_ms" in SHAPE["backends"]
    },
    **{("cashu", f"{name}_to_swap"): (f"{name}_ms.median", "swap_ms.median") for name in ("receive", "pay") if f"{name}_to_swap" in SHAPE["cashu"]},
}


def shape(value: Any) -> Any:
    return {name: shape(item) for name, item in value.items()} if isinstance(value, dict) else type(value)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What three runs printed, in one. Each must print exactly one JSON object on stdout. Files, not pipes: what a killed run started may hold a pipe open."""
    folder = tmp_path_factory.mktemp("bench")
    programs = []
    together: dict[str, Any] = {}
    try:
        for number, sections in enumerate(TOGETHER):
            chosen = [word for section in sections for word in ("--only", section)]
            with (folder / f"{number}.out").open("wb") as out, (folder / f"{number}.err").open("wb") as err:
                command = [sys.executable, str(BENCH), "--size", "shape", *chosen]
                programs.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True))
        for number, program in enumerate(programs):
            code = program.wait(PATIENCE)
            assert code == 0, (folder / f"{number}.err").read_text()
            together.update(json.loads((folder / f"{number}.out").read_text()))
        yield together
    finally:
        for program in programs:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)
            program.wait(10)


def test_every_section_has_its_figures(found: dict[str, Any]) -> None:
    assert {name: shape(found[name]) for name in SHAPE} == SHAPE
    assert set(found) - set(SHAPE) == {"size", "machine", "seconds"}


def test_every_ratio_is_that_of_the_figures_beside_it(found: dict[str, Any]) -> None:
    for (section, name), (over, under) in RATIOS.items():
        assert found[section][name] == pytest.approx(pick(found[section], over) / pick(found[section], under), rel=0.02), name
    ratios = {(section, name) for section, figures in SHAPE.items() for name in figures if "_to_" in name}
    assert ratios == set(RATIOS)


def pick(figures: Any, path: str) -> float:
    for name in path.split("."):
        figures = figures[name]
    return float(figures)


def test_every_figure_of_a_real_thing_is_above_zero(found: dict[str, Any]) -> None:
    assert found["demo"]["delivered"] == found["demo"]["jobs"] == 2
    for figures in (found["seller"]["hints_ms"], found["seller"]["polling_ms"]):
        assert figures["recorded"]["n"] == figures["running"]["n"] == 2
        assert figures["running"]["median"] > 0
    for section, names in SHAPE.items():
        for name in names:
            if name.endswith("_per_s"):
                assert found[section][name] > 0, name


def test_the_small_size_sells_at_least_twenty_jobs_to_each_side_and_make_knows_the_sizes() -> None:
    text = BENCH.read_text("utf-8")
    sizes = dict(re.findall(r'^    "(\w+)": Size\(\s*starts=\d+, jobs=(\d+)', text, re.MULTILINE))
    assert int(sizes["small"]) >= 20
    assert int(sizes["full"]) >= 20
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert "SIZE=small|full" in makefile
    assert "tools/bench.py --size $(SIZE)" in makefile


def test_an_unknown_size_is_refused() -> None:
    done = subprocess.run([sys.executable, str(BENCH), "--size", "huge"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "invalid choice" in done.stderr
