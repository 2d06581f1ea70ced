"""What the book is about to ask, asked ahead: fewer round trips, the same answers. Knows the book's statements, decides nothing.

Three kinds: what follows a statement nearly always travels with it; a fact that was found never changes; and a counter, which nobody else can
move under the writers' lock, is known after its first use in a transaction. The last is a prediction, so the server's own number is compared
with it before anything is committed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from tradeskill_plugins.market import schema
from tradeskill_plugins.market.postgres_session import Answer, Foreseen, Row, Session

if TYPE_CHECKING:
    import psycopg

__all__ = ["BookSession"]

FOLLOWS: Final = {schema.JOB: schema.PAPERS}  # with the same values


class BookSession(Session):
    def __init__(self, connection: psycopg.Connection[Any], answer_within: float) -> None:
        super().__init__(connection, answer_within)
        self._ahead: tuple[str, tuple[Any, ...], Answer] | None = None
        self._facts: dict[tuple[Any, ...], Row] = {}
        self._counters: dict[tuple[Any, ...], int] = {}

    def execute(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = (), /) -> Answer | Foreseen:
        if sql == schema.FACT:
            return self._fact(tuple(parameters))
        if sql == schema.COUNT_UP:
            return self._count_up(tuple(parameters))
        if sql in FOLLOWS:
            answer = self.ask(sql, parameters)
            self._ahead = (FOLLOWS[sql], tuple(parameters), self.ask(FOLLOWS[sql], parameters))
            return answer
        ahead = self._ahead
        if ahead is not None:
            if ahead[0] == sql and ahead[1] == tuple(parameters):
                self._ahead = None
                return ahead[2]
            if not sql.startswith("SELECT"):  # after a write the answer may be another
                self._ahead = None
        if sql.startswith(("BEGIN", "ROLLBACK")):  # here others may have counted, or what was counted is undone
            self._counters.clear()
        return self.ask(sql, parameters)

    def _fact(self, parameters: tuple[Any, ...]) -> Answer | Foreseen:
        known = self._facts.get(parameters)
        if known is None:
            row = self.ask(schema.FACT, parameters).fetchone()
            if row is None:  # a network may still be added
                return Foreseen(None)
            known = self._facts[parameters] = row
        return Foreseen(known)

    def _count_up(self, parameters: tuple[Any, ...]) -> Foreseen:
        self._ahead = None
        answer = self.ask(schema.COUNT_UP, parameters)
        before = self._counters.get(parameters)
        if before is None:
            row = answer.fetchone()
            if row is None:
                return Foreseen(None)
        else:
            row = {"value": before + 1}
            self.expect(answer, row)
        self._counters[parameters] = row["value"]
        return Foreseen(row)
