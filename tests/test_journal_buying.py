"""The buyer's statements: one purchase an intent, every step shows the state it knows, pins that never move by themselves."""

from __future__ import annotations

import sqlite3
from itertools import product

import pytest

from tradeskill.errors import IllegalStepError, NotFoundError, StaleFenceError, UntrustedError
from tradeskill.journal import Purchase, buying
from tradeskill.lifecycle import PURCHASE


def add(tx: sqlite3.Connection, name: str = "p", intent: str = "") -> Purchase:
    return buying.add_purchase(
        tx, purchase_id=name, intent=intent or f"wish {name}", offer="{}", seller="seller", request="{}", cap=None, refund_invoices="{}", now=1
    )


def test_the_same_intent_is_the_same_purchase_for_ever(tx: sqlite3.Connection) -> None:
    first = add(tx, "p1", "wish")
    assert add(tx, "p2", "wish") == first
    assert [row.purchase_id for row in buying.purchases(tx)] == ["p1"]
    buying.move_purchase(tx, "p1", "intended", "cancel", 2)
    assert add(tx, "p3", "wish").state == "canceled"


def test_a_purchase_is_found_by_its_id_its_intent_and_its_job(tx: sqlite3.Connection) -> None:
    add(tx)
    buying.move_purchase(tx, "p", "intended", "request", 2, job_id="job")
    row = buying.purchase(tx, "p")
    assert buying.find_purchase(tx, "p") == buying.find_purchase(tx, "job") == buying.find_by_intent(tx, "wish p") == buying.find_by_job(tx, "job") == row
    assert buying.find_purchase(tx, "none") is buying.find_by_intent(tx, "none") is buying.find_by_job(tx, "none") is None
    with pytest.raises(NotFoundError, match="purchase none"):
        buying.purchase(tx, "none")


def test_purchases_are_listed_newest_change_first_and_by_state(tx: sqlite3.Connection) -> None:
    for name in ("a", "b", "c"):
        add(tx, name)
    buying.move_purchase(tx, "b", "intended", "request", 9)
    buying.move_purchase(tx, "a", "intended", "request", 5)
    assert [row.purchase_id for row in buying.purchases(tx)] == ["b", "a", "c"]
    assert [row.purchase_id for row in buying.purchases(tx, ("requested",), limit=1)] == ["b"]


@pytest.mark.parametrize(("state", "event"), list(product(PURCHASE.states, PURCHASE.events)))
def test_a_purchase_moves_by_its_table_or_not_at_all(tx: sqlite3.Connection, state: str, event: str) -> None:
    add(tx)
    tx.execute("UPDATE purchases SET state = ?", (state,))
    step = PURCHASE.steps.get((state, event))
    if step is None:
        with pytest.raises(IllegalStepError):
            buying.move_purchase(tx, "p", state, event, 2)
        assert buying.purchase(tx, "p").state == state
    else:
        moved = buying.move_purchase(tx, "p", state, event, 2, error_code="why")
        assert (moved.state, moved.updated_at, moved.error_code) == (step.to, 2, "why")


def test_of_two_processes_that_know_the_same_state_one_moves_it(tx: sqlite3.Connection) -> None:
    add(tx)
    buying.move_purchase(tx, "p", "intended", "request", 2)
    with pytest.raises(StaleFenceError):
        buying.move_purchase(tx, "p", "intended", "cancel", 3)
    assert buying.purchase(tx, "p").state == "requested"


def test_a_seller_is_pinned_once_and_a_label_never_moves_to_another_key(tx: sqlite3.Connection) -> None:
    buying.pin(tx, "key1", "offer:1", "first use", 1)
    buying.pin(tx, "key1", "offer:1", "first use", 2)
    buying.pin(tx, "key1", "offer:2", "first use", 3)
    with pytest.raises(UntrustedError, match="key2"):
        buying.pin(tx, "key2", "offer:1", "first use", 4)
    assert buying.pins(tx) == [("key1", "offer:1", "first use", 1), ("key1", "offer:2", "first use", 3)]


def test_a_seller_is_known_once_the_owner_pinned_it_or_something_was_received(tx: sqlite3.Connection) -> None:
    add(tx)
    buying.pin(tx, "seller", "offer:1", "first use", 1)
    buying.pin(tx, "friend", "offer:2", "out of band", 1)
    assert (buying.check_pin(tx, "seller"), buying.check_pin(tx, "friend"), buying.check_pin(tx, "nobody")) == (False, True, False)
    tx.execute("UPDATE purchases SET state = 'received'")
    assert buying.check_pin(tx, "seller")
