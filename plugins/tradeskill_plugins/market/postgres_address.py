"""Where a PostgreSQL database is, how to connect to it, and how its failures become our errors. No password gets into any of them."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tradeskill.errors import ConfigError, StorageError, TradeskillError, UnavailableError
from tradeskill_plugins.market.postgres_ahead import BookSession
from tradeskill_plugins.market.postgres_session import Failure, Session

__all__ = ["Address"]

ANSWER_WITHIN: Final = 60.0  # seconds; a server that says nothing for so long is gone
_EXAMPLE: Final = "give one such as postgresql://user:password@host/database, with %40 for @ and %2F for / in a password"
_PLAIN: Final = re.compile(r"[A-Za-z0-9_./:,\[\]~ +-]*", re.ASCII)
_SCHEMA: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}", re.ASCII)
DEFAULTS: Final = {
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "target_session_attrs": "read-write",  # of several hosts the one that takes writes
    "client_encoding": "UTF8",
    "application_name": "tradeskill",
}
# Every statement has an index to walk, row by row. A plan made while a table was small would scan it all the same and be kept while it grows;
# one that hashes, sorts or keeps rows aside would read all offers for a page of twenty.
SESSION: Final = """SET search_path TO "{schema}"; SET synchronous_commit TO {commit}; SET lock_timeout TO {patience};
    SET idle_in_transaction_session_timeout TO 60000; SET statement_timeout TO 0; SET jit TO off; SET enable_seqscan TO off;
    SET enable_hashjoin TO off; SET enable_mergejoin TO off; SET enable_sort TO off; SET enable_material TO off; SET enable_memoize TO off;
    SET max_parallel_workers_per_gather TO 0"""
BUSY: Final = ("55P03", "40001", "40P01", "57014", "53300", "53200", "53000", "57P03", "25006")
DENIED: Final = ("28", "42501", "3D000")
DAMAGE: Final = ("XX001", "XX002")


class Address:
    """`where` names host, database and schema, for errors, after what the caller calls it."""

    def __init__(self, dsn: str, schema: str, where: str = "") -> None:
        """ConfigError for an address that cannot be read; its text is not repeated, as any part of it may be a password."""
        if not _SCHEMA.fullmatch(schema):
            raise ConfigError(f"the schema {schema!r} must be 1 to 63 lowercase letters, digits and _, no digit first")
        known = _parsed(dsn)
        self._conninfo = make_conninfo("", **{**DEFAULTS, **known})
        self._user = known.get("user") or "its default user"
        self.database = known.get("dbname") or known.get("user") or "its default database"
        host = known.get("host") or known.get("hostaddr") or "this machine"
        self.schema = schema
        place = f"PostgreSQL database {self.database} on {host}, schema {schema}"
        self.where = f"{where} ({place})" if where else place
        self.channel = f"tradeskill_{zlib.crc32(schema.encode()):08x}"

    def connect(self, patience: float) -> Session:
        """UnavailableError when nobody is there or it takes no more, ConfigError for a wrong user, password or database."""
        try:
            connection: psycopg.Connection[Any] = psycopg.connect(self._conninfo, autocommit=True)
        except psycopg.Error as error:
            refusal = self._refusal(str(error))
        else:
            return self._prepared(connection, patience)
        raise refusal  # outside of the handler: what libpq says is not chained, it may quote the address

    @contextmanager
    def translated(self) -> Iterator[None]:
        """What a session raises becomes an error of ours."""
        try:
            yield
        except Failure as failure:
            raise self.error(failure) from failure

    def error(self, failure: Failure) -> TradeskillError:
        state, said = failure.sqlstate, f"({failure.sqlstate or 'no answer'}: {failure.text})"
        if state in BUSY:
            return UnavailableError(f"{self.where} is busy or kept locked by another process {said}: try again")
        if failure.lost:
            return UnavailableError(f"{self.where} was lost, nothing was taken {said}: try again")
        if state == "53100":
            return StorageError(f"{self.where} cannot grow, the server's disk is full: free space and try again; nothing was changed")
        if state.startswith(DENIED):
            return ConfigError(f"{self.where} does not let {self._user} do this {said}: grant CREATE and USAGE on the schema, or give another user")
        return StorageError(f"{self.where} failed {said}: check the server and its log; nothing was acknowledged")

    def _prepared(self, connection: psycopg.Connection[Any], patience: float) -> Session:
        session = BookSession(connection, ANSWER_WITHIN + patience)
        try:
            with self.translated():
                session.script("BEGIN")  # what a setting needs to be read from, and one flush less
                chosen = str(session.execute("SELECT current_setting('synchronous_commit') AS value").fetchall()[0]["value"])
                # an administrator may ask for more than this machine's disk, never for less
                commit = "on" if chosen in ("off", "local") else chosen
                session.script(f"COMMIT; {SESSION.format(schema=self.schema, commit=commit, patience=int(patience * 1000))}")
        except BaseException:
            session.close()
            raise
        return session

    def _refusal(self, said: str) -> TradeskillError:
        """libpq gives no code for a refused connection, only the server's words. Where they are not English, it counts as unavailable."""
        if re.search(r"password|authentication|pg_hba|no password supplied", said):
            return ConfigError(f"{self.where} refuses {self._user}: check user and password (PGPASSWORD and ~/.pgpass work too)")
        if re.search(r'role ".*" does not exist|not permitted to log in', said):
            return ConfigError(f"{self.where} knows no user {self._user}: create the role, or give another user")
        if re.search(r'database ".*" does not exist|permission denied for database', said):
            return ConfigError(f"{self.where}: there is no such database for {self._user}: create it with createdb, or give another name")
        if re.search(r"invalid .*(value|option)", said):
            return ConfigError(f"the PostgreSQL address has an option with a wrong value: {_EXAMPLE}")
        if re.search(r"starting up|shutting down|in recovery|too many|remaining connection slots", said):
            return UnavailableError(f"{self.where} takes no connections now: try again")
        if re.search(r"read-only|standby", said):
            return UnavailableError(f"{self.where} is read-only, a standby: give the address of the primary, or try again once there is one")
        return UnavailableError(f"{self.where} cannot be reached: check that the server runs and takes connections there, then try again")


def _parsed(dsn: str) -> dict[str, str]:
    known: dict[str, str] | None = None
    with suppress(psycopg.Error, ValueError):
        known = {name: str(value) for name, value in conninfo_to_dict(dsn).items() if value is not None}
    if known is None or "\0" in dsn:
        raise ConfigError(f"the PostgreSQL address cannot be read: {_EXAMPLE}")
    # a password with @ or / that is not encoded ends up in these
    shown = {name: known.get(name, "") for name in ("host", "hostaddr", "port", "user", "dbname")}
    odd = [name for name, value in shown.items() if not _PLAIN.fullmatch(value)]
    if odd or re.search(r"[^0-9,]", shown["port"]):
        raise ConfigError(f"the PostgreSQL address has an unusual {odd[0] if odd else 'port'}: {_EXAMPLE}")
    return known
