"""The market's offers: put up, replaced, withdrawn, found. The book's lower half; see book.py for how its calls are to be run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from tradeskill.errors import NetworkMismatchError, NotFoundError, RefusedError, UsageError
from tradeskill_plugins.market import entries, schema

__all__ = ["Offers", "Row", "Search", "Statements"]

_SHORT = 3  # the trigram index needs three characters
_COMMON = 10  # of the newest 1,000: the newest offers that hold such a text are found sooner by looking than in the index

Row = Mapping[str, Any]


class Statements(Protocol):
    """What the book asks of a database: run a statement of schema.py. Rows answer to column names."""

    def execute(self, sql: str, parameters: Any = ..., /) -> Any: ...


@dataclass(frozen=True)
class Search:
    """What a search asks for. `text`: a case-insensitive substring of title or description; `tags`: all of them."""

    text: str = ""
    tags: tuple[str, ...] = ()
    seller: str = ""
    pricing_mode: str = ""
    active: bool = True


EVERYTHING: Final = Search()


class Offers:
    def __init__(self, database: Statements, dialect: schema.Dialect) -> None:
        self._db, self._dialect = database, dialect

    def publish(self, entry: entries.OfferEntry, now_ms: int) -> Row:
        """Put up, replace or put up again. A replaced offer keeps its place: edits must not buy attention."""
        self._check_network(entry.network)
        known = self._row(schema.OFFER, (entry.offer_id,))
        row: dict[str, Any] = {
            "offer_id": entry.offer_id,
            "seller": entry.seller,
            "active": int(entry.active),
            "title": entry.title,
            "description": entry.description,
            "tags": json.dumps(entry.tags, ensure_ascii=False),
            "pricing_mode": entry.pricing_mode,
            "fixed_price": entry.fixed_price,
            "document": entry.document,
            "put_up_at": now_ms,
            "updated_at": now_ms,
        }
        if known is None:
            row["seq"] = self._row(schema.OFFER_ADD, row)["seq"]  # type: ignore[index]  # RETURNING gives a row
        else:
            if known["seller"] != entry.seller:
                raise RefusedError(f"offer {entry.offer_id} belongs to another seller: choose another offer_id")
            row |= {"seq": known["seq"], "put_up_at": known["put_up_at"]}
            if all(known[name] == value for name, value in row.items() if name != "updated_at"):
                return known
            self._db.execute(schema.OFFER_REPLACE, row)
            self._hide(known["seq"])
        self._next("offers")
        if entry.active:
            self._db.execute(self._dialect.text_add, self._dialect.text_row(row["seq"], entry.title.casefold(), entry.description.casefold()))
            for tag in dict.fromkeys(entry.tags):
                self._db.execute(schema.TAG_ADD, (tag, row["seq"]))
        return row

    def withdraw(self, caller: str, offer_id: str, now_ms: int) -> Row:
        row = self._offer(offer_id)
        if row["seller"] != caller:
            raise RefusedError(f"offer {offer_id} belongs to another seller")
        if not row["active"]:
            return row
        hidden = {**dict(row), "active": 0, "updated_at": now_ms}
        self._db.execute(schema.OFFER_REPLACE, hidden)
        self._hide(row["seq"])
        self._next("offers")
        return hidden

    def offer(self, offer_id: str) -> Row:
        """Withdrawn ones too: open jobs still refer to them."""
        return self._offer(offer_id)

    def search(self, asked: Search = EVERYTHING, limit: int = 20, offset: int = 0) -> list[Row]:
        """Newest first. A text under three characters looks at the newest 10,000 that fit the rest, and so does a search for withdrawn offers."""
        entries.check_range("limit", limit, 1, 100)
        entries.check_range("offset", offset, 0, 1_000_000)
        if not asked.active:
            return self._inactive(asked)[offset : offset + limit]
        sql, values = self._walk(asked, self._dialect.walk)
        rows: list[Row] = self._db.execute(sql, [*values, limit, offset]).fetchall()
        return rows

    def count(self, asked: Search = EVERYTHING) -> int:
        """How many a search finds in all; takes time in proportion to them."""
        if not asked.active:
            return len(self._inactive(asked))
        sql, values = self._walk(asked, self._dialect.count, self._dialect.count_all)
        return int(self._db.execute(sql, values).fetchone()["size"])

    def offers_version(self) -> int:
        """Grows with every change of any offer."""
        return self._counter("offers")

    def market_id(self) -> str:
        """16 hex, made with the market; its cursors carry it."""
        return str(self._row(schema.FACT, ("market_id",))["value"])  # type: ignore[index]  # written when the market was made

    def network(self) -> str | None:
        """What the market is bound to."""
        row = self._row(schema.FACT, ("network",))
        return None if row is None else str(row["value"])

    def rows(self, sql: str, values: Any) -> list[Row]:
        """For whoever keeps tables of its own beside the book's."""
        found: list[Row] = self._db.execute(sql, values).fetchall()
        return found

    # inside

    def _row(self, sql: str, values: Any) -> Row | None:
        row: Row | None = self._db.execute(sql, values).fetchone()
        return row

    def _counter(self, name: str) -> int:
        return int(self._row(schema.COUNTER, (name,))["value"])  # type: ignore[index]  # made by the migration

    def _next(self, counter: str) -> int:
        return int(self._row(schema.COUNT_UP, (counter,))["value"])  # type: ignore[index]  # RETURNING gives a row

    def _check_network(self, network: str | None) -> None:
        bound = None if network is None else self.network()
        if bound is not None and bound != network:
            raise NetworkMismatchError(f"this market is for network {bound!r}, the document says {network!r}")

    def _offer(self, offer_id: str) -> Row:
        row = self._row(schema.OFFER, (entries.check_text("offer_id", offer_id, 1, 64),))
        if row is None:
            raise NotFoundError(f"no offer {offer_id} in this market")
        return row

    def _hide(self, seq: int) -> None:
        self._db.execute(schema.TEXT_DROP, (seq,))
        self._db.execute(schema.TAGS_DROP, (seq,))

    def _walk(self, asked: Search, template: str, bare: str = "") -> tuple[str, list[Any]]:
        """What was asked for is a walk and the conditions that it does not meet already; `bare` is the template where there are none."""
        folded, wanted = _checked(asked)
        walks: list[tuple[str, Any]] = [(schema.BY_TAG, tag) for tag in wanted]
        conditions: list[tuple[str, tuple[Any, ...]]] = [(schema.IF_TAG, (tag,)) for tag in wanted]
        if asked.seller:
            walks.append((schema.BY_SELLER, asked.seller))
            conditions.append((schema.IF_SELLER, (asked.seller,)))
        if asked.pricing_mode:
            walks.append((schema.BY_PRICING, asked.pricing_mode))
            conditions.append((schema.IF_PRICING, (asked.pricing_mode,)))
        if folded:
            conditions.append((self._dialect.if_text, (folded, folded)))
        if len(folded) >= _SHORT and not self._is_common(folded):
            walks.append((self._dialect.by_text, self._dialect.text_given(folded)))
        chosen = self._shortest(walks)
        walk, given = (schema.BY_ALL, []) if chosen is None else (walks[chosen][0], [walks[chosen][1]])
        if chosen is not None and (walk != self._dialect.by_text or self._dialect.exact):
            del conditions[chosen]  # walks and conditions are in one order
        if 0 < len(folded) < _SHORT:
            walk = schema.WALK_BOUNDED.format(walk=walk)
        sql = (template if conditions or not bare else bare).format(walk=walk, conditions=" AND ".join(text for text, _ in conditions) or "TRUE")
        return sql, [*given, *(value for _, group in conditions for value in group)]

    def _is_common(self, folded: str) -> bool:
        sample = self._dialect.sample
        return bool(sample) and self._db.execute(sample, (folded, folded)).fetchone()["size"] >= _COMMON

    def _shortest(self, walks: list[tuple[str, Any]]) -> int | None:
        """The place of the walk with the fewest rows, counted up to a bound: a rare tag must not cost a walk over a common word."""
        if len(walks) < 2:
            return 0 if walks else None
        sizes = [self._db.execute(schema.WALK_SIZE.format(walk=walk), (given,)).fetchone()["size"] for walk, given in walks]
        return sizes.index(min(sizes))

    def _inactive(self, asked: Search) -> list[Row]:
        """Withdrawn offers are in no index of words: they cost a search for active ones nothing."""
        folded, wanted = _checked(asked)
        return [
            row
            for row in self._db.execute(schema.INACTIVE).fetchall()
            if (not asked.seller or row["seller"] == asked.seller)
            and (not asked.pricing_mode or row["pricing_mode"] == asked.pricing_mode)
            and (not wanted or set(wanted) <= set(json.loads(row["tags"])))
            and (not folded or folded in row["title"].casefold() or folded in row["description"].casefold())
        ]


def _checked(asked: Search) -> tuple[str, list[str]]:
    folded = entries.check_text("query", asked.text, 0, 200).casefold()
    entries.check_text("seller", asked.seller, 0, 64)
    wanted = list(dict.fromkeys(entries.check_text("tags", tag, 1, 32) for tag in asked.tags))
    if len(wanted) > 16:
        raise UsageError("tags must be at most 16")
    return folded, wanted
