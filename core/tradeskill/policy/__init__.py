"""The spending policy: its rules (pure), its sealed file, the gate that every spend passes, and what the owner may change."""

from __future__ import annotations

from tradeskill.policy.gate import (
    AskOwner,
    Caps,
    Guard,
    Question,
    check,
    check_not_frozen,
    commit,
    paid,
    rails,
    release,
    reserve,
    settle_approval,
    spent_and_reserved,
    verdict,
)
from tradeskill.policy.rules import Allowed, Ask, Intended, Refused, Verdict

__all__ = [
    "Allowed",
    "Ask",
    "AskOwner",
    "Caps",
    "Guard",
    "Intended",
    "Question",
    "Refused",
    "Verdict",
    "check",
    "check_not_frozen",
    "commit",
    "paid",
    "rails",
    "release",
    "reserve",
    "settle_approval",
    "spent_and_reserved",
    "verdict",
]
