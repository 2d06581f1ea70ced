"""A life's handles on market, wallet and backend: they carry the faults in between, and do nothing once it is dead."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Literal, TypeVar

from tradeskill.contracts import Changes, ExecutionStatus, Limits, Task
from tradeskill.errors import TradeskillError, UnavailableError, UnknownOutcomeError
from tradeskill.model import Delivery, Invoice, Job, Lock, Offer, Proof, Result, SignedDocument
from tradeskill.money import Amount
from tradeskill.testing.fake_backend import FakeBackend, FakeMachine
from tradeskill.testing.fakes import WALLET_FAULTS, FakeLedger, FakeWallet
from tradeskill.testing.fakes import _address as fake_address
from tradeskill_plugins.market.embedded import EmbeddedMarket

from .faults import Faults
from .life import Life
from .scenario import UNITS

__all__ = ["BackendHandle", "MarketHandle", "Network", "WalletHandle", "store_name"]

T = TypeVar("T")


class Network:
    """What lies between a life and everything outside it: time on the way, outages."""

    def __init__(self, rng: random.Random, faults: Faults) -> None:
        self.rng, self.faults = rng, faults
        self.steps = 0
        self.market_down_until = 0.0
        self.offer_is_up = asyncio.Event()
        self.shown: dict[str, list[Job]] = {}

    async def delay(self) -> None:
        draw = self.rng.random()
        if draw < 0.15:
            await asyncio.sleep(0)
        elif draw < 0.25:
            await asyncio.sleep(self.rng.uniform(0.001, 0.3))

    async def late(self) -> None:
        await asyncio.sleep(self.rng.choice((2.0, 15.0, 70.0)))


class MarketHandle:
    """The embedded market as one life reaches it. What it answers is believed by nobody."""

    def __init__(self, market: EmbeddedMarket, life: Life, network: Network) -> None:
        self._market, self._life, self._network, self._faults = market, life, network, network.faults

    async def _call(self, call: Callable[[], Awaitable[T]], *, writes: bool) -> T:
        network, strikes = self._network, self._faults.strikes
        await self._life.turn()
        network.steps += 1
        await network.delay()
        now = asyncio.get_running_loop().time()
        if strikes("market.unavailable"):
            network.market_down_until = now + network.rng.choice((0.0, 1.0, 30.0, 200.0))
            raise UnavailableError("the market cannot be reached")
        if now < network.market_down_until and not self._faults.stopped:
            raise UnavailableError("the market is still away")
        if writes and strikes("market.repeated"):
            with suppress(TradeskillError):
                await call()
        answer = await call()
        if strikes("market.late"):
            await network.late()
        if writes and strikes("market.answer-lost"):
            raise UnknownOutcomeError("the market's answer was lost")
        await self._life.turn()
        return answer

    def _show(self, job: Job) -> Job:
        """As it is, as it was, or as it never was."""
        seen = self._network.shown.setdefault(job.job_id, [])
        seen.append(job)
        if len(seen) > 1 and self._faults.strikes("market.stale"):
            return self._network.rng.choice(seen)
        if self._faults.strikes("market.forged") or (job.result is not None and self._faults.strikes("market.forged")):
            return _forged(job, self._network.rng)
        return job

    async def open(self) -> None:
        await self._market.open()

    async def close(self) -> None:
        await self._market.close()

    async def publish(self, document: SignedDocument) -> Offer:
        offer = await self._call(lambda: self._market.publish(document), writes=True)
        self._network.offer_is_up.set()
        return offer

    async def withdraw(self, offer_id: str) -> None:
        await self._call(lambda: self._market.withdraw(offer_id), writes=True)

    async def offer(self, offer_id: str) -> Offer:
        return await self._call(lambda: self._market.offer(offer_id), writes=False)

    async def search(self, query: str = "", tags: Sequence[str] = (), seller: str = "", limit: int = 20, offset: int = 0) -> list[Offer]:
        return await self._call(lambda: self._market.search(query, tags, seller, limit, offset), writes=False)

    async def request(self, document: SignedDocument) -> Job:
        return self._show(await self._call(lambda: self._market.request(document), writes=True))

    async def quote(self, job_id: str, document: SignedDocument) -> Job:
        return self._show(await self._call(lambda: self._market.quote(job_id, document), writes=True))

    async def decline(self, job_id: str, code: str, message: str) -> Job:
        return self._show(await self._call(lambda: self._market.decline(job_id, code, message), writes=True))

    async def accept(self, job_id: str) -> Job:
        return self._show(await self._call(lambda: self._market.accept(job_id), writes=True))

    async def submit_payment(self, job_id: str, rail: str, payment_id: str, token: str = "") -> Job:
        return self._show(await self._call(lambda: self._market.submit_payment(job_id, rail, payment_id, token), writes=True))

    async def lock(self, job_id: str) -> Lock:
        return await self._call(lambda: self._market.lock(job_id), writes=True)

    async def deliver(self, job_id: str, delivery: Delivery, market_fence: int | None) -> Job:
        return self._show(await self._call(lambda: self._market.deliver(job_id, delivery, market_fence), writes=True))

    async def cancel(self, job_id: str, reason: str = "") -> Job:
        return self._show(await self._call(lambda: self._market.cancel(job_id, reason), writes=True))

    async def get(self, job_id: str) -> Job:
        return self._show(await self._call(lambda: self._market.get(job_id), writes=False))

    async def find_request(self, nonce: str) -> Job | None:
        return await self._call(lambda: self._market.find_request(nonce), writes=False)

    async def changes(self, cursor: str, limit: int = 100) -> Changes:
        changes = await self._call(lambda: self._market.changes(cursor, limit), writes=False)
        return replace(changes, jobs=tuple(self._show(job) for job in changes.jobs))

    async def events(self) -> AsyncIterator[str]:
        async for job_id in self._market.events():
            await self._life.turn()
            if not self._faults.strikes("market.hint-lost"):
                yield job_id


def _forged(job: Job, rng: random.Random) -> Job:
    """One thing in it is not what its signer signed."""
    if job.result is not None and rng.random() < 0.7:
        return rng.choice((replace(job, result=Result(b"not the result", job.result.media_type)), replace(job, receipt=None)))
    forgeries: list[Job] = [replace(job, request=_altered(job.request, input={"url": "http://evil/"}))]
    if job.quote is not None:
        stranger = {**job.quote.body["invoices"][0], "address": rng.choice(_ADDRESSES)}  # type: ignore[dict-item,index,call-overload]  # a JSON body of our own shape
        forgeries.append(replace(job, quote=_altered(job.quote, invoices=[stranger])))
        forgeries.append(replace(job, quote=replace(job.quote, signature="00" * 64)))
    return rng.choice(forgeries)


def _altered(document: SignedDocument, **fields: Any) -> SignedDocument:
    return replace(document, body={**document.body, **fields})


_ADDRESSES = tuple(fake_address("dev", "thief", n) for n in range(2))


def store_name(owner: str, rail: str) -> str:
    """Of a wallet's store on the ledger."""
    return owner if rail == "fake" else f"{owner}'s {rail}s"


class WalletHandle(FakeWallet):
    """One of the two fake rails as one life reaches it: the same ledger, with addresses and a unit of its own."""

    def __init__(self, ledger: FakeLedger, name: str, life: Life, network: Network, rail: str = "fake") -> None:
        super().__init__(ledger, life.world, store_name(name, rail), rail=rail, unit=UNITS[rail], fault=self._struck)
        self._life, self._network = life, network

    def _struck(self, place: str) -> str:
        if place == "hint":
            if not self._life.alive:
                return "lost"
            return self._network.faults.any_of("wallet.hint-", ("lost", "doubled"))
        return self._network.faults.any_of("wallet.", WALLET_FAULTS[place])

    async def _call(self) -> None:
        await self._life.turn()
        self._network.steps += 1
        await self._network.delay()
        await self._life.turn()
        if self._struck("call"):
            raise UnavailableError("the rail cannot be reached")

    async def pay(self, invoice: Invoice, key: str) -> Proof:
        if self._network.faults.strikes("wallet.repeated"):
            with suppress(TradeskillError):
                await super().pay(invoice, key)
        return await super().pay(invoice, key)

    async def refund(self, payment: Any, invoice: Invoice, to: str, amount: Amount, key: str) -> Proof:
        if self._network.faults.strikes("wallet.repeated"):
            with suppress(TradeskillError):
                await super().refund(payment, invoice, to, amount, key)
        return await super().refund(payment, invoice, to, amount, key)


class BackendHandle:
    """The fake machine as one life reaches it."""

    def __init__(self, machine: FakeMachine, life: Life, network: Network, owner: str) -> None:
        self._backend, self._life, self._network = FakeBackend(machine, life.world, owner), life, network

    async def _call(self, call: Callable[[], Awaitable[T]]) -> T:
        await self._life.turn()
        self._network.steps += 1
        await self._network.delay()
        await self._life.turn()
        if self._network.faults.strikes("backend.unavailable"):
            raise UnavailableError("the backend cannot be reached")
        answer = await call()
        await self._life.turn()
        return answer

    async def open(self) -> None:
        return None

    async def close(self) -> None:
        return None

    async def start(self, execution_id: str, task: Task, limits: Limits) -> Literal["run", "service"]:
        return await self._call(lambda: self._backend.start(execution_id, task, limits))

    async def status(self, execution_id: str) -> ExecutionStatus:
        return await self._call(lambda: self._backend.status(execution_id))

    async def wait(self, execution_id: str, seconds: float) -> ExecutionStatus:
        return await self._call(lambda: self._backend.wait(execution_id, seconds))

    async def result(self, execution_id: str) -> Result:
        return await self._call(lambda: self._backend.result(execution_id))

    async def stop(self, execution_id: str) -> None:
        await self._call(lambda: self._backend.stop(execution_id))

    async def remove(self, execution_id: str) -> None:
        await self._call(lambda: self._backend.remove(execution_id))

    async def list(self, owner: str) -> Sequence[str]:
        return await self._call(lambda: self._backend.list(owner))
