"""What was earned, summed by hand and never by a database: exact to the last unit, by day, by offer, by unit."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from typing import Any

import pytest

from tradeskill.earnings import Earning, day_range, earnings, read_earnings
from tradeskill.errors import UsageError
from tradeskill.journal import Database
from tradeskill.money import MAX_RAW
from tradeskill.world import World

NOON = int(datetime(2026, 3, 14, 12, tzinfo=UTC).timestamp() * 1000)
DAY = 86_400_000


class Book:
    """A seller's journal, written row by row."""

    def __init__(self) -> None:
        connection = sqlite3.connect(":memory:", isolation_level=None)
        self.journal = Database(lambda: connection, World(), "dev")
        self.jobs = 0

    def job(self, state: str, *payments: tuple[str, int], offer: str = "shout", at: int = NOON, unit: str = "raw", hold_until: int = 0) -> str:
        """A job in `state` with payments (state, amount)."""
        self.jobs += 1
        job_id = f"job-{self.jobs}"
        finished = at if state == "delivered" else None

        def add(tx: Any) -> None:
            tx.execute(
                "INSERT INTO fulfilments (job_id, state, offer_id, offer_name, buyer, request, hold_until, created_at, updated_at, finished_at)"
                " VALUES (?, ?, 'o', ?, 'b', '{}', ?, ?, ?, ?)",
                (job_id, state, offer, hold_until, at, at, finished),
            )
            tx.execute(
                "INSERT INTO invoices (invoice_id, rail, network, job_id, address, amount, unit, expires_at, details, watch_until)"
                " VALUES (?, 'nano', 'dev', ?, ?, '1', ?, ?, '{}', ?)",
                (f"i-{job_id}", job_id, f"a-{job_id}", unit, at, at),
            )
            for number, (payment_state, amount) in enumerate(payments):
                tx.execute(
                    "INSERT INTO payments (rail, network, payment_id, part, invoice_id, job_id, state, amount, unit, received_at, sender, found_at, updated_at)"
                    " VALUES ('nano', 'dev', ?, 0, ?, ?, ?, ?, ?, ?, '', ?, ?)",
                    (f"p-{job_id}-{number}", f"i-{job_id}", job_id, payment_state, str(amount), unit, at, at, at),
                )

        self.journal.write_now(add)
        return job_id

    def sums(self, since: int = 0, until: int = 2**62) -> dict[str, Any]:
        return earnings(self.journal, NOON, since, until)


def test_without_a_job_everything_is_nothing() -> None:
    assert Book().sums() == {
        "total": {"raw": "0"},
        "today": {"raw": "0"},
        "range": {"raw": "0"},
        "by_offer": {},
        "pending_invoices": 0,
        "jobs_by_status": {},
        "payments_by_status": {},
    }


@pytest.mark.parametrize("state", ["seen", "quoted", "paid", "leased", "started", "executed", "failed", "refused", "expired", "canceled", "delivered"])
@pytest.mark.parametrize("payment", ["found", "allocated", "surplus", "refund_due", "refunding", "refunded", "review"])
def test_only_the_payment_of_a_delivered_job_and_what_was_kept_count(state: str, payment: str) -> None:
    book = Book()
    book.job(state, (payment, 7))
    counts = payment == "surplus" or (payment == "allocated" and state == "delivered")
    assert book.sums()["total"] == {"raw": "7" if counts else "0"}
    assert book.sums()["jobs_by_status"] == {state: 1}
    assert book.sums()["payments_by_status"] == {payment: 1}


def test_sums_are_exact_where_floats_and_64_bits_are_not() -> None:
    book = Book()
    amounts = [10**30 + 1, 2**63, 2**64 + 1, 9_007_199_254_740_993, 1]
    for amount in amounts:
        book.job("delivered", ("allocated", amount))
    assert book.sums()["total"] == {"raw": str(sum(amounts))}
    book.job("delivered", ("allocated", MAX_RAW))
    assert book.sums()["total"] == {"raw": str(sum(amounts) + MAX_RAW)}


def test_a_split_payment_is_one_job_and_all_its_money() -> None:
    book = Book()
    book.job("delivered", ("allocated", 3), ("allocated", 4), ("surplus", 5), ("refunded", 6))
    book.job("delivered", ("allocated", 10), offer="advice")
    assert book.sums()["by_offer"] == {"advice": {"jobs": 1, "raw": "10"}, "shout": {"jobs": 1, "raw": "12"}}


def test_units_are_never_added_to_each_other() -> None:
    book = Book()
    book.job("delivered", ("allocated", 3))
    book.job("delivered", ("allocated", 21), unit="sat")
    assert book.sums()["total"] == {"raw": "3", "sat": "21"}


def test_today_begins_at_midnight_utc() -> None:
    book = Book()
    midnight = NOON - DAY // 2
    book.job("delivered", ("allocated", 1), at=midnight - 1)
    book.job("delivered", ("allocated", 2), at=midnight)
    assert (book.sums()["today"], book.sums()["total"]) == ({"raw": "2"}, {"raw": "3"})


def test_a_range_holds_both_its_days_whole_and_nothing_else() -> None:
    book = Book()
    first, last = day_range("2026-03-14", "2026-03-15")
    for amount, at in ((1, first - 1), (2, first), (4, last - 1), (8, last)):
        book.job("delivered", ("allocated", amount), at=at)
    assert last - first == 2 * DAY
    assert book.sums(first, last)["range"] == {"raw": "6"}
    assert book.sums(first, last)["by_offer"]["shout"] == {"jobs": 2, "raw": "6"}
    assert book.sums(first, last)["total"] == {"raw": "15"}


def test_rows_come_oldest_first_with_their_source() -> None:
    book = Book()
    late = book.job("delivered", ("allocated", 1), at=NOON + 1)
    early = book.job("failed", ("surplus", 2), at=NOON)
    assert book.journal.read(read_earnings) == [
        Earning(NOON, early, "shout", "surplus", 2, "raw", f"p-{early}-0"),
        Earning(NOON + 1, late, "shout", "job", 1, "raw", f"p-{late}-0"),
    ]


def test_an_invoice_is_pending_while_its_quote_holds() -> None:
    book = Book()
    book.job("quoted", hold_until=NOON)
    book.job("quoted", hold_until=NOON - 1)
    book.job("paid", hold_until=NOON)
    assert book.sums()["pending_invoices"] == 1


@pytest.mark.parametrize("text", ["1.2.2026", "2026-02-30", "2026-1-1x", "20260101", "yesterday", " 2026-01-01", "２０２６-01-01", "0000-01-01"])
def test_a_day_that_is_none_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(UsageError, match="YYYY-MM-DD"):
        day_range(text, "")
    with pytest.raises(UsageError, match="YYYY-MM-DD"):
        day_range("", text)


def test_a_range_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(UsageError, match="2026-01-02"):
        day_range("2026-01-02", "2026-01-01")


def test_the_last_day_there_is_can_be_named() -> None:
    assert day_range("9999-12-31", "9999-12-31")[1] - day_range("9999-12-31", "")[0] == DAY
