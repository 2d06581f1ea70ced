"""The sums of many schedules, whether every label and kind was hit often enough, and the closing line."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from tradeskill.world import LABELS

from .faults import KINDS
from .schedule import Outcome

__all__ = ["Totals", "totals_of"]


@dataclass
class Totals:
    schedules: int = 0
    steps: int = 0
    paid_jobs: int = 0
    crashes: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    broken: dict[int, list[str]] = field(default_factory=dict)  # seed -> what was wrong

    def add(self, outcome: Outcome) -> None:
        self.schedules += 1
        self.steps += outcome.steps
        self.paid_jobs += outcome.paid_jobs
        self.crashes += outcome.crashes
        self.faults += outcome.faults
        if outcome.violations:
            self.broken[outcome.seed] = outcome.violations

    def merge(self, other: Totals) -> None:
        self.schedules += other.schedules
        self.steps += other.steps
        self.paid_jobs += other.paid_jobs
        self.crashes += other.crashes
        self.faults += other.faults
        self.broken |= other.broken

    def rare(self) -> list[str]:
        """Labels and kinds hit fewer than one time in 200 schedules (nothing is asked of under 200)."""
        least = self.schedules / 200 if self.schedules >= 200 else 0
        counted = [(label, self.crashes[label]) for label in LABELS] + [(kind, self.faults[kind]) for kind in KINDS]
        return [f"{name} was hit {count} times, {least:g} are asked for" for name, count in counted if count < least]

    def line(self) -> str:
        """`violations` counts them, `seeds` are those that show them."""
        return json.dumps(
            {
                "schedules": self.schedules,
                "steps": self.steps,
                "paid_jobs": self.paid_jobs,
                "crashes_by_label": {label: self.crashes[label] for label in LABELS},
                "faults_by_kind": {kind: self.faults[kind] for kind in KINDS},
                "violations": sum(map(len, self.broken.values())),
                "seeds": sorted(self.broken),
            }
        )


def totals_of(outcomes: Iterable[Outcome]) -> Totals:
    totals = Totals()
    for outcome in outcomes:
        totals.add(outcome)
    return totals
