"""How many requests an address and a key may send: token buckets of one process, in whole numbers.

A bucket holds `limit` tokens and fills at `limit` a window, so that in any stretch of time it lets through at most `limit` and what flowed in
meanwhile. Levels are counted in parts of a token, of which a token has as many as a window has milliseconds: exact, and nothing drifts.
Several processes on one database: `leases.py`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from tradeskill.errors import UsageError
from tradeskill_plugins.relay.server.peers import limit_key
from tradeskill_plugins.relay.wire import PER_IP, PER_KEY, STRICT, WINDOW_MS

__all__ = ["Rates", "Refused", "TokenBuckets", "refused"]


@dataclass(frozen=True)
class Refused:
    """No token. After `retry_after_s` (at least 1) there is one, unless somebody else takes it."""

    retry_after_s: int
    limit: int
    window_ms: int


@dataclass(frozen=True)
class Rates:
    """The limits a window; None switches one off. UsageError below 1. `strict`: what opens an offer or a job, counted by itself."""

    ip: int | None = PER_IP
    key: int | None = PER_KEY
    strict: int | None = STRICT
    window_ms: int = WINDOW_MS

    def __post_init__(self) -> None:
        for name in ("ip", "key", "strict", "window_ms"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"the limit {name} is {value}: a whole number from 1, or none")

    def of_ip(self, ip: str, *, strict: bool = False) -> tuple[str, int | None]:
        """The bucket of an address (of its /64) and its limit: what `take` is to be called with."""
        return (f"I{limit_key(ip)}", self.strict) if strict else (f"i{limit_key(ip)}", self.ip)

    def of_key(self, key: str, *, strict: bool = False) -> tuple[str, int | None]:
        """The bucket of a public key and its limit."""
        return (f"K{key}", self.strict) if strict else (f"k{key}", self.key)


def refused(wait_ms: int, limit: int, window_ms: int) -> Refused:
    """In whole seconds, never too few."""
    return Refused(max(1, -(-wait_ms // 1000)), limit, window_ms)


class TokenBuckets:
    """Buckets by name. `clock`: milliseconds, whole; where it goes back nothing flows in.

    At most `cap` buckets are kept. A full one is forgotten without loss; where none is full, the fullest of the longest untouched goes, and its
    owner starts with a full one again.
    """

    _LOOKED_AT = 64  # so many of the longest untouched: a bound on the work of one call

    def __init__(self, clock: Callable[[], int], *, window_ms: int = WINDOW_MS, cap: int = 100_000) -> None:
        self._clock, self._window, self._cap = clock, window_ms, cap
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()  # the longest untouched first

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, name: str, limit: int | None) -> Refused | None:
        """One token of this bucket; None if there was one. A limit of None takes nothing and always has one."""
        if limit is None:
            return None
        now, window = self._clock(), self._window
        bucket = self._buckets.get(name)
        if bucket is None:
            self._make_room(now)
            bucket = self._buckets[name] = _Bucket(limit * window, limit, now)
        else:
            self._buckets.move_to_end(name)
            bucket.fill(now, limit, window)
        if bucket.level >= window:
            bucket.level -= window
            return None
        return refused(-(-(window - bucket.level) // limit), limit, window)

    def _make_room(self, now: int) -> None:
        oldest = list(islice(self._buckets.items(), 2 if len(self._buckets) < self._cap else self._LOOKED_AT))
        for name, bucket in oldest:
            bucket.fill(now, bucket.limit, self._window)
            if bucket.missing(self._window) == 0:
                del self._buckets[name]
        if len(self._buckets) >= self._cap:
            del self._buckets[min(oldest, key=lambda entry: entry[1].missing(self._window))[0]]


class _Bucket:
    __slots__ = ("at", "level", "limit")

    def __init__(self, level: int, limit: int, at: int) -> None:
        self.level, self.limit, self.at = level, limit, at

    def fill(self, now: int, limit: int, window: int) -> None:
        """What flowed in since it was last looked at."""
        self.limit = limit
        if now > self.at:
            self.level = min(limit * window, self.level + (now - self.at) * limit)
            self.at = now

    def missing(self, window: int) -> int:
        return self.limit * window - self.level
