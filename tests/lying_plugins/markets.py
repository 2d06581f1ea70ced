"""Markets that lie, each in one way, over the embedded one in memory. A class's docstring says what its market does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

import pytest

from tradeskill.contracts import Changes
from tradeskill.errors import NotFoundError, StateError
from tradeskill.model import Delivery, Job, Lock, Offer, SignedDocument
from tradeskill.signing import Identity
from tradeskill.testing.market_contract import MarketContract, MarketFor, SteppedClock
from tradeskill_plugins.market.embedded import EmbeddedMarket
from tradeskill_plugins.market.store import open_memory


class Lying(MarketContract):
    liar: ClassVar[type[EmbeddedMarket]] = EmbeddedMarket

    @pytest.fixture
    def market_for(self, clock: SteppedClock) -> Iterator[MarketFor]:
        store = open_memory(clock)
        yield lambda identity: self.liar(store, identity, clock)
        store.close()


class TestHonest(Lying):
    """The market that all the others are made of."""


class TestLosesAChange(Lying):
    """The second job of every page is not there."""

    class liar(EmbeddedMarket):  # noqa: N801 - it stands for the attribute of that name
        async def changes(self, cursor: str, limit: int = 100) -> Changes:
            page = await super().changes(cursor, limit)
            return replace(page, jobs=page.jobs[:1] + page.jobs[2:])


class TestRepeatsACursor(Lying):
    """Whoever asks for what is new gets what is old."""

    class liar(EmbeddedMarket):  # noqa: N801 - as above
        async def changes(self, cursor: str, limit: int = 100) -> Changes:
            await super().changes(cursor, 1)
            return replace(await super().changes("", 1000), more=False)


class TestLetsTwoLocksWin(Lying):
    """Every lock is a take of its own."""

    class liar(EmbeddedMarket):  # noqa: N801 - as above
        taken: ClassVar[int] = 0

        async def lock(self, job_id: str) -> Lock:
            type(self).taken = number = self.taken + 1
            return replace(await super().lock(job_id), market_fence=number)

        async def deliver(self, job_id: str, delivery: Delivery, market_fence: int | None) -> Job:
            return await super().deliver(job_id, delivery, (await self.get(job_id)).market_fence)


class TestTakesAStaleFence(Lying):
    """Whoever held the job once may deliver it."""

    class liar(EmbeddedMarket):  # noqa: N801 - as above
        async def deliver(self, job_id: str, delivery: Delivery, market_fence: int | None) -> Job:
            job = await self.get(job_id)
            return await super().deliver(job_id, delivery, market_fence if market_fence is None else job.market_fence)


class TestCancelsAfterPayment(Lying):
    """A job that was paid for can still be called off."""

    class liar(EmbeddedMarket):  # noqa: N801 - as above
        async def cancel(self, job_id: str, reason: str = "") -> Job:
            try:
                return await super().cancel(job_id, reason)
            except StateError:
                job = await self.get(job_id)
                if job.payment_id is None or job.state != "accepted":
                    raise
                return replace(job, state="canceled")


class TestAltersADocument(Lying):
    """The seller reads the input's keys in another order than the buyer wrote them."""

    class liar(EmbeddedMarket):  # noqa: N801 - as above
        async def get(self, job_id: str) -> Job:
            job = await super().get(job_id)
            given = job.request.body["input"]
            if not isinstance(given, dict):
                return job
            return replace(job, request=replace(job.request, body={**job.request.body, "input": dict(sorted(given.items()))}))


class TestShowsJobsToStrangers(Lying):
    """Who knows a job's id may read it."""

    class liar(EmbeddedMarket):  # noqa: N801 - as above
        seen: ClassVar[dict[str, Job]] = {}

        async def get(self, job_id: str) -> Job:
            try:
                job = await super().get(job_id)
            except NotFoundError:
                if job_id in self.seen:
                    return self.seen[job_id]
                raise
            return self.seen.setdefault(job_id, job) and job


class TestTakesForgedOffers(Lying):
    """An offer that its seller did not sign is put right, as whoever the caller is."""

    class liar(EmbeddedMarket):  # noqa: N801 - as above
        async def publish(self, document: SignedDocument) -> Offer:
            if document.body.get("title") == "Forged":
                signer = next(each for n in (1, 2, 3) if (each := Identity(bytes([n]) * 32)).key == document.key)
                document = signer.sign(document.kind, document.body)
            return await super().publish(document)


class TestChangesAPrice(Lying):
    """The offer that is found has another title than its seller signed."""

    class liar(EmbeddedMarket):  # noqa: N801 - as above
        async def offer(self, offer_id: str) -> Offer:
            return replace(await super().offer(offer_id), title="Cheaper elsewhere")


class TestForgetsRequests(Lying):
    """A request that was sent is not found again by its nonce."""

    class liar(EmbeddedMarket):  # noqa: N801 - as above
        async def find_request(self, nonce: str) -> Job | None:
            return None
