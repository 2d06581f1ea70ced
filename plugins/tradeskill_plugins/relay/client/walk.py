"""Changed jobs at a relay that has no cursor: `updated_after`, overlapped by a minute, so that what was committed late is still found.

Such a relay's times are cut to milliseconds, its offsets run over a list that moves, and a row may show up after newer ones did. So every walk starts
60 seconds before where the last one ended, goes on by time rather than by offset, and leaves out what the very same walker has shown as it is.
A cursor that this walker did not hand out last (of an earlier process, or an older one) leaves nothing out: at least once, never lost.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from typing import Final

from tradeskill.errors import UntrustedError, UsageError
from tradeskill.signing import digest
from tradeskill_plugins.relay.client.reading import Row, time_in

__all__ = ["OVERLAP_MS", "Walk"]

OVERLAP_MS: Final = 60_000
PAGE: Final = 100
PAGES: Final = 200  # in one call that finds nothing new: more than such a relay can change in a minute
_CURSOR = re.compile(r"t1-(0|[1-9][0-9]{0,14})-(0|[1-9][0-9]{0,14})", re.ASCII)

Page = Callable[[int, int, int], Awaitable[list[Row]]]  # (updated after, offset, limit) -> rows, oldest change first


class Walk:
    def __init__(self, page: Page, first: int) -> None:
        """`first`: where the numbers in its cursors begin, above those of any walker before it (the time in milliseconds does)."""
        self._page = page
        self._count = first
        self._last = ""  # the cursor that was handed out last
        self._shown: dict[str, tuple[str, int]] = {}  # as of that one: job id -> (hash of the row, when it changed)

    async def next(self, cursor: str, limit: int) -> tuple[list[Row], str, bool]:
        """At most `limit` rows changed since `cursor`, the cursor after them, and whether there may be more. UsageError on somebody else's cursor."""
        match = _CURSOR.fullmatch(cursor) if cursor else None
        if cursor and match is None:
            raise UsageError(f"cursor {cursor[:60]!r} is not of this market: start again with an empty one")
        horizon = int(match[1]) if match else 0  # all rows up to there were shown
        shown = dict(self._shown) if cursor and cursor == self._last else {}
        after, offset = max(0, horizon - OVERLAP_MS), 0
        for _ in range(PAGES):
            rows = await self._page(after, offset, PAGE)
            timed = [(row, time) for row in rows if (time := _time(row)) is not None]
            last, full = timed[-1][1] if timed else after, len(rows) >= PAGE
            fresh = [(row, time, mark) for row, time in timed if (mark := _mark(row)) != shown.get(str(row.get("job_id")), ("", 0))[0]]
            if fresh or not full:
                given = fresh[:limit]
                more = full or len(fresh) > limit
                # of the last millisecond there may be more rows
                horizon = max(horizon, given[-1][1] - 1 if more else last)
                shown |= {str(row.get("job_id")): (mark, time) for row, time, mark in given}
                return [row for row, _, _ in given], self._hand_out(cursor, horizon, shown, changed=bool(given)), more
            if last - 1 > after:
                after, offset = last - 1, 0
            else:  # a whole page of one millisecond
                offset += PAGE
            horizon = max(horizon, after)
        return [], self._hand_out(cursor, horizon, shown, changed=True), True

    def _hand_out(self, cursor: str, horizon: int, shown: dict[str, tuple[str, int]], changed: bool) -> str:
        """Another cursor whenever rows were shown, so that whoever lost them and asks with the old one is shown them again."""
        if changed or not cursor:
            self._count += 1
            cursor = f"t1-{horizon}-{self._count}"
        self._shown = {job_id: entry for job_id, entry in shown.items() if entry[1] > horizon - 2 * OVERLAP_MS}
        self._last = cursor
        return cursor


def _time(row: Row) -> int | None:
    try:
        return time_in(row, "updated_at")
    except UntrustedError:
        return None


def _mark(row: Row) -> str:
    return digest(json.dumps(row, sort_keys=True).encode("utf-8", "replace"))
