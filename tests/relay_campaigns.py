"""`python -m tests.relay_campaigns`: the relay's races, kills, broken requests and schemathesis at full length.

Ends with one JSON line; exit 0 without faults.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.postgres import programs, served
from tests.relay_started import fresh_database, relay_process
from tests.test_relay_hostile import bombard, schemathesis
from tests.test_relay_kill import Report as KillReport
from tests.test_relay_kill import ordeal
from tests.test_relay_races import CONTESTS, OUR_CONTESTS, play, play_claims


def races(folder: Path, trials: int) -> dict[str, Any]:
    """On one relay with a file, then on two with one PostgreSQL database."""
    faults, found = [], {}
    for kind, place in places(folder, "races"):
        with ExitStack() as stack:
            relays = [stack.enter_context(relay_process(place, "--no-limits", log=folder / f"{kind}-{n}.log")) for n in range(2 if kind == "postgres" else 1)]
            urls = [relay.url for relay in relays]
            outcomes = play(urls, CONTESTS | OUR_CONTESTS, trials) | play_claims(urls, trials)
        found[kind] = {"contests": len(outcomes), "trials": min(outcome.trials for outcome in outcomes.values())}
        faults += [f"{kind}, {title}: {fault}" for title, outcome in outcomes.items() for fault in outcome.faults]
    return {**found, "faults": faults[:20]}


def kills(folder: Path, lifecycles: int, seed: int) -> dict[str, Any]:
    faults, found = [], {}
    for kind, place in places(folder, "kills"):
        report = ordeal(place, folder / f"{kind}.log", lifecycles=lifecycles, clients=8, every=100, seed=seed)
        faults += report.violations + ([] if report.lifecycles == lifecycles else [f"{kind}: {report.lifecycles} lifecycles finished"])
        found[kind] = counted(report)
    if programs() is not None:  # now it is the database that dies
        with served() as server:
            report = ordeal(fresh_database(server), folder / "database.log", lifecycles=lifecycles // 2, clients=8, every=100, seed=seed, victim=server)
        faults += report.violations
        found["postgres itself"] = counted(report)
    return {**found, "faults": faults[:20]}


def counted(report: KillReport) -> dict[str, int]:
    return {name: getattr(report, name) for name in ("lifecycles", "acknowledged", "kills", "retries", "replayed")}


def places(folder: Path, name: str) -> Iterator[tuple[str, Path | str]]:
    """A file, then a database of a PostgreSQL server, where the tests' environment has one."""
    yield "sqlite", folder / f"{name}.db"
    if programs() is not None:
        with served() as server:
            yield "postgres", fresh_database(server)


def hostile(folder: Path, requests: int, seed: int) -> dict[str, Any]:
    """All of them at a relay with a file; a tenth as many more at one with PostgreSQL, which minds other things."""
    faults, found = [], {}
    for kind, place in places(folder, "hostile"):
        with relay_process(place, "--no-limits", log=folder / f"hostile-{kind}.log") as relay:
            report = bombard(relay, requests if kind == "sqlite" else requests // 10, seed)
        found[kind] = {"requests": report.requests, "statuses": dict(sorted(report.statuses.items())), "grown_bytes": report.grown}
        found[kind]["slowest_s"] = round(report.slowest, 2)
        faults += [f"{kind}: {fault}" for fault in report.faults]
    return {**found, "faults": faults}


def described(folder: Path, seconds: int, seed: int) -> dict[str, Any]:
    with relay_process(folder / "described.db", "--no-limits") as relay:
        found = schemathesis(relay.url, seconds, seed, folder)
        if "Traceback" in relay.said():
            found.append(relay.said()[-3000:])
    return {"seconds": seconds, "faults": found}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.relay_campaigns")
    parser.add_argument("--trials", type=int, default=200, help="of each race; 0 leaves the races out, and so for the others")
    parser.add_argument("--lifecycles", type=int, default=1000, help="during which the relay is killed again and again")
    parser.add_argument("--requests", type=int, default=100_000, help="broken ones")
    parser.add_argument("--seconds", type=int, default=300, help="of schemathesis")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="tradeskill-relay-") as name:
        folder = Path(name)
        for title, wanted, run in (
            ("races", options.trials, lambda: races(folder, options.trials)),
            ("kills", options.lifecycles, lambda: kills(folder, options.lifecycles, options.seed)),
            ("hostile", options.requests, lambda: hostile(folder, options.requests, options.seed)),
            ("schemathesis", options.seconds, lambda: described(folder, options.seconds, options.seed)),
        ):
            if wanted:
                started = time.monotonic()
                found[title] = run() | {"took_s": round(time.monotonic() - started, 1)}
                print(f"{title}: {json.dumps(found[title])}", file=sys.stderr)
    ok = not any(part["faults"] for part in found.values())
    print(json.dumps({"ok": ok, "seed": options.seed, **found}))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
