"""Payments judged: small products exhausted, sums exact, every payment with exactly one fate."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradeskill.allocation import Allocation, Part, Terms, allocate
from tradeskill.lifecycle import FULFILMENT, PAYMENT
from tradeskill.model import Payment
from tradeskill.money import MAX_RAW, Amount

PRICE = 1000
BACK, KEEP = Terms(), Terms(surplus="keep")


def found(*amounts: int) -> list[Payment]:
    return [Payment(f"p{i}", Amount(amount, "raw"), received_at=i) for i, amount in enumerate(amounts)]


def judged(*amounts: int, state: str = "quoted", late: bool = False, closing: bool = False, refundable: bool = True, terms: Terms = BACK) -> Allocation:
    return allocate(state, PRICE, found(*amounts), late=late, closing=closing, refundable=refundable, terms=terms)


def test_the_exact_price_pays() -> None:
    assert judged(PRICE) == Allocation("pay", (Part("p0", 0, PRICE, "allocate"),))


def test_one_unit_short_waits_for_more() -> None:
    assert judged(PRICE - 1) == Allocation(None)


def test_one_unit_short_at_the_end_goes_back() -> None:
    assert judged(PRICE - 1, closing=True) == Allocation("expire", (Part("p0", 0, PRICE - 1, "return"),))


def test_nothing_at_the_end_expires_without_a_part() -> None:
    assert judged(closing=True) == Allocation("expire")


def test_one_unit_over_is_split_off() -> None:
    assert judged(PRICE + 1) == Allocation("pay", (Part("p0", 0, PRICE, "allocate"), Part("p0", 1, 1, "return")))


def test_a_seller_that_keeps_surplus_keeps_it_and_no_more() -> None:
    assert judged(PRICE + 1, terms=KEEP).parts == (Part("p0", 0, PRICE, "allocate"), Part("p0", 1, 1, "keep"))


def test_surplus_that_costs_more_to_send_than_it_is_worth_is_kept() -> None:
    terms = Terms(refund_minimum={"raw": 50})
    assert judged(PRICE + 49, terms=terms).parts[1].event == "keep"
    assert judged(PRICE + 50, terms=terms).parts[1].event == "return"


def test_split_payments_add_up_and_the_last_one_carries_the_rest() -> None:
    assert judged(300, 300, 500).parts == (
        Part("p0", 0, 300, "allocate"),
        Part("p1", 0, 300, "allocate"),
        Part("p2", 0, 400, "allocate"),
        Part("p2", 1, 100, "return"),
    )


def test_a_whole_payment_in_excess_goes_back_whole() -> None:
    assert judged(PRICE, 500).parts == (Part("p0", 0, PRICE, "allocate"), Part("p1", 0, 500, "return"))


def test_the_earlier_payment_pays_whatever_the_order_it_is_told_in() -> None:
    payments = found(PRICE, PRICE)
    assert allocate("quoted", PRICE, payments[::-1], late=False, closing=False, refundable=True, terms=BACK).parts[0].payment_id == "p0"


def test_of_two_payments_in_the_same_moment_the_smaller_id_pays() -> None:
    payments = [Payment("b", Amount(PRICE, "raw"), 5), Payment("a", Amount(PRICE, "raw"), 5)]
    parts = allocate("quoted", PRICE, payments, late=False, closing=False, refundable=True, terms=BACK).parts
    assert [(part.payment_id, part.event) for part in parts] == [("a", "allocate"), ("b", "return")]


@pytest.mark.parametrize(("policy", "event"), [("run", "pay"), ("refund", "pay_late")])
def test_a_late_payment_runs_or_goes_back_by_the_sellers_terms(policy: str, event: str) -> None:
    terms = Terms(late=policy)  # type: ignore[arg-type]  # one of its literals
    assert judged(PRICE, late=True, terms=terms).event == event
    assert judged(PRICE, late=False, terms=terms).event == "pay"


@pytest.mark.parametrize("state", [state for state in FULFILMENT.states if state != "quoted"])
def test_money_for_a_job_that_is_not_open_any_more_never_pays(state: str) -> None:
    assert judged(PRICE, 1, state=state) == Allocation(None, (Part("p0", 0, PRICE, "return"), Part("p1", 0, 1, "return")))


def test_without_a_signed_address_money_is_held_for_review_and_never_guessed_back() -> None:
    assert {part.event for part in judged(PRICE, state="delivered", refundable=False).parts} == {"hold"}
    assert judged(PRICE + 5, refundable=False).parts[1].event == "hold"
    assert judged(PRICE - 5, closing=True, refundable=False).parts[0].event == "hold"


def test_amounts_that_no_float_holds_are_exact() -> None:
    price = 2**100 + 1
    payments = [Payment("a", Amount(2**100, "raw"), 1), Payment("b", Amount(3, "raw"), 2)]
    parts = allocate("quoted", price, payments, late=False, closing=False, refundable=True, terms=BACK).parts
    assert [part.amount for part in parts] == [2**100, 1, 2]


amounts = st.lists(st.integers(1, MAX_RAW) | st.integers(1, 3 * PRICE), max_size=6)
all_terms = st.sampled_from([BACK, KEEP, Terms(late="refund", refund_minimum={"raw": 50})])


@given(amounts, st.sampled_from(FULFILMENT.states), st.booleans(), st.booleans(), st.booleans(), all_terms)
def test_every_unit_has_exactly_one_fate_or_waits(values: list[int], state: str, late: bool, closing: bool, refundable: bool, terms: Terms) -> None:
    payments = found(*values)
    allocation = allocate(state, PRICE, payments, late=late, closing=closing, refundable=refundable, terms=terms)
    given_out: dict[str, int] = {}
    for part in allocation.parts:
        assert part.amount > 0
        assert ("found", part.event) in PAYMENT.steps
        given_out[part.payment_id] = given_out.get(part.payment_id, 0) + part.amount
    if allocation.parts:
        assert given_out == {payment.payment_id: payment.amount.value for payment in payments}
    else:
        assert not payments or (state == "quoted" and sum(values) < PRICE and not closing)
    used = sum(part.amount for part in allocation.parts if part.event == "allocate")
    assert used == (PRICE if allocation.event in ("pay", "pay_late") else 0)
    assert len({(part.payment_id, part.part) for part in allocation.parts}) == len(allocation.parts)


def test_a_job_is_paid_only_when_quoted_and_only_with_the_whole_price() -> None:
    for state, total, closing, late in product(FULFILMENT.states, (0, 1, PRICE - 1, PRICE, PRICE + 1), (False, True), (False, True)):
        event = judged(*([total] if total else []), state=state, closing=closing, late=late).event
        assert (event == "pay") == (state == "quoted" and total >= PRICE)
