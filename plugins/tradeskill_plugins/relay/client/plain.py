"""A relay without our additions: no field outside the protocol's table is sent, our signed documents ride in those that are there (packing.py).

What it cannot do stays undone and is said so: offers are never taken down, nobody can decline (the buyer gives up by itself), bearer tokens are not
sent, there is no fence. Where that costs protection, the profile has to allow it by name (settings.py).
"""

from __future__ import annotations

import json
import logging
import urllib.parse
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import Final

from tradeskill.agreement import read_offer
from tradeskill.contracts import Changes
from tradeskill.errors import NotFoundError, RefusedError, TradeskillError, UnavailableError, UntrustedError, UsageError
from tradeskill.model import Delivery, Job, JobError, Lock, Offer, Result, SignedDocument
from tradeskill.signing import digest, document_hash
from tradeskill_plugins.relay import packing
from tradeskill_plugins.relay.client.dialect import LIST_MAX, PAGE, PAGES, Dialect, Parts, body_of, checked_id, is_id
from tradeskill_plugins.relay.client.failures import date_ms
from tradeskill_plugins.relay.client.hints import HintStreams
from tradeskill_plugins.relay.client.reading import Row, Seen, error_in, key_in, object_in, rows_in, state_in, text_in, time_in
from tradeskill_plugins.relay.client.results import Results
from tradeskill_plugins.relay.client.transport import Question
from tradeskill_plugins.relay.client.walk import Walk
from tradeskill_plugins.relay.wire import MAX_URL, show_time

__all__ = ["Plain"]

log = logging.getLogger("tradeskill.relay")
LOCK_SECONDS: Final = 300.0
HINT_SECONDS: Final = 5.0  # a dozen requests a minute, of the sixty that such a relay takes
UNPACED_HINT_SECONDS: Final = 0.5  # where it counts none
VISIBLE: Final = (
    *("status", "quote_amount_raw", "quote_invoice_address", "quote_expires_at", "payment_tx_hash", "lock_expires_at", "error", "updated_at"),
    *("payment_charge_id", "payment_provider", "result_url"),
)


class Plain(Dialect):
    def __init__(self, parts: Parts, results: Results, hints: HintStreams) -> None:
        super().__init__(parts)
        self._results, self._hints = results, hints
        self._allow = parts.settings.allow
        self._walk = Walk(self._page, parts.world.now_ms())

    def carries(self, rail: str) -> bool:
        return rail == packing.RAIL

    # offers

    async def publish(self, document: SignedDocument) -> Offer:
        """Once a version: such a relay gives every post an id of its own, and takes none down."""
        self._check_seller()
        if self._parts.upload is None:
            self._must_allow("small-results-only", "larger results have no place there: set market.upload")
        offer, fields = read_offer(document), packing.pack_offer(document)
        async for shown in self.walk_offers({"seller_pubkey": self._own, "tags": packing.TAG}):
            if shown.offer_hash == offer.offer_hash:
                return shown
        body = body_of({name: value for name, value in fields.items() if value is not None})
        key = self._parts.world.random_bytes(16).hex()  # for the tries of this call; a later one finds the offer by looking
        answer = await self._parts.transport.exchange(Question("POST", "/v1/offers", body, key=key, lane="step"))
        row = object_in(answer.value, "offer")
        try:
            found = self.read_offer(row)
        except UntrustedError as error:
            raise RefusedError(f"offer {offer.offer_id}: the relay changed what was signed ({error}): nobody could verify it there") from error
        await self.keep_offers([(found, row)])
        return found

    async def withdraw(self, offer_id: str) -> None:
        raise RefusedError(f"offer {offer_id}: this relay cannot take an offer down")

    async def offer(self, offer_id: str) -> Offer:
        """The newest version. It is looked for among the newest 2,000 signed offers."""
        async for offer in self.walk_offers({"tags": packing.TAG}):
            if offer.offer_id == offer_id:
                return offer
        raise NotFoundError(f"no signed offer {offer_id} at this relay")

    def read_offer(self, row: Row) -> Offer:
        offer = packing.unpack_offer(row)
        return replace(offer, active=row.get("active") is not False)

    def offers_query(self, query: str, tags: Sequence[str], seller: str) -> dict[str, str]:
        wanted = ",".join(dict.fromkeys((packing.TAG, *tags)))
        return {name: value for name, value in {"q": query, "tags": wanted, "seller_pubkey": seller}.items() if value}

    def fits(self, offer: Offer, query: str) -> bool:
        """It takes `%` and `_` for anything, and finds words in what was packed too."""
        folded = query.strip().casefold()
        return folded in offer.title.casefold() or folded in offer.description.casefold()

    async def keep_offers(self, offers: Sequence[tuple[Offer, Row]]) -> None:
        named = [(offer.offer_hash, offer.offer_id, wire_id) for offer, row in offers if is_id(wire_id := str(row.get("offer_id")))]
        await self._parts.outbox.keep_offers(named)

    async def _wire_id(self, offer_id: str, offer_hash: str) -> str:
        """The relay's id of one version of an offer."""
        known = self._parts.outbox.wire_id(offer_hash)
        if known is None:
            await self.offer(offer_id)
            known = self._parts.outbox.wire_id(offer_hash)
        if known is None:
            raise NotFoundError(f"this version of offer {offer_id} is not at this relay any more: search again")
        return known

    # jobs

    async def request(self, document: SignedDocument) -> Job:
        payload = packing.pack_request(document)

        async def make() -> bytes:
            wire_id = await self._wire_id(str(document.body["offer_id"]), str(document.body["offer_hash"]))
            return body_of({"offer_id": wire_id, "request_payload": payload})

        return (await self.ask_for(document, make)).job

    async def quote(self, job_id: str, document: SignedDocument) -> Job:
        wanted, fields = document_hash(document), packing.pack_quote(document)

        async def make() -> bytes:
            return body_of(fields)

        def taken(seen: Seen) -> bool:
            quote = seen.job.quote
            return quote is not None and document_hash(quote) == wanted and seen.job.state not in ("canceled", "expired")

        return (await self.step("quote", job_id, (wanted,), make, taken)).job

    async def decline(self, job_id: str, error: JobError) -> Job:
        raise RefusedError(f"job {job_id}: this relay has no way to decline; its buyer gives up when no quote comes ({error.code})")

    async def submit_payment(self, job_id: str, rail: str, payment_id: str, token: str) -> Job:
        if rail != packing.RAIL or token:
            raise RefusedError(f"job {job_id}: this relay carries payments of the rail {packing.RAIL} only, and no bearer token")

        async def make() -> bytes:
            return body_of({"payment_tx_hash": payment_id})

        return (await self.step("payment", job_id, (payment_id,), make, lambda seen: seen.job.payment_id == payment_id, lane="urgent")).job

    async def lock(self, job_id: str) -> Lock:
        self._check_seller()
        answer = await self._parts.transport.exchange(Question("POST", f"/v1/jobs/{checked_id(job_id)}/lock", b"{}", lane="urgent"))
        job = (await self.one(answer.value, job_id)).job
        if job.lock_expires_at is None:
            raise UnavailableError(f"job {job_id}: the relay's lock says not how long")
        # by its clock, not ours: the header cuts its second off, the row knows the moment of the lock
        date = date_ms(answer.headers)
        now = job.updated_at if date is None else date + 1000
        return Lock(job_id, job.lock_expires_at, min(LOCK_SECONDS, max(0.0, (job.lock_expires_at - now) / 1000)), None)

    async def deliver(self, job_id: str, delivery: Delivery, market_fence: int | None) -> Job:
        if delivery.error is not None:
            return await self._fail(job_id, delivery.error)
        result, receipt = delivery.result, delivery.receipt
        assert result is not None
        if receipt is None:
            self._must_allow("unsigned-receipts", "the delivery has no receipt")
        fragment = "" if receipt is None else f"#{packing.pack_receipt(receipt)}"
        sha256 = digest(result.data)

        async def make() -> bytes:
            url = packing.data_url(result) + fragment
            if len(url) > MAX_URL:
                if self._parts.upload is None:
                    raise UsageError(
                        f"result is {len(result.data)} bytes, {len(url)} characters as a URL with its receipt: this relay carries {MAX_URL}; "
                        "give it an upload folder (market.upload) for what is larger"
                    )
                url = await self._results.put(job_id, result, sha256) + fragment
            if len(url) > MAX_URL:
                raise UsageError(f"the receipt makes result_url {len(url)} characters: this relay carries {MAX_URL}")
            return body_of({"result_url": url})

        def delivered(seen: Seen) -> bool:
            if seen.job.state != "delivered":
                return False
            if seen.job.result is not None:
                return digest(seen.job.result.data) == sha256
            return receipt is not None and seen.job.receipt is not None and document_hash(seen.job.receipt) == document_hash(receipt)

        marks = (sha256, "" if receipt is None else document_hash(receipt))
        job = (await self.step("deliver", job_id, marks, make, delivered, lane="urgent")).job
        return job if job.result is not None else replace(job, result=result)

    async def _fail(self, job_id: str, error: JobError) -> Job:
        async def make() -> bytes:
            return body_of({"error": {"code": error.code, "message": error.message}})

        def failed(seen: Seen) -> bool:
            return seen.job.state == "failed" and seen.job.error == error

        return (await self.step("deliver", job_id, ("error", error.code, error.message), make, failed, lane="urgent")).job

    def is_canceled(self, seen: Seen, reason: str) -> bool:
        return seen.job.state == "canceled"  # it tells neither who nor why

    async def get(self, job_id: str) -> Job:
        seen = await self.see(job_id)
        if seen.result_url is not None and seen.job.state == "delivered" and seen.job.result is None and seen.job.buyer == self._own:
            return replace(seen.job, result=await self._results.get(seen.result_url, seen.job.receipt))
        return seen.job

    async def find_request(self, nonce: str) -> Seen | None:
        """Among the newest 2,000 jobs of this buyer. New ones push others back, never forward, so none is missed."""
        for page in range(PAGES):
            query = urllib.parse.urlencode({"role": "buyer", "limit": str(PAGE), "offset": str(page * PAGE)})
            answer = await self._parts.transport.ask(f"/v1/jobs?{query}", most=LIST_MAX)
            rows = rows_in(answer.value, "jobs", PAGE)
            for seen in await self.read_jobs(rows):
                if seen.job.buyer == self._own and seen.job.request.body.get("nonce") == nonce:
                    return seen
            if len(rows) < PAGE:
                return None
        return None

    # changes and hints

    async def changes(self, cursor: str, limit: int) -> Changes:
        rows, following, more = await self._walk.next(cursor, limit)
        jobs = [seen.job for seen in await self.read_jobs(rows)]
        return Changes(tuple(jobs), following, more)

    async def _page(self, after: int, offset: int, limit: int) -> list[Row]:
        fields = {"updated_after": show_time(after), "limit": str(limit), "offset": str(offset)}
        answer = await self._parts.transport.ask(f"/v1/jobs?{urllib.parse.urlencode(fields)}", most=LIST_MAX)
        return rows_in(answer.value, "jobs", limit)

    def events(self) -> AsyncGenerator[str, None]:
        walk, position = Walk(self._page, self._parts.world.now_ms()), ""

        async def look() -> list[str]:
            nonlocal position
            found: list[str] = []
            more = True
            while more:
                rows, position, more = await walk.next(position, PAGE)
                found += [str(row.get("job_id")) for row in rows]
            return found

        return self._hints.poll(look, HINT_SECONDS if self._parts.settings.limits else UNPACED_HINT_SECONDS)

    # reading

    async def read_jobs(self, rows: Sequence[Row]) -> list[Seen]:
        found: list[Seen] = []
        marks: dict[str, tuple[str, int]] = {}
        for row in rows:
            try:
                seen = self._seen(row)
            except TradeskillError as error:
                log.info("job %s is passed over: %s", str(row.get("job_id"))[:60], error)
                continue
            if self._own in (seen.job.buyer, seen.job.seller):
                found.append(seen)
                visible = json.dumps([row.get(name) for name in VISIBLE], sort_keys=True)
                marks[seen.job.job_id] = (digest(visible.encode("utf-8", "replace")), seen.job.updated_at)
        revisions = await self._parts.outbox.revisions(marks)
        return [replace(seen, job=replace(seen.job, revision=revisions[seen.job.job_id])) for seen in found]

    def _seen(self, row: Row) -> Seen:
        job_id = checked_id(str(row.get("job_id")))
        buyer, seller = key_in(row, "buyer_pubkey"), key_in(row, "seller_pubkey")
        request = packing.unpack_request(row.get("request_payload"), buyer)
        if request.body.get("seller") != seller or request.body.get("buyer") != buyer:
            raise UntrustedError("its request is signed for other keys than it shows")
        created_at, updated_at, state = time_in(row, "created_at"), time_in(row, "updated_at"), state_in(row)
        if created_at is None or updated_at is None:
            raise UntrustedError("created_at or updated_at is missing")
        result, receipt, url = self._result(row, seller)
        payment_id = text_in(row, "payment_tx_hash")
        return Seen(
            Job(
                job_id=job_id,
                offer_id=str(request.body.get("offer_id")),
                seller=seller,
                buyer=buyer,
                state=state,
                request=request,
                created_at=created_at,
                updated_at=updated_at,
                revision=0,
                quote=packing.unpack_quote(row, request),
                quote_expires_at=time_in(row, "quote_expires_at"),
                accepted_at=updated_at if state == "accepted" and payment_id is None else None,
                payment_id=payment_id,
                payment_rail=None if payment_id is None else packing.RAIL,
                lock_expires_at=time_in(row, "lock_expires_at"),
                result=result,
                receipt=receipt,
                error=error_in(row),
            ),
            result_url=url,
        )

    def _result(self, row: Row, seller: str) -> tuple[Result | None, SignedDocument | None, str | None]:
        """Result, receipt, and where the result lies if not in the URL itself. Without a receipt there is none, unless that is allowed."""
        whole = text_in(row, "result_url")
        if whole is None:
            return None, None, None
        url, receipt = packing.unpack_receipt(whole, seller)
        if receipt is None and "unsigned-receipts" not in self._allow:
            return None, None, None
        return (packing.read_data_url(url), receipt, None) if url.startswith("data:") else (None, receipt, url)

    # what is not protected here

    def _check_seller(self) -> None:
        self._must_allow("no-fence", "its lock belongs to the seller's key, and no fence guards a delivery")

    def _must_allow(self, name: str, why: str) -> None:
        if name not in self._allow:
            raise RefusedError(f"this relay is without our additions: {why}. To go on all the same, add {name} to market.allow")
