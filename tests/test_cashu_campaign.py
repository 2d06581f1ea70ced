"""A short stretch of the ecash campaign: both ways of paying, a death of the seller and one of the mint; `python -m tests.cashu_campaign` is the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cashu_campaign import run
from tests.mint import missing


def test_jobs_paid_both_ways_through_deaths_leave_every_sat_accounted_for(tmp_path: Path) -> None:
    if lacking := missing():
        pytest.skip(lacking)
    report = run(tmp_path, 10, 2, 3)
    assert report.violations == []
    assert (report.jobs, report.delivered, report.refunded) == (10, 9, 1)
    assert (report.by_token, report.by_lightning, report.seller_kills, report.mint_kills) == (5, 5, 1, 1)
    assert report.sat_outstanding == report.sat_found > 0
