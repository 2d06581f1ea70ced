"""Spending caps: reserve, commit, release, in one transaction each; unknown counts as spent."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest

from tradeskill import policy
from tradeskill.errors import PolicyError, StateError
from tradeskill.journal import spending, spendlog
from tradeskill.money import MAX_RAW, Amount
from tradeskill.policy import Caps, Guard, Intended

NONE = Caps()


@pytest.fixture
def tx(tx: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Afterwards the spend log tells all that happened."""
    yield tx
    assert [*spendlog.differences(tx, spendlog.replay(spendlog.entries(tx)))] == []


def raw(value: int) -> Amount:
    return Amount(value, "raw")


def reserve(tx: sqlite3.Connection, purchase: str, value: int, caps: Caps = NONE, this: tuple[Amount, ...] = (), unit: str = "raw") -> None:
    policy.reserve(tx, Intended(purchase, Amount(value, unit), seller="seller"), Guard(caps), this, 1)


def test_what_is_reserved_then_committed_is_spent(tx: sqlite3.Connection) -> None:
    reserve(tx, "a", 10)
    assert policy.spent_and_reserved(tx, "raw") == (0, 10)
    policy.commit(tx, "a", 2)
    assert policy.spent_and_reserved(tx, "raw") == (10, 0)


def test_what_is_released_is_free_again(tx: sqlite3.Connection) -> None:
    reserve(tx, "a", 10)
    policy.release(tx, "a", 2)
    assert policy.spent_and_reserved(tx, "raw") == (0, 0)


def test_a_refund_frees_what_was_spent(tx: sqlite3.Connection) -> None:
    reserve(tx, "a", 10)
    policy.commit(tx, "a", 2)
    policy.release(tx, "a", 3)
    assert policy.spent_and_reserved(tx, "raw") == (0, 0)


@pytest.mark.parametrize("again", [policy.commit, policy.release])
def test_each_step_may_be_repeated_and_counts_once(tx: sqlite3.Connection, again: object) -> None:
    reserve(tx, "a", 10)
    reserve(tx, "a", 10)
    reserve(tx, "b", 5)
    for _ in range(3):
        again(tx, "a", 2)  # type: ignore[operator]  # one of the two functions
    expected = (10, 5) if again is policy.commit else (0, 5)
    assert policy.spent_and_reserved(tx, "raw") == expected


def test_a_released_reservation_is_not_committed_afterwards(tx: sqlite3.Connection) -> None:
    reserve(tx, "a", 10)
    policy.release(tx, "a", 2)
    policy.commit(tx, "a", 3)
    assert policy.spent_and_reserved(tx, "raw") == (0, 0)


def test_what_was_never_reserved_changes_nothing(tx: sqlite3.Connection) -> None:
    policy.commit(tx, "a", 1)
    policy.release(tx, "a", 1)
    assert policy.spent_and_reserved(tx, "raw") == (0, 0)


@pytest.mark.parametrize(
    ("caps", "this", "words"),
    [
        (NONE, (raw(9),), "--max of this purchase"),
        (Caps(per_payment=(raw(9),)), (), "cap per payment"),
        (Caps(in_total=(raw(9),)), (), "total cap"),
    ],
)
def test_each_cap_refuses_one_unit_over_and_names_itself(tx: sqlite3.Connection, caps: Caps, this: tuple[Amount, ...], words: str) -> None:
    with pytest.raises(PolicyError, match=words) as error:
        reserve(tx, "a", 10, caps, this)
    assert "nothing was paid" in str(error.value)
    assert policy.spent_and_reserved(tx, "raw") == (0, 0)
    reserve(tx, "b", 9, caps, this)


def test_reserved_and_spent_count_together_against_the_total(tx: sqlite3.Connection) -> None:
    caps = Caps(in_total=(raw(100),))
    reserve(tx, "spent", 40, caps)
    policy.commit(tx, "spent", 2)
    reserve(tx, "unknown", 40, caps)
    with pytest.raises(PolicyError):
        reserve(tx, "c", 21, caps)
    reserve(tx, "d", 20, caps)
    policy.release(tx, "unknown", 3)
    reserve(tx, "e", 40, caps)


def test_a_cap_in_another_unit_refuses_instead_of_comparing_numbers(tx: sqlite3.Connection) -> None:
    with pytest.raises(PolicyError, match="set a cap in sat"):
        reserve(tx, "a", 1, Caps(in_total=(raw(100),)), unit="sat")


def test_units_are_counted_apart(tx: sqlite3.Connection) -> None:
    reserve(tx, "a", 7)
    reserve(tx, "b", 5, unit="sat")
    assert (policy.spent_and_reserved(tx, "raw"), policy.spent_and_reserved(tx, "sat")) == ((0, 7), (0, 5))


def test_a_cap_of_zero_lets_nothing_through(tx: sqlite3.Connection) -> None:
    with pytest.raises(PolicyError):
        reserve(tx, "a", 1, Caps(in_total=(raw(0),)))


def test_totals_are_exact_where_sql_and_floats_are_not(tx: sqlite3.Connection) -> None:
    reserve(tx, "a", 2**100 + 1)
    reserve(tx, "b", 2**63)
    assert policy.spent_and_reserved(tx, "raw") == (0, 2**100 + 2**63 + 1)


def test_a_total_beyond_the_range_is_refused_and_changes_nothing(tx: sqlite3.Connection) -> None:
    reserve(tx, "a", MAX_RAW)
    with pytest.raises(StateError, match="would leave its range"):
        reserve(tx, "b", 1)
    with pytest.raises(StateError, match="would leave its range"):
        spending.change_total(tx, "spent:raw", -1)
    assert policy.spent_and_reserved(tx, "raw") == (0, MAX_RAW)
