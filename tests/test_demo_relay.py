"""`tradeskill demo --market relay`: relay, ledger, seller and buyer as processes of their own, judged from outside, and gone afterwards."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PATIENCE = 120.0  # seconds; a bound for a machine that is busy, not a duration that anything takes


class Demo:
    """One run in a temporary folder of its own. `said`: what it told people; `printed`: its stdout."""

    def __init__(self, temporary: Path, *options: str, met: Callable[[str], None] = lambda url: None) -> None:
        """`met` is called with the relay's URL while the demo goes on."""
        self.temporary = temporary
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TRADESKILL_")}
        process = subprocess.Popen(
            [sys.executable, "-m", "tradeskill", "demo", "--market", "relay", *options],
            env={**environment, "TMPDIR": str(temporary)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        timer = threading.Timer(PATIENCE, process.terminate)
        timer.start()
        lines = []
        try:
            assert process.stderr is not None
            for line in process.stderr:
                lines.append(line)
                url = re.search(r" s  relay: (http://\S+)", line)
                if url is not None:
                    met(url[1])
            self.printed, _ = process.communicate()
        finally:
            timer.cancel()
            process.terminate()
            process.communicate()
        self.code, self.said = process.returncode, "".join(lines)


def left_behind(demo: Demo) -> list[str]:
    """Files in its temporary folder, and processes that were started with a path in it."""
    found = [str(path) for path in demo.temporary.iterdir()]
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes().decode("utf-8", "replace")
        except OSError:
            continue
        if str(demo.temporary) in command:
            found.append(command)
    return found


def listens(url: str) -> bool:
    host, port = url.removeprefix("http://").split(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


class Meeting:
    """What the relay said of itself while it served the demo."""

    def __init__(self) -> None:
        self.url, self.capabilities = "", dict[str, Any]()

    def __call__(self, url: str) -> None:
        self.url = url
        with urllib.request.urlopen(f"{url}/v1/capabilities", timeout=PATIENCE) as answer:
            self.capabilities = json.load(answer)


def test_one_job_over_a_relay_ends_like_the_plain_demo_under_the_relay_s_limits(tmp_path: Path) -> None:
    relay = Meeting()
    demo = Demo(tmp_path, met=relay)
    assert demo.code == 0, demo.said
    steps = ["offer found", "job requested", "signed quote received", "quote accepted", "payment submitted", "settled by the seller"]
    assert [step for step in [*steps, "receipt verified, result stored"] if step not in demo.said] == []
    assert re.search(r"paid 1000000000000000000000000000 raw in block [0-9A-F]{64}\n", demo.said)
    assert re.search(r"result [0-9a-f]{64}, receipt verified by a process of its own\n", demo.said)
    assert (relay.capabilities["tradeskill"], relay.capabilities["network"]) == (1, "dev")
    assert {name: relay.capabilities["limits"][name] for name in ("ip", "key", "strict")} == {"ip": 120, "key": 60, "strict": 30}
    assert "--no-limits" not in demo.said
    assert left_behind(demo) == []
    assert not listens(relay.url)


def test_many_jobs_over_a_relay_are_all_delivered_with_its_limits_lifted(tmp_path: Path) -> None:
    relay = Meeting()
    demo = Demo(tmp_path, "--jobs", "4", "--concurrency", "4", met=relay)
    assert demo.code == 0, demo.said
    assert re.search(r" s  4 of 4 jobs delivered and verified in ", demo.said)
    assert f"relay: {relay.url} (--no-limits, because one buyer asks for many jobs)" in demo.said
    assert {name: relay.capabilities["limits"][name] for name in ("ip", "key", "strict")} == {"ip": None, "key": None, "strict": None}
    assert left_behind(demo) == []


@pytest.mark.parametrize("what", ["quote", "result"])
def test_a_lie_over_a_relay_is_found_out_and_nothing_is_left_of_it(what: str, tmp_path: Path) -> None:
    demo = Demo(tmp_path, "--tamper", what, "--json")
    found = json.loads(demo.printed)
    assert demo.code == 1
    assert (found["status"] == "delivered", found["receipt_verified"]) == (False, False)
    assert (found["payment_hash"] is None) == (what == "quote")
    assert demo.said == "" or "error" not in demo.said
    assert left_behind(demo) == []


def test_another_market_is_refused_by_name(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tradeskill", "demo", "--market", "bazaar"], capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert (done.returncode, done.stderr) == (2, "error: --market 'bazaar' is not one of embedded, relay\n")
