"""lifecycle.py: every state with every event, against the arrows of the design."""

from __future__ import annotations

import pytest

from tradeskill.errors import IllegalStepError
from tradeskill.lifecycle import FULFILMENT, JOB, LIFECYCLES, PAYMENT, PURCHASE, Lifecycle, Step, advance, diagram

STATES = [(table, state) for table in LIFECYCLES for state in table.states]

# The design's arrows, one line a source: where each state may go. Loops that only repeat a state are named apart.
ARROWS = {
    "job": """
        requested -> quoted canceled
        quoted -> accepted canceled expired
        accepted -> running canceled expired
        running -> delivered failed
    """,
    "fulfilment": """
        seen -> refused quoted
        quoted -> expired canceled paid
        paid -> leased failed
        leased -> paid started failed
        started -> executed failed
        executed -> delivered failed
    """,
    "payment": """
        found -> allocated surplus refund_due review
        allocated -> refund_due review
        surplus -> refund_due
        refund_due -> refunding review
        refunding -> refunded review
        review -> refund_due surplus allocated
    """,
    "purchase": """
        intended -> requested abandoned canceled expired
        requested -> quoted abandoned canceled expired
        quoted -> verified abandoned canceled expired
        verified -> reserved abandoned canceled expired
        reserved -> accepted abandoned canceled expired
        accepted -> paying abandoned canceled expired
        paying -> paid abandoned
        paid -> submitted failed
        submitted -> waiting failed
        waiting -> received failed disputed
        failed -> refunded disputed
    """,
}
LOOPS = {
    "job": {("accepted", "pay"), ("running", "lock")},
    "fulfilment": {("started", "take_over"), ("started", "retry")},
    "payment": set(),
    "purchase": set(),
}
FINAL = {
    "job": {"delivered", "failed", "canceled", "expired"},
    "fulfilment": {"refused", "expired", "canceled", "failed", "delivered"},
    "payment": {"refunded"},
    "purchase": {"received", "refunded", "disputed", "abandoned", "canceled", "expired"},
}
EFFECTS = {
    "job": {},
    "fulfilment": {
        "decline": {("seen", "refuse")},
        "send_quote": {("seen", "quote")},
        "execute": {("quoted", "pay")},
        "deliver": {("started", "finish")},
        "report_failure": {("paid", "fail"), ("leased", "fail"), ("started", "fail"), ("executed", "fail")},
        "tidy": {("executed", "deliver")},
    },
    "payment": {"refund": {("found", "return"), ("allocated", "return"), ("surplus", "return"), ("review", "return")}},
    "purchase": {},
}


def arrows(table: Lifecycle) -> dict[str, set[str]]:
    lines = [line.split(" -> ") for line in ARROWS[table.name].strip().splitlines()]
    return {source.strip(): set(targets.split()) for source, targets in lines}


@pytest.mark.parametrize("table", LIFECYCLES, ids=lambda table: table.name)
def test_the_table_has_the_design_s_arrows_and_no_others(table: Lifecycle) -> None:
    drawn: dict[str, set[str]] = {}
    for (state, event), step in table.steps.items():
        if (state, event) not in LOOPS[table.name]:
            drawn.setdefault(state, set()).add(step.to)
    assert drawn == arrows(table)


@pytest.mark.parametrize("table", LIFECYCLES, ids=lambda table: table.name)
def test_the_loops_stay_where_they_are(table: Lifecycle) -> None:
    assert {(state, event) for (state, event), step in table.steps.items() if step.to == state} == LOOPS[table.name]


@pytest.mark.parametrize(("table", "state"), STATES, ids=lambda part: part.name if isinstance(part, Lifecycle) else part)
def test_every_event_in_every_state_is_a_step_or_an_error(table: Lifecycle, state: str) -> None:
    before = dict(table.steps)
    possible = [e for s, e in table.steps if s == state]
    for event in table.events:
        if event in possible:
            step = advance(table, state, event)
            assert step is table.steps[state, event]
            assert step.to == state or step.to in arrows(table)[state]
        else:
            with pytest.raises(IllegalStepError, match=f"{table.name}: '{event}' is not possible in state '{state}'") as caught:
                advance(table, state, event)
            assert str(caught.value).endswith(", ".join(possible) if possible else "nothing (it is final)")
    assert table.steps == before


@pytest.mark.parametrize("table", LIFECYCLES, ids=lambda table: table.name)
def test_words_that_are_no_state_or_event_are_errors(table: Lifecycle) -> None:
    for state, event in (("", ""), (table.start, "explode"), ("limbo", table.events[0])):
        with pytest.raises(IllegalStepError):
            advance(table, state, event)


@pytest.mark.parametrize("table", LIFECYCLES, ids=lambda table: table.name)
def test_the_final_states_are_final(table: Lifecycle) -> None:
    assert table.terminal == FINAL[table.name]
    for state in table.terminal:
        for event in table.events:
            with pytest.raises(IllegalStepError, match="final"):
                advance(table, state, event)


@pytest.mark.parametrize("table", LIFECYCLES, ids=lambda table: table.name)
def test_every_state_is_reached_from_the_start(table: Lifecycle) -> None:
    reached = {table.start}
    while more := {step.to for (state, _), step in table.steps.items() if state in reached} - reached:
        reached |= more
    assert reached == set(table.states)


@pytest.mark.parametrize("table", LIFECYCLES, ids=lambda table: table.name)
def test_from_every_state_some_end_can_be_reached(table: Lifecycle) -> None:
    """No state is a trap. (A payment may rest as allocated, surplus or in review; from each it can still be refunded.)"""
    ends = set(table.terminal)
    while more := {state for (state, _), step in table.steps.items() if step.to in ends} - ends:
        ends |= more
    assert ends == set(table.states)


@pytest.mark.parametrize("table", LIFECYCLES, ids=lambda table: table.name)
def test_the_effects_are_asked_for_where_they_belong(table: Lifecycle) -> None:
    asked: dict[str, set[tuple[str, str]]] = {}
    for pair, step in table.steps.items():
        assert len(set(step.effects)) == len(step.effects)
        for effect in step.effects:
            asked.setdefault(effect, set()).add(pair)
    assert asked == EFFECTS[table.name]


def test_money_that_is_due_back_always_asks_for_the_refund() -> None:
    into = [step for step in PAYMENT.steps.values() if step.to == "refund_due"]
    assert into
    assert all(step.effects == ("refund",) for step in into)


def test_a_buyer_cannot_leave_once_it_pays() -> None:
    for state in ("paying", "paid", "submitted", "waiting"):
        assert not {(state, event) for event in ("abandon", "cancel", "expire")} & set(PURCHASE.steps)


def test_a_job_cannot_be_canceled_by_the_buyer_once_it_runs() -> None:
    assert not [pair for pair in JOB.steps if pair[0] == "running" and "cancel" in pair[1]]


def test_nothing_is_executed_before_it_is_paid() -> None:
    """Every way from the start to `started` passes through `paid`."""
    reached = {FULFILMENT.start}
    while more := {step.to for (state, _), step in FULFILMENT.steps.items() if state in reached and state != "paid"} - reached:
        reached |= more
    assert "started" not in reached


def test_the_four_tables_have_their_names() -> None:
    assert [table.name for table in LIFECYCLES] == ["job", "fulfilment", "payment", "purchase"]
    assert set(ARROWS) == set(LOOPS) == set(FINAL) == set(EFFECTS) == {table.name for table in LIFECYCLES}


def test_states_are_told_in_the_order_of_their_first_mention() -> None:
    table = Lifecycle("small", "a", {("a", "go"): Step("b"), ("b", "back"): Step("a"), ("b", "end"): Step("c"), ("a", "end"): Step("c")})
    assert table.states == ("a", "b", "c")
    assert table.events == ("go", "back", "end")
    assert table.terminal == {"c"}


@pytest.mark.parametrize("table", LIFECYCLES, ids=lambda table: table.name)
def test_the_diagram_draws_every_step_once(table: Lifecycle) -> None:
    drawn = diagram(table)
    for (state, event), step in table.steps.items():
        (line,) = [line for line in drawn.splitlines() if line.startswith(f"    {state} --> {step.to}: ")]
        assert event in line.partition(": ")[2].split(" / ")
    for state in table.states:
        assert (f"    {state} --> [*]" in drawn) == (state in table.terminal)
    assert drawn.startswith(f"```mermaid\nstateDiagram-v2\n    [*] --> {table.start}\n")
