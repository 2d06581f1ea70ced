"""The table of lying plugins: each breaks the clause that it was made to break, what that implies, and no other; the honest ones keep them all."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tradeskill.testing.backend_contract import BackendContract
from tradeskill.testing.clauses import KINDS, clauses_of
from tradeskill.testing.market_contract import MarketContract
from tradeskill.testing.skill_contract import SkillContract
from tradeskill.testing.wallet_contract import WalletContract

HERE = Path(__file__).parent
ROOT = HERE.parent
# class -> the clause it was made to break, and those that cannot hold either then
LIARS: dict[str, tuple[str, str]] = {
    "wallets::TestPaysTwiceOnRetry": ("W-19", "W-20 W-41 W-51 W-53"),
    "wallets::TestForgetsKeysAfterRestart": ("W-20", "W-41"),
    "wallets::TestReportsUnconfirmedAsPaid": ("W-05", ""),
    "wallets::TestReusesAnInvoice": ("W-01", "W-12 W-21 W-24 W-41 W-42 W-44 W-50 W-51 W-52 W-53"),
    "wallets::TestForgetsInvoicesAfterRestart": ("W-02", "W-42"),
    "wallets::TestRoundsAmounts": ("W-45", ""),
    "wallets::TestAcceptsAnotherNetwork": ("W-25", ""),
    "wallets::TestAcceptsAnotherUnit": ("W-25", ""),
    "wallets::TestRefundsTwice": ("W-27", "W-43"),
    "wallets::TestCannotRefundWhatItCollected": ("W-28", ""),
    "wallets::TestSaysRefusedWhenItIsUnknown": ("W-50", "W-52"),
    "wallets::TestSaysUnpaidWhenItCannotLook": ("W-50", "W-51 W-52 W-53"),
    "wallets::TestPublishesBeforeItStores": ("W-41", "W-19"),
    "wallets::TestBelievesProofs": ("W-13", ""),
    "wallets::TestCountsOnePaymentForTwoJobs": ("W-12", ""),
    "wallets::TestKeepsQuietAboutASurplus": ("W-08", "W-09 W-44"),
    "wallets::TestTakesLateMoneyForTimely": ("W-10", ""),
    "wallets::TestDropsMoneyOfForgottenInvoices": ("W-15", ""),
    "wallets::TestReportsASweepAsTheEnd": ("W-14", ""),
    "wallets::TestTakesAKeyForAnotherInvoice": ("W-24", ""),
    "wallets::TestPaysAnyAddress": ("W-26", "W-30"),
    "wallets::TestLeaksItsSecretInItsRepr": ("W-46", ""),
    "wallets::TestLeaksItsSecretInAnError": ("W-46", ""),
    "markets::TestLosesAChange": ("M-35", "M-11"),
    "markets::TestRepeatsACursor": ("M-33", "M-35"),
    "markets::TestLetsTwoLocksWin": ("M-27", "M-25 M-26"),
    "markets::TestTakesAStaleFence": ("M-25", ""),
    "markets::TestCancelsAfterPayment": ("M-01", "M-03"),
    "markets::TestAltersADocument": ("M-12", ""),
    "markets::TestShowsJobsToStrangers": ("M-02", ""),
    "markets::TestTakesForgedOffers": ("M-13", ""),
    "markets::TestChangesAPrice": ("M-04", ""),
    "markets::TestForgetsRequests": ("M-11", "M-18"),
    "backends::TestStartsTwice": ("B-03", "B-04 B-05 B-19"),
    "backends::TestLeaksTheEnvironment": ("B-16", ""),
    "backends::TestIgnoresTheTimeLimit": ("B-09", ""),
    "backends::TestIgnoresTheOutputLimit": ("B-10", ""),
    "backends::TestIgnoresTheMemoryLimit": ("B-18", ""),
    "backends::TestFollowsALink": ("B-17", ""),
    "backends::TestForgetsAfterARestart": ("B-06", "B-04 B-05 B-19"),
    "backends::TestChangesAResult": ("B-02", "B-19"),
    "backends::TestRunsAnythingWithoutIsolation": ("B-15", ""),
    "backends::TestListsOthersJobs": ("B-14", ""),
    "backends::TestStopsNothing": ("B-11", "B-05 B-13"),
    "backends::TestThrowsAResultAwayOnStop": ("B-12", ""),
    "backends::TestRemovesWhatRuns": ("B-13", ""),
    "backends::TestCallsAFailureFinished": ("B-07", ""),
    "skills::TestHidesATool": ("S-03", ""),
    "skills::TestIgnoresUnknownArguments": ("S-07", ""),
    "skills::TestSaysNothingOfATool": ("S-04", ""),
    "skills::TestDoesNotSayWhatItAnswers": ("S-05", "S-06"),
}
HONEST = {"wallets::TestHonest", "wallets::TestKeepsItsSecret", "markets::TestHonest", "backends::TestHonest", "skills::TestHonest"}

Results = Mapping[str, Mapping[str, Mapping[str, str]]]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What the kit said of every liar, by class and clause."""
    told = tmp_path_factory.mktemp("kit") / "clauses.json"
    files = sorted(str(path) for path in (HERE / "lying_plugins").glob("[a-z]*.py"))
    command = [sys.executable, "-m", "pytest", "-q", "--tb=no", "--clauses-json", str(told), *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 1, done.stdout[-2000:] + done.stderr[-2000:]
    found: Results = json.loads(told.read_text("utf-8"))
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
