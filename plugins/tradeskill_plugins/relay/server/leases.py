"""One bucket for several processes: its tokens are lent to them in batches. The row's arithmetic is pure; a database stores the row.

A row is a bucket as in `limits.py` that also knows how many of its tokens are out on loan. What is in it and what is out together never
exceed the limit, and a loan ends by itself: so in any stretch of time all processes together let through at most `limit` and what flowed in
meanwhile, whatever is late, lost or crashed. A loan that is forgotten costs its tokens for two `hold_ms` at most (which a limit of 1
feels at every token, and larger ones do not).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from tradeskill_plugins.relay.server.limits import Refused, refused
from tradeskill_plugins.relay.wire import WINDOW_MS

__all__ = ["HOLD_MS", "Back", "Leases", "Row", "grant", "is_full", "wait_ms"]

HOLD_MS: Final = 5_000  # a loan that is not used up within it is void
RECHECK_MS: Final = 1_000  # a process that was told "nothing" asks again after at most this


class Row(NamedTuple):
    """A shared bucket. All numbers are whole and below 2^63."""

    level: int  # in parts of a token, of which it has as many as the window has milliseconds
    at_ms: int  # when the level was so, by the database's clock
    span: int  # which stretch of `hold_ms` since the epoch that was
    lent: int  # tokens lent in this span and not given back
    before: int  # and in the span before


class Back(NamedTuple):
    """A loan that ends: so many tokens that were lent in a span, of which `unspent` were not used."""

    lent: int
    unspent: int
    span: int


def grant(
    row: Row | None, want: int, now_ms: int, limit: int, window_ms: int = WINDOW_MS, *, hold_ms: int = HOLD_MS, back: Back | None = None
) -> tuple[int, Row]:
    """Lend up to `want` tokens: (how many, the row to be stored). `row`: None where there is none yet. `now_ms`: of one clock for all, the database's."""
    level, at, span, lent, before = _at(row or Row(limit * window_ms, now_ms, now_ms // hold_ms, 0, 0), now_ms, limit, window_ms, hold_ms)
    if back is not None and back.span == span and back.lent <= lent:
        lent -= back.lent
        level += back.unspent * window_ms
    elif back is not None and back.span == span - 1 and back.lent <= before:
        before -= back.lent
        level += back.unspent * window_ms
    granted = max(0, min(want, level // window_ms))
    return granted, Row(level - granted * window_ms, at, span, lent + granted, before)


def wait_ms(row: Row, limit: int, window_ms: int = WINDOW_MS, *, hold_ms: int = HOLD_MS) -> int:
    """How long after `row.at_ms` there is a token, if nobody else takes it and no loan comes back early."""
    level, at = row.level, row.at_ms
    for until, out in _loans(row, hold_ms):
        room = (limit - out) * window_ms
        due = at - (level - window_ms) // limit
        if level >= window_ms:
            return at - row.at_ms
        if room >= window_ms and (until is None or due <= until):
            return due - row.at_ms
        assert until is not None, "in the end no loan is left, and there is room"
        level, at = _filled(level, until - at, limit, room), until
    raise AssertionError("the last stretch has no end")


def is_full(row: Row, now_ms: int, limit: int, window_ms: int = WINDOW_MS, *, hold_ms: int = HOLD_MS) -> bool:
    """May the row be deleted? None in its place would then mean the same."""
    seen = _at(row, now_ms, limit, window_ms, hold_ms)
    return seen.lent == seen.before == 0 and seen.level == limit * window_ms


def _at(row: Row, now_ms: int, limit: int, window_ms: int, hold_ms: int) -> Row:
    """The row at a later moment. What flows in finds room only beside what is out: in each stretch between two ends of loans by itself."""
    now = max(now_ms, row.at_ms)
    level, at = row.level, row.at_ms
    for until, out in _loans(row, hold_ms):
        end = now if until is None else min(until, now)
        level, at = _filled(level, end - at, limit, (limit - out) * window_ms), end
    passed = now // hold_ms - row.span
    return Row(level, now, row.span + passed, row.lent if passed == 0 else 0, (row.before, row.lent)[passed] if passed < 2 else 0)


def _loans(row: Row, hold_ms: int) -> tuple[tuple[int | None, int], ...]:
    """Until when how many tokens are out: a loan is void `hold_ms` after it was made, so at the latest when its next span ends."""
    return ((row.span + 1) * hold_ms, row.lent + row.before), ((row.span + 2) * hold_ms, row.lent), (None, 0)


def _filled(level: int, passed_ms: int, limit: int, room: int) -> int:
    return max(level, min(room, level + passed_ms * limit))


Lease = Callable[[str, int, int, Back | None], Awaitable[tuple[int, Row]]]


class Leases:
    """One process's side. `lease(name, want, limit, back)` does `grant` on the stored row in one transaction and returns what it returned.

    `clock`: monotonic milliseconds. Batches grow while they are used up fast, and are single tokens else, so little is out unused. At most `cap`
    buckets are remembered. What `lease` raises is raised to whoever asked; nothing is let through.
    """

    def __init__(self, clock: Callable[[], int], lease: Lease, *, window_ms: int = WINDOW_MS, hold_ms: int = HOLD_MS, cap: int = 100_000) -> None:
        self._clock, self._lease, self._window, self._cap = clock, lease, window_ms, cap
        self._row_hold = hold_ms
        self._hold = hold_ms - hold_ms // 10  # ours ends before the row's, though clocks may run a little apart
        self._loans: OrderedDict[str, _Loan] = OrderedDict()

    def __len__(self) -> int:
        return len(self._loans)

    async def take(self, name: str, limit: int | None) -> Refused | None:
        """As `TokenBuckets.take`; asks the database only where no token is at hand."""
        if limit is None:
            return None
        while True:
            now = self._clock()
            loan = self._loan(name, now)
            if loan.tokens and now < loan.ends:
                loan.tokens -= 1
                return None
            if now < loan.ask_again:
                return refused(loan.token_at - now, limit, self._window)
            if loan.asking is None:
                await self._ask(name, loan, limit)
                if loan.tokens and self._clock() >= loan.ends:  # the database is so slow that what it lends is void when it comes
                    return refused(RECHECK_MS, limit, self._window)
            else:
                await asyncio.shield(loan.asking)

    async def _ask(self, name: str, loan: _Loan, limit: int) -> None:
        """Ask for the next batch; those who come meanwhile wait for it. Their turn comes even if this one is cancelled."""
        now = self._clock()
        fast = loan.size > 0 and loan.tokens == 0 and now < loan.ends
        want = min(loan.size * 2, max(1, limit // 8)) if fast else 1
        back = Back(loan.size, loan.tokens, loan.span) if loan.size else None
        loan.size = loan.tokens = 0
        loan.asking = asyncio.get_running_loop().create_future()
        try:
            granted, row = await self._lease(name, want, limit, back)
            loan.size = loan.tokens = granted
            loan.span = row.span
            loan.ends = now + self._hold  # counted from before the question
            if not granted:
                loan.token_at = self._clock() + wait_ms(row, limit, self._window, hold_ms=self._row_hold)
                loan.ask_again = min(loan.token_at, self._clock() + RECHECK_MS)
        finally:
            loan.asking.set_result(None)
            loan.asking = None

    def _loan(self, name: str, now: int) -> _Loan:
        loan = self._loans.get(name)
        if loan is not None:
            self._loans.move_to_end(name)
            return loan
        while self._loans:
            oldest, other = next(iter(self._loans.items()))
            if other.asking is not None or (len(self._loans) < self._cap and max(other.ends, other.ask_again) > now):
                break
            del self._loans[oldest]
        self._loans[name] = loan = _Loan()
        return loan


class _Loan:
    __slots__ = ("ask_again", "asking", "ends", "size", "span", "token_at", "tokens")

    def __init__(self) -> None:
        self.tokens = self.size = self.span = self.ends = self.ask_again = self.token_at = 0
        self.asking: asyncio.Future[None] | None = None
