"""The four lifecycles as tables, and `advance`: which step leads where, and which effect it asks for. Pure; no I/O near it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tradeskill.errors import IllegalStepError

__all__ = ["FULFILMENT", "JOB", "LIFECYCLES", "PAYMENT", "PURCHASE", "Lifecycle", "Step", "advance", "diagram"]


@dataclass(frozen=True)
class Step:
    """Where an event leads, and the effects to run after the commit that records it."""

    to: str
    effects: tuple[str, ...] = ()


@dataclass(frozen=True)
class Lifecycle:
    name: str
    start: str
    steps: Mapping[tuple[str, str], Step]

    @property
    def states(self) -> tuple[str, ...]:
        """In order of first mention."""
        seen = [self.start]
        for (state, _), step in self.steps.items():
            seen += [s for s in (state, step.to) if s not in seen]
        return tuple(seen)

    @property
    def events(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(event for _, event in self.steps))

    @property
    def terminal(self) -> frozenset[str]:
        """States that no step leaves."""
        return frozenset(self.states) - {state for state, _ in self.steps}


def advance(lifecycle: Lifecycle, state: str, event: str) -> Step:
    """The one way to move. IllegalStepError, and nothing changed, where the table has no such step."""
    step = lifecycle.steps.get((state, event))
    if step is None:
        allowed = ", ".join(e for s, e in lifecycle.steps if s == state) or "nothing (it is final)"
        raise IllegalStepError(f"{lifecycle.name}: {event!r} is not possible in state {state!r}; possible: {allowed}")
    return step


# Kept by the market. `pay` is a claim; `lock` needs one (the market turns a lock without a claim into an error before the table).
JOB: Final = Lifecycle(
    "job",
    "requested",
    {
        ("requested", "quote"): Step("quoted"),
        ("requested", "decline"): Step("canceled"),
        ("requested", "cancel"): Step("canceled"),
        ("quoted", "decline"): Step("canceled"),
        ("quoted", "cancel"): Step("canceled"),
        ("quoted", "expire"): Step("expired"),
        ("quoted", "accept"): Step("accepted"),
        ("accepted", "pay"): Step("accepted"),
        ("accepted", "cancel_unpaid"): Step("canceled"),
        ("accepted", "expire_unpaid"): Step("expired"),
        ("accepted", "lock"): Step("running"),
        ("running", "lock"): Step("running"),
        ("running", "deliver"): Step("delivered"),
        ("running", "fail"): Step("failed"),
    },
)

# The seller's journal of one job.
FULFILMENT: Final = Lifecycle(
    "fulfilment",
    "seen",
    {
        ("seen", "refuse"): Step("refused", ("decline",)),
        ("seen", "quote"): Step("quoted", ("send_quote",)),
        ("quoted", "expire"): Step("expired"),
        ("quoted", "cancel"): Step("canceled"),
        ("quoted", "pay"): Step("paid", ("execute",)),
        ("paid", "lease"): Step("leased"),
        ("leased", "lapse"): Step("paid"),
        ("leased", "start"): Step("started"),
        ("started", "take_over"): Step("started"),  # a newer fence adopts the execution; the id stays
        ("started", "retry"): Step("started"),  # next attempt: pure offers, or the owner's `review run`, after the old one is proved dead
        ("started", "finish"): Step("executed", ("deliver",)),
        ("paid", "fail"): Step("failed", ("report_failure",)),
        ("leased", "fail"): Step("failed", ("report_failure",)),
        ("started", "fail"): Step("failed", ("report_failure",)),
        ("executed", "fail"): Step("failed", ("report_failure",)),
        ("executed", "deliver"): Step("delivered", ("tidy",)),
    },
)

# One row a final payment, in the seller's journal.
PAYMENT: Final = Lifecycle(
    "payment",
    "found",
    {
        ("found", "allocate"): Step("allocated"),
        ("found", "keep"): Step("surplus"),
        ("found", "return"): Step("refund_due", ("refund",)),
        ("found", "hold"): Step("review"),
        ("allocated", "return"): Step("refund_due", ("refund",)),
        ("allocated", "hold"): Step("review"),
        ("surplus", "return"): Step("refund_due", ("refund",)),
        ("refund_due", "send"): Step("refunding"),
        ("refund_due", "hold"): Step("review"),
        ("refunding", "confirm"): Step("refunded"),
        ("refunding", "hold"): Step("review"),
        ("review", "return"): Step("refund_due", ("refund",)),
        ("review", "keep"): Step("surplus"),
        ("review", "allocate"): Step("allocated"),
    },
)

# The buyer's journal of one job.
PURCHASE: Final = Lifecycle(
    "purchase",
    "intended",
    {
        ("intended", "request"): Step("requested"),
        ("requested", "quote"): Step("quoted"),
        ("quoted", "verify"): Step("verified"),
        ("verified", "reserve"): Step("reserved"),
        ("reserved", "accept"): Step("accepted"),
        ("accepted", "pay"): Step("paying"),
        ("paying", "publish"): Step("paid"),
        ("paid", "submit"): Step("submitted"),
        ("submitted", "wait"): Step("waiting"),
        ("waiting", "receive"): Step("received"),
        ("waiting", "fail"): Step("failed"),
        ("waiting", "dispute"): Step("disputed"),
        ("submitted", "fail"): Step("failed"),
        ("paid", "fail"): Step("failed"),
        ("paying", "release"): Step("abandoned"),  # only when the wallet proves that nothing was signed
        ("failed", "refund"): Step("refunded"),
        ("failed", "dispute"): Step("disputed"),
        **{
            (state, event): Step(to)
            for state in ("intended", "requested", "quoted", "verified", "reserved", "accepted")
            for event, to in (("abandon", "abandoned"), ("cancel", "canceled"), ("expire", "expired"))
        },
    },
)

LIFECYCLES: Final = (JOB, FULFILMENT, PAYMENT, PURCHASE)


def diagram(lifecycle: Lifecycle) -> str:
    """The table as a Mermaid state diagram, for the docs."""
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {lifecycle.start}"]
    merged: dict[tuple[str, str], list[str]] = {}
    for (state, event), step in lifecycle.steps.items():
        merged.setdefault((state, step.to), []).append(event)
    lines += [f"    {state} --> {to}: {' / '.join(events)}" for (state, to), events in merged.items()]
    lines += [f"    {state} --> [*]" for state in lifecycle.states if state in lifecycle.terminal]
    return "\n".join([*lines, "```"])
