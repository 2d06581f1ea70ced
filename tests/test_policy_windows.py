"""The gate's own edges: clocks, repeated and changed spends, freezing, grants, files nobody confirmed, and many processes at one cap."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tradeskill import policy
from tradeskill.configvalues import Place
from tradeskill.errors import NotFoundError, PolicyError, StateError
from tradeskill.journal import Database, spending, spendlog
from tradeskill.journal.schema import LAYOUT
from tradeskill.money import Amount
from tradeskill.policy import Allowed, Ask, Caps, Guard, Intended, Question, Refused
from tradeskill.policy.owner import freeze, make_grant, revoke
from tradeskill.policy.sealed import PolicyFile, parse_policy
from tradeskill.sqlite import SqliteFile, connector
from tradeskill.world import World

HOUR = 3_600_000
T = 1_000 * HOUR
SEAL = {"serial": 3, "passes": 1, "memory_kib": 1024, "lanes": 1, "salt": "00" * 16, "mac": "00" * 32}


@pytest.fixture
def tx(tx: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Afterwards the spend log tells all that happened."""
    yield tx
    assert [*spendlog.differences(tx, spendlog.replay(spendlog.entries(tx)))] == []


def file_of(**content: Any) -> PolicyFile:
    return parse_policy(content, Place(Path("policy.yaml")))


def confirmed(tx: sqlite3.Connection, **content: Any) -> Guard:
    spending.set_meta(tx, "policy.accepted", json.dumps({**content, "seal": SEAL}))
    return Guard(file=file_of(**content, seal=SEAL))


def wish(name: str, value: int = 10, **more: Any) -> Intended:
    return Intended(name, Amount(value, "raw"), **{"seller": "s", "offer": "o", **more})


def reserve(tx: sqlite3.Connection, guard: Guard, name: str, value: int = 10, now: int = T, **more: Any) -> None:
    policy.reserve(tx, wish(name, value, **more), guard, (), now)


def test_the_rails_in_their_order_are_those_of_the_policy_that_is_obeyed(tx: sqlite3.Connection) -> None:
    assert policy.rails(tx, Guard()) is None
    assert policy.rails(tx, Guard(file=file_of(rails=["nano"]))) is None  # never confirmed
    assert policy.rails(tx, confirmed(tx)) is None
    assert policy.rails(tx, confirmed(tx, rails=["cashu", "nano"])) == ("cashu", "nano")


def test_a_window_slides_and_its_edge_is_exact(tx: sqlite3.Connection) -> None:
    guard = confirmed(tx, caps={"hour": ["10 raw"]})
    reserve(tx, guard, "a")
    policy.commit(tx, "a", T + 5)
    with pytest.raises(PolicyError, match="cap per hour") as error:
        reserve(tx, guard, "b", 1, T + 5 + HOUR - 1)
    assert error.value.details == {"rule": "caps.hour", "over_by": "1", "unit": "raw"}
    reserve(tx, guard, "b", 10, T + 5 + HOUR)


def test_what_may_have_been_paid_leaves_no_window_however_old_it_is(tx: sqlite3.Connection) -> None:
    guard = confirmed(tx, caps={"hour": ["10 raw"]})
    reserve(tx, guard, "a")
    with pytest.raises(PolicyError, match="cap per hour"):
        reserve(tx, guard, "b", 1, T + 50 * HOUR)


def test_what_is_known_to_be_paid_leaves_a_window_in_its_time_while_the_work_goes_on(tx: sqlite3.Connection) -> None:
    guard = confirmed(tx, caps={"hour": ["10 raw"], "total": ["15 raw"]})
    reserve(tx, guard, "a")
    policy.paid(tx, "a", T + 5)
    policy.paid(tx, "a", T + 6)
    policy.paid(tx, "nobody", T + 6)
    with pytest.raises(PolicyError, match="cap per hour"):
        reserve(tx, guard, "b", 1, T + 4 + HOUR)
    reserve(tx, guard, "b", 1, T + 5 + HOUR)
    policy.commit(tx, "a", T + 5 + HOUR)  # its delivery is no second payment
    with pytest.raises(PolicyError, match="total cap"):
        reserve(tx, guard, "c", 5, T + 5 + HOUR)
    reserve(tx, guard, "c", 4, T + 5 + HOUR)


def test_a_clock_set_back_frees_nothing(tx: sqlite3.Connection) -> None:
    guard = confirmed(tx, caps={"hour": ["10 raw"]}, expires_at="1970-03-01T00:00:00Z")
    reserve(tx, guard, "a")
    policy.commit(tx, "a", T)
    with pytest.raises(PolicyError, match="cap per hour"):
        reserve(tx, guard, "b", 1, T - 10 * HOUR)
    reserve(tx, guard, "c", 1, T + HOUR)
    policy.commit(tx, "c", T - 100 * HOUR)  # counted from the largest clock, not from the one that was set back
    with pytest.raises(PolicyError, match="cap per hour"):
        reserve(tx, guard, "d", 10, T - 50 * HOUR)
    spending.set_clock(tx, 10_000 * HOUR)
    with pytest.raises(PolicyError, match="expired"):
        reserve(tx, guard, "e", 1, T)


def test_caps_per_job_seller_and_offer_count_all_there_ever_was(tx: sqlite3.Connection) -> None:
    guard = confirmed(tx, caps={"job": ["10 raw"], "seller": ["15 raw"], "offer": ["12 raw"]})
    reserve(tx, guard, "a", job="j")
    policy.commit(tx, "a", T)
    far = T + 9000 * HOUR
    with pytest.raises(PolicyError, match="cap per job"):
        reserve(tx, guard, "b", 1, far, job="j")
    with pytest.raises(PolicyError, match="cap per offer"):
        reserve(tx, guard, "b", 3, far)
    with pytest.raises(PolicyError, match="cap per seller"):
        reserve(tx, guard, "b", 6, far, offer="other")
    reserve(tx, guard, "b", 5, far, offer="other")


def test_an_address_is_known_once_money_went_there(tx: sqlite3.Connection) -> None:
    guard = confirmed(tx, caps={"first_use": ["1 raw"]})
    with pytest.raises(PolicyError, match="first purchase"):
        reserve(tx, guard, "send:a", seller="nano_1", kind="send")
    reserve(tx, guard, "send:b", 1, seller="nano_1", kind="send")
    policy.commit(tx, "send:b", T)
    reserve(tx, guard, "send:c", seller="nano_1", kind="send")


def test_the_same_spend_is_held_once_and_never_for_another_amount(tx: sqlite3.Connection) -> None:
    guard = Guard(Caps(in_total=(Amount(10, "raw"),)))
    reserve(tx, guard, "send:a")
    reserve(tx, guard, "send:a")
    assert policy.check(tx, wish("send:a"), guard, (), T) is None
    with pytest.raises(StateError, match="another key"):
        reserve(tx, guard, "send:a", 9)
    with pytest.raises(StateError, match="another key"):
        reserve(tx, guard, "send:a", seller="somebody else")
    policy.release(tx, "send:a", T)
    reserve(tx, guard, "send:a", 9)
    assert policy.spent_and_reserved(tx, "raw") == (0, 9)


def test_frozen_nothing_is_reserved_and_nothing_reserved_is_paid(tx: sqlite3.Connection) -> None:
    policy.check_not_frozen(tx)
    assert (freeze(tx, 5), freeze(tx, 6)) == (5, 5)
    with pytest.raises(PolicyError, match="frozen"):
        reserve(tx, Guard(), "a")
    with pytest.raises(PolicyError, match="stays reserved"):
        policy.check_not_frozen(tx)


# whose policy is obeyed


def test_a_policy_that_nobody_confirmed_stops_spending(tx: sqlite3.Connection) -> None:
    with pytest.raises(PolicyError, match="not confirmed by the owner"):
        reserve(tx, Guard(file=file_of()), "a")


def test_a_policy_that_was_taken_away_stops_spending(tx: sqlite3.Connection) -> None:
    confirmed(tx)
    with pytest.raises(PolicyError, match="is gone"):
        reserve(tx, Guard(), "a")


def test_a_policy_loosened_in_the_file_stops_spending_and_says_by_which_key(tx: sqlite3.Connection) -> None:
    confirmed(tx, caps={"day": ["10 raw"]})
    for seal, words in ((SEAL, r"looser .*\(caps.day\):"), ({**SEAL, "serial": 2}, "an older one .serial 2, confirmed is 3.")):
        with pytest.raises(PolicyError, match=words):
            reserve(tx, Guard(file=file_of(caps={"day": ["11 raw"]}, seal=seal)), "a")
    with pytest.raises(PolicyError, match="looser"):
        reserve(tx, Guard(file=file_of()), "a")


def test_a_policy_tightened_by_hand_is_obeyed_and_cannot_be_taken_back_by_hand(tx: sqlite3.Connection) -> None:
    old = confirmed(tx, caps={"day": ["10 raw"]})
    reserve(tx, Guard(file=file_of(caps={"day": ["9 raw"]}, seal=SEAL)), "a", 9)
    with pytest.raises(PolicyError, match="looser"):
        reserve(tx, old, "b", 1)


def test_an_older_policy_that_is_tighter_is_obeyed_but_does_not_become_the_last(tx: sqlite3.Connection) -> None:
    new = confirmed(tx, caps={"day": ["10 raw"]})
    older = Guard(file=file_of(caps={"day": ["1 raw"]}, seal={**SEAL, "serial": 1}))
    with pytest.raises(PolicyError, match="cap per day is"):
        reserve(tx, older, "a", 2)
    reserve(tx, older, "a", 1)
    reserve(tx, new, "b", 9)


def test_the_zero_of_a_real_network_gives_way_only_to_a_policy_that_bounds_spending(tx: sqlite3.Connection) -> None:
    zero = Caps(in_total=(Amount(0, "raw"),), unwritten=True)
    with pytest.raises(PolicyError, match="total cap is 0 XNO"):
        reserve(tx, Guard(zero), "a")
    with pytest.raises(PolicyError, match="total cap is 0 XNO"):
        reserve(tx, Guard(zero, confirmed(tx, caps={"payment": ["10 raw"]}).file), "a")
    bounded = confirmed(tx, caps={"day": ["10 raw"]}).file
    reserve(tx, Guard(zero, bounded), "a")
    with pytest.raises(PolicyError, match="total cap"):  # one that the owner wrote holds beside the policy
        reserve(tx, Guard(Caps(in_total=(Amount(0, "raw"),)), bounded), "b")


def test_a_total_far_beyond_a_cap_is_said_too(tx: sqlite3.Connection) -> None:
    reserve(tx, Guard(), "a", 2**128 - 1)
    found = policy.verdict(tx, wish("b", 2**128 - 1), Guard(Caps(in_total=(Amount(0, "raw"),))), (), T)
    assert isinstance(found, Refused)
    assert found.over_by == 2 * (2**128 - 1)


# grants


def test_a_child_is_bound_by_every_ancestor_and_debits_them_all(tx: sqlite3.Connection) -> None:
    make_grant(tx, "root", "", {"raw": 10, "sat": 5}, None, "", T)
    make_grant(tx, "child", "root", {"raw": 8}, None, "", T)
    make_grant(tx, "grandchild", "child", {"raw": 8}, None, "", T)
    reserve(tx, Guard(grant="root"), "a", 3)
    reserve(tx, Guard(grant="grandchild"), "b", 7)
    with pytest.raises(PolicyError, match=r"grant child is .* exceed it by"):
        reserve(tx, Guard(grant="child"), "c", 2)
    with pytest.raises(PolicyError, match="grant root"):
        reserve(tx, Guard(grant="child"), "c", 1)
    assert [grant.budgets["raw"][1] for grant in spending.grants(tx)] == [10, 7, 7]
    policy.release(tx, "b", T)
    policy.release(tx, "b", T)
    assert [grant.budgets["raw"][1] for grant in spending.grants(tx)] == [3, 0, 0]
    with pytest.raises(PolicyError, match="no budget in sat"):
        policy.reserve(tx, Intended("d", Amount(1, "sat")), Guard(grant="child"), (), T)


def test_a_grant_cannot_be_larger_or_last_longer_than_what_it_comes_from(tx: sqlite3.Connection) -> None:
    make_grant(tx, "root", "", {"raw": 10}, T + 5, "", T)
    for most in ({"raw": 11}, {"sat": 1}):
        with pytest.raises(PolicyError, match="cannot be granted under it"):
            make_grant(tx, "child", "root", most, None, "", T)
    assert make_grant(tx, "forever", "root", {"raw": 1}, None, "", T).expires_at == T + 5
    assert make_grant(tx, "longer", "root", {"raw": 1}, T + 6, "", T).expires_at == T + 5
    assert make_grant(tx, "shorter", "root", {"raw": 1}, T + 4, "", T).expires_at == T + 4


def test_what_is_revoked_or_over_above_stops_all_below(tx: sqlite3.Connection) -> None:
    make_grant(tx, "root", "", {"raw": 10}, T + 5, "", T)
    make_grant(tx, "child", "root", {"raw": 10}, T + 5, "", T)
    reserve(tx, Guard(grant="child"), "a", 1, T + 4)
    with pytest.raises(PolicyError, match="has expired"):
        reserve(tx, Guard(grant="child"), "b", 1, T + 5)
    make_grant(tx, "other", "", {"raw": 10}, None, "", T)
    make_grant(tx, "below", "other", {"raw": 10}, None, "", T)
    assert revoke(tx, "other", T).revoked_at == T
    assert revoke(tx, "other", T + 1).revoked_at == T
    with pytest.raises(PolicyError, match="grant other is revoked"):
        reserve(tx, Guard(grant="below"), "b", 1, T)
    for parent in ("other", "root"):
        with pytest.raises(PolicyError, match="nothing can be granted under it"):
            make_grant(tx, "late", parent, {"raw": 1}, None, "", T + 5)


def test_a_grant_that_was_never_made_pays_nothing(tx: sqlite3.Connection) -> None:
    with pytest.raises(PolicyError, match="not in this profile's journal"):
        reserve(tx, Guard(grant="nobody"), "a")
    with pytest.raises(NotFoundError):
        revoke(tx, "nobody", T)


# asking


def test_above_the_threshold_the_owner_decides_and_the_transaction_checks_it(tx: sqlite3.Connection) -> None:
    guard = confirmed(tx, ask_above=["5 raw"])
    found = policy.check(tx, wish("a"), guard, (), T)
    assert isinstance(found, Ask)
    asked: list[Question] = []

    async def answer(question: Question) -> bool:
        asked.append(question)
        return len(asked) == 1

    async def main() -> None:
        assert await policy.settle_approval(found, wish("a"), "work", answer)
        with pytest.raises(PolicyError, match="the owner said no"):
            await policy.settle_approval(found, wish("a", seller=""), "work", answer)
        with pytest.raises(PolicyError, match="nobody can be asked here"):
            await policy.settle_approval(found, wish("a"), "work", None)
        assert not await policy.settle_approval(None, wish("a"), "work", None)

    asyncio.run(main())
    with pytest.raises(PolicyError, match="did not agree"):
        reserve(tx, guard, "a")
    policy.reserve(tx, wish("a"), guard, (), T, approved=True)
    assert policy.verdict(tx, wish("b", 5), guard, (), T) == Allowed()


# old journals and other processes


def test_a_journal_of_before_keeps_its_reservations(tmp_path: Path) -> None:
    connect = connector(tmp_path / "journal.db", "the journal")
    old = SqliteFile(connect, type(LAYOUT)(LAYOUT.application_id, LAYOUT.migrations[:1]), where="the journal")
    offer = json.dumps({"body": {"offer_id": "o"}})

    def fill(tx: sqlite3.Connection) -> None:
        columns = "purchase_id, intent, state, offer, seller, request, created_at, updated_at"
        tx.execute(f"INSERT INTO purchases ({columns}) VALUES ('a', 'i', 'paid', ?, 's', '{{}}', 1, 2)", (offer,))
        for name, state in (("a", "reserved"), ("b", "committed")):
            tx.execute("INSERT INTO reservations VALUES (?, ?, '7', 'raw', 's', 1, 2)", (name, state))

    old.run([fill])
    old.close()
    journal = Database(connect, World(), "dev")
    one, two = (journal.read(lambda c, name=name: spending.spend(c, name)) for name in "ab")  # type: ignore[misc]  # a default in a lambda
    assert one is not None
    assert two is not None
    assert (one.offer, one.job, one.settled_at, two.offer, two.settled_at) == ("o", "a", None, "", 2)
    assert journal.read(lambda c: spending.held_for(c, "seller", "s")) == {"raw": 14}
    asyncio.run(journal.close())


HUNDRED = """
import sys, asyncio
from pathlib import Path
from tradeskill import policy
from tradeskill.errors import PolicyError
from tradeskill.journal import Database
from tradeskill.money import Amount
from tradeskill.policy.sealed import read_policy_file
from tradeskill.sqlite import connector
from tradeskill.world import World

home, process = Path(sys.argv[1]), int(sys.argv[2])

async def main():
    journal = Database(connector(home / "journal.db", "the journal"), World(), "dev")
    guard = policy.Guard(file=read_policy_file(home / "policy.yaml"), grant="child")
    def one(number):
        wish = policy.Intended(f"{process}-{number}", Amount(10**30 + 1, "raw"), seller="s", offer="o")
        return lambda tx: policy.reserve(tx, wish, guard, (), World().now_ms())
    outcomes = await asyncio.gather(*[journal.write(one(number)) for number in range(25)], return_exceptions=True)
    assert all(o is None or isinstance(o, PolicyError) for o in outcomes), outcomes
    print(sum(o is None for o in outcomes))
    await journal.close()

asyncio.run(main())
"""


@pytest.mark.parametrize("bound", ["policy", "grant"])
def test_of_a_hundred_different_purchases_from_four_processes_a_cap_for_ten_lets_ten_through(tmp_path: Path, bound: str) -> None:
    ten = 10 * (10**30 + 1)
    content = {"caps": {"hour": [f"{ten if bound == 'policy' else 2 * ten} raw"]}}
    journal = Database(connector(tmp_path / "journal.db", "the journal"), World(), "dev")

    def lay_down(tx: sqlite3.Connection) -> None:
        spending.set_meta(tx, "policy.accepted", json.dumps({**content, "seal": SEAL}))
        make_grant(tx, "root", "", {"raw": 2 * ten if bound == "policy" else ten}, None, "", 1)
        make_grant(tx, "child", "root", {"raw": 2 * ten if bound == "policy" else ten}, None, "", 1)

    journal.write_now(lay_down)
    (tmp_path / "policy.yaml").write_text(json.dumps({**content, "seal": SEAL}))
    processes = [subprocess.Popen([sys.executable, "-c", HUNDRED, str(tmp_path), str(n)], stdout=subprocess.PIPE, text=True) for n in range(4)]
    counts = [int(process.communicate(timeout=60)[0]) for process in processes]
    assert sum(counts) == 10
    assert journal.read(lambda c: policy.spent_and_reserved(c, "raw")) == (0, ten)
    assert [grant.budgets["raw"][1] for grant in journal.read(spending.grants)] == [ten, ten]
    asyncio.run(journal.close())
