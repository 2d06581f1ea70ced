"""Our buyer and seller over a relay that knows none of our additions, its faults included: signed end to end, and what it changes is never paid or taken."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from tests.old_relay import OldRelay
from tests.rig import PRICE, SCHEMA, Disk
from tradeskill.agreement import read_offer, sign_offer
from tradeskill.buyer import Buyer, BuyerSettings
from tradeskill.contracts import PluginContext, Wallet
from tradeskill.journal import Database, Fulfilment, Purchase, selling
from tradeskill.model import Offer, Result
from tradeskill.money import Amount
from tradeskill.seller import Listing, Seller, SellerSettings, Shop
from tradeskill.signing import Identity
from tradeskill.testing.fake_backend import FakeBackend, FakeMachine, Plan
from tradeskill.testing.fakes import FakeLedger, FakeWallet
from tradeskill.world import World
from tradeskill_plugins.relay.client.market import RelayMarket
from tradeskill_plugins.relay.client.settings import Settings, UploadSettings
from tradeskill_plugins.relay.conformance import served_folder

OFFER = "5f0c7f1e-3d0a-4b53-9a54-0c7a6a2b9a11"
PATIENCE = 240.0  # seconds for what takes ten on a machine with nothing else to do
COINS = Amount(21, "sat")


@dataclass
class Trade:
    """A relay, a ledger, a seller at work and a buyer. Real sockets, real time."""

    relay: OldRelay
    home: Path
    world: World = field(default_factory=World)
    allow: frozenset[str] = frozenset({"no-fence", "small-results-only"})
    upload: UploadSettings | None = None
    settings: dict[str, float] = field(default_factory=dict)  # of both flows
    coins: bool = False  # both also have a wallet of a rail that such a relay knows nothing of

    def __post_init__(self) -> None:
        self.ledger = FakeLedger(self.world.now_ms, "dev", 0)
        self.machine = FakeMachine()
        self.identities = {"seller": Identity(b"s" * 32), "buyer": Identity(b"b" * 32), "stranger": Identity(b"x" * 32)}
        self.disks = {"seller": Disk(), "buyer": Disk()}
        self.markets: list[RelayMarket] = []

    async def market(self, side: str, **settings: Any) -> RelayMarket:
        context = PluginContext("relay", "dev", self.home / side, self.world, self.identities[side], lambda: "")
        made = RelayMarket(replace(Settings(self.relay.url, self.allow, limits=False, local_results=True, upload=self.upload), **settings), context)
        await made.open()
        self.markets.append(made)
        return made

    def journal(self, side: str) -> Database:
        return Database(self.disks[side].connect, self.world, "dev")

    def offer(self) -> Offer:
        return read_offer(
            sign_offer(
                self.identities["seller"],
                offer_id=OFFER,
                network="dev",
                title="Web page to Markdown",
                description="test",
                tags=["web"],
                prices=(PRICE, COINS) if self.coins else (PRICE,),
                input_schema=SCHEMA,
                pure=True,
                trusted=True,
                created_at=1,
            )
        )

    async def wallets(self, side: str) -> dict[str, Wallet]:
        """The buyer's with money in them, and the rail that the relay cannot carry first."""
        found = [FakeWallet(self.ledger, self.world, f"{side}'s coins", rail="coin", unit="sat")] if self.coins else []
        found.append(FakeWallet(self.ledger, self.world, side, rail="nano"))
        for wallet in found:
            await wallet.open()
            if side == "buyer":
                self.ledger.fund(await wallet.address(), 10**9)
                await wallet.collect()
        return {wallet.rail: wallet for wallet in found}

    async def seller(self) -> Seller:
        listing = Listing("extract", self.offer(), run=("x",), backend="fake", pure=True, trusted=True, jobs=500, per_buyer=500)
        return Seller(
            Shop(
                identity=self.identities["seller"],
                journal=self.journal("seller"),
                blobs=self.disks["seller"].blobs,
                market=await self.market("seller"),
                wallets=await self.wallets("seller"),
                backends={"fake": FakeBackend(self.machine, self.world, self.identities["seller"].key)},
                listings={"extract": listing},
                settings=SellerSettings(**{"poll_seconds": 0.05, **self.settings}),  # type: ignore[arg-type]  # the tests name fields that it has
                world=self.world,
                owner="worker",
                is_dead=lambda other: other != "worker",
            )
        )

    async def buyer(self, **settings: Any) -> Buyer:
        return Buyer(
            identity=self.identities["buyer"],
            journal=self.journal("buyer"),
            blobs=self.disks["buyer"].blobs,
            market=await self.market("buyer"),
            wallets=await self.wallets("buyer"),
            settings=BuyerSettings(**{"poll_seconds": 1.0, **self.settings, **settings}),
            world=self.world,
        )

    async def hire(self, buyer: Buyer, url: str) -> Purchase:
        return await buyer.drive((await buyer.intend(self.offer(), {"url": url})).purchase_id)

    def fulfilments(self) -> list[Fulfilment]:
        return self.journal("seller").read(lambda c: selling.fulfilments(c))

    def paid(self) -> int:
        """What ever reached the seller's invoices."""
        return sum(self.ledger.received(invoice.address) for invoice in self.ledger.stores["seller"].invoices.values())


@asynccontextmanager
async def trading(home: Path) -> AsyncIterator[Trade]:
    relay = OldRelay(limits=False)
    await relay.start()
    trade = Trade(relay, home)
    try:
        yield trade
    finally:
        for market in trade.markets:
            await market.close()
        await relay.stop()


@asynccontextmanager
async def selling_on(trade: Trade) -> AsyncIterator[Seller]:
    seller = await trade.seller()
    work = asyncio.create_task(seller.run())
    try:
        while not (seller._recalled or work.done()):  # noqa: ASYNC110 - the worker tells nobody; its offers are up then, and what follows is the test's
            await asyncio.sleep(0.01)
        yield seller
    finally:
        seller.stop()
        await work


def play(home: Path, scenario: Callable[[Trade], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(PATIENCE), trading(home) as trade:
            await scenario(trade)

    asyncio.run(run())


def test_a_hundred_jobs_finish_signed_end_to_end(tmp_path: Path) -> None:
    async def scenario(trade: Trade) -> None:
        async with selling_on(trade):
            buyer = await trade.buyer()
            purchases = await asyncio.gather(*(trade.hire(buyer, f"http://a/{n}") for n in range(100)))
            assert {purchase.state for purchase in purchases} == {"received"}
            for n, purchase in enumerate(purchases):
                assert json.loads(buyer.result(purchase)) == {"url": f"http://a/{n}"}
                assert purchase.receipt is not None
            assert len({purchase.job_id for purchase in purchases}) == len(trade.relay.jobs) == 100
            assert trade.paid() == 100 * PRICE.value
            assert set(trade.machine.started.values()) == {1}
            await buyer.close()

    play(tmp_path, scenario)


def test_a_seller_with_several_wallets_sells_by_the_one_rail_that_such_a_relay_carries(tmp_path: Path) -> None:
    async def main() -> None:
        async with trading(tmp_path) as trade:
            trade.coins = True
            async with selling_on(trade):
                purchase = await trade.hire(await trade.buyer(), "http://a/")
                assert (purchase.state, purchase.rail, purchase.amount) == ("received", "nano", str(PRICE.value))

    asyncio.run(main())


def test_nothing_is_sent_that_such_a_relay_does_not_know(tmp_path: Path) -> None:
    known = {
        "/v1/offers": {"title", "description", "tags", "pricing_mode", "fixed_price_raw"},
        "/v1/jobs": {"offer_id", "request_payload"},
        "quote": {"quote_amount_raw", "quote_invoice_address", "quote_expires_at", "payment_charge_id", "payment_provider"},
        "accept": set(),
        "payment": {"payment_tx_hash"},
        "lock": set(),
        "deliver": {"result_url", "error"},
        "cancel": {"reason"},
    }

    async def scenario(trade: Trade) -> None:
        async with selling_on(trade):
            buyer = await trade.buyer()
            await trade.hire(buyer, "http://a/")
            await buyer.close()
        posts = [call for call in trade.relay.calls if call.method == "POST"]
        assert len(posts) >= 7
        for call in posts:
            name = call.path if call.path in known else call.path.rpartition("/")[2]
            assert set(json.loads(call.body)) <= known[name], call
        assert all(call.path == "/v1/capabilities" or call.path in known or call.path.startswith("/v1/jobs/") for call in trade.relay.calls)

    play(tmp_path, scenario)


def everywhere(**changes: object) -> Callable[[str, Any], Any]:
    """Every job and offer is shown with these fields changed, where they are set."""

    def mutate(path: str, value: Any) -> Any:
        for row in [value.get("job"), value.get("offer"), *value.get("jobs", []), *value.get("offers", [])]:
            for name, change in changes.items():
                if row and row.get(name) is not None:
                    row[name] = change(row[name]) if callable(change) else change
        return value

    return mutate


def _other_input(payload: dict[str, Any]) -> dict[str, Any]:
    """The packed request with another input in it, in the right form."""
    import base64

    body, _, signature = payload["_tradeskill"].partition(".")
    value = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    value["input"] = {"url": "http://evil/"}
    text = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    return {**payload, "_tradeskill": f"{base64.urlsafe_b64encode(text).rstrip(b'=').decode()}.{signature}"}


FOREIGN = "fake_dev_0123456789abcdef_0000"
STRANGER = Identity(b"x" * 32).key


@pytest.mark.parametrize(
    "changes",
    [
        {"quote_invoice_address": FOREIGN},
        {"quote_amount_raw": "1"},
        {"quote_amount_raw": "1001"},
        {"quote_expires_at": "2099-01-01T00:00:00.000Z"},
        {"payment_charge_id": lambda text: "q1." + "A" * 22 + text[25:]},
        {"payment_provider": "berrypay"},
        {"request_payload": _other_input},
        {"request_payload": lambda payload: {"url": "http://evil/"}},
        {"buyer_pubkey": STRANGER},
        {"seller_pubkey": STRANGER},
        {"job_id": "5f0c7f1e-3d0a-4b53-9a54-0c7a6a2b9a12"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_of_a_job_with_a_changed_field_nothing_is_paid(tmp_path: Path, changes: dict[str, object]) -> None:
    async def scenario(trade: Trade) -> None:
        async with selling_on(trade):
            buyer = await trade.buyer(quote_timeout=1.0)
            trade.relay.mutate = everywhere(**changes)
            purchase = await trade.hire(buyer, "http://a/")
            assert purchase.state in ("abandoned", "canceled"), purchase
            assert trade.paid() == 0
            assert trade.machine.started == {}
            assert [t for t in trade.ledger.transfers.values() if t.source != "mint"] == []
            await buyer.close()

    play(tmp_path, scenario)


@pytest.mark.parametrize(
    "change",
    [
        lambda url: url.replace(";base64,", ";base64,AAAA"),
        lambda url: url.partition("#")[0],
        lambda url: url[:-2] + ("AA" if url[-2:] != "AA" else "QA"),
        lambda url: "data:text/html;" + url.partition(";")[2],
    ],
    ids=["bytes", "no receipt", "signature", "media type"],
)
def test_a_changed_result_is_not_taken(tmp_path: Path, change: Callable[[str], str]) -> None:
    async def scenario(trade: Trade) -> None:
        async with selling_on(trade):
            buyer = await trade.buyer()
            trade.relay.mutate = everywhere(result_url=change)
            purchase = await trade.hire(buyer, "http://a/")
            assert purchase.state == "disputed", purchase
            await buyer.close()

    play(tmp_path, scenario)


def test_a_relay_that_loses_half_its_answers_makes_nobody_pay_or_work_twice(tmp_path: Path) -> None:
    async def scenario(trade: Trade) -> None:
        count = 0

        def lossy(method: str, path: str) -> str | int | None:
            nonlocal count
            if method == "POST" and path.startswith("/v1/jobs"):
                count += 1
                return {0: "drop", 1: 502}.get(count % 4)
            return None

        async with selling_on(trade):
            buyer = await trade.buyer()
            trade.relay.after = lossy
            purchases = await asyncio.gather(*(trade.hire(buyer, f"http://a/{n}") for n in range(10)))
            assert {purchase.state for purchase in purchases} == {"received"}
            assert count > 40
            assert trade.paid() == 10 * PRICE.value
            assert [json.loads(buyer.result(purchase)) for purchase in purchases] == [{"url": f"http://a/{n}"} for n in range(10)]
            assert set(trade.machine.started.values()) == {1}
            await buyer.close()

    play(tmp_path, scenario)


def test_a_larger_result_goes_by_the_upload_folder_and_without_one_the_money_comes_back(tmp_path: Path) -> None:
    data = bytes(range(256)) * 400

    async def scenario(trade: Trade) -> None:
        trade.machine.plan = lambda execution, task: Plan(result=Result(data, "application/x-large"))
        async with selling_on(trade):
            buyer = await trade.buyer()
            assert (await trade.hire(buyer, "http://small/")).state == "refunded"
            await buyer.close()
        with served_folder(tmp_path / "served") as url:
            trade.upload = UploadSettings(tmp_path / "served", url)
            trade.allow = frozenset({"no-fence"})
            async with selling_on(trade):
                buyer = await trade.buyer()
                purchase = await trade.hire(buyer, "http://large/")
                assert (purchase.state, purchase.result_type) == ("received", "application/x-large")
                assert buyer.result(purchase) == data
                await buyer.close()

    play(tmp_path, scenario)
