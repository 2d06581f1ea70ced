"""The table of lying plugins: each breaks the clause that it was made to break, what that implies, and no other; the honest ones keep them all."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.kit_table import HONEST, LIARS
from tradeskill.testing.backend_contract import BackendContract
from tradeskill.testing.clauses import KINDS, clauses_of
from tradeskill.testing.market_contract import MarketContract
from tradeskill.testing.skill_contract import SkillContract
from tradeskill.testing.wallet_contract import WalletContract

HERE = Path(__file__).parent
ROOT = HERE.parent
Results = Mapping[str, Mapping[str, Mapping[str, str]]]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What the kit said of every liar, by class and clause."""
    told = tmp_path_factory.mktemp("kit") / "clauses.json"
    files = sorted(str(path) for path in (HERE / "lying_plugins").glob("[a-z]*.py"))
    command = [sys.executable, "-m", "pytest", "-q", "--tb=no", "--clauses-json", str(told), *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 1, done.stdout[-2000:] + done.stderr[-2000:]
    found: Results = json.loads(told.read_text("utf-8"))["classes"]
    return {re.sub(r"^.*/(\w+)\.py::", r"\1::", name): clauses for name, clauses in found.items()}


def broken(results: Results, name: str) -> set[str]:
    assert {entry["status"] for entry in results[name].values()} <= {"passed", "failed", "off"}
    return {number for number, entry in results[name].items() if entry["status"] == "failed"}


@pytest.mark.parametrize("name", LIARS)
def test_a_lying_plugin_fails_its_own_clause_and_no_other_that_is_not_implied(results: Results, name: str) -> None:
    own, implied = LIARS[name]
    assert broken(results, name) == {own, *implied.split()}


@pytest.mark.parametrize("name", sorted(HONEST))
def test_what_the_liars_are_made_of_is_honest(results: Results, name: str) -> None:
    assert broken(results, name) == set()


def test_every_liar_is_in_the_table() -> None:
    files = (HERE / "lying_plugins").glob("*.py")
    found = {f"{path.stem}::{name}" for path in files for name in re.findall(r"^class (Test\w+)", path.read_text("utf-8"), re.MULTILINE)}
    assert found == {*LIARS, *HONEST}
    assert len(LIARS) >= 20


def test_each_clause_has_a_number_of_its_own_and_a_sentence() -> None:
    for letter, contract in zip(KINDS, (WalletContract, MarketContract, BackendContract, SkillContract), strict=True):
        clauses = clauses_of(contract)
        tests = {name for base in contract.__mro__ for name in vars(base) if name.startswith("test_")}
        assert set(clauses) == tests
        numbers = [each.number for each in clauses.values()]
        assert len(set(numbers)) == len(numbers)
        assert all(re.fullmatch(rf"{letter}-\d\d", number) for number in numbers)
        assert all(len(each.sentence.split()) >= 3 for each in clauses.values())
