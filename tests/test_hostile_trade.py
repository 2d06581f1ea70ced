"""Hostile offers, quotes, errors and results, through MCP and the whole buyer's flow: no payment outside the policy (FAULTS 86, 87, 95 to 104)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.hostile_offers import FAMILIES
from tests.hostile_stage import Case, played
from tradeskill.testing.virtual_time import run_virtual

AT_LEAST = 600
Verdict = Callable[[str, str], Exception | None]
YEARS = 10 * 365 * 86_400.0


@pytest.fixture(scope="module")
def verdict(tmp_path_factory: pytest.TempPathFactory) -> Verdict:
    """What the oracle has against a case. A family is one agent's session, played when its first case is asked for."""
    known: dict[str, dict[str, Exception | None]] = {}

    def look(family: str, name: str) -> Exception | None:
        if family not in known:
            known[family] = run_virtual(played(FAMILIES[family], tmp_path_factory.mktemp(family) / "home"), YEARS)
        return known[family][name]

    return look


@pytest.mark.parametrize(("family", "case"), [pytest.param(family, case, id=case.name) for family, cases in FAMILIES.items() for case in cases])
def test_nothing_moves_outside_the_policy_and_no_word_of_a_stranger_passes_for_ours(verdict: Verdict, family: str, case: Case) -> None:
    found = verdict(family, case.name)
    if found is not None:
        raise found


def test_the_corpus_does_not_shrink() -> None:
    names = [case.name for cases in FAMILIES.values() for case in cases]
    assert len(set(names)) == len(names)
    assert len(names) >= AT_LEAST
    assert all(len(cases) > 40 for cases in FAMILIES.values()), {family: len(cases) for family, cases in FAMILIES.items()}
