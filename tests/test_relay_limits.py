"""Token buckets of one process: exact, bounded, each with its own limit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradeskill.errors import UsageError
from tradeskill_plugins.relay.server.limits import Rates, Refused, TokenBuckets


class Clock:
    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


def test_the_limit_passes_at_once_and_the_next_is_told_when_to_come_again() -> None:
    for limit in (120, 60, 30, 1, 7):
        clock = Clock()
        buckets = TokenBuckets(clock)
        assert [buckets.take("a", limit) for _ in range(limit)] == [None] * limit
        told = buckets.take("a", limit)
        assert told == Refused(-(-60_000 // limit // 1000) or 1, limit, 60_000)
        assert buckets.take("b", limit) is None
        clock.now += told.retry_after_s * 1000
        assert buckets.take("a", limit) is None


def test_a_bucket_fills_with_time_to_the_limit_and_not_beyond() -> None:
    clock = Clock()
    buckets = TokenBuckets(clock)
    for _ in range(60):
        buckets.take("a", 60)
    clock.now = 999
    assert buckets.take("a", 60) is not None
    clock.now = 1000
    assert buckets.take("a", 60) is None
    assert buckets.take("a", 60) is not None
    clock.now = 10_000_000
    assert sum(buckets.take("a", 60) is None for _ in range(100)) == 60


def test_a_clock_that_goes_back_fills_nothing_and_breaks_nothing() -> None:
    clock = Clock()
    clock.now = 100_000
    buckets = TokenBuckets(clock)
    for _ in range(30):
        buckets.take("a", 30)
    clock.now = 0
    assert buckets.take("a", 30) is not None
    clock.now = 102_000
    assert buckets.take("a", 30) is None


@given(limit=st.integers(1, 50), pauses=st.lists(st.integers(0, 9_000), max_size=200))
def test_in_no_stretch_of_time_more_passes_than_the_limit_and_what_flowed_in(limit: int, pauses: list[int]) -> None:
    clock = Clock()
    buckets = TokenBuckets(clock, cap=2)
    passed = []
    for pause in pauses:
        clock.now += pause
        buckets.take(f"other {pause % 3}", 5)  # also where others come and go; but never more than one besides is not full
        if buckets.take("a", limit) is None:
            passed.append(clock.now)
    if len({pause % 3 for pause in pauses}) <= 1:
        assert_bounded(passed, limit)


def assert_bounded(passed: list[int], limit: int, window: int = 60_000) -> None:
    """Between any two of the moments (both included) at most `limit` and what flowed in meanwhile."""
    lowest = 0  # of (moment · limit - number · window) so far: one walk instead of all pairs
    for number, moment in enumerate(passed):
        lowest = min(lowest, number * window - moment * limit) if number else -moment * limit
        assert (number + 1) * window - moment * limit - lowest <= limit * window


@given(st.lists(st.tuples(st.integers(0, 20_000), st.integers(1, 60)), max_size=100))
def test_what_is_told_is_true(steps: list[tuple[int, int]]) -> None:
    clock = Clock()
    buckets = TokenBuckets(clock)
    for pause, limit in steps:
        clock.now += pause
        told = buckets.take(f"{limit}", limit)
        if told is not None:
            assert 1 <= told.retry_after_s <= 60
            clock.now += told.retry_after_s * 1000
            assert buckets.take(f"{limit}", limit) is None


def test_memory_is_bounded_and_full_buckets_go_first() -> None:
    clock = Clock()
    buckets = TokenBuckets(clock, cap=100)
    passed = 0
    for n in range(10_000):
        clock.now += 10
        buckets.take(f"{n}", 600)  # one token, which flows in again in a tenth of a second
        assert len(buckets) <= 100
        passed += sum(buckets.take("busy", 20) is None for _ in range(2) if n % 50 == 0)
    assert passed == 20 + clock.now // 3000  # it was never forgotten


def test_where_no_bucket_is_full_the_fullest_goes() -> None:
    clock = Clock()
    buckets = TokenBuckets(clock, cap=3)
    for name, count in (("a", 3), ("b", 1), ("c", 2), ("d", 1)):
        for _ in range(count):
            assert buckets.take(name, 3) is None
    assert len(buckets) == 3
    assert buckets.take("a", 3) is not None
    assert buckets.take("b", 3) is None  # it was forgotten, and starts anew


def test_buckets_that_are_full_again_are_forgotten_before_there_is_need() -> None:
    clock = Clock()
    buckets = TokenBuckets(clock)
    for n in range(1000):
        clock.now += 61_000
        buckets.take(f"{n}", 30)
    assert len(buckets) <= 2


def test_a_limit_that_is_off_takes_nothing() -> None:
    buckets = TokenBuckets(Clock())
    assert [buckets.take("a", None) for _ in range(1000)] == [None] * 1000
    assert len(buckets) == 0


def test_each_kind_of_limit_has_its_own_buckets() -> None:
    rates = Rates()
    named = [rates.of_ip("192.0.2.1"), rates.of_ip("192.0.2.1", strict=True), rates.of_key("ab"), rates.of_key("ab", strict=True)]
    assert [limit for _, limit in named] == [120, 30, 60, 30]
    assert len({name for name, _ in named}) == 4
    assert rates.of_ip("2001:db8::1") == rates.of_ip("2001:db8::2") != rates.of_ip("2001:db8:0:1::1")
    assert Rates(ip=None, strict=None).of_ip("192.0.2.1", strict=True)[1] is None
    with pytest.raises(UsageError, match="the limit key is 0"):
        Rates(key=0)
