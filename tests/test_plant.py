"""The planted bugs: each still has its place, a few are planted here and caught, and nothing is caught where nothing was planted."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.plant.__main__ import catch
from tests.plant.plants import PLANTS, Plant

ROOT = Path(__file__).parent.parent
REQUIRED = {  # by the names this project gave them
    "no-fence",
    "normal-sync",
    "signed-again-on-retry",
    "bool-of-the-string-false",
    "mapping-stored-after-the-address-left",
    "started-before-recorded",
    "float-sum",
    "no-subtype",
    "unverified-quote",
    "reservation-released-on-unknown",
    "address-reused",
    "receipt-unchecked",
    "window-forgotten",
    "ancestor-not-debited",
}
QUICK = (
    "normal-sync",
    "started-before-recorded",
    "float-sum",
    "payment-allocated-twice",
    "refund-to-the-sender",
    "signed-again-on-retry",
    "bool-of-the-string-false",
)


def test_the_bugs_that_were_asked_for_are_among_the_plants() -> None:
    names = [plant.name for plant in PLANTS]
    assert set(names) >= REQUIRED
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.name)
def test_a_plants_place_stands_once_and_its_tests_exist(plant: Plant) -> None:
    assert (ROOT / plant.file).read_text().count(plant.old) == 1
    for test in plant.tests:
        path, _, name = test.partition("::")
        assert f"def {name}(" in (ROOT / path).read_text() if name else (ROOT / path).is_file()


@pytest.fixture(scope="module")
def caught() -> dict[str, str]:
    same = ("core/tradeskill/money.py", "    result = sum(values)\n", "    result = sum(values)\n\n")
    honest = catch([Plant("nothing", *same), Plant("nothing-in-tests", *same, ("tests/test_allocation.py",))], schedules=50)
    return honest | catch([plant for plant in PLANTS if plant.name in QUICK], schedules=400)


@pytest.mark.parametrize("name", QUICK)
def test_a_planted_bug_is_caught(caught: dict[str, str], name: str) -> None:
    assert caught[name]


@pytest.mark.parametrize("name", ["nothing", "nothing-in-tests"])
def test_where_nothing_was_planted_nothing_is_caught(caught: dict[str, str], name: str) -> None:
    assert caught[name] == ""


def test_a_place_that_is_not_there_any_more_stops_the_planting() -> None:
    with pytest.raises(SystemExit, match="stands 0 times"):
        catch([Plant("stale", "core/tradeskill/policy/gate.py", "no such line", "x")])
