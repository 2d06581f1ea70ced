"""The market's contract: what every `tradeskill.contracts.Market` must do. Subclass `MarketContract`, give `market_for` (and `largest_result`, if not 4 MiB).

    class TestMine(MarketContract):
        @pytest.fixture
        def market_for(self, clock, tmp_path):
            return lambda identity: MyMarket(tmp_path / "m", identity, clock)   # not opened yet; all of them see the same jobs

The implementation takes its time from `clock`. Past 400 lines because one contract is one class: its table of state and call is its heart.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final

import pytest

from tradeskill.agreement import read_offer, read_request, sign_offer, sign_quote, sign_receipt, sign_request
from tradeskill.contracts import Market
from tradeskill.errors import NotFoundError, RefusedError, StaleFenceError, StateError, UntrustedError, UsageError
from tradeskill.model import Delivery, Invoice, Job, JobError, Json, Offer, Result, SignedDocument
from tradeskill.money import Amount
from tradeskill.signing import Identity, verify_document
from tradeskill.testing.clauses import clause, declared
from tradeskill.world import World

__all__ = ["MARKET_LACKS", "MarketContract", "MarketFor", "SteppedClock"]

MarketFor = Callable[[Identity], Market]
MINUTE: Final = 60_000
BUYER, SELLER, STRANGER = (Identity(bytes([n]) * 32) for n in (1, 2, 3))
PRICE: Final = Amount(5, "raw")
GOOD: Final = Result("# Bärenfraß\n".encode(), "text/markdown")
MARKET_LACKS: Final[Mapping[str, str]] = {"events": "hints that a job may have changed"}  # what a market may lack -> what is then not tried
ENOUGH: Final = 120.0  # seconds for any one test, on a machine that is busy
PAGES: Final = 1_000  # of changes, more than any test makes
PATIENCE: Final = 20.0  # seconds until a test that waits for a hint gives up


class SteppedClock(World):
    """The real world with a wall clock that only `advance` moves."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 1_700_000_000_000

    def now_ms(self) -> int:
        return self._now

    def advance(self, milliseconds: int) -> None:
        self._now += milliseconds


def _amended(document: SignedDocument, signer: Identity, changes: Mapping[str, Json]) -> SignedDocument:
    """The document with other fields, signed again."""
    return signer.sign(document.kind, {**document.body, **changes}) if changes else document


@dataclass
class _Floor:
    """A market floor with its three parties, and the shortest way to bring a job into any state."""

    buyer: Market
    seller: Market
    stranger: Market
    clock: SteppedClock
    count: int = 0

    def offer_document(self, offer_id: str = "o-1", signer: Identity = SELLER, **changes: Json) -> SignedDocument:
        made = sign_offer(
            signer,
            offer_id=offer_id,
            network="dev",
            title="Web page to Markdown",
            description="Any page, any language",
            tags=["web", "markdown"],
            prices=(PRICE,),
            input_schema={"type": "object"},
            pure=True,
            trusted=True,
            created_at=self.clock.now_ms(),
        )
        return _amended(made, signer, changes)

    def request_document(self, offer: Offer, nonce: str, input_value: Json = None, signer: Identity = BUYER) -> SignedDocument:
        return sign_request(signer, offer, input_value=input_value, refund_to={"nano": "nano_1"}, nonce=nonce, created_at=self.clock.now_ms())

    def quote_document(self, job: Job, signer: Identity = SELLER, nonce: str = "q", **changes: Json) -> SignedDocument:
        request = read_request(job.request, job.buyer)
        invoice = Invoice("nano", "dev", "i-1", job.job_id, "nano_3", PRICE, 0)
        # dated by the job, so that the same quote can be made again later
        made = sign_quote(signer, request, job_id=job.job_id, invoices=[invoice], expires_at=job.created_at + 10 * MINUTE, nonce=nonce)
        return _amended(made, signer, changes)

    def delivery(self, job: Job, signer: Identity = SELLER, result: Result = GOOD) -> Delivery:
        request = read_request(job.request, job.buyer)
        receipt = sign_receipt(
            signer,
            request,
            job.quote or self.quote_document(job),
            job_id=job.job_id,
            rail="nano",
            payment_ids=["P"],
            amount=PRICE,
            result=result,
            delivered_at=0,
            fence=1,
        )
        return Delivery(result, receipt)

    async def put_up(self, offer_id: str = "o-1", **changes: Json) -> Offer:
        return await self.seller.publish(_amended(self.offer_document(offer_id), SELLER, changes))

    async def requested(self) -> Job:
        self.count += 1
        return await self.buyer.request(self.request_document(await self.put_up(), f"n-{self.count}", {"url": "http://a/"}))

    async def quoted(self) -> Job:
        job = await self.requested()
        return await self.seller.quote(job.job_id, self.quote_document(job))

    async def accepted(self) -> Job:
        return await self.buyer.accept((await self.quoted()).job_id)

    async def paid(self) -> Job:
        job = await self.accepted()
        return await CALLS["pay"](self.buyer, job, BUYER, self)

    async def running(self) -> Job:
        job = await self.paid()
        await self.seller.lock(job.job_id)
        return await self.seller.get(job.job_id)

    async def lapsed(self) -> Job:
        job = await self.running()
        self.clock.advance(5 * MINUTE)
        return job

    async def delivered(self) -> Job:
        job = await self.running()
        return await CALLS["deliver"](self.seller, job, SELLER, self)

    async def failed(self) -> Job:
        job = await self.running()
        return await CALLS["fail"](self.seller, job, SELLER, self)

    async def canceled(self) -> Job:
        return await self.buyer.cancel((await self.requested()).job_id, "changed my mind")

    async def canceled_late(self) -> Job:
        return await self.buyer.cancel((await self.accepted()).job_id, "changed my mind")

    async def declined(self) -> Job:
        return await self.seller.decline((await self.quoted()).job_id, "busy", "try later")

    async def quote_expired(self) -> Job:
        job = await self.quoted()
        self.clock.advance(10 * MINUTE)
        return await self.buyer.get(job.job_id)

    async def unpaid_expired(self) -> Job:
        job = await self.accepted()
        self.clock.advance(30 * MINUTE)
        return await self.buyer.get(job.job_id)

    async def in_state(self, name: str) -> Job:
        made: Awaitable[Job] = getattr(self, name)()
        return await made


async def _deliver(market: Market, job: Job, caller: Identity, floor: _Floor, result: Result = GOOD) -> Job:
    return await market.deliver(job.job_id, floor.delivery(job, caller, result), job.market_fence)


async def _fail(market: Market, job: Job, message: str = "exit 1") -> Job:
    return await market.deliver(job.job_id, Delivery(error=JobError("exit", message)), job.market_fence)


async def _lock(market: Market, job: Job) -> Job:
    await market.lock(job.job_id)
    return await market.get(job.job_id)


_Call = Callable[[Market, Job, Identity, _Floor], Coroutine[Any, Any, Job]]
# "other" says the same call with other arguments than the state's own history
CALLS: Final[dict[str, _Call]] = {
    "quote": lambda m, j, who, f: m.quote(j.job_id, f.quote_document(j, who)),
    "quote other": lambda m, j, who, f: m.quote(j.job_id, f.quote_document(j, who, nonce="other", expires_at=str(f.clock.now_ms() + MINUTE))),
    "decline": lambda m, j, who, f: m.decline(j.job_id, "busy", "try later"),
    "decline other": lambda m, j, who, f: m.decline(j.job_id, "busy", "never"),
    "lock": lambda m, j, who, f: _lock(m, j),
    "deliver": _deliver,
    "deliver other": lambda m, j, who, f: _deliver(m, j, who, f, Result(b"other")),
    "fail": lambda m, j, who, f: _fail(m, j),
    "fail other": lambda m, j, who, f: _fail(m, j, "exit 2"),
    "accept": lambda m, j, who, f: m.accept(j.job_id),
    "pay": lambda m, j, who, f: m.submit_payment(j.job_id, "nano", f"P-{j.job_id}"),
    "pay other": lambda m, j, who, f: m.submit_payment(j.job_id, "nano", f"Q-{j.job_id}"),
    "cancel": lambda m, j, who, f: m.cancel(j.job_id, "changed my mind"),
    "cancel other": lambda m, j, who, f: m.cancel(j.job_id, "another reason"),
}
STATES: Final = (
    "requested",
    "quoted",
    "accepted",
    "paid",
    "running",
    "lapsed",
    "delivered",
    "failed",
    "canceled",
    "canceled_late",
    "declined",
    "quote_expired",
    "unpaid_expired",
)
SELLER_CALLS: Final = frozenset({"quote", "quote other", "decline", "decline other", "lock", "deliver", "deliver other", "fail", "fail other"})
_AFTER_QUOTE = frozenset({"quoted", "accepted", "paid", "running", "lapsed", "delivered", "failed"})
_AFTER_PAY = _AFTER_QUOTE - {"quoted", "accepted"}
# call -> (states where it moves the job, where to, states where it is a repetition that changes nothing); everywhere else: StateError
ALLOWED: Final[dict[str, tuple[frozenset[str], str, frozenset[str]]]] = {
    "quote": (frozenset({"requested"}), "quoted", _AFTER_QUOTE),
    "quote other": (frozenset({"requested"}), "quoted", frozenset()),
    "decline": (frozenset({"requested", "quoted"}), "canceled", frozenset({"declined"})),
    "decline other": (frozenset({"requested", "quoted"}), "canceled", frozenset()),
    "lock": (frozenset({"paid", "running", "lapsed"}), "running", frozenset()),
    "deliver": (frozenset({"running", "lapsed"}), "delivered", frozenset({"delivered"})),
    "deliver other": (frozenset({"running", "lapsed"}), "delivered", frozenset()),
    "fail": (frozenset({"running", "lapsed"}), "failed", frozenset({"failed"})),
    "fail other": (frozenset({"running", "lapsed"}), "failed", frozenset()),
    "accept": (frozenset({"quoted"}), "accepted", _AFTER_QUOTE - {"quoted"}),
    "pay": (frozenset({"accepted"}), "accepted", _AFTER_PAY),
    "pay other": (frozenset({"accepted"}), "accepted", frozenset()),
    "cancel": (frozenset({"requested", "quoted", "accepted"}), "canceled", frozenset({"canceled", "canceled_late"})),
    "cancel other": (frozenset({"requested", "quoted", "accepted"}), "canceled", frozenset()),
}
# (state, one call, a call that excludes it)
RACES: Final = (
    ("accepted", "cancel", "pay"),
    ("paid", "cancel", "lock"),
    ("requested", "quote", "quote other"),
    ("accepted", "pay", "pay other"),
    ("quoted", "accept", "decline"),
    ("running", "deliver", "fail"),
    ("running", "deliver", "deliver other"),
)


@asynccontextmanager
async def _opened(market_for: MarketFor, *identities: Identity) -> AsyncIterator[list[Market]]:
    markets = [market_for(identity) for identity in identities]
    try:
        for market in markets:
            await market.open()
        yield markets
    finally:
        for market in markets:
            await market.close()


@asynccontextmanager
async def _floor(market_for: MarketFor, clock: SteppedClock) -> AsyncIterator[_Floor]:
    async with _opened(market_for, BUYER, SELLER, STRANGER) as (buyer, seller, stranger):
        yield _Floor(buyer, seller, stranger, clock)


async def _all_changes(market: Market, cursor: str = "", limit: int = 100) -> tuple[list[Job], str]:
    jobs: list[Job] = []
    for _ in range(PAGES):
        page = await market.changes(cursor, limit)
        jobs += page.jobs
        cursor = page.cursor
        if not page.more:
            return jobs, cursor
    raise AssertionError(f"changes never ends: after {PAGES} pages there is still more")


_Scenario = Callable[[_Floor], Coroutine[Any, Any, None]]


class MarketContract:
    """Every promise of the `Market` protocol. Tests run their own event loop, so no plugin for pytest is needed."""

    yours: ClassVar[frozenset[str]] = frozenset({"clock", "market_for", "largest_result", "lacks"})

    @pytest.fixture
    def clock(self) -> SteppedClock:
        return SteppedClock()

    @pytest.fixture
    def market_for(self, clock: SteppedClock) -> MarketFor:
        raise NotImplementedError("give a fixture `market_for`: a function from an identity to an unopened market")

    @pytest.fixture
    def largest_result(self) -> int:
        """Bytes of the largest result that the market takes, as it is set up here."""
        return 4 * 2**20

    @pytest.fixture
    def lacks(self) -> Mapping[str, str]:
        """What this market lacks (see MARKET_LACKS) -> why."""
        return {}

    @pytest.fixture
    def play(self, market_for: MarketFor, clock: SteppedClock) -> Callable[[_Scenario], None]:
        """Runs a scenario on a fresh floor."""

        async def run(scenario: _Scenario) -> None:
            async with _floor(market_for, clock) as made:
                await scenario(made)

        return lambda scenario: asyncio.run(asyncio.wait_for(run(scenario), ENOUGH))

    @clause("M-00")
    def test_what_is_declared_off_has_a_name_and_a_reason(self, lacks: Mapping[str, str]) -> None:
        declared(lacks, MARKET_LACKS)

    # state x call x party

    @clause("M-01")
    @pytest.mark.parametrize("state", STATES)
    def test_in_each_state_each_call_moves_repeats_or_is_refused(self, play: Callable[[_Scenario], None], state: str) -> None:
        async def scenario(f: _Floor) -> None:
            job = await f.in_state(state)
            before = await f.buyer.get(job.job_id)
            for name, call in CALLS.items():
                market, who = (f.seller, SELLER) if name in SELLER_CALLS else (f.buyer, BUYER)
                moves, to, repeats = ALLOWED[name]
                if state in moves:
                    fresh = await f.in_state(state)
                    moved = await call(market, fresh, who, f)
                    assert moved.state == to, name
                    assert moved.revision > fresh.revision, name
                    assert moved == await f.buyer.get(fresh.job_id) == await f.seller.get(fresh.job_id), name
                elif state in repeats:
                    assert await call(market, before, who, f) == before, name
                else:
                    with pytest.raises(StateError):
                        await call(market, before, who, f)
                assert await f.buyer.get(job.job_id) == before, f"{name} changed a job it must not touch"

        play(scenario)

    @clause("M-02")
    @pytest.mark.parametrize("state", STATES)
    def test_nobody_takes_another_partys_step(self, play: Callable[[_Scenario], None], state: str) -> None:
        async def scenario(f: _Floor) -> None:
            before = await f.in_state(state)
            for name, call in CALLS.items():
                wrong = (f.buyer, BUYER) if name in SELLER_CALLS else (f.seller, SELLER)
                for market, who in (wrong, (f.stranger, STRANGER)):
                    with pytest.raises((RefusedError, NotFoundError)):
                        await call(market, before, who, f)
            with pytest.raises((RefusedError, NotFoundError)):
                await f.stranger.get(before.job_id)
            # expired by the clock, not by the calls: read again through the other side only where the state has a deadline
            assert (await f.seller.get(before.job_id)).revision == before.revision

        play(scenario)

    @clause("M-03")
    @pytest.mark.parametrize(("state", "first", "second"), RACES)
    def test_of_two_calls_that_exclude_each_other_one_wins(self, play: Callable[[_Scenario], None], state: str, first: str, second: str) -> None:
        async def scenario(f: _Floor) -> None:
            for order in ((first, second), (second, first)) * 4:
                job = await f.in_state(state)
                sides = [(f.seller, SELLER) if name in SELLER_CALLS else (f.buyer, BUYER) for name in order]
                outcomes = await asyncio.gather(
                    *(CALLS[name](market, job, who, f) for name, (market, who) in zip(order, sides, strict=True)), return_exceptions=True
                )
                won = [name for name, outcome in zip(order, outcomes, strict=True) if isinstance(outcome, Job)]
                lost = [outcome for outcome in outcomes if not isinstance(outcome, Job)]
                assert len(won) == 1, (order, outcomes)
                assert all(isinstance(outcome, StateError) for outcome in lost), lost
                assert (await f.buyer.get(job.job_id)).revision == job.revision + 1

        play(scenario)

    # offers

    @clause("M-04")
    def test_an_offer_comes_back_as_it_was_signed(self, play: Callable[[_Scenario], None]) -> None:
        async def scenario(f: _Floor) -> None:
            schema: Json = {"z": [], "a": {"n": 1.5, "deep": [{}, [None, True, "ü\u2028 \\ \""]]}}
            document = f.offer_document(input=schema)
            published = await f.seller.publish(document)
            for found in (published, await f.buyer.offer("o-1"), (await f.stranger.search())[0]):
                assert found == read_offer(document)
                assert list(found.document.body["input"]) == ["z", "a"]  # type: ignore[arg-type]  # it is an object
                verify_document(found.document, "offer", SELLER.key)

        play(scenario)

    @clause("M-05")
    def test_a_second_publication_replaces_the_first_and_keeps_open_jobs(self, play: Callable[[_Scenario], None]) -> None:
        async def scenario(f: _Floor) -> None:
            job = await f.requested()
            changed = f.offer_document(title="Better title", tags=["better"])
            assert (await f.seller.publish(changed)).title == "Better title"
            assert [offer.title for offer in await f.buyer.search()] == ["Better title"]
            assert await f.buyer.search(tags=["web"]) == []
            assert await f.buyer.search("page to") == []
            assert await f.seller.get(job.job_id) == job

        play(scenario)

    @clause("M-06")
    def test_a_withdrawn_offer_is_not_found_but_open_jobs_go_on(self, play: Callable[[_Scenario], None]) -> None:
        async def scenario(f: _Floor) -> None:
            job = await f.requested()
            await f.seller.withdraw("o-1")
            await f.seller.withdraw("o-1")
            assert await f.buyer.search() == []
            offer = await f.buyer.offer("o-1")
            assert not offer.active
            with pytest.raises(StateError):
                await f.buyer.request(f.request_document(offer, "late"))
            assert (await f.seller.quote(job.job_id, f.quote_document(job))).state == "quoted"
            await f.put_up()
            assert len(await f.buyer.search("markdown", ["web"])) == 1

        play(scenario)

    @clause("M-07")
    def test_an_offer_belongs_to_its_first_seller(self, play: Callable[[_Scenario], None]) -> None:
        async def scenario(f: _Floor) -> None:
            await f.put_up()
            with pytest.raises(RefusedError):
                await f.stranger.publish(f.offer_document(signer=STRANGER))
            with pytest.raises(RefusedError):
                await f.stranger.withdraw("o-1")
            with pytest.raises(NotFoundError):
                await f.stranger.withdraw("o-2")
            with pytest.raises(NotFoundError):
                await f.buyer.offer("o-2")
            assert [offer.seller for offer in await f.buyer.search()] == [SELLER.key]

        play(scenario)

    @clause("M-08")
    def test_search_is_newest_first_and_pages(self, play: Callable[[_Scenario], None]) -> None:
        async def scenario(f: _Floor) -> None:
            for n in range(7):
                await f.put_up(f"o-{n}")
            assert [offer.offer_id for offer in await f.buyer.search(limit=3)] == ["o-6", "o-5", "o-4"]
            assert [offer.offer_id for offer in await f.buyer.search(limit=3, offset=5)] == ["o-1", "o-0"]

        play(scenario)

    @clause("M-09")
    def test_search_filters_by_all_tags_seller_and_literal_text(self, play: Callable[[_Scenario], None]) -> None:
        async def scenario(f: _Floor) -> None:
            await f.put_up("plain", title="Plain", description="nothing here", tags=["web", "a"])
            await f.put_up("percent", title="100% WOLLE", description="snake_case", tags=["web", "b"])
            await f.put_up("street", title='Die "STRASSE"', description="Ünïcode grüßt", tags=["a", "b"])
            await f.stranger.publish(f.offer_document("strange", STRANGER, title="Strange", description="x", tags=[]))

            async def ids(query: str = "", tags: tuple[str, ...] = (), seller: str = "") -> set[str]:
                return {offer.offer_id for offer in await f.buyer.search(query, tags, seller)}

            assert await ids(tags=("web",)) == {"plain", "percent"}
            assert await ids(tags=("web", "b")) == {"percent"}
            assert await ids(tags=("web", "a", "b")) == set()
            assert await ids(tags=("we",)) == set()
            assert await ids(seller=STRANGER.key) == {"strange"}
            assert await ids("wolle") == {"percent"}
            assert await ids("%") == {"percent"}
            assert await ids("0%") == {"percent"}
            assert await ids("00% w") == {"percent"}
            assert await ids("_") == {"percent"}
            assert await ids("e_c") == {"percent"}
            assert await ids("eXc") == set()
            assert await ids('"strasse"') == {"street"}
            assert await ids("GRÜSST") == {"street"}
            assert await ids("nothing", ("a",), SELLER.key) == {"plain"}
            assert await ids("nothing", ("b",)) == set()
            assert await ids("plain nothing") == set(), "title and description are two texts"

        play(scenario)

    @clause("M-10")
    @pytest.mark.parametrize(
        "changes",
        [
            {"offer_id": ""},
            {"offer_id": "x" * 65},
            {"title": ""},
            {"title": "x" * 121},
            {"title": 5},
            {"title": "nul\0"},
            {"description": ""},
            {"description": "x" * 2001},
            {"tags": ["x"] * 17},
            {"tags": ["x" * 33]},
            {"tags": [""]},
            {"tags": "web"},
            {"network": "main"},
            {"price": {"amount": "1e3", "unit": "raw"}},
            {"price": {"amount": 5, "unit": "raw"}},
            {"price": "5"},
            {"input": {"x": "y" * 70_000}},
            {"created_at": "soon"},
        ],
    )
    def test_a_bad_offer_is_refused_naming_the_field(self, play: Callable[[_Scenario], None], changes: dict[str, Json]) -> None:
        async def scenario(f: _Floor) -> None:
            with pytest.raises(UsageError, match="offer" if "input" in changes else next(iter(changes))):
                await f.seller.publish(_amended(f.offer_document(), SELLER, changes))
            assert await f.buyer.search() == []

        play(scenario)

    # requests, quotes, signatures

    @clause("M-11")
    def test_a_request_opens_one_job_however_often_it_is_sent(self, play: Callable[[_Scenario], None]) -> None:
        async def scenario(f: _Floor) -> None:
            offer = await f.put_up()
            document = f.request_document(offer, "once", [1, 2])
            jobs = await asyncio.gather(*(f.buyer.request(document) for _ in range(5)))
            assert len({job.job_id for job in jobs}) == 1
            assert await f.buyer.find_request("once") == jobs[0]
            assert await f.buyer.find_request("twice") is None
            assert await f.seller.find_request("once") is None
            with pytest.raises(StateError):
                await f.buyer.request(f.request_document(offer, "once", [1, 3]))
            other = await f.stranger.request(f.request_document(offer, "once", [1, 2], STRANGER))
            assert other.job_id != jobs[0].job_id
            assert len((await _all_changes(f.seller))[0]) == 2

        play(scenario)

    @clause("M-12")
    def test_documents_come_back_byte_for_byte_in_meaning_and_order(self, play: Callable[[_Scenario], None]) -> None:
        async def scenario(f: _Floor) -> None:
            value: Json = {"z": [], "a": {}, "big": "123456789012345678901234567890", "f": 0.1, "u": "ß\u2029\U0001f40c\n\\"}
            document = f.request_document(await f.put_up(), "exact", value)
            job = await f.buyer.request(document)
            assert (await f.seller.get(job.job_id)).request == document
            assert list((await f.seller.get(job.job_id)).request.body["input"]) == list(value)  # type: ignore[arg-type]  # an object
            quote = f.quote_document(job)
            assert (await f.seller.quote(job.job_id, quote)).quote == quote

        play(scenario)

    @clause("M-13")
    def test_only_documents_signed_by_the_caller_enter(self, play: Callable[[_Scenario], None]) -> None:
        async def scenario(f: _Floor) -> None:
            offer = await f.put_up()
            forged = replace(f.offer_document("o-2"), body={**f.offer_document("o-2").body, "title": "Forged"})
            with pytest.raises(UntrustedError):
                await f.seller.publish(forged)
            with pytest.raises(UntrustedError):
                await f.stranger.publish(f.offer_document("o-3"))
            request = f.request_document(offer, "n")
            with pytest.raises(UntrustedError):
                await f.stranger.request(request)
            with pytest.raises(UntrustedError):
                await f.buyer.request(replace(request, kind="quote"))
            job = await f.buyer.request(request)
            with pytest.raises(UntrustedError):
                await f.seller.quote(job.job_id, f.quote_document(job, STRANGER))
            running = await f.running()
            with pytest.raises(UntrustedError):
                await f.seller.deliver(running.job_id, f.delivery(running, STRANGER), running.market_fence)
            assert (await f.seller.get(running.job_id)).state == "running"

        play(scenario)

    @clause("M-14")
    @pytest.mark.parametrize(
        ("changes", "error"),
        [
            ({"offer_id": "o-9"}, NotFoundError),
            ({"offer_id": 1}, UsageError),
            ({"nonce": ""}, UsageError),
            ({"nonce": "x" * 129}, UsageError),
            ({"buyer": STRANGER.key}, UsageError),
            ({"seller": STRANGER.key}, UsageError),
            ({"network": ""}, UsageError),
            ({"input": "x" * 65_535}, UsageError),
        ],
    )
    def test_a_bad_request_opens_no_job(self, play: Callable[[_Scenario], None], changes: dict[str, Json], error: type[Exception]) -> None:
        async def scenario(f: _Floor) -> None:
            document = f.request_document(await f.put_up(), "n")
            document = _amended(document, BUYER, changes)
            with pytest.raises(error):
                await f.buyer.request(document)
            assert (await _all_changes(f.seller))[0] == []

        play(scenario)

    @clause("M-15")
    def test_an_input_of_exactly_the_limit_enters(self, play: Callable[[_Scenario], None]) -> None:
        async def scenario(f: _Floor) -> None:
            job = await f.buyer.request(f.request_document(await f.put_up(), "n", "x" * 65_534))
            assert job.request.body["input"] == "x" * 65_534

        play(scenario)

    @clause("M-16")
    @pytest.mark.parametrize("changes", [{"job_id": "another"}, {"buyer": STRANGER.key}, {"expires_at": "1.5"}, {"expires_at": "9" * 16}, {"network": "x"}])
    def test_a_quote_for_something_else_is_refused(self, play: Callable[[_Scenario], None], changes: dict[str, Json]) -> None:
        async def scenario(f: _Floor) -> None:
            job = await f.requested()
            with pytest.raises(UsageError, match=next(iter(changes))):
                await f.seller.quote(job.job_id, _amended(f.quote_document(job), SELLER, changes))
            assert (await f.buyer.get(job.job_id)).state == "requested"

        play(scenario)

    # time

    @clause("M-17")
    def test_a_quote_expires_at_its_time_and_not_before(self, play: Callable[[_Scenario], None]) -> None:
        async def scenario(f: _Floor) -> None:
            job, twin = await f.quoted(), await f.quoted()
            assert job.quote_expires_at == f.clock.now_ms() + 10 * MINUTE
            f.clock.advance(10 * MINUTE - 1)
            assert (await f.buyer.accept(job.job_id)).state == "accepted"
            f.clock.advance(1)
            with pytest.raises(StateError):
                await f.buyer.accept(twin.job_id)
            assert (await f.seller.get(twin.job_id)).state == "expired"

        play(scenario)

    @clause("M-18")
    def test_an_expiry_shows_without_anybody_acting_on_the_job(self, play: Callable[[_Scenario], None]) -> None:
        async def scenario(f: _Floor) -> None:
            job = await f.quoted()
            _, cursor = await _all_changes(f.seller)
            f.clock.advance(10 * MINUTE)
            found, _ = await _all_changes(f.seller, cursor)
            assert [(j.job_id, j.state) for j in found] == [(job.job_id, "expired")]
            nonce = str(job.request.body["nonce"])
            again = await f.buyer.find_request(nonce)
            assert again is not None
            assert again.state == "expired"

        play(scenario)

    @clause("M-19")
    def test_a_quote_lives_an_hour_at_most_and_a_quarter_without_a_time(self, play: Callable[[_Scenario], None]) -> None:
        async def scenario(f: _Floor) -> None:
            job, other = await f.requested(), await f.requested()
            far = f.quote_document(job, expires_at=str(f.clock.now_ms() + 600 * MINUTE))
            assert (await f.seller.quote(job.job_id, far)).quote_expires_at == f.clock.now_ms() + 60 * MINUTE
            assert (await f.seller.quote(other.job_id, f.quote_document(other, expires_at=None))).quote_expires_at == f.clock.now_ms() + 15 * MINUTE

        play(scenario)

    @clause("M-20")
    def test_a_quote_already_over_is_refused(self, play: Callable[[_Scenario], None]) -> None:
        async def scenario(f: _Floor) -> None:
            job = await f.requested()
            with pytest.raises(StateError):
                await f.seller.quote(job.job_id, f.quote_document(job, expires_at=str(f.clock.now_ms())))
            assert (await f.buyer.get(job.job_id)).state == "requested"

        play(scenario)

    @clause("M-21")
    def test_an_accepted_job_waits_half_an_hour_for_its_payment(self, play: Callable[[_Scenario], None]) -> None:
        async def scenario(f: _Floor) -> None:
            job, unpaid = await f.accepted(), await f.accepted()
            f.clock.advance(30 * MINUTE - 1)
            await f.buyer.submit_payment(job.job_id, "nano", "P")
            f.clock.advance(1)
            with pytest.raises(StateError):
                await f.buyer.submit_payment(unpaid.job_id, "nano", "Q")
            assert (await f.seller.get(unpaid.job_id)).state == "expired"
            f.clock.advance(10_000 * MINUTE)
            assert (await f.seller.get(job.job_id)).state == "accepted", "what is paid for never expires"
            assert (await f.seller.lock(job.job_id)).seconds_left == 300

        play(scenario)

    # payment claims

    @clause("M-22")
    def test_one_payment_pays_one_job_of_a_buyer(self, play: Callable[[_Scenario], None]) -> None:
        async def scenario(f: _Floor) -> None:
            first, second = await f.accepted(), await f.accepted()
            await f.buyer.submit_payment(first.job_id, "nano", "P")
            with pytest.raises(StateError):
                await f.buyer.submit_payment(second.job_id, "nano", "P")
            proof = "cashuB..."
            assert (await f.buyer.submit_payment(second.job_id, "cashu", "P", proof)).payment_token == proof
            assert (await f.seller.get(second.job_id)).payment_token == proof
            with pytest.raises(StateError):
                await f.buyer.submit_payment(second.job_id, "cashu", "P", "another")

        play(scenario)

    @clause("M-23")
    def test_a_strangers_claim_takes_no_payment_away(self, play: Callable[[_Scenario], None]) -> None:
        async def scenario(f: _Floor) -> None:
            offer = await f.put_up()
            foreign = await f.stranger.request(f.request_document(offer, "n", signer=STRANGER))
            await f.seller.quote(foreign.job_id, f.quote_document(foreign))
            await f.stranger.accept(foreign.job_id)
            await f.stranger.submit_payment(foreign.job_id, "nano", "P")
            job = await f.accepted()
            assert (await f.buyer.submit_payment(job.job_id, "nano", "P")).payment_id == "P"

        play(scenario)

    @clause("M-24")
    @pytest.mark.parametrize(
        ("rail", "payment_id", "token"),
        [("", "P", ""), ("x" * 33, "P", ""), ("nano", "", ""), ("nano", "x" * 129, ""), ("cashu", "P", "ü" * 8193), ("cashu", "P\0", "")],
    )
    def test_a_malformed_claim_is_refused(self, play: Callable[[_Scenario], None], rail: str, payment_id: str, token: str) -> None:
        async def scenario(f: _Floor) -> None:
            job = await f.accepted()
            with pytest.raises(UsageError):
                await f.buyer.submit_payment(job.job_id, rail, payment_id, token)
            assert (await f.buyer.get(job.job_id)).payment_id is None

        play(scenario)

    # locks and deliveries

    @clause("M-25")
    def test_a_lock_is_renewed_in_time_and_taken_anew_after_it(self, play: Callable[[_Scenario], None]) -> None:
        async def scenario(f: _Floor) -> None:
            job = await f.paid()
            first = await f.seller.lock(job.job_id)
            assert first.expires_at == f.clock.now_ms() + 5 * MINUTE
            f.clock.advance(5 * MINUTE - 1)
            renewed = await f.seller.lock(job.job_id)
            assert renewed.market_fence == first.market_fence
            assert renewed.expires_at == f.clock.now_ms() + 5 * MINUTE
            f.clock.advance(5 * MINUTE)
            taken = await f.seller.lock(job.job_id)
            assert taken.market_fence is not None
            assert first.market_fence is not None
            assert taken.market_fence > first.market_fence
            with pytest.raises(StaleFenceError):
                await f.seller.deliver(job.job_id, f.delivery(job), first.market_fence)
            with pytest.raises(StaleFenceError):
                await f.seller.deliver(job.job_id, Delivery(error=JobError("x", "y")), taken.market_fence + 1)
            assert (await f.seller.deliver(job.job_id, f.delivery(job), taken.market_fence)).state == "delivered"

        play(scenario)

    @clause("M-26")
    def test_without_a_fence_only_a_lock_in_its_time_delivers(self, play: Callable[[_Scenario], None]) -> None:
        async def scenario(f: _Floor) -> None:
            job, late = await f.running(), await f.running()
            assert (await f.seller.deliver(job.job_id, f.delivery(job), None)).state == "delivered"
            f.clock.advance(5 * MINUTE)
            with pytest.raises(StateError):
                await f.seller.deliver(late.job_id, f.delivery(late), None)
            assert (await f.seller.deliver(late.job_id, f.delivery(late), late.market_fence)).state == "delivered"

        play(scenario)

    @clause("M-27")
    def test_of_eight_locks_one_is_a_take(self, play: Callable[[_Scenario], None]) -> None:
        async def scenario(f: _Floor) -> None:
            seen: set[int | None] = set()
            job = await f.paid()
            for _ in range(4):
                locks = await asyncio.gather(*(f.seller.lock(job.job_id) for _ in range(8)))
                fences = {lock.market_fence for lock in locks}
                assert len(fences) == 1
                assert not fences & seen
                seen |= fences
                f.clock.advance(5 * MINUTE)

        play(scenario)

    @clause("M-28")
    def test_the_same_bytes_delivered_again_change_nothing(self, play: Callable[[_Scenario], None]) -> None:
        async def scenario(f: _Floor) -> None:
            job = await f.delivered()
            again = f.delivery(job, result=Result(GOOD.data, "text/plain"))
            assert await f.seller.deliver(job.job_id, again, 0) == job, "idempotent on (job, sha256), whatever the fence"
            assert job.result == GOOD
            assert job.receipt is not None
            verify_document(job.receipt, "receipt", SELLER.key)

        play(scenario)

    @clause("M-29")
    def test_the_largest_result_comes_back_exactly_and_no_larger_one_enters(self, play: Callable[[_Scenario], None], largest_result: int) -> None:
        async def scenario(f: _Floor) -> None:
            job, data = await f.running(), (bytes(range(256)) * (largest_result // 256 + 1))[:largest_result]
            with pytest.raises(UsageError):
                await f.seller.deliver(job.job_id, f.delivery(job, result=Result(data + b"x")), job.market_fence)
            await f.seller.deliver(job.job_id, f.delivery(job, result=Result(data)), job.market_fence)
            assert (await f.buyer.get(job.job_id)).result == Result(data)

        play(scenario)

    @clause("M-30")
    @pytest.mark.parametrize(
        "delivery",
        [
            Delivery(),
            Delivery(GOOD, None, JobError("x", "y")),
            Delivery(None, None, JobError("", "y")),
            Delivery(None, None, JobError("x", "ü" * 4100)),
            Delivery(Result(b"", "")),
        ],
    )
    def test_a_malformed_delivery_is_refused(self, play: Callable[[_Scenario], None], delivery: Delivery) -> None:
        async def scenario(f: _Floor) -> None:
            job = await f.running()
            with pytest.raises(UsageError):
                await f.seller.deliver(job.job_id, delivery, job.market_fence)
            assert await f.seller.get(job.job_id) == job

        play(scenario)

    @clause("M-31")
    def test_a_receipt_for_another_job_is_refused(self, play: Callable[[_Scenario], None]) -> None:
        async def scenario(f: _Floor) -> None:
            job, other = await f.running(), await f.running()
            with pytest.raises(UsageError, match="job_id"):
                await f.seller.deliver(job.job_id, f.delivery(other), job.market_fence)

        play(scenario)

    @clause("M-32")
    def test_a_reason_reaches_the_other_side(self, play: Callable[[_Scenario], None]) -> None:
        async def scenario(f: _Floor) -> None:
            assert (await f.declined()).error == JobError("busy", "try later")
            assert (await f.failed()).error == JobError("exit", "exit 1")
            canceled = await f.canceled()
            assert canceled.error is not None
            assert canceled.error.message == "changed my mind"
            with pytest.raises(UsageError):
                await f.buyer.cancel((await f.requested()).job_id, "x" * 201)

        play(scenario)

    # changes and hints

    @clause("M-33")
    def test_changes_show_each_side_its_jobs_at_their_latest_revision(self, play: Callable[[_Scenario], None]) -> None:
        async def scenario(f: _Floor) -> None:
            jobs = [await f.requested(), await f.quoted(), await f.delivered()]
            for market in (f.buyer, f.seller):
                found, cursor = await _all_changes(market, limit=1)
                assert found == jobs
                assert (await _all_changes(market, cursor))[0] == []
                assert (await market.changes(cursor)).cursor == cursor
            assert (await _all_changes(f.stranger))[0] == []
            _, cursor = await _all_changes(f.buyer)
            await f.buyer.cancel(jobs[0].job_id)
            assert [(job.job_id, job.state) for job in (await _all_changes(f.buyer, cursor))[0]] == [(jobs[0].job_id, "canceled")]

        play(scenario)

    @clause("M-34")
    @pytest.mark.parametrize("cursor", ["x", "0", "-1", "0000000000000000-0", "é", "\0", "1" * 5000])
    def test_a_cursor_of_nobody_is_refused(self, play: Callable[[_Scenario], None], cursor: str) -> None:
        async def scenario(f: _Floor) -> None:
            await f.requested()
            with pytest.raises(UsageError):
                await f.seller.changes(cursor)

        play(scenario)

    @clause("M-35")
    def test_a_reader_beside_writers_misses_no_change(self, market_for: MarketFor, clock: SteppedClock) -> None:
        """Several markets write while one reads page by page; what it saw in the end is what is there."""

        async def scenario() -> None:
            async with _floor(market_for, clock) as f, _opened(market_for, *[BUYER] * 3) as writers:
                offer = await f.put_up()

                async def write(number: int, market: Market) -> None:
                    for n in range(12):
                        job = await market.request(f.request_document(offer, f"w-{number}-{n}"))
                        if n % 3 == 0:
                            await market.cancel(job.job_id)

                seen: dict[str, int] = {}
                cursor, writing = "", asyncio.gather(*(write(n, market) for n, market in enumerate(writers)))
                while True:
                    last = writing.done()
                    page = await f.seller.changes(cursor, 5)
                    for job in page.jobs:
                        assert seen.get(job.job_id, 0) < job.revision
                        seen[job.job_id] = job.revision
                    cursor = page.cursor
                    if last and not page.more:
                        break
                await writing
                assert seen == {job.job_id: job.revision for job in (await _all_changes(f.buyer))[0]}
                assert len(seen) == 36

        asyncio.run(asyncio.wait_for(scenario(), ENOUGH))

    @clause("M-36", unless="events")
    def test_events_hint_at_jobs_that_change(self, play: Callable[[_Scenario], None], lacks: Mapping[str, str]) -> None:
        if "events" in lacks:
            return
        async def scenario(f: _Floor) -> None:
            hints: asyncio.Queue[str] = asyncio.Queue()

            async def listen() -> None:
                async for job_id in f.seller.events():
                    await hints.put(job_id)

            listener = asyncio.create_task(listen())
            try:
                # until the listener listens a hint may be lost, so the world is nudged until one arrives
                nudged: set[str] = set()
                async with asyncio.timeout(PATIENCE):
                    while hints.empty():
                        nudged.add((await f.requested()).job_id)
                    job = await f.requested()
                    while (hint := await hints.get()) != job.job_id:
                        assert hint in nudged
                    await f.buyer.cancel(job.job_id)
                    assert await hints.get() == job.job_id
            finally:
                listener.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await listener

        play(scenario)
