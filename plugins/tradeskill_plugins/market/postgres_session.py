"""One connection to PostgreSQL: statements of the book sent without waiting where nobody looks at the answer, and how it says what went wrong.

Below psycopg's cursors, on its `pq` layer, for one reason: a step of the book is some ten statements, and each round trip costs more than its
work. A statement is sent when its answer is looked at, together with all that were written down before it; the server runs them in order and
skips the rest after a failure, so a step's writes, its RELEASE and even the COMMIT can travel in one message.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import pq

from tradeskill_plugins.market.postgres_sql import Statement, statement

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

__all__ = ["Answer", "Failure", "Foreseen", "Session"]

PREPARED: Final = 256  # statements kept ready; searches vary by their number of tags
Row = dict[str, Any]


class Failure(Exception):  # noqa: N818  # becomes an error of ours at the seam in postgres.py and is never seen outside
    """What the server refused (`sqlstate`), or `lost`: the connection is gone, and with it what was not committed."""

    def __init__(self, text: str, sqlstate: str = "", *, lost: bool = False) -> None:
        super().__init__(text)
        self.text, self.sqlstate, self.lost = text, sqlstate, lost


class Answer:
    """What a statement answers, asked for when somebody looks. Rows are dictionaries by column name."""

    __slots__ = ("_next", "_prepared", "_result", "_rows", "_session")

    def __init__(self, session: Session, prepared: _Prepared) -> None:
        self._session, self._prepared = session, prepared
        self._result: PGresult | None = None
        self._rows: list[Row] | None = None
        self._next = 0

    def fetchall(self) -> list[Row]:
        rows = self._read()
        found, self._next = rows[self._next :], len(rows)
        return found

    def fetchone(self) -> Row | None:
        rows = self._read()
        if self._next == len(rows):
            return None
        self._next += 1
        return rows[self._next - 1]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.fetchall())

    @property
    def rowcount(self) -> int:
        return self._settled().command_tuples or 0

    @property
    def command(self) -> str:
        """What the server says it did, such as COMMIT: of a COMMIT it may say ROLLBACK."""
        return (self._settled().command_status or b"").decode()

    def _read(self) -> list[Row]:
        if self._rows is None:
            result, columns = self._settled(), self._prepared.columns
            self._rows = [
                {
                    name: None if (value := result.get_value(row, place)) is None else decode(value)
                    for place, (name, decode) in enumerate(columns)
                }
                for row in range(result.ntuples)
            ]
        return self._rows

    def _settled(self) -> PGresult:
        if self._result is None:
            self._session.settle()
        if self._result is None:
            raise Failure("the statement was skipped because one before it failed")
        return self._result


class Foreseen:
    """The one row, or none, that a statement will answer with."""

    rowcount: Final = 1

    def __init__(self, row: Row | None) -> None:
        self._rows = [] if row is None else [row]

    def fetchone(self) -> Row | None:
        return self._rows.pop() if self._rows else None

    def fetchall(self) -> list[Row]:
        rows, self._rows = self._rows, []
        return rows


class _Prepared:
    """A statement the server knows: how to write each of its values and to read each of its columns."""

    def __init__(self, name: bytes, source: Statement, described: PGresult) -> None:
        self.name, self.source = name, source
        kinds = [described.param_type(n) for n in range(described.nparams)]
        try:
            self.writers = [WRITERS[kind] for kind in kinds]
            self.columns = [((described.fname(n) or b"").decode(), READERS[described.ftype(n)]) for n in range(described.nfields)]
        except KeyError as error:
            raise ValueError(f"type {error} of PostgreSQL has no meaning here: {source.text}") from None

    def values(self, given: Sequence[Any] | Mapping[str, Any]) -> list[bytes | None]:
        return [None if value is None else write(value) for write, value in zip(self.writers, self.source.values(given), strict=True)]


class Session:
    """Not for several threads at once. After a Failure that is not `lost` the transaction waits for a ROLLBACK (TO)."""

    def __init__(self, connection: psycopg.Connection[Any], answer_within: float) -> None:
        """`answer_within`: seconds until a silent server counts as lost."""
        self._connection, self._pg, self._within = connection, connection.pgconn, answer_within
        self._prepared: dict[str, _Prepared] = {}
        self._pending: list[Answer | None] = []  # None: a point where the server answers for all before it
        self._count = 0
        self._expected: list[tuple[Answer, Row]] = []
        self.lost = False
        self._pg.nonblocking = 1
        self._pg.enter_pipeline_mode()

    def close(self) -> None:
        self.lost = True
        self._connection.close()

    @property
    def unanswered(self) -> bool:
        """Whether anything was written down since the last answer that the server may still refuse."""
        return bool(self._pending)

    @property
    def descriptor(self) -> int:
        """To wait on; readable when the server says something."""
        return self._pg.socket

    def notices(self) -> list[str]:
        """What came since the last call on the channels listened to."""
        self._guarded(self._pg.consume_input)
        found = []
        while (notice := self._pg.notifies()) is not None:
            found.append(notice.extra.decode())
        return found

    def expect(self, answer: Answer, row: Row) -> None:
        """The next `settle` raises if the server answers anything else."""
        self._expected.append((answer, row))

    def execute(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = (), /) -> Answer | Foreseen:
        """As `ask`; a session that knows what is asked may know the answer."""
        return self.ask(sql, parameters)

    def ask(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = (), /) -> Answer:
        """Refused values and statements may show only when this or a later answer is looked at, or at `settle`."""
        if sql.startswith("ROLLBACK"):  # in one message with what it is to undo it would be skipped
            with suppress(Failure):
                self.settle()
        prepared = self._prepared.get(sql) or self._prepare(sql)
        values = prepared.values(parameters)
        self._guarded(lambda: self._pg.send_query_prepared(prepared.name, values, BINARY[: len(values)], pq.Format.BINARY))
        answer = Answer(self, prepared)
        self._pending.append(answer)
        return answer

    def script(self, text: str) -> None:
        """Several statements without values, answered now."""
        for part in text.split(";"):
            self._ask(lambda part=part: self._pg.send_query_params(part.encode(), None))  # type: ignore[misc]  # mypy infers no type for a bound default

    def send(self) -> None:
        """What was written down is on its way; its answers are read later."""
        self._guarded(self._sync)

    def settle(self) -> None:
        """Returns once the server did everything asked so far; raises the first Failure in it."""
        if not self._pending:
            return
        failure: Failure | None = None
        if self._pending[-1] is not None:
            self._guarded(self._sync)
        pending, self._pending = self._pending, []
        for entry in pending:
            found = self._guarded(self._one if entry is not None else self._result)
            if found is None:
                self.lost = True
                failure = failure or Failure("the connection ended", lost=True)
            elif entry is None:
                continue
            elif found.status in DONE:
                entry._result = found  # noqa: SLF001  # an answer is the session's own
            elif found.status != pq.ExecStatus.PIPELINE_ABORTED:
                failure = failure or self._failure(found)
        expected, self._expected = self._expected, []
        if failure is not None:
            raise failure
        for answer, row in expected:
            if answer.fetchone() != row:
                raise Failure(f"a statement was expected to answer {row} and did not")

    def _prepare(self, sql: str) -> _Prepared:
        source = statement(sql)
        self.settle()
        if len(self._prepared) >= PREPARED:
            self._prepared.clear()
            self.script("DEALLOCATE ALL")
        self._count += 1
        name = b"s%d" % self._count
        self._ask(lambda: self._pg.send_prepare(name, source.text.encode()))
        described = self._ask(lambda: self._pg.send_describe_prepared(name))
        made = self._prepared[sql] = _Prepared(name, source, described)
        return made

    def _ask(self, send: Callable[[], None]) -> PGresult:
        """One message of its own, and its answer."""
        self.settle()
        self._guarded(send)
        self._guarded(self._sync)
        self._pending.clear()
        found, _ = self._guarded(self._one), self._guarded(self._result)
        if found is None:
            self.lost = True
            raise Failure("the connection ended", lost=True)
        if found.status not in DONE:
            raise self._failure(found)
        return found  # type: ignore[no-any-return]  # a guarded call's answer has no type

    def _sync(self) -> None:
        self._pg.pipeline_sync()
        self._pending.append(None)
        if self._pg.flush():
            self._wait(lambda: self._pg.flush() == 0, writing=True)

    def _one(self) -> PGresult | None:
        """A statement's answer, and the end of it."""
        found = self._result()
        if self._result() is not None:
            raise psycopg.OperationalError("the server answers more than was asked")
        return found

    def _result(self) -> PGresult | None:
        if self._pg.is_busy():
            self._wait(lambda: not self._pg.is_busy(), writing=False)
        return self._pg.get_result()

    def _wait(self, done: Callable[[], bool], *, writing: bool) -> None:
        poll = select.poll()
        poll.register(self._pg.socket, select.POLLIN | select.POLLOUT if writing else select.POLLIN)
        deadline = time.monotonic() + self._within
        while not done():
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise psycopg.OperationalError(f"no answer within {self._within:g} s")
            self._pg.consume_input()

    def _guarded(self, call: Callable[[], Any]) -> Any:
        """Whatever goes wrong half-way (an interrupt too) leaves a conversation that nobody can continue."""
        try:
            return call()
        except psycopg.Error as error:
            self.lost = True
            raise Failure(str(error).strip(), lost=True) from error
        except BaseException:
            self.lost = True
            raise

    def _failure(self, result: PGresult) -> Failure:
        def field(which: pq.DiagnosticField) -> str:
            return (result.error_field(which) or b"").decode("utf-8", "replace")

        severity = field(pq.DiagnosticField.SEVERITY_NONLOCALIZED)
        self.lost = self.lost or severity in ("FATAL", "PANIC") or self._pg.status == pq.ConnStatus.BAD
        text = field(pq.DiagnosticField.MESSAGE_PRIMARY) or result.get_error_message().strip()
        return Failure(text, field(pq.DiagnosticField.SQLSTATE), lost=self.lost)


def _text(value: Any) -> bytes:
    if not isinstance(value, str):
        raise TypeError(f"text wanted, not {type(value).__name__}")
    return value.encode()


def _integer(size: int) -> Callable[[Any], bytes]:
    def write(value: Any) -> bytes:
        if not isinstance(value, int):
            raise TypeError(f"a whole number wanted, not {type(value).__name__}")
        return value.to_bytes(size, "big", signed=True)

    return write


def _bytes(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError(f"bytes wanted, not {type(value).__name__}")
    return value


def _texts(value: Any) -> bytes:
    """An array in the server's binary form: dimensions, nulls, element type, length, first index, elements."""
    parts = [_number(1), _number(0), _number(TEXT), _number(len(value)), _number(1)]
    for text in value:
        encoded = _text(text)
        parts += (_number(len(encoded)), encoded)
    return b"".join(parts)


def _number(value: int) -> bytes:
    return value.to_bytes(4, "big")


def _read_integer(value: bytes) -> int:
    return int.from_bytes(value, "big", signed=True)


def _read_text(value: bytes) -> str:
    return str(value, "utf-8")


# The server's numbers of the types that the book uses; values travel in binary, where text has a length and cannot be cut short by a NUL.
BOOL, BYTEA, INT8, INT2, INT4, TEXT, TEXTS = 16, 17, 20, 21, 23, 25, 1009
WRITERS: Final[dict[int, Callable[[Any], bytes]]] = {
    BYTEA: _bytes,
    INT8: _integer(8),
    INT4: _integer(4),
    TEXT: _text,
    TEXTS: _texts,
}
READERS: Final[dict[int, Callable[[bytes], Any]]] = {
    BOOL: lambda value: value == b"\1",
    BYTEA: bytes,
    INT8: _read_integer,
    INT2: _read_integer,
    INT4: _read_integer,
    TEXT: _read_text,
    19: _read_text,  # name: what the catalog calls things
    2278: _read_text,  # void: of functions that only do something
}
BINARY: Final = [pq.Format.BINARY] * 64
DONE: Final = (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK)
