"""`GET /v1/jobs` and `GET /v1/offers`: their parameters, their pages, their totals."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

from tradeskill.errors import UsageError
from tradeskill_plugins.market.book import Book, JobRow, Search
from tradeskill_plugins.relay import wire
from tradeskill_plugins.relay.server import tables
from tradeskill_plugins.relay.server.answers import job_json, offer_json

__all__ = ["Totals", "changes_page", "jobs_page", "offers_page", "query_of", "search_of"]

_NUMBER = re.compile(r"[0-9]{1,18}", re.ASCII)
_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
MAX_OFFSET: Final = 1_000_000
EXACT: Final = 1_000  # a total up to this is never older than its page
KEPT_MS: Final = 2_000


def query_of(query: bytes) -> dict[str, str]:
    """The query's parameters, trimmed. UsageError on a repeated one, on broken escapes and on what is not UTF-8 text."""
    try:
        text = query.decode("ascii")
        if _ESCAPE.search(text):
            raise UsageError("the query holds a % that escapes nothing: write %25")
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=32)
    except ValueError as error:
        raise UsageError("the query must be percent-encoded UTF-8 with at most 32 parameters") from error
    found = {name: value.strip() for name, value in pairs}
    if len(found) != len(pairs):
        raise UsageError("a query parameter is given twice: give each once")
    for name, value in found.items():
        if "\0" in value or "\0" in name:
            raise UsageError(f"query parameter {name[:40]!r} holds a NUL character")
    return found


def search_of(query: Mapping[str, str]) -> Search:
    tags = tuple(tag for tag in (part.strip() for part in query.get("tags", "").split(",")) if tag)
    if len(tags) > 16 or any(len(tag) > 32 for tag in tags):
        raise UsageError("tags must be at most 16, of at most 32 characters each")
    mode, active = query.get("pricing_mode", ""), query.get("active", "true")
    if "pricing_mode" in query and mode not in ("fixed", "quote"):
        raise UsageError("pricing_mode must be fixed or quote")
    if active not in ("true", "false"):
        raise UsageError("active must be true or false")
    if len(query.get("q", "")) > 200 or len(query.get("seller_pubkey", "")) > 64:
        raise UsageError("q may have 200 characters, seller_pubkey 64")
    return Search(query.get("q", ""), tags, query.get("seller_pubkey", ""), mode, active == "true")


class Totals:
    """How many a list holds in all, counted once for as long as nothing in it changes; a long one is counted anew at most every two seconds."""

    def __init__(self, most: int = 1024) -> None:
        self._most = most
        self._counted: OrderedDict[Hashable, tuple[int, int, int]] = OrderedDict()  # what was asked -> its version, its total, when it was counted

    def of(self, asked: Hashable, version: int, now_ms: int, count: Callable[[], int]) -> int:
        """`version` differs from its last value when something may have changed. From any thread: at worst something is counted twice."""
        known = self._counted.get(asked)
        if known is None or (known[0] != version and not (known[1] > EXACT and known[2] <= now_ms < known[2] + KEPT_MS)):
            known = (version, count(), now_ms)
            self._counted.pop(asked, None)
            self._counted[asked] = known
            while len(self._counted) > self._most:
                self._counted.popitem(last=False)
        return known[1]


def offers_page(book: Book, query: Mapping[str, str], asked: Search, totals: Totals, now_ms: int) -> str:
    limit, offset = _page(query, 20)
    rows = ",".join(offer_json(row) for row in book.search(asked, limit, offset))
    total = totals.of(asked, book.offers_version(), now_ms, lambda: book.count(asked))
    return f'{{"offers":[{rows}],"limit":{limit},"offset":{offset},"total":{total}}}'


def jobs_page(book: Book, caller: str, query: Mapping[str, str], totals: Totals, now_ms: int) -> str:
    """Newest first; with `updated_after` (strictly later) the longest unchanged first."""
    limit, offset = _page(query, 50)
    nonce = query.get("request_nonce")
    if nonce is not None:
        row = book.find_request(caller, nonce)
        found, total = ([] if row is None else [row])[offset : offset + limit], int(row is not None)
    else:
        found, total = _jobs(book, caller, query, limit, offset, totals, now_ms)
    return f'{{"jobs":[{",".join(job_json(row, listed=True) for row in found)}],"limit":{limit},"offset":{offset},"total":{total}}}'


def changes_page(book: Book, caller: str, query: Mapping[str, str]) -> str:
    limit = _page(query, 50)[0]
    page = book.changes(caller, query["cursor"], limit)
    rows = ",".join(job_json(row, listed=True) for row in page.rows)
    return f'{{"jobs":[{rows}],"limit":{limit},"cursor":"{page.cursor}","more":{"true" if page.more else "false"}}}'


def _jobs(
    book: Book, caller: str, query: Mapping[str, str], limit: int, offset: int, totals: Totals, now_ms: int
) -> tuple[list[JobRow], int]:
    role, status, after = query.get("role", ""), query.get("status", ""), query.get("updated_after", "")
    if role not in ("", "seller", "buyer"):
        raise UsageError("role must be seller or buyer")
    states = [part.strip() for part in status.split(",") if part.strip()]
    if (status and not states) or any(state not in wire.JOB_STATES for state in states):
        raise UsageError(f"status must be a list of {', '.join(wire.JOB_STATES)}")
    more = ""
    values: list[Any] = []
    if after:
        more, values = " AND updated_at > ?", [wire.read_time("updated_after", after)]
    if states:
        more += f" AND state IN ({', '.join('?' * len(states))})"
    column, direction = ("updated_at", "ASC") if after else ("created_at", "DESC")
    order = f"ORDER BY {column} {direction}, change {direction}"
    sides = [role] if role else ["seller", "buyer"]
    one = [tables.LISTED.format(side=side, more=more) for side in sides]
    given = [caller, *values, *states] * len(sides)
    tops = " UNION ".join(f"SELECT * FROM ({sql} {order} LIMIT {limit + offset}) AS s{n}" for n, sql in enumerate(one))  # noqa: S608  # only our own words
    rows = book.rows(f"SELECT * FROM ({tops}) AS t {order} LIMIT {limit} OFFSET {offset}", given)  # noqa: S608  # as above
    values += states
    total = totals.of((caller, role, more, *values), _latest(book, caller), now_ms, lambda: _count(book, caller, sides, more, values))
    return [book.with_papers(row) for row in rows], total


def _latest(book: Book, caller: str) -> int:
    """The number of the latest change of any of the caller's jobs."""
    found = [book.rows(tables.LATEST.format(side=side), (caller,)) for side in ("seller", "buyer")]
    return max((rows[0]["change"] for rows in found if rows), default=0)


def _count(book: Book, caller: str, sides: list[str], more: str, values: list[Any]) -> int:
    """Each side by its own index; what one traded with oneself is on both."""
    sizes = [book.rows(tables.SIZE.format(condition=f"{side} = ?{more}"), [caller, *values])[0]["size"] for side in sides]
    if len(sizes) == 2 and all(sizes):
        sizes.append(-book.rows(tables.SIZE.format(condition=f"seller = ? AND buyer = ?{more}"), [caller, caller, *values])[0]["size"])
    return int(sum(sizes))


def _page(query: Mapping[str, str], limit: int) -> tuple[int, int]:
    return _number(query, "limit", limit, 1, 100), _number(query, "offset", 0, 0, MAX_OFFSET)


def _number(query: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    value = query.get(name, "")
    if not value:
        return default
    if not _NUMBER.fullmatch(value) or not low <= int(value) <= high:
        raise UsageError(f"{name} must be a whole number from {low} to {high}, not {value[:40]!r}")
    return int(value)
