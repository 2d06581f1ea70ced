"""`python -m tests.plant`: plants each known bug into a copy of the packages and demands that it is caught; ends with one JSON line."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from .plants import PLANTS, Plant

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("core/tradeskill", "wallet/tradeskill_wallet", "plugins/tradeskill_plugins", "skills/tradeskill_skills")
SCHEDULES = 4000
SECONDS = 600.0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.plant", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these: {', '.join(plant.name for plant in PLANTS)}")
    parser.add_argument("--workers", type=int, default=2, help="how many at once (default 2)")
    given = parser.parse_args(arguments)
    unknown = set(given.names) - {plant.name for plant in PLANTS}
    if unknown:
        parser.error(f"no such plant: {', '.join(sorted(unknown))}")
    caught = catch([plant for plant in PLANTS if not given.names or plant.name in given.names], given.workers)
    print(json.dumps({"planted": len(caught), "caught": sum(map(bool, caught.values())), "by": caught}))
    return 0 if all(caught.values()) else 1


def catch(plants: Iterable[Plant], workers: int = 2, schedules: int = SCHEDULES) -> dict[str, str]:
    """Name -> what caught it, "" for nothing in so many schedules."""
    plants = list(plants)
    with ThreadPoolExecutor(workers) as pool:
        return dict(zip([plant.name for plant in plants], pool.map(partial(_caught, schedules=schedules), plants), strict=True))


def _caught(plant: Plant, schedules: int) -> str:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="plant-") as folder:
        for package in PACKAGES:
            shutil.copytree(ROOT / package, Path(folder) / Path(package).name, ignore=shutil.ignore_patterns("__pycache__"))
        _plant(plant, Path(folder))
        environment = {**os.environ, "PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"}
        command = ["-m", "pytest", "-q", "-x", *plant.tests] if plant.tests else ["-m", "tests.simulation", *_schedules(plant, schedules)]
        done = subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False)
    by = _by_test(plant, done) if plant.tests else _by_simulation(plant, done)
    print(f"{plant.name} ({time.monotonic() - began:.0f} s): {by or 'NOT CAUGHT'}", file=sys.stderr, flush=True)
    return by


def _plant(plant: Plant, folder: Path) -> None:
    """`folder` holds the packages side by side."""
    path = folder / Path(*Path(plant.file).parts[1:])
    text = path.read_text()
    if text.count(plant.old) != 1:
        raise SystemExit(f"plant {plant.name}: its place stands {text.count(plant.old)} times in {plant.file}; it has to be looked at again")
    path.write_text(text.replace(plant.old, plant.new))


def _schedules(plant: Plant, schedules: int) -> list[str]:
    return ["--schedules", str(schedules), "--first", str(plant.first), "--until-broken", "--workers", "1"]


def _by_test(plant: Plant, done: subprocess.CompletedProcess[str]) -> str:
    """A failed test catches; a broken import or a collection error catches nothing."""
    failed = re.search(r"^FAILED (\S+)", done.stdout, re.MULTILINE)
    if done.returncode == 1 and failed:
        return failed.group(1)
    print(f"plant {plant.name}: {done.stdout[-500:]}{done.stderr[-500:]}", file=sys.stderr)
    return ""


def _by_simulation(plant: Plant, done: subprocess.CompletedProcess[str]) -> str:
    """A violated invariant catches; a simulation that cannot run catches nothing."""
    seen = re.search(r"^seed (\d+): (.*)", done.stderr, re.MULTILINE)
    if done.returncode == 1 and seen:
        return f"simulation seed {seen.group(1)}: {seen.group(2)}"[:200]
    print(f"plant {plant.name}: {done.stdout[-200:]}{done.stderr[-800:]}", file=sys.stderr)
    return ""


if __name__ == "__main__":
    sys.exit(main())
