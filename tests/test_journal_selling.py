"""The seller's statements: every write shows the state and fence it knows, changes one row or raises and changes nothing.

Past 400 lines because it is one table of statements, each in every state.
"""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from tradeskill.allocation import Allocation, Part
from tradeskill.errors import IllegalStepError, NotFoundError, PluginError, StaleFenceError, StateError
from tradeskill.journal import Fulfilment, PaymentRow, selling
from tradeskill.lifecycle import FULFILMENT, PAYMENT
from tradeskill.model import Invoice, Payment
from tradeskill.money import Amount

INVOICE = Invoice("fake", "dev", "inv-1", "job", "addr-1", Amount(1000, "raw"), expires_at=500, details={"lock": "key"})


def add(tx: sqlite3.Connection, job_id: str = "job", buyer: str = "buyer", hold_until: int = 100) -> None:
    assert selling.add_fulfilment(tx, job_id=job_id, offer_id="offer", offer_name="name", buyer=buyer, request="{}", hold_until=hold_until, now=1)


def put(tx: sqlite3.Connection, state: str, job_id: str = "job", **columns: object) -> None:
    """A job in any state, however it got there."""
    if selling.find_fulfilment(tx, job_id) is None:
        add(tx, job_id)
    columns["state"] = state
    tx.execute(f"UPDATE fulfilments SET {', '.join(f'{name} = ?' for name in columns)} WHERE job_id = ?", (*columns.values(), job_id))


def pay(tx: sqlite3.Connection, payment_id: str, value: int, invoice: Invoice = INVOICE, at: int = 5) -> list[Payment]:
    return selling.record_found(tx, invoice, [Payment(payment_id, Amount(value, "raw"), at, "sender")], 6)


def states(tx: sqlite3.Connection, job_id: str = "job") -> list[tuple[str, int, str, int]]:
    return [(p.payment_id, p.part, p.state, p.value) for p in selling.payments_of(tx, job_id)]


def effects(tx: sqlite3.Connection) -> list[tuple[str, str, str]]:
    return [(e.subject, e.subject_id, e.name) for e in selling.pending_effects(tx)]


# offers


def test_the_newest_version_of_an_offer_is_current_and_the_old_one_is_still_known(tx: sqlite3.Connection) -> None:
    selling.save_offer(tx, "h1", "o1", "extract", "one")
    selling.save_offer(tx, "h2", "o1", "extract", "two")
    selling.save_offer(tx, "h3", "o3", "other", "three")
    assert selling.current_offers(tx) == {"extract": ("o1", "h2", "two"), "other": ("o3", "h3", "three")}
    assert selling.offer_document(tx, "h1") == ("extract", "one")
    assert selling.offer_document(tx, "h9") is None
    selling.save_offer(tx, "h1", "o1", "extract", "one")
    assert selling.current_offers(tx)["extract"][1] == "h1"


# fulfilments


def test_a_job_is_added_once(tx: sqlite3.Connection) -> None:
    add(tx)
    assert not selling.add_fulfilment(tx, job_id="job", offer_id="x", offer_name="x", buyer="x", request="x", hold_until=0, now=9)
    assert selling.fulfilment(tx, "job").buyer == "buyer"


def test_an_unknown_job_is_not_found(tx: sqlite3.Connection) -> None:
    assert selling.find_fulfilment(tx, "none") is None
    with pytest.raises(NotFoundError, match="job none"):
        selling.fulfilment(tx, "none")


def test_jobs_are_listed_newest_change_first_and_by_state(tx: sqlite3.Connection) -> None:
    for at, (job, state) in enumerate([("a", "quoted"), ("b", "paid"), ("c", "quoted")]):
        put(tx, state, job, updated_at=at)
    assert [row.job_id for row in selling.fulfilments(tx)] == ["c", "b", "a"]
    assert [row.job_id for row in selling.fulfilments(tx, ("quoted",))] == ["c", "a"]
    assert [row.job_id for row in selling.fulfilments(tx, limit=1)] == ["c"]


@pytest.mark.parametrize("state", FULFILMENT.states)
def test_a_place_is_held_while_a_quote_stands_or_paid_work_is_unfinished(tx: sqlite3.Connection, state: str) -> None:
    put(tx, state, hold_until=100)
    expected = {"seen": (1, 0), "quoted": (1, 0)}.get(state, (1, 1) if state in ("paid", "leased", "started", "executed") else (0, 0))
    assert (selling.holding(tx, "name", 100).get("buyer", 0), selling.holding(tx, "name", 101).get("buyer", 0)) == expected
    assert selling.holding(tx, "another", 100) == {}


@pytest.mark.parametrize(("state", "event"), list(product(FULFILMENT.states, FULFILMENT.events)))
def test_a_step_leads_where_the_table_says_with_its_effects_or_changes_nothing(tx: sqlite3.Connection, state: str, event: str) -> None:
    put(tx, state)
    step = FULFILMENT.steps.get((state, event))
    if step is None:
        with pytest.raises(IllegalStepError):
            selling.move_fulfilment(tx, "job", event, 7)
        assert selling.fulfilment(tx, "job").state == state
        assert effects(tx) == []
    else:
        moved = selling.move_fulfilment(tx, "job", event, 7, error_code="why")
        assert (moved.state, moved.updated_at, moved.error_code) == (step.to, 7, "why")
        assert effects(tx) == [("fulfilment", "job", name) for name in step.effects]


def test_who_shows_an_older_fence_changes_nothing(tx: sqlite3.Connection) -> None:
    put(tx, "started", fence=5)
    for shown in (4, 6):
        with pytest.raises(StaleFenceError):
            selling.move_fulfilment(tx, "job", "finish", 7, fence=shown, result_sha256="x")
    assert selling.fulfilment(tx, "job").result_sha256 is None
    assert selling.move_fulfilment(tx, "job", "finish", 7, fence=5, result_sha256="x").state == "executed"


# leases


def test_a_paid_job_is_taken_under_a_new_fence(tx: sqlite3.Connection) -> None:
    put(tx, "paid")
    row = selling.take(tx, "job", "me", 60, 1, market_fence=3)
    assert row is not None
    assert (row.state, row.fence, row.lease_owner, row.lease_until, row.market_fence, row.contested) == ("leased", 1, "me", 60, 3, 0)


def test_the_fence_grows_over_all_jobs(tx: sqlite3.Connection) -> None:
    fences = []
    for job in ("a", "b"):
        put(tx, "paid", job)
    for job in ("a", "b", "a", "a", "b"):
        row = selling.take(tx, job, "me", 60, 1)
        assert row is not None
        fences.append(row.fence)
    assert fences == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("state", ["leased", "started"])
def test_a_living_holder_keeps_its_job_until_the_lease_lapses(tx: sqlite3.Connection, state: str) -> None:
    put(tx, state, fence=1, lease_owner="other", lease_until=60)
    assert selling.take(tx, "job", "me", 120, 59) is None
    assert selling.fulfilment(tx, "job").lease_owner == "other"
    row = selling.take(tx, "job", "me", 120, 60)
    assert row is not None
    assert (row.state, row.lease_owner, row.contested) == (state, "me", int(state == "started"))


@pytest.mark.parametrize("state", ["leased", "started"])
def test_a_dead_holder_loses_its_job_at_once_and_nothing_is_contested(tx: sqlite3.Connection, state: str) -> None:
    put(tx, state, fence=1, lease_owner="other", lease_until=60)
    row = selling.take(tx, "job", "me", 120, 2, dead_owners={"other"})
    assert row is not None
    assert (row.state, row.contested) == (state, 0)


@pytest.mark.parametrize("state", [s for s in FULFILMENT.states if s not in ("paid", "leased", "started")])
def test_a_job_that_is_not_to_be_executed_is_not_taken_and_costs_no_fence(tx: sqlite3.Connection, state: str) -> None:
    put(tx, state, lease_owner="me")
    assert selling.take(tx, "job", "me", 60, 1) is None
    assert selling.next_fence(tx) == 1


@pytest.mark.parametrize("state", ["leased", "started"])
def test_a_lease_that_was_given_back_is_had_at_once_under_a_new_fence(tx: sqlite3.Connection, state: str) -> None:
    put(tx, state, fence=0, lease_owner="other", lease_until=60)
    selling.let_go(tx, "job")
    row = selling.take(tx, "job", "me", 120, 2)
    assert row is not None
    assert (row.state, row.lease_owner, row.fence) == (state, "me", 1)


def test_a_heartbeat_renews_the_lease_of_the_current_fence_only(tx: sqlite3.Connection) -> None:
    put(tx, "started", fence=2, lease_until=60, market_fence=7)
    selling.heartbeat(tx, "job", 2, 90)
    assert (selling.fulfilment(tx, "job").lease_until, selling.fulfilment(tx, "job").market_fence) == (90, 7)
    selling.heartbeat(tx, "job", 2, 95, 8)
    assert selling.fulfilment(tx, "job").market_fence == 8
    with pytest.raises(StaleFenceError):
        selling.heartbeat(tx, "job", 1, 120)
    put(tx, "delivered")
    with pytest.raises(StaleFenceError):
        selling.heartbeat(tx, "job", 2, 120)
    assert selling.fulfilment(tx, "job").lease_until == 95


def test_an_attempt_starts_once_for_ever(tx: sqlite3.Connection) -> None:
    selling.record_start(tx, "job", 1, 1, 1)
    with pytest.raises(sqlite3.IntegrityError):
        selling.record_start(tx, "job", 1, 2, 2)
    selling.record_start(tx, "job", 2, 2, 2)


def test_the_first_claim_stays(tx: sqlite3.Connection) -> None:
    add(tx)
    selling.save_claim(tx, "job", "fake", "one", "token", 2)
    selling.save_claim(tx, "job", "fake", "two", "", 3)
    row = selling.fulfilment(tx, "job")
    assert (row.claim, row.claim_rail, row.token) == ("one", "fake", "token")


# invoices


def test_an_invoice_comes_back_as_it_was_and_is_stored_once(tx: sqlite3.Connection) -> None:
    add(tx)
    selling.add_invoice(tx, INVOICE, 900)
    selling.add_invoice(tx, INVOICE, 1)
    (row,) = selling.invoices_of(tx, "job")
    assert (row.invoice, row.watch_until) == (INVOICE, 900)
    assert selling.find_invoice(tx, "inv-1") == row
    assert selling.find_invoice(tx, "inv-2") is None


@pytest.mark.parametrize("changes", [{"job_id": "job2"}, {"rail": "other"}, {"amount": Amount(999, "raw")}, {"address": "addr-2"}])
def test_an_invoice_that_was_given_out_before_for_something_else_is_refused(tx: sqlite3.Connection, changes: dict[str, Any]) -> None:
    add(tx)
    selling.add_invoice(tx, INVOICE, 900)
    with pytest.raises(PluginError, match="gave out invoice inv-1 twice: on the rail fake for job job"):
        selling.add_invoice(tx, replace(INVOICE, **changes), 900)
    assert [row.invoice for row in selling.invoices_of(tx, "job")] == [INVOICE]


def test_invoices_are_due_longest_overdue_first_and_later_when_told_so(tx: sqlite3.Connection) -> None:
    for number in range(3):
        add(tx, f"job{number}")
        selling.add_invoice(tx, Invoice("fake", "dev", f"i{number}", f"job{number}", f"a{number}", Amount(1, "raw"), 9), 900)
    selling.look_later(tx, {"i0": 30, "i1": 10})
    assert [(invoice.invoice_id, job.job_id) for invoice, job in selling.due_invoices(tx, 10)] == [("i2", "job2"), ("i1", "job1")]
    assert [invoice.invoice_id for invoice, _ in selling.due_invoices(tx, 100, limit=1)] == ["i2"]


def test_a_closed_job_is_watched_until_the_time_given(tx: sqlite3.Connection) -> None:
    add(tx)
    selling.add_invoice(tx, INVOICE, 900)
    selling.close_invoices(tx, "job", 5000)
    assert selling.invoices_of(tx, "job")[0].watch_until == 5000


# payments


def test_a_payment_seen_again_is_the_same_row(tx: sqlite3.Connection) -> None:
    assert [p.payment_id for p in pay(tx, "p1", 400)] == ["p1"]
    assert [p.payment_id for p in pay(tx, "p1", 400)] == ["p1"]
    assert states(tx) == [("p1", 0, "found", 400)]


def test_a_decided_payment_is_not_judged_again(tx: sqlite3.Connection) -> None:
    pay(tx, "p1", 1000)
    selling.allocate_found(tx, INVOICE, Allocation("pay", (Part("p1", 0, 1000, "allocate"),)), None, 7)
    assert pay(tx, "p1", 1000) == []


def test_a_payment_belongs_to_the_job_that_found_it_first(tx: sqlite3.Connection) -> None:
    pay(tx, "p1", 400)
    other = Invoice("fake", "dev", "inv-2", "job2", "addr-2", Amount(1000, "raw"), 500)
    assert pay(tx, "p1", 400, other) == []
    assert states(tx, "job2") == []
    assert states(tx) == [("p1", 0, "found", 400)]


def test_the_same_id_on_another_rail_is_another_payment(tx: sqlite3.Connection) -> None:
    pay(tx, "p1", 400)
    other = Invoice("cash", "dev", "inv-2", "job", "addr-2", Amount(1000, "raw"), 500)
    assert [p.payment_id for p in pay(tx, "p1", 300, other)] == ["p1"]
    assert sorted(p.key for p in selling.payments_of(tx, "job")) == ["cash/dev/p1/0", "fake/dev/p1/0"]


def test_a_payment_in_excess_becomes_two_parts_that_sum_to_it(tx: sqlite3.Connection) -> None:
    pay(tx, "p1", 2**100 + 5)
    parts = (Part("p1", 0, 5, "allocate"), Part("p1", 1, 2**100, "return"))
    selling.allocate_found(tx, INVOICE, Allocation("pay", parts), "back", 7)
    assert states(tx) == [("p1", 0, "allocated", 5), ("p1", 1, "refund_due", 2**100)]
    assert effects(tx) == [("payment", "fake/dev/p1/1", "refund")]
    assert selling.payment_by_key(tx, "fake/dev/p1/1").refund_to == "back"



def test_a_payment_that_does_not_pay_keeps_its_amount(tx: sqlite3.Connection) -> None:
    pay(tx, "p1", 3)
    selling.allocate_found(tx, INVOICE, Allocation("expire", (Part("p1", 0, 3, "hold"),)), None, 7)
    assert states(tx) == [("p1", 0, "review", 3)]


def test_a_failed_jobs_money_goes_back_or_to_review_and_small_surplus_stays(tx: sqlite3.Connection) -> None:
    for name, value, state in (("p1", 1000, "allocated"), ("p2", 60, "surplus"), ("p3", 40, "surplus"), ("p4", 9, "refunded")):
        pay(tx, name, value)
        tx.execute("UPDATE payments SET state = ? WHERE payment_id = ?", (state, name))
    selling.return_allocated(tx, "job", {"fake": "back"}, 8, minimum={"raw": 50})
    assert states(tx) == [("p1", 0, "refund_due", 1000), ("p2", 0, "refund_due", 60), ("p3", 0, "surplus", 40), ("p4", 0, "refunded", 9)]


def test_without_an_address_a_failed_jobs_money_is_reviewed_and_surplus_stays(tx: sqlite3.Connection) -> None:
    for name, state in (("p1", "allocated"), ("p2", "surplus")):
        pay(tx, name, 100)
        tx.execute("UPDATE payments SET state = ? WHERE payment_id = ?", (state, name))
    selling.return_allocated(tx, "job", {"another": "back"}, 8)
    assert [row[2] for row in states(tx)] == ["review", "surplus"]
    assert effects(tx) == []


def test_held_money_says_why(tx: sqlite3.Connection) -> None:
    pay(tx, "p1", 100)
    pay(tx, "p2", 100)
    tx.execute("UPDATE payments SET state = 'allocated' WHERE payment_id = 'p1'")
    selling.hold_allocated(tx, "job", "in doubt", 8)
    assert [row[2] for row in states(tx)] == ["review", "found"]
    assert selling.payment_by_key(tx, "p1").note == "in doubt"
    assert [p.payment_id for p in selling.payments_in(tx, "review")] == ["p1"]


def test_a_payment_is_found_by_key_by_id_and_by_its_job(tx: sqlite3.Connection) -> None:
    pay(tx, "ABC", 100)
    for name in ("fake/dev/ABC/0", "ABC", "abc", "job"):
        assert selling.payment_by_key(tx, name).payment_id == "ABC"
    for name in ("fake/dev/ABC/1", "fake/dev/none/0", "none"):
        with pytest.raises(NotFoundError):
            selling.payment_by_key(tx, name)
    pay(tx, "DEF", 100)
    with pytest.raises(StateError, match="names 2 payments"):
        selling.payment_by_key(tx, "job")


@pytest.mark.parametrize(("state", "event"), list(product(PAYMENT.states, PAYMENT.events)))
def test_a_payment_moves_by_its_table_or_not_at_all(tx: sqlite3.Connection, state: str, event: str) -> None:
    pay(tx, "p1", 100)
    tx.execute("UPDATE payments SET state = ?", (state,))
    row = selling.payment_by_key(tx, "p1")
    step = PAYMENT.steps.get((state, event))
    if step is None:
        with pytest.raises(IllegalStepError):
            selling.move_payment(tx, row, event, 9)
        assert selling.payment_by_key(tx, "p1") == row
    else:
        assert selling.move_payment(tx, row, event, 9, note="x").state == step.to
        assert effects(tx) == [("payment", row.key, name) for name in step.effects]


def test_a_payment_that_moved_meanwhile_is_not_moved_again(tx: sqlite3.Connection) -> None:
    pay(tx, "p1", 100)
    row: PaymentRow = selling.payment_by_key(tx, "p1")
    selling.move_payment(tx, row, "return", 9, refund_to="back")
    with pytest.raises(StaleFenceError):
        selling.move_payment(tx, row, "keep", 10)
    assert selling.payment_by_key(tx, "p1").state == "refund_due"


# results


def test_a_result_is_kept_as_long_as_its_longest_job_and_while_one_is_to_be_delivered(tx: sqlite3.Connection) -> None:
    selling.keep_result(tx, "sha", 10, 100)
    selling.keep_result(tx, "sha", 10, 50)
    assert selling.old_results(tx, 100) == []
    assert selling.old_results(tx, 101) == ["sha"]
    assert not selling.forget_result(tx, "sha", 100)
    put(tx, "executed", result_sha256="sha")
    assert not selling.forget_result(tx, "sha", 101)
    put(tx, "delivered")
    assert selling.forget_result(tx, "sha", 101)
    assert selling.old_results(tx, 101) == []


# effects and cursors


def test_effects_stay_until_they_are_done_or_given_up(tx: sqlite3.Connection) -> None:
    selling.add_effect(tx, "fulfilment", "job", "execute", 1)
    selling.add_effect(tx, "fulfilment", "job", "deliver", 1)
    first, second = selling.pending_effects(tx)
    assert selling.pending_effects(tx, after=first.effect_id) == [second]
    selling.effect_failed(tx, first.effect_id, "x" * 600, give_up=False)
    assert selling.tries(tx, first.effect_id) == 1
    assert [e.attempts for e in selling.pending_effects(tx)] == [1, 0]
    selling.effect_failed(tx, first.effect_id, "again", give_up=True)
    selling.effect_done(tx, second.effect_id)
    assert selling.pending_effects(tx) == []
    assert tx.execute("SELECT state, last_error FROM effects WHERE effect_id = ?", (first.effect_id,)).fetchone()[:] == ("failed", "again")


def test_an_effect_asked_for_again_is_there_once(tx: sqlite3.Connection) -> None:
    for _ in range(2):
        selling.repeat_effect(tx, "fulfilment", "job", "deliver", 1)
    selling.repeat_effect(tx, "fulfilment", "job", "decline", 1)
    assert effects(tx) == [("fulfilment", "job", "deliver"), ("fulfilment", "job", "decline")]
    selling.effect_done(tx, selling.pending_effects(tx)[0].effect_id)
    selling.repeat_effect(tx, "fulfilment", "job", "deliver", 1)
    assert [name for _, _, name in effects(tx)] == ["decline", "deliver"]


def test_a_cursor_is_empty_until_it_is_saved(tx: sqlite3.Connection) -> None:
    assert selling.cursor(tx, "market") == ""
    for value in ("a", "b"):
        selling.save_cursor(tx, "market", value)
    assert selling.cursor(tx, "market") == "b"


def test_a_row_of_the_journal_has_every_field_of_its_value(tx: sqlite3.Connection) -> None:
    add(tx)
    columns: Any = tx.execute("SELECT * FROM fulfilments").fetchone()
    assert set(columns.keys()) == set(Fulfilment.__dataclass_fields__)


def test_a_lease_that_is_given_back_can_be_taken_at_once_under_a_new_fence(tx: sqlite3.Connection) -> None:
    put(tx, "paid")
    held = selling.take(tx, "job", "one", until=100, now=1)
    assert held is not None
    assert selling.take(tx, "job", "two", until=100, now=2) is None
    selling.let_go(tx, "job")
    again = selling.take(tx, "job", "two", until=100, now=3)
    assert again is not None
    assert again.fence > held.fence


def test_a_whole_payment_that_the_job_does_not_need_keeps_its_amount(tx: sqlite3.Connection) -> None:
    put(tx, "delivered")
    pay(tx, "twice", 700)
    selling.allocate_found(tx, INVOICE, Allocation(None, (Part("twice", 0, 700, "return"),)), "addr-back", 9)
    assert states(tx) == [("twice", 0, "refund_due", 700)]
