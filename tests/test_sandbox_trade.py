"""Strangers' programs sold from a sandbox: what is well gets delivered, what is hostile is refused and the money goes back, and the worker goes on."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli_stage import PATIENCE, Home, Stage, shout

pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bwrap is not installed: apt install bubblewrap")

PRICE = 10**27  # of each job here
HOSTILE = {
    "link": ("ln -s /etc/passwd $TRADESKILL_OUTPUT/a", "output"),
    "pipe": ("mkfifo $TRADESKILL_OUTPUT/a", "output"),
    "escape": ("touch \"$TRADESKILL_OUTPUT/$(printf 'a\\033[2J')\"", "output"),
    "flood": ("yes", "limit.output"),
    "files": ("i=0; while [ $i -lt 1000 ]; do i=$((i+1)); echo > $TRADESKILL_OUTPUT/$i; done; sleep 60", "limit.output"),
    "hungry": ("exec python3 -I -S -c 'x = bytearray(2**33)'", "limit.memory"),
}


def boxed(folder: Path, name: str, script: str) -> dict[str, Any]:
    limits = {"seconds": 20, "memory": "128M", "output": "1M"}
    return shout(f"boxed-{name}", trusted=False, pure=False, run=["sh", "-c", script], folder=str(folder), limits=limits)


def money_left(home: Home, expected: int) -> int:
    """What it has once all that is due came back, or after a while what did."""
    end = time.monotonic() + PATIENCE
    while True:
        home.json("wallet", "sweep")
        home.json("wallet", "receive")
        held = int(home.json("wallet", "balance")["available_raw"])
        if held == expected or time.monotonic() > end:
            return held


def test_what_is_well_is_delivered_and_what_is_hostile_costs_nothing(stage: Stage, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.mkdir(mode=0o755)
    seller, buyer = stage.profile("boxed-seller"), stage.funded("boxed-buyer")
    offers = [boxed(program, "fine", "tr a-z A-Z"), *(boxed(program, name, script) for name, (script, _) in HOSTILE.items())]
    wish = ("--input", '{"text": "hello"}', "--yes", "--max", "0.01 XNO", "--json")
    with seller.selling(stage.config("boxed-offers", offers)):
        failed = {}
        for name in HOSTILE:
            done = buyer.run("hire", f"boxed-{name}", *wish)
            assert done.code == 1, done
            failed[name] = done.json
        assert {name: found["error"]["code"] for name, found in failed.items()} == {name: code for name, (_, code) in HOSTILE.items()}
        assert buyer.run("hire", "boxed-fine", *wish).ok().json["result"]["text"] == '{"TEXT":"HELLO"}'
        paid_once = 10 * 10**30 - PRICE
        assert money_left(buyer, paid_once) == paid_once
