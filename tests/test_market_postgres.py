"""The book on a real PostgreSQL server: the market's contract, the races, and what the database promises whatever happens to the server.

Past 400 lines because each promise of `PostgresDatabase` is tried on the real thing, one beside the other.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from tests.postgres import PATIENCE, PostgresServer, served
from tests.test_market_races import SELLER, Clerk, hold_contests, processes, together
from tradeskill.errors import ConfigError, NetworkMismatchError, StateError, StorageError, TradeskillError, UnavailableError, UnknownOutcomeError
from tradeskill.sqlite import Layout
from tradeskill.testing.market_contract import MarketContract, MarketFor, SteppedClock
from tradeskill.world import World
from tradeskill_plugins.market import entries, postgres_address, postgres_session, schema
from tradeskill_plugins.market.book import Book, Search
from tradeskill_plugins.market.embedded import EmbeddedMarket
from tradeskill_plugins.market.postgres import POSTGRES, PostgresDatabase
from tradeskill_plugins.market.postgres_sql import definition, statement, trigrams
from tradeskill_plugins.market.store import open_memory, open_postgres
from tradeskill_plugins.relay.server import tables

NAMES = (f"s{n}" for n in itertools.count())
THINGS = Layout(7, (("CREATE TABLE things (name TEXT PRIMARY KEY, size INTEGER NOT NULL, data BLOB) STRICT", *schema.MIGRATIONS[0]),))
ADD = "INSERT INTO things (name, size) VALUES (?, ?)"
ALL = "SELECT name FROM things ORDER BY name"


@pytest.fixture
def name() -> str:
    """A schema of the test's own, made when it opens a database there."""
    return next(NAMES)


@pytest.fixture
def database(postgres: PostgresServer, name: str) -> Iterator[PostgresDatabase]:
    with closing(PostgresDatabase(postgres.dsn(), THINGS, schema=name)) as opened:
        yield opened


@pytest.fixture(scope="module")
def mortal(postgres: PostgresServer) -> Iterator[PostgresServer]:
    """A server that tests may kill."""
    with served() as server:
        yield server


def things(database: PostgresDatabase) -> list[str]:
    return database.read(lambda db: [row["name"] for row in db.execute(ALL).fetchall()])


def until(happened: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.005)


def add(name: str, size: int = 1) -> Callable[[Any], Any]:
    return lambda db: db.execute(ADD, (name, size)) and name


class TestMarketOnPostgres(MarketContract):
    @pytest.fixture
    def market_for(self, clock: SteppedClock, postgres: PostgresServer, name: str) -> Iterator[MarketFor]:
        store = open_postgres(postgres.dsn(), clock, name=name)
        yield lambda identity: EmbeddedMarket(store, identity, clock)
        store.close()


# races


def test_of_two_threads_one_wins_every_contest(postgres: PostgresServer, name: str) -> None:
    hold_contests(f"{postgres.dsn()}|{name}", 10)


def test_a_reader_beside_three_writing_processes_misses_no_change(postgres: PostgresServer, name: str) -> None:
    place = f"{postgres.dsn()}|{name}"
    with closing(Clerk(place, SELLER)) as seller:
        seller.call("publish", argument="o")
        with processes(place, "buyer", 3) as clerks:
            done = threading.Event()
            seen: list[tuple[str, int]] = []

            def read_along() -> None:
                store = seller.market._opened()
                cursor = 0
                while True:
                    last = done.is_set()
                    found = store.read(lambda book, since=cursor: book.changed(SELLER.key, since, 7))
                    seen.extend(found)
                    cursor = found[-1][1] if found else cursor
                    if last and not found:
                        return

            reader = threading.Thread(target=read_along)
            reader.start()
            answers = together(clerks, [{"call": "lifecycle", "job_id": f"p{n}", "argument": "60"} for n in range(3)])
            done.set()
            reader.join(PATIENCE)
        assert [answer["ok"] for answer in answers] == [True] * 3, answers
        there = seller.market._opened().read(lambda book: book.changed(SELLER.key, 0))
        assert [number for _, number in seen] == sorted({number for _, number in seen})
        assert dict(seen) == dict(there)  # the last change of every job was seen
        assert len(there) == 90


# one step's trouble is its own


def test_a_refused_step_takes_nothing_from_the_others(database: PostgresDatabase) -> None:
    def fails(db: Any) -> None:
        db.execute(ADD, ("half", 1))
        raise KeyError("mine")

    def refused_at_once(db: Any) -> None:
        db.execute(ADD, ("half", 1))
        assert db.execute(ADD, ("a", 2)).rowcount == 1

    first, twice, own, last = database.run([add("a"), refused_at_once, fails, add("b")])
    assert (first, last) == ("a", "b")
    assert isinstance(twice, StateError)
    assert "things_pkey" in str(twice)
    assert isinstance(own, KeyError)
    assert things(database) == ["a", "b"]


def test_a_refusal_that_nobody_looked_for_is_its_own_steps(database: PostgresDatabase) -> None:
    database.run([add("warm"), add("er")])  # a statement's first use asks the server at once
    twice, after = database.run([lambda db: (add("a")(db), add("a")(db)), add("b")])
    assert isinstance(twice, StateError)
    assert after == "b"
    assert things(database) == ["b", "er", "warm"]


def test_a_step_may_take_back_a_part_of_itself_even_one_that_was_refused_unseen(database: PostgresDatabase) -> None:
    def partly(db: Any) -> str:
        add("kept")(db)
        db.execute("SAVEPOINT act")
        add("kept")(db)  # refused, but nobody looks
        db.execute("ROLLBACK TO act")
        db.execute("RELEASE act")
        return "taken"

    assert database.run([partly]) == ["taken"]
    assert things(database) == ["kept"]


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        (("a", 2**63), OverflowError),
        (("a", "1"), TypeError),
        ((1, 1), TypeError),
        (("a\0b", 1), StateError),
        (("\ud800", 1), UnicodeError),
        (("a",), ValueError),
    ],
)
def test_a_value_that_no_column_holds_is_the_steps_own_trouble(database: PostgresDatabase, parameters: Any, error: type[Exception]) -> None:
    bad, good = database.run([lambda db: db.execute(ADD, parameters), add("good")])
    assert isinstance(bad, error)
    assert good == "good"
    assert things(database) == ["good"]


def test_values_come_back_as_they_went_in(database: PostgresDatabase) -> None:
    data = bytes(range(256))
    text = "%s %(x)s ? :name \\ ' \" 🐌 é"

    def write(db: Any) -> dict[str, Any]:
        db.execute("INSERT INTO things (name, size, data) VALUES (:name, :size, :data)", {"name": text, "size": -(2**63), "data": data})
        row = db.execute("SELECT name, size, data, NULL AS nothing, '?:x' AS literal FROM things WHERE data = ?", (data,)).fetchone()
        return dict(row)

    assert database.run([write]) == [{"name": text, "size": -(2**63), "data": data, "nothing": None, "literal": "?:x"}]


def test_numbers_are_counted_up_without_gaps_through_refused_steps(database: PostgresDatabase) -> None:
    def count(db: Any) -> int:
        return int(db.execute(schema.COUNT_UP, ("change",)).fetchone()["value"])

    def count_and_fail(db: Any) -> None:
        count(db)
        count(db)
        raise KeyError

    outcomes = database.run([count, count_and_fail, count, count, count_and_fail, lambda db: (count(db), count(db))])
    assert [outcome for outcome in outcomes if not isinstance(outcome, KeyError)] == [1, 2, 3, (4, 5)]
    assert database.run([count]) == [6]
    with closing(PostgresDatabase(f"{database._address._conninfo}", THINGS, schema=database._address.schema)) as other:
        assert other.run([count]) == [7]
    assert database.run([count]) == [8]


def test_a_prediction_that_does_not_hold_stops_the_commit(database: PostgresDatabase) -> None:
    def count(db: Any) -> None:
        db.execute(schema.COUNT_UP, ("change",)).fetchone()
        db.execute("UPDATE counters SET value = value + 10 WHERE name = ?", ("change",))
        db.execute(schema.COUNT_UP, ("change",)).fetchone()

    with pytest.raises(StorageError, match="expected"):
        database.run([count, add("a")])
    assert things(database) == []


def test_what_was_asked_ahead_is_not_older_than_a_write(database: PostgresDatabase) -> None:
    def step(db: Any) -> list[str]:
        db.execute(schema.JOB, ("j",)).fetchone()
        db.execute(schema.PAPER_ADD, ("j", "request", "{}"))
        return [row["kind"] for row in db.execute(schema.PAPERS, ("j",)).fetchall()]

    assert database.run([step]) == [["request"]]


def test_more_kinds_of_statements_than_are_kept_ready_still_run(database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_session, "PREPARED", 5)
    for n in range(20):
        database.run([lambda db, n=n: db.execute(f"INSERT INTO things (name, size) VALUES (?, {n})", (f"{n:02}",))])
    assert len(things(database)) == 20


# views, notices, closing


def test_a_reader_keeps_its_view_while_others_write(database: PostgresDatabase) -> None:
    def look(db: Any) -> tuple[int, int]:
        before = len(db.execute(ALL).fetchall())
        database.run([add("meanwhile")])
        return before, len(db.execute(ALL).fetchall())

    assert database.read(look) == (0, 0)
    assert things(database) == ["meanwhile"]


def test_a_commit_is_heard_by_every_other_database_object(postgres: PostgresServer, name: str) -> None:
    with (
        closing(PostgresDatabase(postgres.dsn(), THINGS, schema=name)) as one,
        closing(PostgresDatabase(postgres.dsn(), THINGS, schema=name)) as other,
        closing(PostgresDatabase(postgres.dsn(), THINGS, schema=next(NAMES))) as stranger,
    ):
        own: list[int] = []
        heard = threading.Event()
        foreign = threading.Event()
        before, strangers = other.version(), stranger.version()
        with one.listening(lambda: own.append(threading.get_ident())), other.listening(heard.set), stranger.listening(foreign.set):
            mine = one.version()
            one.run([add("a")])
            assert one.version() != mine
            assert heard.wait(PATIENCE)
            assert other.version() != before
            assert own == [threading.get_ident()], "once, in the thread that committed"
            heard.clear()
        one.run([add("b")])
        until(lambda: other.version()[0] == before[0] + 2)
        assert not heard.is_set(), "it listens no longer"
        assert not foreign.is_set()
        assert stranger.version() == strangers


def test_a_closed_database_says_so_and_leaves_no_thread(postgres: PostgresServer, name: str) -> None:
    threads = threading.active_count()
    database = PostgresDatabase(postgres.dsn(), THINGS, schema=name)
    database.close()
    database.close()
    assert threading.active_count() == threads
    for call in (lambda: database.run([]), lambda: database.read(lambda db: None), database.version):
        with pytest.raises(UnavailableError, match="closed"):
            call()


def test_who_waits_too_long_for_another_writer_is_told_to_try_again(postgres: PostgresServer, name: str) -> None:
    with (
        closing(PostgresDatabase(postgres.dsn(), THINGS, schema=name)) as one,
        closing(PostgresDatabase(postgres.dsn(), THINGS, schema=name, patience=0.05)) as other,
    ):

        def meanwhile(db: Any) -> None:
            with pytest.raises(UnavailableError, match="try again"):
                other.run([add("late")])

        assert one.run([meanwhile]) == [None]
        assert other.run([add("now")]) == ["now"]
        assert things(one) == ["now"]


# the server in trouble


def backend(db: Any) -> int:
    return int(db.execute("SELECT pg_backend_pid() AS pid").fetchone()["pid"])


def test_a_connection_lost_before_the_commit_took_nothing_and_is_made_anew(postgres: PostgresServer, database: PostgresDatabase) -> None:
    def cut(db: Any) -> None:
        add("half")(db)
        postgres.run(f"SELECT pg_terminate_backend({backend(db)}, 10000)")
        add("more")(db).upper()
        db.execute(ALL).fetchall()

    with pytest.raises(UnavailableError, match="nothing was taken") as caught:
        database.run([add("first"), cut])
    assert not isinstance(caught.value, UnknownOutcomeError)
    assert database.run([add("again")]) == ["again"]
    assert things(database) == ["again"]


def test_dead_connections_are_replaced_before_anything_is_asked_of_them(postgres: PostgresServer, database: PostgresDatabase) -> None:
    things(database)
    before = database.version()
    postgres.run("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = 'tradeskill'")
    assert things(database) == []
    assert database.run([add("a")]) == ["a"]
    until(lambda: database.version()[0] != before[0])  # the one that listens is back, and says that it may have missed something


@pytest.mark.parametrize("killed", ["the backend", "the whole server"])
def test_a_connection_lost_during_the_commit_leaves_the_outcome_unknown(mortal: PostgresServer, name: str, killed: str) -> None:
    """The commit is held where it really happens: written down, waiting for a second server that never comes."""
    with closing(PostgresDatabase(mortal.dsn(), THINGS, schema=name)) as database:
        things(database)
        mortal.run("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        mortal.run("SELECT pg_reload_conf()")
        outcomes: list[Any] = []

        def commit() -> None:
            try:
                outcomes.append(database.run([add("a"), add("b")]))
            except TradeskillError as error:
                outcomes.append(error)

        waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        thread = threading.Thread(target=commit)
        thread.start()
        until(lambda: mortal.run(waiting) or outcomes)
        mortal.run("ALTER SYSTEM RESET synchronous_standby_names")
        if killed == "the backend":
            mortal.run(f"SELECT pg_terminate_backend({mortal.run(waiting)[0][0]}, 10000)")
        else:
            mortal.kill()
        thread.join(PATIENCE)
        assert [type(outcome) for outcome in outcomes] == [UnknownOutcomeError]
        if killed == "the backend":
            mortal.run("SELECT pg_reload_conf()")
        else:
            with pytest.raises(UnavailableError):
                things(database)
            mortal.start()
        assert things(database) == ["a", "b"], "asked again, it was taken after all"
        assert database.run([add("c")]) == ["c"]


def test_what_was_acknowledged_survives_a_killed_server_and_nothing_is_taken_half(mortal: PostgresServer, name: str) -> None:
    with closing(PostgresDatabase(mortal.dsn(), THINGS, schema=name)) as database:
        taken, unsure = set(), set()
        numbers = itertools.count()
        stop = threading.Event()

        def write() -> None:
            while not stop.is_set():
                n = next(numbers)
                pair = [f"{n:06}-a", f"{n:06}-b"]
                try:
                    database.run([add(pair[0]), add(pair[1])])
                    taken.update(pair)
                except UnknownOutcomeError:
                    unsure.update(pair)
                except UnavailableError:
                    stop.wait(0.01)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for _ in range(2):
                aim = len(taken) + 40
                until(lambda aim=aim: len(taken) >= aim)
                mortal.kill()
                mortal.start()
            aim = len(taken) + 2
            until(lambda: len(taken) >= aim)
        finally:
            stop.set()
            writer.join(PATIENCE)
        there = set(things(database))
        assert taken <= there <= taken | unsure
        assert {entry[:-1] + "a" for entry in there} | {entry[:-1] + "b" for entry in there} == there


def test_a_silent_server_counts_as_lost(mortal: PostgresServer, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_address, "ANSWER_WITHIN", 0.0)
    with closing(PostgresDatabase(mortal.dsn(), THINGS, schema=name, patience=0.5)) as database:
        stopped: list[int] = []

        def stop(db: Any) -> None:
            stopped.append(backend(db))
            os.kill(stopped[0], signal.SIGSTOP)
            db.execute(ALL).fetchall()

        try:
            with pytest.raises(UnavailableError, match="no answer"):
                database.run([stop])
        finally:
            os.kill(stopped[0], signal.SIGCONT)
        until(lambda: _tried(database, "a"))
        assert things(database) == ["a"]


def _tried(database: PostgresDatabase, name: str) -> bool:
    try:
        database.run([add(name)])
    except UnavailableError:  # the stopped one lets go of the lock when it notices
        return False
    return True


@pytest.mark.parametrize(
    ("state", "error", "words"),
    [
        ("53100", StorageError, "disk is full"),
        ("40001", UnavailableError, "try again"),
        ("42501", ConfigError, "grant"),
        ("XX000", StorageError, "nothing was acknowledged"),
    ],
)
def test_the_servers_errors_become_ours(database: PostgresDatabase, state: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        database.run([add("a"), lambda db: db.execute(f"DO $$ BEGIN RAISE EXCEPTION 'oh' USING ERRCODE = '{state}'; END $$")])
    assert things(database) == []
    assert database.run([add("b")]) == ["b"]


def test_after_damage_nothing_is_written_any_more(database: PostgresDatabase) -> None:
    with pytest.raises(StorageError):
        database.run([lambda db: db.execute("DO $$ BEGIN RAISE EXCEPTION 'oh' USING ERRCODE = 'XX001'; END $$")])
    with pytest.raises(StorageError, match="XX001"):
        database.run([add("a")])
    assert things(database) == []


# opening


def test_no_message_holds_the_password(postgres: PostgresServer, name: str) -> None:
    secret = postgres.SECRET
    host, wrong = postgres.folder, "tr0ub4dor&3"
    cases: list[tuple[str, type[TradeskillError], str]] = [
        (f"host={host} user=guarded dbname=market password={wrong}", ConfigError, "user and password"),
        (f"host={host} user=guarded dbname=market", ConfigError, "user and password"),
        (f"host={host} user=guarded dbname=nowhere password={secret}", ConfigError, "no such database"),
        (f"host={host} user=nobody_known dbname=market password={secret}", ConfigError, "nobody_known"),
        (f"host={host} user=guarded dbname=market password={secret}", ConfigError, "grant"),  # may not make a schema
        (f"host={host}/none user=guarded dbname=market password={secret}", UnavailableError, "market"),
        (f"postgresql://guarded:{secret}@127.0.0.1:1/market", UnavailableError, "127.0.0.1"),
        (f"postgresql://guarded:{secret}@no-such-host.invalid/market", UnavailableError, "no-such-host.invalid"),
        (f"postgresql://guarded:x@{secret}@localhost/market", ConfigError, "%40"),
        (f"postgresql://guarded:x/{secret}@localhost/market", ConfigError, "%2F"),
        (f"postgresql://guarded:12/{secret}@localhost/market", ConfigError, "%2F"),
        (f"postgresql://guarded:%zz{secret}@localhost/market", ConfigError, "cannot be read"),
        (f"host=localhost password=a {secret}", ConfigError, "cannot be read"),
        (f"host=localhost {secret}=x", ConfigError, "cannot be read"),
        (secret, ConfigError, "cannot be read"),
        (f"host=localhost keepalives_idle={secret}", ConfigError, "wrong value"),
        (f"host=localhost sslmode={secret}", ConfigError, "wrong value"),
    ]
    for dsn, error, words in cases:
        with pytest.raises(error, match=words) as caught:
            PostgresDatabase(dsn, THINGS, schema=name, where="relay database", patience=1.0)
        shown = "".join(traceback.format_exception(caught.value))
        said = "".join(line for line in shown.splitlines() if not line.lstrip().startswith(("File", "PostgresDatabase(")))
        for word in (secret, wrong):
            assert word not in said, f"{error.__name__} shows it"
        assert "\n" not in str(caught.value)


def test_a_schema_of_ones_own_is_enough(postgres: PostgresServer, name: str) -> None:
    """Whoever runs the server makes the schema; its user needs no right to the database."""
    postgres.run(f"CREATE SCHEMA {name} AUTHORIZATION guarded", "market")
    with closing(PostgresDatabase(postgres.dsn("guarded", password=postgres.SECRET), THINGS, schema=name)) as database:
        assert database.run([add("a")]) == ["a"]


@pytest.mark.parametrize("bad", ["", "Market", 'a"b', "1a", "a" * 64, "a;b"])
def test_a_schema_has_a_plain_name(postgres: PostgresServer, bad: str) -> None:
    with pytest.raises(ConfigError, match="schema"):
        PostgresDatabase(postgres.dsn(), THINGS, schema=bad)


def test_a_newer_version_another_kind_and_another_programs_tables_are_refused(postgres: PostgresServer, name: str) -> None:
    newer = Layout(7, (*THINGS.migrations, ("CREATE TABLE more (name TEXT PRIMARY KEY) STRICT",)))
    with closing(PostgresDatabase(postgres.dsn(), THINGS, schema=name)) as old:
        old.run([add("a")])
    with closing(PostgresDatabase(postgres.dsn(), newer, schema=name)) as upgraded:
        assert things(upgraded) == ["a"]
    with pytest.raises(StorageError, match="upgrade tradeskill"):
        PostgresDatabase(postgres.dsn(), THINGS, schema=name)
    with pytest.raises(StorageError, match="another program's database"):
        PostgresDatabase(postgres.dsn(), Layout(8, newer.migrations), schema=name)
    foreign = next(NAMES)
    postgres.run(f"CREATE SCHEMA {foreign}", "market")
    postgres.run(f"CREATE TABLE {foreign}.theirs (x int)", "market")
    with pytest.raises(StorageError, match="another program's tables"):
        PostgresDatabase(postgres.dsn(), THINGS, schema=foreign)
    assert [row[0] for row in postgres.run(f"SELECT relname FROM pg_class WHERE relnamespace = '{foreign}'::regnamespace", "market")] == ["theirs"]


def test_a_migration_cut_half_way_leaves_what_was(postgres: PostgresServer, name: str) -> None:
    broken = Layout(7, (*THINGS.migrations, ("CREATE TABLE more (name TEXT PRIMARY KEY) STRICT", "INSERT INTO nowhere VALUES (1)")))
    PostgresDatabase(postgres.dsn(), THINGS, schema=name).close()
    with pytest.raises(StorageError, match="nowhere"):
        PostgresDatabase(postgres.dsn(), broken, schema=name)
    with closing(PostgresDatabase(postgres.dsn(), THINGS, schema=name)) as database:
        assert database.run([add("a")]) == ["a"]


def test_many_open_a_new_market_at_once_and_all_get_the_same(postgres: PostgresServer, name: str) -> None:
    found: list[Any] = []

    def enter() -> None:
        with closing(open_postgres(postgres.dsn(), World(), name=name)) as store:
            found.append(store.read(lambda book: book.market_id()))

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(found) == 4
    assert len(set(found)) == 1


def test_a_market_is_bound_to_its_network(postgres: PostgresServer, name: str) -> None:
    open_postgres(postgres.dsn(), World(), "dev", name=name).close()
    with pytest.raises(NetworkMismatchError, match="dev"):
        open_postgres(postgres.dsn(), World(), "live", name=name)
    open_postgres(postgres.dsn(), World(), "dev", name=name).close()


# statements


def test_every_statement_of_market_and_relay_is_understood_by_the_server(postgres: PostgresServer, name: str) -> None:
    filled = {
        "WALK_SIZE": schema.WALK_SIZE.format(walk=schema.BY_TAG),
        "WALK_BOUNDED": schema.WALK_BOUNDED.format(walk=schema.BY_ALL),
        "SIZE": tables.SIZE.format(condition="seller = ? AND buyer = ?"),
        "LATEST": tables.LATEST.format(side="seller"),
        "LISTED": tables.LISTED.format(side="seller", more=" AND updated_at > ?"),
        "if_text": f"SELECT 1 AS one FROM offers AS o WHERE {POSTGRES.if_text}",
        **{part: f"SELECT 1 AS one FROM offers AS o WHERE {getattr(schema, part)}" for part in ("IF_SELLER", "IF_PRICING", "IF_TAG")},
        **{part: getattr(POSTGRES, part).format(walk=POSTGRES.by_text, conditions="o.active = 1") for part in ("walk", "count", "count_all")},
    }
    found = {
        key: filled.pop(key, value)
        for module in (schema, tables)
        for key, value in vars(module).items()
        if isinstance(value, str) and key.isupper() and re.match(r"[A-Z]{2,}", key) and not value.startswith("FROM")
    }
    found |= {**filled, "text_add": POSTGRES.text_add, "by_text": POSTGRES.by_text, "sample": POSTGRES.sample}
    assert len(found) > 40
    with closing(PostgresDatabase(postgres.dsn(), tables.LAYOUT, schema=name)) as database:
        for key, sql in found.items():
            database.read(lambda db, sql=sql, key=key: db._prepare(sql) and key)


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE t (a REAL) STRICT",
        "CREATE TABLE t (a TEXT DEFAULT 'x') STRICT",
        "CREATE TABLE t (a TEXT)",
        "CREATE VIRTUAL TABLE t USING fts5(x)",
        "CREATE TRIGGER x",
        "DROP TABLE t",
        "CREATE INDEX a ON t (lower(b))",
    ],
)
def test_a_definition_that_is_not_known_is_refused(sql: str) -> None:
    with pytest.raises(ValueError, match="does not know"):
        definition(sql)


def test_placeholders_are_numbered_and_literals_left_alone() -> None:
    assert statement("SELECT '?', \":a\", x::text FROM t WHERE a = ? AND b = ? -- ?").text == "SELECT '?', \":a\", x::text FROM t WHERE a = $1 AND b = $2 -- ?"
    named = statement("SELECT :b, :a, :b")
    assert (named.text, named.values({"a": 1, "b": 2, "c": 3})) == ("SELECT $1, $2, $1", [2, 1])
    with pytest.raises(ValueError, match="two kinds"):
        statement("SELECT ?, :a")
    with pytest.raises(ValueError, match="2 values wanted, 1 given"):
        statement("SELECT ?, ?").values([1])
    assert trigrams("abcd", "cd", "bcd") == ["abc", "bcd"]


# searches

CROWD = 1000
SEARCHES = [
    *(Search(text) for text in ("web", "we", "", "a%b", "100%", "_", "\\", "o'neil", "Ä", "STRASSE", "straße", "🐌🐌🐌", "zzz")),
    *(Search(text) for text in ("' OR 1=1 --", "b c d", "offer 7")),
    *(Search("", tags) for tags in (("all",), ("all", "odd"), ("seventh", "odd"), ("odd", "even"), ("none",))),
    Search("offer", ("seventh",), "s3", "quote"),
    Search(seller="s1"),
    Search(pricing_mode="fixed"),
    Search("web", active=False),
    Search(active=False),
]
TITLES = ("Web page", "a%b 100% sure", "under_score", "back\\slash", "O'Neil & Sons", "Ärger in der Straße", "🐌🐌🐌 snail", "a b c d e")


def crowd(book: Book, count: int) -> None:
    for n in range(count):
        tags = ("all", "odd" if n % 2 else "even", *(("seventh",) if n % 7 == 0 else ()))
        mode, price = ("fixed", "5") if n % 3 else ("quote", None)
        title = f"{TITLES[n % len(TITLES)]} offer {n}"
        offer = entries.OfferEntry(f"o{n}", f"s{n % 5}", title, f"description {n} web", tags, mode, price, None, None, active=n % 11 != 0)
        book.publish(offer, n)


def test_both_databases_find_the_same_in_the_same_order(postgres: PostgresServer, name: str) -> None:
    with closing(open_postgres(postgres.dsn(), World(), name=name)) as one, closing(open_memory(World())) as other:
        for store in (one, other):
            store.write(lambda book: crowd(book, 90), 0)
        for asked in SEARCHES:
            for limit, offset in ((20, 0), (3, 2), (100, 0)):
                pages = [store.read(lambda book, a=asked, n=limit, o=offset: [dict(row) for row in book.search(a, n, o)]) for store in (one, other)]
                assert pages[0] == pages[1], asked
            assert one.read(lambda book, a=asked: book.count(a)) == other.read(lambda book, a=asked: book.count(a)), asked


def test_a_text_of_old_offers_only_is_found_through_the_index(postgres: PostgresServer, name: str) -> None:
    with closing(open_postgres(postgres.dsn(), World(), name=name)) as store:
        rare = entries.OfferEntry("rare", "s", "Unicorns", "only one", (), "quote", None, None, None)
        store.write(lambda book: book.publish(rare, 0), 0)
        store.write(lambda book: crowd(book, 1200), 0)
        assert [row["offer_id"] for row in store.read(lambda book: book.search(Search("unicorn")))] == ["rare"]
        walked = store.read(lambda book: book._walk(Search("unicorn"), POSTGRES.walk)[0])
        assert "trigrams" in walked
        assert "trigrams" not in store.read(lambda book: book._walk(Search("description"), POSTGRES.walk)[0])


@pytest.mark.parametrize("analysed", [False, True])
def test_a_search_neither_sorts_nor_scans_the_offers(postgres: PostgresServer, name: str, analysed: bool) -> None:
    with closing(open_postgres(postgres.dsn(), World(), name=name)) as store:
        store.write(lambda book: crowd(book, CROWD), 0)
        if analysed:
            postgres.run(f"ANALYZE {name}.offers, {name}.offer_tags, {name}.offer_text", "market")
        every = Search("web", ("odd",), "s1", "fixed")
        for asked in (Search(), Search("", ("all",)), Search("", ("all", "seventh")), Search("web"), Search(seller="s1"), every):
            plan = store.read(lambda book, a=asked: explained(book, a))
            assert "Sort" not in plan, plan
            assert "Seq Scan" not in plan, plan
            assert "Hash" not in plan, plan
        rare = store.read(lambda book: explained(book, Search("offer 7 ")))
        assert "offer_text_trigrams" in rare, rare
        assert "Seq Scan" not in rare, rare


def test_a_plan_made_while_a_table_is_small_does_not_scan_it(postgres: PostgresServer, database: PostgresDatabase, name: str) -> None:
    """It is kept while the table grows."""
    database.run([add(f"{n}") for n in range(20)])
    postgres.run(f"ANALYZE {name}.things", "market")
    plan = database.read(lambda db: db.execute("EXPLAIN SELECT size FROM things WHERE name = ?", ("7",)).fetchall())
    assert "Index" in plan[0]["QUERY PLAN"]


def explained(book: Book, asked: Search) -> str:
    sql, values = book._walk(asked, POSTGRES.walk)
    return "\n".join(row["QUERY PLAN"] for row in book._db.execute(f"EXPLAIN {sql}", [*values, 20, 0]).fetchall())

