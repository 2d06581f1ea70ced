"""The walk over the whole matrix: every label, before and after, so many scenes at a time on one ledger; what it found as one report."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.crash.evidence import read_books
from tests.crash.scenarios import NotReachedError, scenario_of
from tests.crash.scene import Ledger, Scene
from tradeskill.world import LABELS

SCENE_SECONDS = 180.0


def matrix() -> list[str]:
    """Every value of TRADESKILL_CRASH_AT."""
    return [f"{when}:{label}" for label in LABELS for when in ("before", "after")]


def sample() -> list[str]:
    """Every label once, before and after in turn."""
    return [f"{('before', 'after')[place % 2]}:{label}" for place, label in enumerate(LABELS)]


@dataclass
class Report:
    """`crashes`: processes that died where they were told to; `finished`: scenes that came to their right end nevertheless."""

    labels: set[str] = field(default_factory=set)
    crashes: int = 0
    finished: int = 0
    violations: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)

    def line(self) -> dict[str, Any]:
        return {"labels": len(self.labels), "crashes": self.crashes, "finished": self.finished, "violations": self.violations}


async def walk(folder: Path, crash_points: Sequence[str], at_once: int = 2, tell: Callable[[str], None] = lambda text: None) -> Report:
    """Leaves no process behind; the scenes' files stay in `folder`."""
    report, room = Report(), asyncio.Semaphore(at_once)

    async def play(number: int, crash_at: str, ledger: Ledger) -> None:
        async with room:
            began = time.monotonic()
            scene = Scene(folder / f"{number:02}-{crash_at.replace(':', '-')}", ledger)
            found = await _played(scene, crash_at, report)
            report.seconds[crash_at] = time.monotonic() - began
            report.violations += [f"{crash_at}: {text}" for text in found]
            tell(f"{report.seconds[crash_at]:5.1f} s  {crash_at}  {'; '.join(found) or 'ok'}")

    async with Ledger(folder) as ledger:
        await asyncio.gather(*[play(number, crash_at, ledger) for number, crash_at in enumerate(crash_points)])
    return report


async def _played(scene: Scene, crash_at: str, report: Report) -> list[str]:
    try:
        async with asyncio.timeout(SCENE_SECONDS), scene:
            found = await scenario_of(crash_at.partition(":")[2])(scene, crash_at)
    except NotReachedError as error:
        return [str(error)]
    except Exception:  # noqa: BLE001 - one scene that breaks must not hide what the others found
        return [traceback.format_exc()]
    report.crashes += 1
    report.labels.add(crash_at.partition(":")[2])
    for invoice in read_books(scene.seller_home).invoices:
        if (other := report.addresses.setdefault(invoice["address"], crash_at)) != crash_at:
            found.append(f"address {invoice['address']} was used at {other} already")
    report.finished += not found
    return found
