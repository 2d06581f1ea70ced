"""One schedule: a seed decides who trades, what fails and when; the flows run until everything rests; the invariants judge.

Past 400 lines because it is one schedule from its first draw to its judgement.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from tradeskill.agreement import read_offer, sign_offer
from tradeskill.buyer import Buyer, BuyerSettings
from tradeskill.contracts import Limits, Task, Wallet
from tradeskill.errors import StorageError, UnavailableError
from tradeskill.journal import Database
from tradeskill.model import Offer
from tradeskill.money import Amount
from tradeskill.policy import Caps
from tradeskill.seller import Listing, Seller, Shop
from tradeskill.signing import Identity
from tradeskill.testing.fake_backend import FakeMachine, Plan
from tradeskill.testing.fakes import FakeLedger, FakeWallet
from tradeskill.testing.virtual_time import Crashed, VirtualWorld, run_virtual
from tradeskill_plugins.market.embedded import EmbeddedMarket
from tradeskill_plugins.market.store import open_sqlite

from . import deeds
from .disk import Connection, Disk, journal_disk, market_table
from .faults import DEEDS, Faults
from .handles import BackendHandle, MarketHandle, Network, WalletHandle, store_name
from .invariants import AT_REST, BuyerSide, SellerSide, Stage, buyer_committed, seller_committed, started
from .life import Endless, Life, SimLoop
from .scenario import COINS, PRICE, UNITS, Scenario, drawn

__all__ = ["Outcome", "Play", "play", "played"]

SEEDS = (b"seller's identity for simulations"[:32], b"buyer 0's identity for simulation"[:32], b"buyer 1's identity for simulation"[:32])
SELLER, *BUYERS = (Identity(seed) for seed in SEEDS)
SECRETS = tuple(text for seed in SEEDS for text in (seed.decode(), seed.hex()))
SCHEMA: dict[str, Any] = {"type": "object", "required": ["url"], "properties": {"url": {"type": "string"}}, "additionalProperties": False}
PRICES = {"fake": PRICE, "coin": COINS}
REST_SECONDS = 6000.0  # more than any deadline of the flows
CRASHES_AT_MOST = 6


def _offer(pure: bool, rails: tuple[str, ...]) -> Any:
    return read_offer(
        sign_offer(
            SELLER,
            offer_id="5f0c7f1e-3d0a-4b53-9a54-0c7a6a2b9a11",
            network="dev",
            title="Web page to Markdown",
            description="for simulations",
            tags=["web"],
            prices=[PRICES[rail] for rail in rails],
            input_schema=SCHEMA,
            pure=pure,
            trusted=True,
            created_at=1,
        )
    )


OFFERS = {(pure, rails): _offer(pure, rails) for pure in (True, False) for rails in (("fake",), ("coin",), ("fake", "coin"))}


@dataclass
class Outcome:
    seed: int
    steps: int = 0
    paid_jobs: int = 0
    crashes: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    trace: list[tuple[float, str]] = field(default_factory=list)

    def digest(self) -> str:
        """The same for the same seed, always."""
        return hashlib.sha256("\n".join(f"{at:.6f} {text}" for at, text in self.trace).encode()).hexdigest()


class _Records(logging.Handler):
    """What the flows logged, for I8 and the trace."""

    def __init__(self, sink: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self.sink = sink

    def handle(self, record: logging.LogRecord) -> bool:
        self.sink(record.getMessage())
        return True


def play(seed: int, scenario: Scenario | None = None) -> Outcome:
    """One whole schedule. Nothing but the seed (and the scenario, where a test writes one) decides what happens."""
    return played(Play(seed, scenario))


def played(staged: Play) -> Outcome:
    handler, logger = _Records(staged.logged), logging.getLogger("tradeskill")
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    loop = SimLoop()
    loop.set_exception_handler(staged.stray)
    try:
        run_virtual(staged.run(), 100_000.0, loop)
    except (TimeoutError, Endless) as error:
        staged.wrong(f"I4: it never ends: {error!r}")
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate
        staged.release()
    return staged.outcome


class Play:
    def __init__(self, seed: int, scenario: Scenario | None = None) -> None:
        self.outcome = Outcome(seed)
        self.rng = random.Random(seed)
        self.scenario = scenario or drawn(seed, self.rng)
        self.faults = Faults(self.rng, self.scenario.faults, self.tell)
        self.network = Network(self.rng, self.faults)
        self.lives: dict[str, Life] = {}
        self.sellers: dict[str, Seller] = {}
        self.buyers: dict[str, Buyer] = {}
        self.skew: dict[str, int] = {}
        self.ending = False
        self.texts: list[str] = []
        self.busy_deeds: set[asyncio.Task[Any]] = set()
        self.quoted = asyncio.Event()
        self.asleep: Life | None = None
        self._labels_seen = 0
        self._sleeps = "process.paused" in self.scenario.faults
        self._countdown = self.scenario.crash_countdown
        self._crashed = 0
        self._failing = self.scenario.work == "failed"
        self._open()

    def _open(self) -> None:
        market_world = VirtualWorld(self.outcome.seed + 1)
        self.market_world = market_world
        self.market_table = market_table()
        self.store = open_sqlite(lambda: self.market_table.raw, market_world, "dev")
        self.ledger = FakeLedger(market_world.now_ms, "dev", self.scenario.confirm_after)
        self.ledger.listen(self._maybe_rolled_back)
        self.machine = FakeMachine(self._plan)
        self.seller_disk = journal_disk(self.faults, self._seller_committed)
        self.buyer_disks: list[Disk] = []
        sides = []
        for i, cap in enumerate(self.scenario.caps):
            side = BuyerSide(f"buyer{i}", BUYERS[i].key, None, _in_units(cap))  # type: ignore[arg-type]  # its disk follows
            disk = journal_disk(self.faults, partial(self._buyer_committed, side))
            side.raw = disk.table.raw
            self.buyer_disks.append(disk)
            sides.append(side)
        seller = SellerSide(self.seller_disk.table.raw)
        self.stage = Stage(self.ledger, self.machine, self.market_table.raw, seller, sides, self.scenario.pure, SECRETS, self.texts)

    def release(self) -> None:
        for table in (self.market_table, self.seller_disk.table, *(disk.table for disk in self.buyer_disks)):
            table.release()

    def _maybe_rolled_back(self, address: str) -> None:
        """The ledger's own fault: what it has seen and not made final may vanish."""
        pending = [t.transfer_id for t in self.ledger.incoming(address) if not t.final]
        if pending and self.faults.strikes("ledger.rolled-back"):
            asyncio.get_running_loop().call_later(self.rng.choice((0.0, 0.01, 0.1)), self._roll_back, pending[-1])

    def _roll_back(self, transfer_id: str) -> None:
        transfer = self.ledger.transfers.get(transfer_id)
        if transfer is not None and not transfer.final:
            self.ledger.roll_back(transfer_id)

    # what happens is told

    def tell(self, text: str) -> None:
        try:
            at = asyncio.get_running_loop().time()
        except RuntimeError:
            at = 0.0
        self.outcome.trace.append((at, text))

    def logged(self, text: str) -> None:
        self.texts.append(text)
        self.tell(f"log {text}")

    def wrong(self, text: str) -> None:
        if text not in self.outcome.violations:
            self.tell(f"VIOLATION {text}")
            self.outcome.violations.append(text)

    def stray(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """An exception that nobody took is a fault of the flows, unless its process was dead."""
        error = context.get("exception")
        if not isinstance(error, (Crashed, asyncio.CancelledError, StorageError, UnavailableError)):
            self.wrong(f"an exception was lost: {error!r} ({context.get('message')})")

    def _seller_committed(self, life: Life) -> None:
        before = self.stage.seller.fence
        for text in seller_committed(self.stage):
            self.wrong(text)
        asleep = self.asleep
        if asleep is not None and asleep is not life and self.stage.seller.fence > before and self.rng.random() < 0.6:
            self.asleep = None  # the other worker took a job over: the sleeper wakes right now, and this one nods off
            self._deed(deeds.nod_off(life))
            self.tell(f"{asleep.name} wakes")
            asleep.wake()

    def _buyer_committed(self, side: BuyerSide, life: Life) -> None:
        for text in buyer_committed(self.stage, side):
            self.wrong(text)

    # crashes

    def at_label(self, life: Life, when: str, label: str) -> None:
        self.network.steps += 1
        self._labels_seen += 1
        self.tell(f"{life.name} {when} {label}")
        if when == "after" and label == "seller.quote-stored":
            self.quoted.set()
        if self.faults.stopped or self._crashed >= CRASHES_AT_MOST:
            return
        if label.startswith("seller.") and life.side != "seller":
            return
        scenario = self.scenario
        if self._sleeps and (label == scenario.pause_at or self._labels_seen > 60) and self.rng.random() < 0.7:
            self._sleeps = False
            self.asleep = life
            self.faults.count("process.paused")
            life.pause()
            self._deed(deeds.sleep(self, life))
        if (when, label) == scenario.crash:
            self._countdown -= 1
            if self._countdown == -1:
                self._crash(life, label)
        stray = scenario.again if self._crashed and scenario.again else scenario.stray_crashes
        if stray and self.rng.random() < stray:
            self._crash(life, label)

    def _crash(self, life: Life, label: str) -> None:
        self._crashed += 1
        self.outcome.crashes[label] += 1
        self.tell(f"{life.name} CRASHES")
        life.die()
        raise Crashed(life.name)

    # the work

    def _plan(self, execution_id: str, task: Task) -> Plan:
        for text in started(self.stage, execution_id, str((task.details or {})["job_id"])):
            self.wrong(text)
        seconds = self.rng.choice(self.scenario.work_seconds)
        struck = self.faults.any_of("backend.", ("refused", "answer-lost", "failed", "lost", "never"))
        if self._failing and not self.faults.stopped:
            self._failing = False
            self.faults.count("backend.failed")
            struck = "failed"
        if struck == "refused":
            return Plan(start="refused")
        if struck == "answer-lost":
            return Plan(seconds, start="answer_lost")
        if struck in ("failed", "lost", "never"):
            return Plan(seconds, end=struck)  # type: ignore[arg-type]  # one of its literals
        return Plan(seconds)

    # processes

    async def run(self) -> None:
        self._fund()
        roles = [asyncio.create_task(self.keep(f"seller-{i}", self._sell, forever=True)) for i in range(self.scenario.workers)]
        with suppress(TimeoutError):  # a buyer found the offer first; only long outages make it come too early
            await asyncio.wait_for(self.network.offer_is_up.wait(), 60.0)
        buying = [asyncio.create_task(self.keep(f"buyer-{i}", self.buy)) for i in range(len(self.buyer_disks))]
        for name in DEEDS:
            if name in self.scenario.faults:
                self._deed(deeds.DEEDS[name](self))
        if self.scenario.collects:
            self._deed(deeds.collect(self))
        end = asyncio.create_task(self._end_faults())
        await asyncio.wait(buying)
        for deed in list(self.busy_deeds):
            await asyncio.wait([deed])
        if not end.done() and not self._resting():
            await asyncio.wait([end])
        end.cancel()
        self._heal()
        await self._rest()
        self.ending = True
        for life in list(self.lives.values()):
            life.die()
        await asyncio.wait(roles)
        self._judge()

    def _fund(self) -> None:
        for i in range(len(self.buyer_disks)):
            for rail in self.scenario.buyers_rails[i]:
                wallet = FakeWallet(self.ledger, VirtualWorld(0), store_name(f"buyer{i}", rail))
                self.ledger.fund(wallet._main, 100 * PRICES[rail].value)
        self.ledger.fund(deeds.STRANGER, 1000 * PRICE.value)
        for rail in UNITS:
            FakeWallet(self.ledger, VirtualWorld(0), store_name("seller", rail))  # its store, looked at by the invariants

    def _deed(self, deed: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(deed)
        self.busy_deeds.add(task)
        task.add_done_callback(self._deed_done)

    def _deed_done(self, task: asyncio.Task[Any]) -> None:
        self.busy_deeds.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.wrong(f"the schedule itself failed: {task.exception()!r}")

    async def keep(self, role: str, main: Callable[[Life, str], Coroutine[Any, Any, None]], forever: bool = False) -> None:
        """A process, started again after each crash, like by a good init."""
        number = 0
        while not self.ending:
            number += 1
            life = self.born(role, number)
            task = life.start(main(life, role))
            await asyncio.wait([task])
            crashed = not life.alive
            error = None if task.cancelled() else task.exception()
            life.die()
            if self.ending:
                return
            if not crashed:
                if error is None and not forever:
                    return
                if error is not None and not isinstance(error, (StorageError, UnavailableError)):
                    self.wrong(f"{role} died of {error!r}")
                    return
                self.tell(f"{life.name} ends: {error}")
            await asyncio.sleep(0.5 if self.faults.stopped else self.rng.choice(self.scenario.restarts))

    def born(self, role: str, number: int) -> Life:
        side = role.split("-")[0]
        life = Life(f"{role}.{number}", side, self, self.rng.randrange(2**60))
        life.world.skew_ms = self.skew.get(side, 0)
        self.lives[role] = life
        return life

    async def _sell(self, life: Life, role: str) -> None:
        wallets = await self._wallets("seller", self.scenario.rails, life)
        market = MarketHandle(EmbeddedMarket(self.store, SELLER, self.market_world), life, self.network)
        await market.open()
        offer = self._offered
        jobs, per_buyer = self.scenario.capacity
        listing = Listing("extract", offer, run=("x",), backend="fake", pure=self.scenario.pure, trusted=True, limits=LIMITS, jobs=jobs, per_buyer=per_buyer)
        shop = Shop(
            identity=SELLER,
            journal=Database(partial(one, Connection(self.seller_disk, life)), life.world, "dev"),  # type: ignore[arg-type,return-value]  # as much of it as is used
            blobs=self.seller_disk.blobs,
            market=market,
            wallets=wallets,
            backends={"fake": BackendHandle(self.machine, life, self.network, SELLER.key)},
            listings={"extract": listing},
            settings=self.scenario.settings,
            world=life.world,
            owner=life.name,
            is_dead=self._is_dead,
        )
        self.sellers[life.name] = Seller(shop)
        await self.sellers[life.name].run()

    async def _wallets(self, owner: str, rails: tuple[str, ...], life: Life) -> dict[str, Wallet]:
        wallets = {rail: WalletHandle(self.ledger, owner, life, self.network, rail) for rail in rails}
        for wallet in wallets.values():
            await FakeWallet.open(wallet)
        return {**wallets}

    @property
    def _offered(self) -> Offer:
        offer: Offer = OFFERS[self.scenario.pure, self.scenario.rails]
        return offer

    def _is_dead(self, name: str) -> bool:
        return all(life.name != name for life in self.lives.values())

    async def buy(self, life: Life, role: str) -> None:
        index = int(role.split("-")[1])
        wallets = await self._wallets(f"buyer{index}", self.scenario.buyers_rails[index], life)
        market = MarketHandle(EmbeddedMarket(self.store, BUYERS[index], self.market_world), life, self.network)
        await market.open()
        cap = self.scenario.caps[index]
        buyer = Buyer(
            identity=BUYERS[index],
            journal=Database(partial(one, Connection(self.buyer_disks[index], life)), life.world, "dev"),  # type: ignore[arg-type,return-value]  # as above
            blobs=self.buyer_disks[index].blobs,
            market=market,
            wallets=wallets,
            settings=BuyerSettings(
                caps=Caps(in_total=tuple(Amount(most, unit) for unit, most in _in_units(cap).items())),
                deliver_timeout=4000.0,
                poll_seconds=self.scenario.settings.poll_seconds,
            ),
            world=life.world,
            progress=lambda purchase: self.tell(f"{life.name} purchase {purchase.purchase_id[:6]} {purchase.state} {purchase.error_message or ''}"),
        )
        self.buyers[role] = buyer
        await asyncio.gather(*[self._hire(life, buyer, url, index) for who, url in self.scenario.wishes if who == index])

    async def _hire(self, life: Life, buyer: Buyer, url: str, index: int) -> None:
        while True:
            try:
                purchase = await buyer.intend(self._offered, {"url": url})
                break
            except UnavailableError:
                await life.world.sleep(1.0)
        leaves = self.scenario.gone_at if url.endswith("/0") else ""
        if leaves:
            self.stage.gone.add(purchase.purchase_id)
        while True:
            settled = self._settled(purchase.purchase_id, index)
            purchase = await buyer.drive(purchase.purchase_id, (leaves,))
            if leaves and purchase.state == leaves:
                self.faults.count("buyer.gone")
            if purchase.state != "failed" or settled:
                return
            await life.world.sleep(20.0)

    def _settled(self, purchase_id: str, index: int) -> bool:
        """The seller has nothing to send back for it any more."""
        row = self.buyer_disks[index].table.raw.execute("SELECT job_id, state FROM purchases WHERE purchase_id = ?", (purchase_id,)).fetchone()
        if row[1] != "failed":
            return False
        raw = self.seller_disk.table.raw
        job = raw.execute("SELECT state FROM fulfilments WHERE job_id = ?", (row[0],)).fetchone()
        open_money = raw.execute("SELECT 1 FROM payments WHERE job_id = ? AND state IN ('found', 'refund_due', 'refunding')", (row[0],)).fetchone()
        unseen = any(not t.final for t in self.ledger.transfers.values())
        return open_money is None and not unseen and (job is None or job[0] not in ("quoted", "paid", "leased", "started", "executed") or self._parked(row[0]))

    def _parked(self, job_id: str) -> bool:
        rows = self.seller_disk.table.raw.execute("SELECT state FROM payments WHERE job_id = ?", (job_id,)).fetchall()
        states = {row[0] for row in rows}
        return "review" in states and "allocated" not in states

    # the end

    async def _end_faults(self) -> None:
        await asyncio.sleep(self.scenario.faults_until)
        self._heal()

    def _heal(self) -> None:
        if not self.faults.stopped:
            self.tell("the faults stop")
        self.faults.stop()
        self.ledger.hold = False
        self.ledger.confirm_all()
        for life in self.lives.values():
            life.wake()

    async def _rest(self) -> None:
        waited, pause = 0.0, 1.0
        while (why := self._unrest()) and waited < REST_SECONDS:
            await asyncio.sleep(pause)
            waited += pause
            pause = min(pause * 1.5, 30.0)
        for text in why:
            self.wrong(f"I4: no rest {REST_SECONDS:g} s after the faults: {text}")

    def _resting(self) -> bool:
        return not self._unrest()

    def _unrest(self) -> list[str]:
        """What still has to happen, when nothing fails any more."""
        raw = self.seller_disk.table.raw
        found = [f"effect {row[0]} of {row[1]}" for row in raw.execute("SELECT name, subject_id FROM effects WHERE state = 'pending'").fetchall()]
        for job_id, state in raw.execute("SELECT job_id, state FROM fulfilments").fetchall():
            if state in ("paid", "leased", "started", "executed") and not self._parked(job_id):
                found.append(f"job {job_id} is {state}")
        for payment_id, state in raw.execute("SELECT payment_id, state FROM payments WHERE state IN ('found', 'refund_due', 'refunding')").fetchall():
            found.append(f"payment {payment_id} is {state}")
        recorded = {row[0] for row in raw.execute("SELECT payment_id FROM payments").fetchall()}
        addresses = {row[0] for row in raw.execute("SELECT address FROM invoices").fetchall()}
        for transfer in self.ledger.transfers.values():
            if not transfer.final:
                found.append(f"transfer {transfer.transfer_id} is not final")
            elif transfer.to in addresses and transfer.transfer_id not in recorded:
                found.append(f"transfer {transfer.transfer_id} is not found")
        return found

    def _judge(self) -> None:
        if "market.forged" in self.faults.counts or any(kind.startswith("third") for kind in self.faults.counts):
            self.stage.doubtful = True
        for invariant in AT_REST:
            for text in invariant(self.stage):
                self.wrong(text)
        self.outcome.steps = self.network.steps
        self.outcome.faults = self.faults.counts
        paid = self.seller_disk.table.raw.execute("SELECT COUNT(*) FROM fulfilments WHERE paid_at IS NOT NULL").fetchone()
        self.outcome.paid_jobs = paid[0]


def _in_units(cap: int | None) -> dict[str, int]:
    """The same cap on both rails: enough for as many jobs. None: no cap."""
    if cap is None:
        return {}
    jobs, rest = divmod(cap, PRICE.value)
    return {PRICE.unit: cap, COINS.unit: (jobs + 1) * COINS.value - 1 if rest else jobs * COINS.value}


LIMITS: Final = Limits(seconds=90.0)


def one(connection: Connection) -> Connection:
    """A process's one connection, for whatever wants several."""
    return connection
