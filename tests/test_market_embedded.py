"""The embedded market as a plugin and as a file: settings, rights, networks, damage, a full disk, a held lock, large markets.

Past 400 lines because it is all that can happen to one file that many processes share.
"""

from __future__ import annotations

import asyncio
import sqlite3
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tradeskill.agreement import sign_offer, sign_request
from tradeskill.contracts import Market, PluginContext
from tradeskill.errors import ConfigError, NetworkMismatchError, StateError, StorageError, UnavailableError, UsageError
from tradeskill.model import Network, SignedDocument
from tradeskill.signing import Identity
from tradeskill.testing.market_contract import SteppedClock
from tradeskill.testing.virtual_time import VirtualWorld, run_virtual
from tradeskill.world import World
from tradeskill_plugins.market import schema
from tradeskill_plugins.market.book import Book, Search
from tradeskill_plugins.market.embedded import EmbeddedMarket, tradeskill_capabilities, tradeskill_open_market
from tradeskill_plugins.market.entries import OfferEntry
from tradeskill_plugins.market.signed import offer_entry, offer_of, request_entry
from tradeskill_plugins.market.store import Store, open_file, open_memory, open_sqlite

SELLER, BUYER = Identity(b"s" * 32), Identity(b"b" * 32)
NOW = 1_700_000_000_000
T = TypeVar("T")


def offer_document(offer_id: str = "o", network: Network = "dev", **changes: Any) -> SignedDocument:
    terms: dict[str, Any] = {"title": "t", "description": "d", "tags": [], "prices": (), "input_schema": {}, "pure": True, "trusted": True, "created_at": NOW}
    return sign_offer(SELLER, offer_id=offer_id, network=network, **{**terms, **changes})


def context(home: Path, network: Network = "dev") -> PluginContext:
    return PluginContext("embedded", network, home, World(), SELLER, lambda: "")


# the plugin


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({}, "market.path"),
        ({"path": ""}, "market.path"),
        ({"path": 5}, "market.path"),
        ({"path": "a\0b"}, "market.path"),
        ({"path": "m", "url": "x"}, "market.url"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        tradeskill_open_market(settings, context(tmp_path))


def test_opening_the_plugin_touches_no_disk_until_it_is_opened(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "market.db"
    market = tradeskill_open_market({"path": str(file)}, context(tmp_path))
    assert isinstance(market, Market)
    assert list(tmp_path.iterdir()) == []

    async def use() -> None:
        await market.open()
        await market.publish(offer_document())
        await market.close()
        await market.close()
        with pytest.raises(UnavailableError):
            await market.search()

    asyncio.run(use())
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_capabilities_are_told_with_their_reasons() -> None:
    told = {capability.name: capability.value for capability in tradeskill_capabilities()}
    assert told == {
        "authoritative": True,
        "lock": True,
        "market_fence": True,
        "inline_result": 4 * 2**20,
        "proof_bytes": 16_384,
        "withdraw": True,
        "decline": True,
    }
    assert all(capability.reason for capability in tradeskill_capabilities())


# the file


def test_a_file_belongs_to_the_network_it_was_made_for(tmp_path: Path) -> None:
    open_file(tmp_path / "m.db", World(), "dev").close()
    with pytest.raises(NetworkMismatchError, match="'dev'"):
        open_file(tmp_path / "m.db", World(), "live")
    store = open_file(tmp_path / "m.db", World(), "dev")
    with pytest.raises(NetworkMismatchError):
        store.write(lambda book: book.publish(offer_entry(offer_document(network="test"), SELLER.key), NOW), NOW)
    store.close()


def test_a_cursor_of_another_file_is_refused(tmp_path: Path) -> None:
    one, other = open_file(tmp_path / "1.db", World()), open_file(tmp_path / "2.db", World())
    cursor = one.read(lambda book: book.changes(BUYER.key, "")).cursor
    assert one.read(lambda book: book.changes(BUYER.key, cursor)).rows == ()
    with pytest.raises(UsageError, match="start again"):
        other.read(lambda book: book.changes(BUYER.key, cursor))
    one.close()
    other.close()


def test_a_cursor_from_before_a_rollback_of_the_file_is_refused_not_skipped(tmp_path: Path) -> None:
    store = open_file(tmp_path / "m.db", World())
    ahead = store.read(lambda book: book.changes(BUYER.key, "")).cursor[:-1] + "7"
    with pytest.raises(UsageError, match="older copy"):
        store.read(lambda book: book.changes(BUYER.key, ahead))
    store.close()


def test_another_programs_file_and_garbage_are_left_alone(tmp_path: Path) -> None:
    foreign = sqlite3.connect(tmp_path / "foreign.db")
    foreign.execute("CREATE TABLE theirs (x)")
    foreign.commit()
    foreign.close()
    with pytest.raises(StorageError, match="another program"):
        open_file(tmp_path / "foreign.db", World())
    (tmp_path / "garbage.db").write_bytes(b"not a database, but long enough to be looked at\n" * 100)
    with pytest.raises(StorageError, match=r"garbage\.db"):
        open_file(tmp_path / "garbage.db", World())
    with pytest.raises(StorageError, match="cannot be opened"):
        open_file(tmp_path, World())
    check = sqlite3.connect(tmp_path / "foreign.db")
    assert [row[0] for row in check.execute("SELECT name FROM sqlite_schema")] == ["theirs"]
    check.close()


def test_a_newer_file_is_not_opened(tmp_path: Path) -> None:
    open_file(tmp_path / "m.db", World()).close()
    connection = sqlite3.connect(tmp_path / "m.db")
    connection.execute(f"PRAGMA user_version = {len(schema.MIGRATIONS) + 1}")
    connection.close()
    with pytest.raises(StorageError, match="upgrade"):
        open_file(tmp_path / "m.db", World())


def test_a_migration_cut_half_way_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = schema.MIGRATIONS
    monkeypatch.setattr(schema, "MIGRATIONS", (*good, ("CREATE TABLE later (x)", "CREATE TABLE broken (")))
    with pytest.raises(StorageError):
        open_file(tmp_path / "m.db", World())
    monkeypatch.setattr(schema, "MIGRATIONS", good)
    store = open_file(tmp_path / "m.db", World())
    names = store.read(lambda book: {row["name"] for row in book._db.execute("SELECT name FROM sqlite_schema")})
    assert "jobs" in names
    assert "later" not in names
    store.close()


def test_commits_are_durable_before_they_are_acknowledged(tmp_path: Path) -> None:
    store = open_file(tmp_path / "m.db", World())
    assert store._database._writer.execute("PRAGMA synchronous").fetchone()[0] == 2
    assert store._database._writer.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    store.close()


def test_a_file_held_by_another_writer_is_unavailable_and_then_works(tmp_path: Path) -> None:
    store = open_file(tmp_path / "m.db", World(), patience=0.04)
    entry = offer_entry(offer_document(), SELLER.key)
    other = sqlite3.connect(tmp_path / "m.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(UnavailableError, match="locked"):
        store.write(lambda book: book.publish(entry, NOW), NOW)
    assert store.read(lambda book: book.search()) == [], "readers are not held up"
    other.execute("ROLLBACK")
    other.close()
    store.write(lambda book: book.publish(entry, NOW), NOW)
    assert len(store.read(lambda book: book.search())) == 1
    store.close()


def test_a_full_disk_acknowledges_nothing_and_loses_nothing(tmp_path: Path) -> None:
    store = open_file(tmp_path / "m.db", World())
    store.write(lambda book: book.publish(offer_entry(offer_document("first"), SELLER.key), NOW), NOW)
    pages = store._database._writer.execute("PRAGMA page_count").fetchone()[0]
    store._database._writer.execute(f"PRAGMA max_page_count = {pages}")
    big = [offer_entry(offer_document(f"o{n}", description=f"{n}" * 600), SELLER.key) for n in range(100, 140)]
    with pytest.raises(StorageError, match="full"):
        store.run([lambda book, entry=entry: book.publish(entry, NOW) for entry in big], NOW)
    assert [offer["offer_id"] for offer in store.read(lambda book: book.search())] == ["first"]
    store._database._writer.execute("PRAGMA max_page_count = 100000")
    store.run([lambda book, entry=entry: book.publish(entry, NOW) for entry in big], NOW)
    assert len(store.read(lambda book: book.search(limit=100))) == 41
    store.close()


class FailingDisk(sqlite3.Connection):
    """A connection whose commits fail as an fsync error does."""

    failing = False

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        if FailingDisk.failing and sql == "COMMIT" and self.in_transaction and self.total_changes:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorname = "SQLITE_IOERR_FSYNC"
            raise error
        return super().execute(sql, *arguments)


def test_after_a_failed_fsync_nothing_is_written_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "m.db"
    open_file(file, World()).close()
    store = open_sqlite(lambda: sqlite3.connect(file, isolation_level=None, check_same_thread=False, factory=FailingDisk), World())
    entry = offer_entry(offer_document(), SELLER.key)
    monkeypatch.setattr(FailingDisk, "failing", True)
    with pytest.raises(StorageError, match="FSYNC"):
        store.write(lambda book: book.publish(entry, NOW), NOW)
    monkeypatch.setattr(FailingDisk, "failing", False)
    with pytest.raises(StorageError, match="FSYNC"):
        store.write(lambda book: book.publish(entry, NOW), NOW)
    store.close()
    again = open_file(file, World())
    assert again.read(lambda book: book.search()) == []
    again.close()


# groups of steps


def test_a_refused_step_takes_no_other_of_its_commit_with_it() -> None:
    store = open_memory(World())
    entries = [offer_entry(offer_document(f"o{n}"), SELLER.key) for n in range(3)]

    def half(book: Book) -> None:
        book.publish(entries[1], NOW)
        raise StateError("and now I refuse")

    outcomes = store.run([lambda b: b.publish(entries[0], NOW), half, lambda b: b.publish(entries[2], NOW)], NOW)
    assert isinstance(outcomes[1], StateError)
    assert [offer["offer_id"] for offer in store.read(lambda book: book.search())] == ["o2", "o0"]
    store.close()


def test_concurrent_calls_share_a_commit(tmp_path: Path) -> None:
    async def use() -> None:
        market = EmbeddedMarket(lambda: open_file(tmp_path / "m.db", World()), SELLER, World())
        await market.open()
        before = market._opened()._database._commits
        await asyncio.gather(*(market.publish(offer_document(f"o{n}")) for n in range(40)))
        assert market._opened()._database._commits - before < 20
        assert len(await market.search(limit=100)) == 40
        await market.close()

    asyncio.run(use())


class Gate(World):
    """A world whose disk waits: `reached` once work is handed over, which then waits for `open`."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.open = asyncio.Event(), asyncio.Event()

    async def offload(self, function: Callable[[], T]) -> T:
        self.reached.set()
        await self.open.wait()
        return function()


def test_a_canceled_call_takes_no_other_with_it() -> None:
    """What waits for its commit is dropped; what is being committed happens, with nobody left to tell."""

    async def use() -> None:
        gate = Gate()
        store = open_memory(gate)
        market = EmbeddedMarket(store, SELLER, gate)
        await market.open()
        committing = [asyncio.create_task(market.publish(offer_document(f"a{n}"))) for n in range(4)]
        await gate.reached.wait()
        waiting = [asyncio.create_task(market.publish(offer_document(f"b{n}"))) for n in range(4)]
        committing[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await committing[0]  # meanwhile the others have come to wait
        waiting[0].cancel()
        gate.open.set()
        outcomes = await asyncio.gather(*committing, *waiting, return_exceptions=True)
        assert [isinstance(outcome, asyncio.CancelledError) for outcome in outcomes] == [True, False, False, False] * 2
        assert {offer.offer_id for offer in await market.search()} == {"a0", "a1", "a2", "a3", "b1", "b2", "b3"}
        await market.close()
        store.close()

    asyncio.run(use())


def test_a_long_queue_of_expired_quotes_is_swept_in_bounded_commits() -> None:
    clock = SteppedClock()
    store = open_memory(clock)
    offer = offer_of(store.write(lambda book: book.publish(offer_entry(offer_document(), SELLER.key), 0), 0))

    def fill(book: Book) -> None:
        for n in range(2500):
            document = SignedDocument("request", {"nonce": str(n)}, BUYER.key, "0" * 128)
            entry = request_entry(sign_request(BUYER, offer, input_value=1, refund_to={}, nonce=str(n), created_at=0), BUYER.key) if n == 0 else None
            if entry is None:
                values = {"job_id": f"j{n}", "offer_id": "o", "seller": SELLER.key, "buyer": BUYER.key, "nonce": document.body["nonce"]}
                book._db.execute(schema.JOB_ADD, {**values, "request_hash": None, "state": "requested", "change": n + 1, "now": 0})
                book._db.execute(schema.PAPER_ADD, (f"j{n}", "request", '{"kind":"request","body":{},"key":"","signature":""}'))
            else:
                book.request(entry, "j0", 0)
        book._db.execute("UPDATE jobs SET state = 'quoted', due_at = 5")
        book._db.execute("UPDATE counters SET value = 2500 WHERE name = 'change'")

    store.write(fill, 0)
    assert store.read(lambda book: book.due(5))

    async def look() -> None:
        market = EmbeddedMarket(store, BUYER, clock)
        await market.open()
        commits = store._database._commits
        assert (await market.get("j2499")).state == "expired"
        assert store._database._commits - commits == 2
        await market.close()

    asyncio.run(look())
    assert not store.read(lambda book: book.due(5))
    store.close()


def test_a_time_limit_holds_also_where_nobody_swept() -> None:
    clock = SteppedClock()
    store = open_memory(clock)
    offer = offer_of(store.write(lambda book: book.publish(offer_entry(offer_document(), SELLER.key), 0), 0))
    entry = request_entry(sign_request(BUYER, offer, input_value=1, refund_to={}, nonce="n", created_at=0), BUYER.key)
    store.write(lambda book: book.request(entry, "j", 0), 0)
    store.write(lambda book: book._db.execute("UPDATE jobs SET state = 'quoted', quote_expires_at = 5, due_at = 5") and None, 0)
    book = Book(store._database._writer)
    with pytest.raises(StateError):
        book.accept(BUYER.key, "j", 5)
    assert book.get(BUYER.key, "j")["state"] == "expired"
    store.close()


class BackwardClock(World):
    """Every look at it is an hour earlier than the last, as when somebody sets it back."""

    def __init__(self) -> None:
        super().__init__()
        self.hours = 0

    def now_ms(self) -> int:
        self.hours += 1
        return NOW - self.hours * 3_600_000


def test_a_clock_set_back_does_not_stop_the_sweep() -> None:
    async def use() -> None:
        world = BackwardClock()
        store = open_memory(world)
        offer = offer_of(store.write(lambda book: book.publish(offer_entry(offer_document(), SELLER.key), 0), 0))
        entry = request_entry(sign_request(BUYER, offer, input_value=1, refund_to={}, nonce="n", created_at=0), BUYER.key)
        store.write(lambda book: book.request(entry, "j", 0), 0)
        due = NOW - 3_600_000 - 1  # over at the first look, not at the second
        store.write(lambda book: book._db.execute("UPDATE jobs SET state = 'quoted', due_at = ?", (due,)) and None, 0)
        market = EmbeddedMarket(store, BUYER, world)
        await market.open()
        assert (await asyncio.wait_for(market.get("j"), 10)).state == "expired"
        await market.close()
        store.close()

    asyncio.run(use())


# hints


def test_hints_in_memory_need_no_clock_and_end_with_the_market() -> None:
    async def use() -> list[str]:
        world = VirtualWorld(1)
        store = open_memory(world)
        market = EmbeddedMarket(store, SELLER, world)
        buyer = EmbeddedMarket(store, BUYER, world)
        await market.open()
        await buyer.open()
        offer = await market.publish(offer_document())
        hints: list[str] = []

        async def listen() -> None:
            async for job_id in market.events():
                hints.append(job_id)

        listener = asyncio.create_task(listen())
        await world.sleep(1)
        job = await buyer.request(sign_request(BUYER, offer, input_value=1, refund_to={}, nonce="n", created_at=0))
        await world.sleep(1)
        assert hints == [job.job_id]
        await market.close()
        await asyncio.wait_for(listener, 1)
        assert world.now_ms() - NOW == 2000
        return hints

    assert len(run_virtual(use())) == 1


# large markets


@pytest.fixture(scope="module")
def crowd() -> Iterator[Store]:
    """4,000 offers; what makes a search slow at 100,000 (walking or sorting them all) shows in the plan at any size."""
    store = open_memory(World())

    def fill(book: Book) -> None:
        for n in range(4000):
            body = {**offer_document().body, "offer_id": f"o{n}", "title": f"Offer number {n}"}
            body |= {"description": "web page into Markdown", "tags": ["web", f"t{n % 50}"]}
            if n == 7:
                body = {**body, "tags": ["web", "rare"], "description": "Ünïque wording"}
            text = f'{{"kind":"offer","body":{_json(body)},"key":"{SELLER.key}","signature":""}}'
            tags = tuple(str(tag) for tag in body["tags"])
            book.publish(OfferEntry(f"o{n}", SELLER.key, str(body["title"]), str(body["description"]), tags, "quote", None, text, "dev"), NOW)

    store.write(fill, NOW)
    yield store
    store.close()


def _json(value: Any) -> str:
    import json

    return json.dumps(value)


def find(book: Book, text: str = "", tags: list[str] | None = None, seller: str = "", **page: Any) -> list[str]:
    return [row["offer_id"] for row in book.search(Search(text, tuple(tags or ()), seller), **page)]


class Plans:
    """Statements that note how SQLite runs each query."""

    def __init__(self, store: Store) -> None:
        self.connection = store._database._readers[0]
        self.plans: list[str] = []

    def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
        if sql.startswith("SELECT"):
            self.plans += [row["detail"] for row in self.connection.execute("EXPLAIN QUERY PLAN " + sql, parameters)]
        return self.connection.execute(sql, parameters)


@pytest.mark.parametrize(
    "search",
    [
        {},
        {"tags": ["web", "t3"]},
        {"tags": ["rare", "web"]},
        {"text": "markdown"},
        {"text": "markdown", "tags": ["t3"]},
        {"seller": SELLER.key},
        {"text": "nowhere to be found"},
    ],
)
def test_a_search_neither_sorts_nor_scans_the_offers(crowd: Store, search: dict[str, Any]) -> None:
    plans = Plans(crowd)
    find(Book(plans), **search)
    assert not [plan for plan in plans.plans if "TEMP B-TREE" in plan], plans.plans
    scanned = [plan for plan in plans.plans if plan.startswith("SCAN") and "VIRTUAL TABLE" not in plan and "USING" not in plan]
    assert [plan for plan in scanned if plan not in ("SCAN w", "SCAN v") and not plan.startswith("SCAN (subquery")] == [], plans.plans


def test_a_rare_condition_beside_a_common_one_finds_its_offer(crowd: Store) -> None:
    book = Book(crowd._database._readers[0])
    assert find(book, "wording") == ["o7"]
    assert find(book, "ÜNÏ", ["web", "rare"], SELLER.key) == ["o7"]
    assert find(book, "ü") == ["o7"]
    assert find(book, "markdown", ["rare"]) == []
    assert find(book, "number", limit=2, offset=3990) == ["o9", "o8"]
    assert book.count(Search("number")) == book.count() == 4000
    assert book.count(Search("markdown", ("web", "t3"))) == 80


def test_a_withdrawn_offer_is_found_only_among_the_withdrawn() -> None:
    store = open_memory(World())

    def fill(book: Book) -> None:
        for n, (seller, mode) in enumerate([("a", "quote"), ("a", "fixed"), ("b", "quote")]):
            price = "5" if mode == "fixed" else None
            book.publish(OfferEntry(f"o{n}", seller, f"Title {n}", "Some TEXT", ("x", f"t{n}"), mode, price, None, None, active=False), NOW)  # type: ignore[arg-type]  # mode

    store.write(fill, NOW)

    def ids(asked: Search) -> list[str]:
        rows = store.read(lambda book: book.search(asked))
        assert store.read(lambda book: book.count(asked)) == len(rows)
        return [row["offer_id"] for row in rows]

    assert ids(Search()) == []
    assert ids(Search(active=False)) == ["o2", "o1", "o0"]
    assert ids(Search(active=False, seller="a")) == ["o1", "o0"]
    assert ids(Search(active=False, pricing_mode="quote")) == ["o2", "o0"]
    assert ids(Search(active=False, tags=("x", "t1"))) == ["o1"]
    assert ids(Search("tle 2", active=False)) == ["o2"]
    assert ids(Search("some text", active=False)) == ["o2", "o1", "o0"]
    store.close()


@pytest.mark.parametrize(
    "search",
    [
        {"limit": 0},
        {"limit": 101},
        {"limit": True},
        {"limit": "5"},
        {"offset": -1},
        {"offset": 2**70},
        {"text": "\ud800"},
        {"text": "a\0b"},
        {"tags": ["x", ""]},
        {"tags": [str(n) for n in range(17)]},
    ],
)
def test_a_search_for_nonsense_is_refused(crowd: Store, search: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        find(Book(crowd._database._readers[0]), **search)


@pytest.mark.parametrize(
    "query", ['"', '""', '"a" OR "b"', "title:web", "web*", "NEAR(web page)", "(", "^web", "web -page", "\\", "'; DROP TABLE jobs; --", "\U0001f40c" * 3]
)
def test_a_query_is_text_and_never_a_search_language(crowd: Store, query: str) -> None:
    assert find(Book(crowd._database._readers[0]), query) == []
