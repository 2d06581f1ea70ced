"""What the two ways to talk to a relay share: jobs by their id, steps on them, offers page by page. `ours` and `plain` say what differs."""

from __future__ import annotations

import json
import re
import urllib.parse
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tradeskill.contracts import Changes
from tradeskill.errors import NotFoundError, UntrustedError, UsageError
from tradeskill.model import Delivery, Job, JobError, Json, Lock, Offer, SignedDocument
from tradeskill.signing import Identity, document_hash
from tradeskill.world import World
from tradeskill_plugins.relay.client.outbox import Outbox
from tradeskill_plugins.relay.client.pacing import Lane
from tradeskill_plugins.relay.client.reading import Row, Seen, object_in, rows_in
from tradeskill_plugins.relay.client.settings import Settings
from tradeskill_plugins.relay.client.steps import Intent, Steps
from tradeskill_plugins.relay.client.transport import Transport
from tradeskill_plugins.relay.client.upload import Upload

__all__ = ["Dialect", "Parts", "body_of", "checked_id", "is_id"]

LIST_MAX: Final = 48 * 2**20  # bytes of one page of jobs: a hundred with their documents
PAGE: Final = 100
PAGES: Final = 20  # of offers that one search looks through
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)


@dataclass(frozen=True)
class Parts:
    """What a dialect works with."""

    transport: Transport
    outbox: Outbox
    identity: Identity
    world: World
    settings: Settings
    upload: Upload | None


def body_of(value: Mapping[str, Json]) -> bytes:
    """A request's body. Numbers and key order of documents stay as they were signed or read."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


class Dialect(ABC):
    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._own = parts.identity.key
        self._steps = Steps(parts.transport, parts.outbox, self._own, parts.world)

    # what differs

    @abstractmethod
    async def publish(self, document: SignedDocument) -> Offer: ...

    @abstractmethod
    async def withdraw(self, offer_id: str) -> None: ...

    @abstractmethod
    async def offer(self, offer_id: str) -> Offer: ...

    @abstractmethod
    async def request(self, document: SignedDocument) -> Job: ...

    @abstractmethod
    async def quote(self, job_id: str, document: SignedDocument) -> Job: ...

    @abstractmethod
    async def decline(self, job_id: str, error: JobError) -> Job: ...

    @abstractmethod
    async def submit_payment(self, job_id: str, rail: str, payment_id: str, token: str) -> Job: ...

    @abstractmethod
    async def lock(self, job_id: str) -> Lock: ...

    @abstractmethod
    async def deliver(self, job_id: str, delivery: Delivery, market_fence: int | None) -> Job: ...

    @abstractmethod
    async def find_request(self, nonce: str) -> Seen | None: ...

    @abstractmethod
    async def changes(self, cursor: str, limit: int) -> Changes: ...

    @abstractmethod
    def events(self) -> AsyncGenerator[str, None]: ...

    @abstractmethod
    async def read_jobs(self, rows: Sequence[Row]) -> list[Seen]:
        """The jobs of rows that carry a signed request, in their order."""

    @abstractmethod
    def read_offer(self, row: Row) -> Offer:
        """UntrustedError where the row is no signed offer."""

    @abstractmethod
    def offers_query(self, query: str, tags: Sequence[str], seller: str) -> dict[str, str]: ...

    @abstractmethod
    def fits(self, offer: Offer, query: str) -> bool:
        """Whether a found offer is one that was looked for, where the relay's own search is not to be trusted with it."""

    def carries(self, rail: str) -> bool:
        return True

    # what is the same

    async def search(self, query: str, tags: Sequence[str], seller: str, limit: int, offset: int) -> list[Offer]:
        """Signed offers only. `offset` counts those, so the pages before it are read too; it looks through 2,000 rows at most."""
        for tag in tags:
            if "," in tag:
                raise UsageError(f"tags: {tag!r} holds a comma, by which a relay separates tags: search without it")
        fields = self.offers_query(query, tags, seller)
        found: list[Offer] = []
        async for offer in self.walk_offers(fields, min(PAGE, offset + limit)):
            if not self.fits(offer, query):
                continue
            found.append(offer)
            if len(found) == offset + limit:
                break
        return found[offset:]

    async def walk_offers(self, fields: Mapping[str, str], size: int = PAGE) -> AsyncIterator[Offer]:
        """Each offer's newest version once, newest offer first."""
        seen: set[tuple[str, str]] = set()
        for page in range(PAGES):
            query = urllib.parse.urlencode({**fields, "limit": str(size), "offset": str(page * size)}, quote_via=urllib.parse.quote)
            answer = await self._parts.transport.ask(f"/v1/offers?{query}", signed=False, most=LIST_MAX)
            rows = rows_in(answer.value, "offers", size)
            offers = []
            for row in rows:
                try:
                    offers.append((self.read_offer(row), row))
                except UntrustedError:
                    continue
            await self.keep_offers(offers)
            for offer, _ in offers:
                if (offer.seller, offer.offer_id) not in seen:
                    seen.add((offer.seller, offer.offer_id))
                    yield offer
            if len(rows) < size:
                return

    async def keep_offers(self, offers: Sequence[tuple[Offer, Row]]) -> None:  # noqa: B027  # one dialect has nothing to keep
        """Called with what each page held."""

    async def accept(self, job_id: str) -> Job:
        async def make() -> bytes:
            return b"{}"

        def taken(seen: Seen) -> bool:
            return seen.job.state in ("accepted", "running", "delivered", "failed")

        return (await self.step("accept", job_id, (), make, taken)).job

    async def cancel(self, job_id: str, reason: str) -> Job:
        async def make() -> bytes:
            return body_of({"reason": reason} if reason else {})

        return (await self.step("cancel", job_id, (reason,), make, lambda seen: self.is_canceled(seen, reason))).job

    @abstractmethod
    def is_canceled(self, seen: Seen, reason: str) -> bool: ...

    async def get(self, job_id: str) -> Job:
        return (await self.see(job_id)).job

    async def see(self, job_id: str, lane: Lane = "usual") -> Seen:
        """NotFoundError where there is no such job of ours, or none with a signed request."""
        answer = await self._parts.transport.ask(f"/v1/jobs/{checked_id(job_id)}", lane=lane)
        return await self.one(answer.value, job_id)

    async def one(self, value: Row, job_id: str | None = None) -> Seen:
        """The job of an answer `{job}`. It must be the one asked for, and one of this identity's."""
        row = object_in(value, "job")
        found = await self.read_jobs([row])
        if not found:
            raise NotFoundError(f"job {job_id or row.get('job_id')} at this relay carries no signed request of ours")
        job = found[0].job
        if job_id is not None and job.job_id != job_id:
            raise NotFoundError(f"the relay shows another job than {job_id}")
        return found[0]

    async def step(
        self,
        kind: str,
        job_id: str,
        marks: tuple[str, ...],
        make: Callable[[], Awaitable[bytes]],
        taken: Callable[[Seen], bool],
        *,
        lane: Lane = "step",
        secret: bool = False,
    ) -> Seen:
        """A step on a job, repeatable: done before, it answers with the job as it is now."""

        async def look() -> Seen | None:
            seen = await self.see(job_id, lane)
            return seen if taken(seen) else None

        async def read(value: Row) -> Seen:
            return await self.one(value, job_id)

        target = f"/v1/jobs/{checked_id(job_id)}/{kind}"
        return await self._steps.take(Intent(kind, job_id, marks, target, make, look, read, lane, secret))

    async def ask_for(self, document: SignedDocument, make: Callable[[], Awaitable[bytes]]) -> Seen:
        """POST /v1/jobs for a signed request; its nonce finds the job again, also where the relay kept nothing else."""
        nonce, wanted = str(document.body["nonce"]), document_hash(document)

        async def look() -> Seen | None:
            seen = await self.find_request(nonce)
            return seen if seen is not None and document_hash(seen.job.request) == wanted else None

        return await self._steps.take(Intent("request", nonce, (wanted,), "/v1/jobs", make, look, self.one))


def checked_id(job_id: str) -> str:
    """NotFoundError for what is no relay's name of a job: it was not opened here."""
    if not is_id(job_id):
        raise NotFoundError(f"no job {str(job_id)[:60]!r} at this relay")
    return job_id


def is_id(text: object) -> bool:
    """Whether a relay could have named something so."""
    return isinstance(text, str) and _ID.fullmatch(text) is not None
