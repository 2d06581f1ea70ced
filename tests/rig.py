"""A whole trade on virtual time: seller and buyer flows, the embedded market in memory, a fake rail and a fake machine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.simulation.disk import market_table
from tradeskill.agreement import read_offer, sign_offer, sign_request
from tradeskill.buyer import Buyer, BuyerSettings
from tradeskill.configvalues import Place
from tradeskill.contracts import Backend, Market, Task, Wallet
from tradeskill.journal import Database, Fulfilment, MemoryBlobs, PaymentRow, Purchase, buying, selling, spending
from tradeskill.model import Invoice, Job, Json, Offer
from tradeskill.money import Amount
from tradeskill.policy import AskOwner, Guard
from tradeskill.policy.sealed import parse_policy
from tradeskill.seller import Listing, Seller, SellerSettings, Shop
from tradeskill.signing import Identity
from tradeskill.sqlite import Connect, memory
from tradeskill.testing.fake_backend import FakeBackend, FakeMachine, Plan
from tradeskill.testing.fakes import FakeLedger, FakeWallet, Transfer
from tradeskill.testing.fakes import _address as fake_address
from tradeskill.testing.virtual_time import VirtualWorld
from tradeskill_plugins.market.embedded import EmbeddedMarket
from tradeskill_plugins.market.store import open_sqlite

PRICE = Amount(1000, "raw")
SCHEMA: dict[str, Json] = {"type": "object", "required": ["url"], "properties": {"url": {"type": "string"}}, "additionalProperties": False}


@dataclass
class Disk:
    """What survives a crash of one profile."""

    connect: Connect = field(default_factory=memory)
    blobs: MemoryBlobs = field(default_factory=MemoryBlobs)


class Rig:
    """Build inside the virtual loop. Parts can be replaced before `seller()` or `buyer()` is called."""

    def __init__(
        self,
        *,
        seed: int = 0,
        confirm_after: float | None = 0.15,
        plan: Callable[[str, Task], Plan] | None = None,
        pure: bool = True,
        settings: SellerSettings | None = None,
        buyer_settings: BuyerSettings | None = None,
        capacity: tuple[int, int] = (100, 100),
        at_label: Callable[[str, str], None] | None = None,
        prices: Sequence[Amount] = (PRICE,),
    ) -> None:
        self.world = VirtualWorld(seed, at_label)
        self.book = market_table()
        self.store = open_sqlite(lambda: self.book.raw, self.world, "dev")
        self.ledger = FakeLedger(self.world.now_ms, "dev", confirm_after)
        self.machine = FakeMachine(plan) if plan is not None else FakeMachine()
        self.seller_identity, self.buyer_identity = Identity(b"s" * 32), Identity(b"b" * 32)
        self.seller_disk, self.buyer_disk = Disk(), Disk()
        self.settings = settings or SellerSettings(poll_seconds=1.0)
        self.buyer_settings = buyer_settings or BuyerSettings()
        self.pure, self.capacity = pure, capacity
        self.journals: dict[str, Database] = {}
        self.incarnation = 0
        self.living: set[str] = set()  # workers that nobody may call dead
        self._sent = 0
        self.prices = prices

    def offer(self, name: str = "extract") -> Offer:
        return read_offer(
            sign_offer(
                self.seller_identity,
                offer_id="5f0c7f1e-3d0a-4b53-9a54-0c7a6a2b9a11",
                network="dev",
                title="Web page to Markdown",
                description="test",
                tags=["web"],
                prices=self.prices,
                input_schema=SCHEMA,
                pure=self.pure,
                trusted=True,
                created_at=1,
            )
        )

    def journal(self, side: str) -> Database:
        disk = self.seller_disk if side == "seller" else self.buyer_disk
        return Database(disk.connect, self.world, "dev")

    async def open_wallet(self, side: str, **options: object) -> FakeWallet:
        wallet = FakeWallet(self.ledger, self.world, side, **options)  # type: ignore[arg-type]  # passes the fake's own options through
        await wallet.open()
        return wallet

    async def market(self, side: str) -> EmbeddedMarket:
        market = EmbeddedMarket(self.store, self.seller_identity if side == "seller" else self.buyer_identity, self.world)
        await market.open()
        return market

    async def shop(
        self,
        *,
        wallet: Wallet | None = None,
        wallets: Sequence[Wallet] = (),
        market: Market | None = None,
        backend: Backend | None = None,
        owner: str = "",
    ) -> Shop:
        self.incarnation += 1
        name = owner or f"worker-{self.incarnation}"
        wallets = wallets or [wallet or await self.open_wallet("seller")]
        listing = Listing("extract", self.offer(), run=("x",), backend="fake", pure=self.pure, trusted=True, jobs=self.capacity[0], per_buyer=self.capacity[1])
        return Shop(
            identity=self.seller_identity,
            journal=self.journal("seller"),
            blobs=self.seller_disk.blobs,
            market=market or await self.market("seller"),
            wallets={each.rail: each for each in wallets},
            backends={"fake": backend or FakeBackend(self.machine, self.world, self.seller_identity.key)},
            listings={"extract": listing},
            settings=self.settings,
            world=self.world,
            owner=name,
            is_dead=lambda other: other != name and other not in self.living,
        )

    async def seller(self, **parts: object) -> Seller:
        return Seller(await self.shop(**parts))  # type: ignore[arg-type]  # passes parts through

    async def buyer(
        self,
        *,
        wallet: Wallet | None = None,
        wallets: Sequence[Wallet] = (),
        market: Market | None = None,
        fund: int = 1_000_000,
        ask_owner: AskOwner | None = None,
    ) -> Buyer:
        """`wallets`: instead of one on the rig's ledger, and funded by whoever gives them."""
        if wallet is None and not wallets:
            wallet = await self.open_wallet("buyer")
        if fund and wallet is not None:
            self.ledger.fund(await wallet.address(), fund)
            await wallet.collect()
        return Buyer(
            identity=self.buyer_identity,
            journal=self.journal("buyer"),
            blobs=self.buyer_disk.blobs,
            market=market or await self.market("buyer"),
            wallets={each.rail: each for each in wallets or [wallet] if each is not None},
            settings=self.buyer_settings,
            world=self.world,
            ask_owner=ask_owner,
        )

    async def hire(self, buyer: Buyer, url: str = "http://a/", label: str = "", until: Iterable[str] = ()) -> Purchase:
        purchase = await buyer.intend(self.offer(), {"url": url}, label=label)
        return await buyer.drive(purchase.purchase_id, tuple(until))

    async def until(self, ready: Callable[[], object], seconds: float = 60.0) -> None:
        """Let virtual time pass until `ready()` is true; fails after so many seconds of it."""
        end, step = self.world.monotonic() + seconds, max(0.05, seconds / 1200)
        while not ready():
            assert self.world.monotonic() < end, f"not within {seconds:g} s"
            await self.world.sleep(step)

    def pay(self, address: str, amount: int, source: str = "stranger") -> str:
        """Somebody sends money there; its id."""
        self._sent += 1
        address_of_source = fake_address("dev", source, "main")
        self.ledger.fund(address_of_source, amount)
        transfer = Transfer(f"{self._sent:064x}", address_of_source, address, amount)
        self.ledger.publish(transfer)
        return transfer.transfer_id

    async def order(self, url: str = "http://a/", *, refund: bool = True, nonce: str = "n") -> Job:
        """A buyer that does everything by hand: asks, waits for the quote and accepts it."""
        market = await self.market("buyer")
        refund_to = {"fake": self.refund_address} if refund else {}
        document = sign_request(
            self.buyer_identity, self.offer(), input_value={"url": url}, refund_to=refund_to, nonce=f"{nonce}{url}", created_at=self.world.now_ms()
        )
        job = await market.request(document)
        await self.until(lambda: any(row.job_id == job.job_id and row.state != "seen" for row in self.fulfilments()))
        while (job := await market.get(job.job_id)).state == "requested":
            await self.world.sleep(0.05)
        return await market.accept(job.job_id)

    async def claim(self, job: Job, payment_id: str) -> None:
        await (await self.market("buyer")).submit_payment(job.job_id, "fake", payment_id)

    @property
    def refund_address(self) -> str:
        return fake_address("dev", "the buyer's refunds")

    def invoice(self, job: Job) -> Invoice:
        return self.ledger.stores["seller"].invoices[job.job_id]

    def row(self, job: Job) -> Fulfilment:
        return self.journal("seller").read(lambda c: selling.fulfilment(c, job.job_id))

    def money(self, job: Job) -> list[tuple[str, int]]:
        """(state, amount) of every part of every payment, in the order they came."""
        return [(payment.state, payment.value) for payment in self.payments(job.job_id)]

    def fulfilments(self) -> list[Fulfilment]:
        return self.journal("seller").read(lambda c: selling.fulfilments(c))

    def payments(self, job_id: str) -> list[PaymentRow]:
        return self.journal("seller").read(lambda c: selling.payments_of(c, job_id))

    def purchases(self) -> list[Purchase]:
        return self.journal("buyer").read(lambda c: buying.purchases(c))


async def under_policy(rig: Rig, content: dict[str, Any]) -> BuyerSettings:
    """Settings by which the rig's buyers obey this policy, as confirmed."""
    file = parse_policy(content, Place(Path("policy.yaml")))
    seal = {"serial": 1, "passes": 1, "memory_kib": 1024, "lanes": 1, "salt": "00" * 16, "mac": "00" * 32}
    await rig.journal("buyer").write(lambda tx: spending.set_meta(tx, "policy.accepted", json.dumps({**content, "seal": seal})))
    return BuyerSettings(guard=lambda: Guard(file=file), poll_seconds=1.0)


@asynccontextmanager
async def at_work(*sellers: Seller) -> AsyncIterator[None]:
    """These workers, with their offers up, until the block ends."""
    tasks = [await running(seller) for seller in sellers]
    try:
        yield
    finally:
        for seller in sellers:
            seller.stop()
        await asyncio.gather(*tasks)


async def running(seller: Seller) -> asyncio.Task[None]:
    """The seller at work, with its offers up."""
    await seller.publish()
    return asyncio.create_task(seller.run())


