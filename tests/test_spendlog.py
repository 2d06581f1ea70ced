"""The spend log: what each change of a spend writes, what replaying gives, what a changed log is told, and that nothing ever rewrites it."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradeskill import policy
from tradeskill.errors import PolicyError, UntrustedError
from tradeskill.journal import Database, spending, spendlog
from tradeskill.journal.schema import LAYOUT
from tradeskill.money import Amount
from tradeskill.policy import Caps, Guard, Intended
from tradeskill.policy.owner import make_grant
from tradeskill.signing import canonical, digest
from tradeskill.sqlite import Layout, SqliteFile, connector
from tradeskill.world import World

ROOT = Path(__file__).parent.parent


def reserve(tx: sqlite3.Connection, name: str, value: int = 10, now: int = 1, guard: Guard | None = None) -> None:
    policy.reserve(tx, Intended(name, Amount(value, "raw"), seller="s", offer="o"), guard or Guard(), (), now)


def a_day(tx: sqlite3.Connection) -> None:
    """Every event there is."""
    reserve(tx, "a", 10, 1)
    policy.paid(tx, "a", 2)
    policy.commit(tx, "a", 3)
    reserve(tx, "b", 5, 4)
    policy.release(tx, "b", 5)
    reserve(tx, "b", 6, 6)
    policy.commit(tx, "b", 7)
    policy.release(tx, "b", 8)


def told(tx: sqlite3.Connection) -> list[tuple[int, int, str, str, str]]:
    return [(e.seq, e.at, e.event, e.spend_id, e.amount) for e in spendlog.entries(tx)]


def test_every_change_of_a_spend_is_an_entry_and_a_repeated_call_is_none(tx: sqlite3.Connection) -> None:
    a_day(tx)
    expected = [
        *((1, 1, "reserved", "a", "10"), (2, 2, "paid", "a", "10"), (3, 3, "committed", "a", "10")),
        *((4, 4, "reserved", "b", "5"), (5, 5, "released", "b", "5")),
        *((6, 6, "reserved", "b", "6"), (7, 7, "committed", "b", "6"), (8, 8, "returned", "b", "6")),
    ]
    assert told(tx) == expected
    for again in (policy.paid, policy.commit, policy.release):
        again(tx, "b", 9)
    policy.paid(tx, "a", 9)
    reserve(tx, "a", 10, 9)
    with pytest.raises(PolicyError):
        reserve(tx, "c", 1, 9, Guard(Caps(in_total=(Amount(0, "raw"),))))
    assert told(tx) == expected


def test_replaying_gives_the_states_and_the_totals(tx: sqlite3.Connection) -> None:
    a_day(tx)
    reserve(tx, "c", 2**100, 20)
    found = spendlog.replay(spendlog.entries(tx))
    assert {name: (held.state, held.reserved_at, held.settled_at) for name, held in found.held.items()} == {
        "a": ("committed", 1, 2),
        "b": ("released", 6, 8),
        "c": ("reserved", 20, None),
    }
    assert found.totals == {"reserved:raw": 2**100, "spent:raw": 10}
    assert (found.count, found.head) == spendlog.head(tx)
    assert [*spendlog.differences(tx, found)] == []


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ("UPDATE reservations SET state = 'reserved' WHERE purchase_id = 'a'", "a is ('reserved', 1, 2) in the journal and ('committed', 1, 2)"),
        ("UPDATE reservations SET amount = '9' WHERE purchase_id = 'a'", "a is"),
        ("UPDATE reservations SET seller = 'another' WHERE purchase_id = 'a'", "a is"),
        ("DELETE FROM reservations WHERE purchase_id = 'b'", "2 spends, the journal 1"),
        ("INSERT INTO reservations SELECT 'z', state, amount, unit, seller, 1, 1, kind, job, offer, market, grant_id, 1 FROM reservations LIMIT 1", "z is"),
        ("UPDATE totals SET value = '11' WHERE name = 'spent:raw'", "the total spent:raw is 11 in the journal and 10"),
        ("DELETE FROM totals", "the total spent:raw is 0 in the journal and 10"),
    ],
)
def test_a_journal_that_says_something_else_than_its_log_is_found_out(tx: sqlite3.Connection, spoil: str, words: str) -> None:
    a_day(tx)
    tx.execute(spoil)
    assert words in "; ".join(spendlog.differences(tx, spendlog.replay(spendlog.entries(tx))))


def test_the_first_entry_that_does_not_hold_is_named(tx: sqlite3.Connection) -> None:
    a_day(tx)
    good = [*spendlog.entries(tx)]
    for field in ("at", "event", "spend_id", "kind", "amount", "unit", "seller", "offer", "market", "job", "grant", "hash"):
        value = 99 if field == "at" else "paid" if field == "event" else "77"
        with pytest.raises(UntrustedError, match="entry 5 of the spend log was changed"):
            spendlog.replay(iter([*good[:4], replace(good[4], **{field: value}), *good[5:]]))  # type: ignore[arg-type]  # one field of each kind
    with pytest.raises(UntrustedError, match="entry 5 of the spend log does not follow"):
        spendlog.replay(iter([*good[:4], replace(good[4], previous="77"), *good[5:]]))
    with pytest.raises(UntrustedError, match="entry 3 of the spend log is missing: number 4 follows 2"):
        spendlog.replay(iter([*good[:2], *good[3:]]))
    with pytest.raises(UntrustedError, match="entry 1 of the spend log is missing"):
        spendlog.replay(iter(good[1:]))
    with pytest.raises(UntrustedError, match="entry 2 of the spend log is missing: number 1"):
        spendlog.replay(iter([good[0], *good]))


def linked(*steps: tuple[str, str, str]) -> Iterator[spendlog.Entry]:
    """Entries whose hashes are right, whatever they say: (event, spend, amount)."""
    before = spendlog.BEFORE_ALL
    for number, (event, name, amount) in enumerate(steps, 1):
        bare = spendlog.Entry(number, number, event, name, "purchase", amount, "raw", "s", "o", "m", "j", "", before, "")
        before = spendlog.entry_hash(bare.content())
        yield replace(bare, hash=before)


R, P, C = ("reserved", "a", "5"), ("paid", "a", "5"), ("committed", "a", "5")


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ((C,), "entry 1 .* is not reserved, it cannot be committed next"),
        ((R, R), "entry 2 .* is reserved, it cannot be reserved next"),
        ((R, P, P), "entry 3 .* is reserved, and paid, it cannot be paid next"),
        ((R, ("returned", "a", "5")), "entry 2 .* cannot be returned next"),
        ((R, C, ("released", "a", "5")), "entry 3 .* is committed, it cannot be released next"),
        ((R, ("committed", "a", "6")), "entry 2 .* speaks of another amount"),
        ((R, ("forgiven", "a", "5")), "entry 2 .* an event that there is not: 'forgiven'"),
        ((("reserved", "a", "05"),), "entry 1 .*is not plain digits"),
        ((("reserved", "a", "-5"),), "entry 1 .*is not plain digits"),
    ],
)
def test_a_chain_that_was_made_anew_still_has_to_tell_a_story_that_can_be(steps: tuple[tuple[str, str, str], ...], words: str) -> None:
    with pytest.raises(UntrustedError, match=words):
        spendlog.replay(linked(*steps))


@given(st.dictionaries(st.sampled_from("abc"), st.text(st.characters(exclude_categories=["Cs"]))))
def test_an_entry_is_hashed_over_its_canonical_json(content: dict[str, str]) -> None:
    assert spendlog.entry_hash(content) == digest(b"tradeskill/spend-log-entry/1\n" + canonical(content))


def test_entries_are_chosen_by_time_and_of_too_many_the_newest(tx: sqlite3.Connection) -> None:
    a_day(tx)
    assert [e.seq for e in spendlog.entries(tx, since=3, until=6)] == [3, 4, 5]
    assert [e.seq for e in spendlog.entries(tx, limit=2)] == [7, 8]
    assert [e.seq for e in spendlog.entries(tx, until=4, limit=1)] == [3]
    assert [e.seq for e in spendlog.entries(tx, after=6)] == [7, 8]


def test_a_step_that_is_undone_leaves_no_entry_and_the_next_one_follows_the_last_that_stayed(tmp_path: Path) -> None:
    journal = Database(connector(tmp_path / "journal.db", "the journal"), World(), "dev")

    def undone(tx: sqlite3.Connection) -> None:
        reserve(tx, "b")
        raise PolicyError("no")

    async def main() -> None:
        steps = [journal.write(lambda tx: reserve(tx, "a")), journal.write(undone), journal.write(lambda tx: reserve(tx, "c"))]
        assert [type(outcome) for outcome in await asyncio.gather(*steps, return_exceptions=True)] == [type(None), PolicyError, type(None)]
        assert journal.read(lambda c: [(e.seq, e.spend_id) for e in spendlog.entries(c)]) == [(1, "a"), (2, "c")]
        assert journal.read(lambda c: [*spendlog.differences(c, spendlog.replay(spendlog.entries(c)))]) == []
        await journal.close()

    asyncio.run(main())


@pytest.mark.parametrize("version", [1, 2])
def test_a_journal_from_before_the_log_is_given_one_that_its_reservations_follow_from(tmp_path: Path, version: int) -> None:
    connect = connector(tmp_path / "journal.db", "the journal")
    old = SqliteFile(connect, Layout(LAYOUT.application_id, LAYOUT.migrations[:version]), where="the journal")
    rows = [("a", "committed", "7", 1, 9), ("b", "reserved", "5", 2, 2), ("c", "released", "4", 3, 4), ("d", "reserved", "3", 8, 6)]

    def fill(tx: sqlite3.Connection) -> None:
        for name, state, amount, made, changed in rows:
            columns = "purchase_id, state, amount, unit, seller, created_at, updated_at"
            tx.execute(f"INSERT INTO reservations ({columns}) VALUES (?, ?, ?, 'raw', 's', ?, ?)", (name, state, amount, made, changed))
            if version == 2 and (state != "reserved" or name == "d"):  # d: paid, by a clock that had been set back
                tx.execute("UPDATE reservations SET settled_at = ? WHERE purchase_id = ?", (changed, name))
        tx.execute("INSERT INTO totals VALUES ('spent:raw', '7'), ('reserved:raw', '8')")

    old.run([fill])
    old.close()

    async def main() -> list[tuple[int, int, str, str, str]]:
        found = []
        for _ in range(2):  # the second opening adds nothing
            journal = Database(connect, World(), "dev")
            assert journal.read(lambda c: [*spendlog.differences(c, spendlog.replay(spendlog.entries(c)))]) == []
            found = journal.read(told)
            await journal.close()
        return found

    found = asyncio.run(main())
    assert [(at, event, name) for _, at, event, name, _ in found] == [
        *((1, "reserved", "a"), (2, "reserved", "b"), (3, "reserved", "c"), (4, "released", "c"), (8, "reserved", "d")),
        *([(6, "paid", "d")] if version == 2 else []),
        (9, "committed", "a"),
    ]


def test_a_log_that_was_emptied_is_not_begun_again_at_the_next_opening(tmp_path: Path) -> None:
    connect = connector(tmp_path / "journal.db", "the journal")

    async def main() -> None:
        journal = Database(connect, World(), "dev")
        journal.write_now(a_day)
        journal.write_now(lambda tx: tx.execute("DELETE FROM spend_log") and None)
        await journal.close()
        again = Database(connect, World(), "dev")
        assert again.read(spendlog.head) == (0, spendlog.BEFORE_ALL)
        assert again.read(lambda c: len([*spendlog.differences(c, spendlog.replay(spendlog.entries(c)))])) >= 2
        await again.close()

    asyncio.run(main())


def test_no_statement_of_ours_changes_or_removes_an_entry() -> None:
    pattern = re.compile(r"(UPDATE|DELETE\s+FROM|REPLACE\s+INTO|DROP\s+TABLE|ALTER\s+TABLE|TRUNCATE)\s+(OR\s+\w+\s+)?[\"'`\[]?spend_log", re.IGNORECASE)
    assert pattern.search("INSERT OR REPLACE INTO spend_log VALUES (1)")
    assert pattern.search("delete from spend_log")
    found, added = [], []
    for folder in ("core", "wallet", "plugins", "skills"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text("utf-8")
            found += [f"{path.name}: {match.group(0)}" for match in pattern.finditer(text)]
            added += [path.name for _ in re.finditer(r"INTO\s+spend_log", text)]
    assert found == []
    assert added == ["spendlog.py"]


def test_the_page_about_the_log_names_every_event() -> None:
    page = (ROOT / "docs" / "receipts.md").read_text("utf-8")
    assert re.findall(r"^\| `([a-z]+)` \| ", page.partition("| Event |")[2], re.MULTILINE) == [*spendlog.EVENTS]


def test_what_is_logged_is_what_the_sub_agents_budget_was_charged_for(tx: sqlite3.Connection) -> None:
    make_grant(tx, "child", "", {"raw": 10}, None, "", 1)
    wish = Intended("a", Amount(3, "raw"), seller="s", offer="o", markets=("m", "n"), job="j", kind="send")
    policy.reserve(tx, wish, Guard(grant="child"), (), 5)
    (entry,) = spendlog.entries(tx)
    assert entry.content() == {
        "seq": "1",
        "at": "5",
        "event": "reserved",
        "spend_id": "a",
        "kind": "send",
        "amount": "3",
        "unit": "raw",
        "seller": "s",
        "offer": "o",
        "market": "m",
        "job": "j",
        "grant": "child",
        "previous": spendlog.BEFORE_ALL,
    }
    assert [grant.budgets["raw"][1] for grant in spending.grants(tx)] == [3]
