"""`python -m tests.crash [LABEL ...]`: the whole walk, or those labels only; ends with one JSON line, exit 0 only without violations."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
import tempfile
from pathlib import Path

from tests.crash.walk import matrix, walk


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash")
    parser.add_argument("labels", nargs="*", help="only crash points that contain one of these, such as pay. or before:seller.lock")
    parser.add_argument("--at-once", type=int, default=3, help="scenes in parallel")
    options = parser.parse_args()
    logging.basicConfig(level=logging.CRITICAL)  # outages are what this is about
    points = [point for point in matrix() if not options.labels or any(label in point for label in options.labels)]
    with tempfile.TemporaryDirectory(prefix="tradeskill-crash-") as folder:
        report = asyncio.run(walk(Path(folder), points, options.at_once, lambda text: print(text, file=sys.stderr)))
    print(json.dumps(report.line()))
    return 1 if report.violations or report.finished != len(points) else 0


if __name__ == "__main__":
    sys.exit(main())
