"""`python -m tests.simulation --schedules N`: plays N schedules against the invariants and ends with one JSON line; `--seed S` replays one."""

from __future__ import annotations

import argparse
import gc
import sys
from concurrent.futures import ProcessPoolExecutor

from .schedule import play
from .totals import Totals, totals_of


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--schedules", type=int, default=1000, help="how many (default 1000)")
    parser.add_argument("--first", type=int, default=0, help="the first seed; the others follow it (default 0)")
    parser.add_argument("--seed", type=int, help="replay this one and print all that happens in it")
    parser.add_argument("--until-broken", action="store_true", help="stop at the first violation (one process; hit counts are not judged)")
    parser.add_argument("--workers", type=int, default=2, help="processes (default 2)")
    given = parser.parse_args(arguments)
    if given.seed is not None:
        return replay(given.seed)
    seeds = range(given.first, given.first + given.schedules)
    totals = _some(seeds, until_broken=True) if given.until_broken else many(seeds, given.workers)
    for seed, violations in list(totals.broken.items())[:20]:
        print(f"seed {seed}: {violations[0]}" + (f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""), file=sys.stderr)
    for text in (rare := [] if given.until_broken else totals.rare()):
        print(text, file=sys.stderr)
    print(totals.line())
    return 1 if totals.broken or rare else 0


def many(seeds: range, workers: int) -> Totals:
    if workers <= 1:
        return _some(seeds)
    totals = Totals()
    parts = [seeds[start : start + 100] for start in range(0, len(seeds), 100)]
    with ProcessPoolExecutor(workers) as pool:
        for part in pool.map(_some, parts):
            totals.merge(part)
    return totals


def replay(seed: int) -> int:
    outcome = play(seed)
    for at, text in outcome.trace:
        print(f"{at:12.3f}  {text}")
    print(totals_of([outcome]).line())
    return 1 if outcome.violations else 0


def _some(seeds: range, until_broken: bool = False) -> Totals:
    """Without the collector's pauses, and so without generators closed at moments that no seed decides."""
    totals = Totals()
    gc.disable()
    gc.freeze()
    for number, seed in enumerate(seeds):
        totals.add(play(seed))
        if until_broken and totals.broken:
            break
        if number % 10 == 9:
            gc.collect()
    gc.unfreeze()
    gc.enable()
    return totals


if __name__ == "__main__":
    sys.exit(main())
