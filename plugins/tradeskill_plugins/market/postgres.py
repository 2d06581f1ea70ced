"""A book's database on a PostgreSQL server: the promises of `tradeskill.sqlite.SqliteFile`, kept for any number of processes and machines."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar

from tradeskill.errors import StateError, StorageError, UnavailableError, UnknownOutcomeError
from tradeskill.sqlite import PATIENCE, Layout
from tradeskill_plugins.market.postgres_address import DAMAGE, Address
from tradeskill_plugins.market.postgres_notices import Notices
from tradeskill_plugins.market.postgres_session import Failure, Session
from tradeskill_plugins.market.postgres_sql import POSTGRES, definition

__all__ = ["POSTGRES", "SCHEMA", "PostgresDatabase"]

T = TypeVar("T")
SCHEMA: Final = "tradeskill_relay"
ATTEMPTS: Final = 3  # to begin; a server that was restarted leaves dead connections behind
VIEW: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"

# One writer at a time among all processes, from before its first read until its commit is visible to everybody: PostgreSQL lets go of a
# transaction's locks only after that. Hence a step may read and then write, and the numbers that changes take become visible in their
# order, which the book's cursors rest on. It makes READ COMMITTED enough: each statement sees all that was committed before the lock came.
LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended(?, 0)) AS held"

LAYOUT: Final = 'CREATE TABLE "{schema}".layout (application_id BIGINT NOT NULL, version BIGINT NOT NULL)'
TABLES: Final = """SELECT c.relname AS name FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = CAST(? AS TEXT) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')"""
PRESENT: Final = "SELECT 1 AS present FROM pg_namespace WHERE nspname = CAST(? AS TEXT)"


class PostgresDatabase:
    """One database, readable and writable from any thread; every call is one whole transaction and blocks until it is done.

    A lost connection is made anew by the next call. It needs the server itself: a pooler that shares connections between transactions
    forgets their settings and never passes on a notice.
    """

    alone: Final = False  # others can always write here

    def __init__(
        self,
        dsn: str,
        layout: Layout,
        *,
        schema: str = SCHEMA,
        where: str = "",
        readers: int = 2,
        patience: float = PATIENCE,
        prepare: Callable[[Session], None] = lambda session: None,
    ) -> None:
        """`dsn`: as libpq takes it. `schema`: made if need be; several fit in one database. `prepare` runs in the transaction of the migrations."""
        self._address = Address(dsn, schema, where)
        self.where = self._address.where
        self._patience, self._mark = patience, secrets.token_hex(8)
        self._own = self._others = 0
        self._listeners: dict[int, Callable[[], None]] = {}
        self._broken: StorageError | None = None
        self._closed = False
        self._writer: list[Session] = []  # at most one: a lost one is taken out
        self._readers: list[list[Session]] = [[] for _ in range(readers)]
        self._locks = {id(place): threading.RLock() for place in (self._writer, *self._readers)}
        self._notices: Notices | None = None
        try:
            self._set_up(layout, prepare)
            self._notices = Notices(self._address, self._mark, patience, self._heard)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Safe to call twice; waits for what runs. Not to be called by a listener."""
        self._closed = True
        if self._notices is not None:
            self._notices.close()
        for place in (self._writer, *self._readers):
            with self._locks[id(place)]:
                _drop(place)

    def read(self, function: Callable[[Session], T], reader: int = 0) -> T:
        """`function` on one consistent view. Readers do not hold each other up."""
        place = self._readers[reader]
        with self._locks[id(place)], self._translated():
            session = self._begin(place, lambda session: session.execute(VIEW))
            try:
                return function(session)
            finally:
                with suppress(Failure):  # the next call connects anew
                    if not session.lost:
                        session.execute("ROLLBACK")
                        session.send()  # nothing hangs on it, so its answer is read by the next call
                if session.lost:
                    _drop(place)

    def run(self, functions: Sequence[Callable[[Session], Any]], before: Callable[[Session], None] = lambda session: None) -> list[Any]:
        """All `functions` in one durable commit, each with its own savepoint; an element is a value, or the exception of that one alone.

        An error of the server or the connection is everybody's: raised, and nothing was taken. Only UnknownOutcomeError says that the
        connection was lost while the server was asked to commit: then everything was taken, or nothing.
        """
        with self._locks[id(self._writer)], self._translated():
            if self._broken is not None:
                raise StorageError(str(self._broken)) from self._broken
            session = self._begin(self._writer, self._take_lock)
            try:
                before(session)
                session.settle()
                outcomes = [self._one(session, function) for function in functions]
            except BaseException:
                self._roll_back()
                raise
            self._commit(session)
            self._own += 1
        self._tell()
        return outcomes

    def version(self, reader: int = 0) -> tuple[int, int]:
        """Differs from its last value soon after anybody committed, in this process or another. Asks nobody."""
        if self._closed:
            raise self._gone()
        return self._others, self._own

    @contextmanager
    def listening(self, listener: Callable[[], None]) -> Iterator[None]:
        """Calls `listener` after every commit: through this object in the thread that committed, by others in a thread of its own. It must not raise."""
        self._listeners[id(listener)] = listener
        try:
            yield
        finally:
            del self._listeners[id(listener)]

    # inside

    def _begin(self, place: list[Session], start: Callable[[Session], object]) -> Session:
        """A session in which `start` has begun a transaction. Nothing was done yet, so a connection that turns out dead is replaced."""
        for attempt in range(ATTEMPTS):
            if not place:
                place.append(self._address.connect(self._patience))
            session = place[0]
            try:
                start(session)
                session.settle()
                return session
            except Failure as failure:
                if not failure.lost:
                    self._roll_back(place)
                    raise
                _drop(place)
                if attempt == ATTEMPTS - 1:
                    raise
            except BaseException:
                _drop(place)
                raise
        raise AssertionError("the last attempt returns or raises")

    def _take_lock(self, session: Session) -> None:
        session.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
        session.execute(LOCK, (f"tradeskill/{self._address.schema}",))

    def _one(self, session: Session, function: Callable[[Session], Any]) -> Any:
        session.execute("SAVEPOINT step")
        try:
            outcome = function(session)
            refusable = session.unanswered
            session.execute("RELEASE step")
            if refusable:  # before the next step begins, so that a refusal is this one's
                session.settle()
            return outcome
        except Failure as failure:
            if failure.lost or not failure.sqlstate.startswith(("22", "23", "54")):
                raise
            # what a step wrote down contradicts the tables or cannot be held by them
            outcome = StateError(f"{self.where} refused a step that contradicts what it holds: {failure.text}")
        except Exception as error:  # noqa: BLE001  # whatever it is, it is its caller's alone
            outcome = error
        session.execute("ROLLBACK TO step")
        session.execute("RELEASE step")
        return outcome

    def _commit(self, session: Session) -> None:
        """One message; the server skips the COMMIT if the NOTIFY fails."""
        session.execute(f"NOTIFY {self._address.channel}, '{self._mark}'")
        answer = session.ask("COMMIT")
        try:
            session.settle()
        except Failure as failure:
            lost = failure.lost
            self._roll_back()
            if not lost:
                raise
            raise UnknownOutcomeError(f"{self.where} was lost during a commit, so it is not known whether it took the step: ask again") from failure
        except BaseException:
            _drop(self._writer)
            raise
        if answer.command != "COMMIT":
            _drop(self._writer)
            raise StorageError(f"{self.where} undid a transaction that it was to commit: check the server's log; nothing was acknowledged")

    def _roll_back(self, place: list[Session] | None = None) -> None:
        place = self._writer if place is None else place
        try:
            if place and not place[0].lost:
                place[0].execute("ROLLBACK")
                place[0].settle()
        except Failure:
            _drop(place)
        except BaseException:
            _drop(place)
            raise
        if place and place[0].lost:
            _drop(place)

    def _set_up(self, layout: Layout, prepare: Callable[[Session], None]) -> None:
        with self._locks[id(self._writer)], self._translated():
            session = self._begin(self._writer, self._take_lock)
            try:
                self._migrate(session, layout)
                prepare(session)
                session.settle()
            except BaseException:
                self._roll_back()
                raise
            self._commit(session)

    def _migrate(self, session: Session, layout: Layout) -> None:
        """Inside the transaction that holds the lock: what another process did meanwhile is seen here and not done again."""
        schema = self._address.schema
        if session.execute(PRESENT, (schema,)).fetchone() is None:
            session.script(f'CREATE SCHEMA "{schema}"')
        tables = {row["name"] for row in session.execute(TABLES, (schema,)).fetchall()}
        if "layout" not in tables and tables:
            raise StorageError(f"{self.where} holds another program's tables: give another schema")
        version = 0
        if tables:
            row = session.execute("SELECT application_id, version FROM layout").fetchone()
            if row is None or row["application_id"] != layout.application_id:
                raise StorageError(f"{self.where} is another program's database: give another schema")
            version = row["version"]
        newest = len(layout.migrations)
        if version > newest:
            raise StorageError(f"{self.where} has version {version}, this program knows {newest}: upgrade tradeskill")
        if version == newest:
            return
        if not tables:
            session.script(LAYOUT.format(schema=schema))
            session.execute("INSERT INTO layout (application_id, version) VALUES (?, 0)", (layout.application_id,))
        for statements in layout.migrations[version:]:
            for statement in statements:
                for text in definition(statement):
                    session.script(text)
        session.execute("UPDATE layout SET version = ?", (newest,))

    def _heard(self) -> None:
        self._others += 1
        with suppress(Exception):  # a listener's trouble must not end the listening
            self._tell()

    def _tell(self) -> None:
        for listener in list(self._listeners.values()):
            listener()

    def _gone(self) -> UnavailableError:
        return UnavailableError(f"{self.where} is closed: open it again")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        if self._closed:
            raise self._gone()
        try:
            yield
        except Failure as failure:
            error = self._address.error(failure)
            if failure.sqlstate in DAMAGE and isinstance(error, StorageError):
                self._broken = self._broken or error
            raise error from failure


def _drop(place: list[Session]) -> None:
    while place:
        place.pop().close()
