"""The gate over a real journal against a model in plain Python: windows, units, rates, ancestors, clocks that jump, whatever the order."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tradeskill import policy
from tradeskill.configvalues import Place
from tradeskill.errors import PolicyError
from tradeskill.journal import Database, spending, spendlog
from tradeskill.money import Amount
from tradeskill.policy import Guard, Intended
from tradeskill.policy.owner import make_grant
from tradeskill.policy.sealed import parse_policy
from tradeskill.world import World

HOUR, DAY, MONTH = 3_600_000, 86_400_000, 30 * 86_400_000
SPANS = {"hour": HOUR, "day": DAY, "month": MONTH}
WORTH = {"raw": Fraction(1), "sat": Fraction(2, 3), "msat": Fraction(2, 7)}  # in raw
RATES = ["3 sat = 2 raw", "7 msat = 2 raw"]
SEAL = {"serial": 1, "passes": 1, "memory_kib": 1024, "lanes": 1, "salt": "00" * 16, "mac": "00" * 32}


@dataclass
class Row:
    amount: int
    unit: str
    seller: str
    offer: str
    chain: tuple[str, ...]
    state: str = "reserved"
    at: int | None = None  # when it was paid, as far as known


@dataclass
class Model:
    """What must be: every rule as a sum over all rows, in exact fractions."""

    caps: dict[str, tuple[int, frozenset[str]]]  # kind -> most raw, units
    budgets: dict[str, dict[str, int]]
    rows: dict[str, Row] = field(default_factory=dict)
    clock: int = 0

    def allows(self, new: Row) -> bool:
        for kind, (most, units) in self.caps.items():
            if new.unit not in units:
                return False
            counted = [row for row in self.rows.values() if row.unit in units and self._counts(kind, row, new)]
            if sum((row.amount * WORTH[row.unit] for row in [*counted, new]), Fraction(0)) > most:
                return False
        for name in new.chain:
            held = sum(row.amount for row in self.rows.values() if name in row.chain and row.unit == new.unit and row.state != "released")
            if held + new.amount > self.budgets[name].get(new.unit, -1):
                return False
        return True

    def _counts(self, kind: str, row: Row, new: Row) -> bool:
        if row.state == "released" or kind == "payment":
            return False
        if kind in SPANS:
            return row.at is None or row.at > self.clock - SPANS[kind]
        return kind == "total" or getattr(row, kind) == getattr(new, kind)


UNITS = st.sampled_from(["raw", "sat", "msat"])
CAPS = st.dictionaries(
    st.sampled_from(["payment", "seller", "offer", "hour", "day", "month", "total"]),
    st.tuples(st.integers(0, 60), st.frozensets(st.sampled_from(["sat", "msat"]))),
    max_size=3,
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), st.integers(0, 9), st.integers(1, 20), UNITS, st.sampled_from("ab"), st.sampled_from("xy"), st.integers(0, 3)),
        st.tuples(st.sampled_from(["paid", "commit", "release"]), st.integers(0, 9)),
        st.tuples(st.just("pass"), st.sampled_from([1, HOUR - 1, HOUR, DAY - 1, DAY, MONTH, -HOUR, -DAY])),
    ),
    max_size=40,
)
BUDGETS = st.lists(st.dictionaries(UNITS, st.integers(0, 60), min_size=1), min_size=3, max_size=3)
WIDE: dict[str, int] = {"raw": 60, "sat": 60, "msat": 60}


@settings(deadline=None)
@given(CAPS, BUDGETS, STEPS)
@example({"hour": (10, frozenset())}, [WIDE] * 3, [("reserve", 0, 10, "raw", "a", "x", 0), ("commit", 0), ("pass", 1), ("reserve", 1, 1, "raw", "a", "x", 0)])
@example(
    {"hour": (10, frozenset())},
    [WIDE] * 3,
    [("reserve", 0, 10, "raw", "a", "x", 0), ("paid", 0), ("pass", HOUR), ("reserve", 1, 10, "raw", "a", "x", 0), ("commit", 0), ("commit", 1)],
)
@example({}, [{"raw": 10}, {"raw": 10}, {"raw": 10}], [("reserve", 0, 10, "raw", "a", "x", 3), ("reserve", 1, 1, "raw", "a", "x", 1)])
def test_what_is_reserved_is_what_the_model_allows(
    caps: dict[str, tuple[int, frozenset[str]]], budgets: list[dict[str, int]], steps: list[tuple[Any, ...]]
) -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    Database(lambda: connection, World(), "dev")
    connection.execute("BEGIN IMMEDIATE")
    content = {"rates": RATES, "caps": {kind: [{"most": f"{n} raw", "over": sorted(over)} if over else f"{n} raw"] for kind, (n, over) in caps.items()}}
    file = parse_policy(content, Place(Path("policy.yaml")))
    spending.set_meta(connection, "policy.accepted", json.dumps({**content, "seal": SEAL}))
    now = 100 * DAY
    model = Model({kind: (n, over | {"raw"}) for kind, (n, over) in caps.items()}, {}, clock=now)
    chains: list[tuple[str, ...]] = [()]
    for depth, budget in enumerate(budgets):  # each the child of the last, at most as large
        above = chains[-1]
        given_to = {unit: min(value, *(model.budgets[name].get(unit, 0) for name in above), value) for unit, value in budget.items()}
        name = f"grant{depth}"
        make_grant(connection, name, above[0] if above else "", given_to if not above else {u: v for u, v in given_to.items() if v}, None, "", now)
        model.budgets[name] = given_to if not above else {u: v for u, v in given_to.items() if v}
        chains.append((name, *above))
    try:
        for step in steps:
            match step:
                case ("pass", by):
                    now = max(0, now + by)
                case ("reserve", number, amount, unit, seller, offer, depth):
                    model.clock = max(model.clock, now)  # judged by it; kept only by what is written
                    row, name = Row(amount, unit, seller, offer, chains[depth]), f"p{number}"
                    held = model.rows.get(name)
                    if held is not None and held.state != "released":
                        continue
                    expected = model.allows(row)
                    try:
                        guard = Guard(file=file, grant=row.chain[0] if row.chain else "")
                        policy.reserve(connection, Intended(name, Amount(amount, unit), seller=seller, offer=offer), guard, (), now)
                        done = True
                    except PolicyError:
                        done = False
                        spending.set_clock(connection, now)
                    assert done == expected
                    if done:
                        model.rows[name] = row
                case (act, number):
                    known, name = model.rows.get(f"p{number}"), f"p{number}"
                    {"paid": policy.paid, "commit": policy.commit, "release": policy.release}[act](connection, name, now)
                    if known is None or known.state == "released" or (known.state == "committed" and act != "release"):
                        continue
                    if act == "paid" and known.at is not None:
                        continue
                    if act != "commit" or known.at is None:
                        known.at = model.clock = max(model.clock, now)
                    known.state = {"paid": "reserved", "commit": "committed", "release": "released"}[act]
        assert [*spendlog.differences(connection, spendlog.replay(spendlog.entries(connection)))] == []
        for grant in spending.grants(connection):
            for unit, (most, held) in grant.budgets.items():
                counted = [row.amount for row in model.rows.values() if grant.grant_id in row.chain and row.unit == unit and row.state != "released"]
                assert held == sum(counted) <= most
    finally:
        connection.close()
