"""A relay with our additions: signed documents travel in fields of their own, changes by cursor, hints as server-sent events."""

from __future__ import annotations

import base64
import logging
import urllib.parse
from collections import OrderedDict
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import Final

from tradeskill.agreement import read_offer
from tradeskill.contracts import Changes
from tradeskill.errors import NotFoundError, RefusedError, StateError, TradeskillError, UnavailableError, UntrustedError, UsageError
from tradeskill.model import Delivery, Job, JobError, Json, Lock, Offer, Result, SignedDocument
from tradeskill.money import in_unit
from tradeskill.signing import digest, document_hash, document_to_json
from tradeskill_plugins.relay.client.dialect import LIST_MAX, Dialect, Parts, body_of, checked_id
from tradeskill_plugins.relay.client.hints import HintStreams
from tradeskill_plugins.relay.client.reading import (
    Row,
    Seen,
    document_in,
    error_in,
    integer_in,
    key_in,
    object_in,
    result_in,
    rows_in,
    state_in,
    text_in,
    time_in,
)
from tradeskill_plugins.relay.client.results import Results
from tradeskill_plugins.relay.client.transport import Question
from tradeskill_plugins.relay.wire import INLINE_RESULT, MAX_BODY, offer_id_on_the_wire

__all__ = ["Ours"]

log = logging.getLogger("tradeskill.relay")
CURSOR_MAX: Final = 256
REMEMBERED: Final = 16 * 2**20  # bytes of results that were delivered or fetched by this process


class Ours(Dialect):
    def __init__(self, parts: Parts, results: Results, hints: HintStreams, inline: int = INLINE_RESULT) -> None:
        super().__init__(parts)
        self._results, self._hints, self._inline = results, hints, inline
        self._delivered: OrderedDict[str, Result] = OrderedDict()  # what lists leave out
        self._remembered = 0  # bytes of it

    # offers

    async def publish(self, document: SignedDocument) -> Offer:
        """Under its own id, so that it may be sent as often as need be."""
        offer = read_offer(document)
        fixed = in_unit(offer.prices, "raw")
        fields: dict[str, Json] = {"title": offer.title, "description": offer.description, "tags": [*offer.tags], "active": True}
        fields |= {"pricing_mode": "quote"} if fixed is None else {"pricing_mode": "fixed", "fixed_price_raw": str(fixed.value)}
        question = Question("POST", "/v1/offers", body_of({**fields, "document": document_to_json(document)}), lane="step")
        answer = await self._parts.transport.exchange(question)
        return self.read_offer(object_in(answer.value, "offer"))

    async def withdraw(self, offer_id: str) -> None:
        await self._parts.transport.exchange(Question("DELETE", f"/v1/offers/{offer_id_on_the_wire(offer_id)}"))

    async def offer(self, offer_id: str) -> Offer:
        answer = await self._parts.transport.ask(f"/v1/offers/{offer_id_on_the_wire(offer_id)}", signed=False)
        try:
            offer = self.read_offer(object_in(answer.value, "offer"))
        except UntrustedError as error:
            raise NotFoundError(f"offer {offer_id} at this relay is not signed: {error}") from error
        if offer.offer_id != offer_id:
            raise NotFoundError(f"the relay shows another offer than {offer_id}")
        return offer

    def read_offer(self, row: Row) -> Offer:
        document = document_in(row, "document")
        if document is None or document.key != row.get("seller_pubkey"):
            raise UntrustedError("the offer is not signed by its seller")
        return replace(read_offer(document), active=row.get("active") is True)

    def offers_query(self, query: str, tags: Sequence[str], seller: str) -> dict[str, str]:
        fields = {"q": query, "tags": ",".join(tags), "seller_pubkey": seller}
        return {name: value for name, value in fields.items() if value}

    def fits(self, offer: Offer, query: str) -> bool:
        return True

    # jobs

    async def request(self, document: SignedDocument) -> Job:
        async def make() -> bytes:
            wire_id = offer_id_on_the_wire(str(document.body["offer_id"]))
            return body_of({"offer_id": wire_id, "request_payload": {}, "request": document_to_json(document)})

        return (await self.ask_for(document, make)).job

    async def quote(self, job_id: str, document: SignedDocument) -> Job:
        wanted = document_hash(document)

        async def make() -> bytes:
            return body_of({"quote": document_to_json(document)})

        def taken(seen: Seen) -> bool:
            quote = seen.job.quote
            return quote is not None and document_hash(quote) == wanted and seen.job.state not in ("canceled", "expired")

        return (await self.step("quote", job_id, (wanted,), make, taken)).job

    async def decline(self, job_id: str, error: JobError) -> Job:
        async def make() -> bytes:
            return body_of({"code": error.code, "message": error.message})

        return (await self.step("decline", job_id, (error.code, error.message), make, lambda seen: _declined(seen, error))).job

    async def submit_payment(self, job_id: str, rail: str, payment_id: str, token: str) -> Job:
        async def make() -> bytes:
            fields: dict[str, Json] = {"payment_tx_hash": payment_id, "payment_rail": rail}
            return body_of({**fields, "payment_proof": token} if token else fields)

        def taken(seen: Seen) -> bool:
            return (seen.job.payment_rail, seen.job.payment_id, seen.job.payment_token or "") == (rail, payment_id, token)

        marks = (rail, payment_id, digest(token.encode()))
        return (await self.step("payment", job_id, marks, make, taken, lane="urgent", secret=bool(token))).job

    async def lock(self, job_id: str) -> Lock:
        answer = await self._parts.transport.exchange(Question("POST", f"/v1/jobs/{checked_id(job_id)}/lock", b"{}", lane="urgent"))
        seen = await self.one(answer.value, job_id)
        fence, left = integer_in(answer.value, "market_fence"), integer_in(answer.value, "lock_expires_in_ms")
        if fence is None or left is None or seen.job.lock_expires_at is None:
            raise UnavailableError(f"job {job_id}: the relay's lock says not how long, or under which fence")
        return Lock(job_id, seen.job.lock_expires_at, left / 1000, fence)

    async def deliver(self, job_id: str, delivery: Delivery, market_fence: int | None) -> Job:
        result, receipt, error = delivery.result, delivery.receipt, delivery.error
        fence: dict[str, Json] = {} if market_fence is None else {"market_fence": market_fence}
        paper: dict[str, Json] = {} if receipt is None else {"receipt": document_to_json(receipt)}
        mark = str(market_fence)
        if error is not None:
            said: dict[str, Json] = {"error": {"code": error.code, "message": error.message}}

            async def make_error() -> bytes:
                return body_of({**said, **fence})

            def failed(seen: Seen) -> bool:
                return seen.job.state == "failed" and seen.job.error == error

            return (await self.step("deliver", job_id, ("error", error.code, error.message, mark), make_error, failed, lane="urgent")).job
        assert result is not None
        sha256 = digest(result.data)

        async def make() -> bytes:
            if len(result.data) <= self._inline:
                inline: dict[str, Json] = {"media_type": result.media_type, "data": base64.b64encode(result.data).decode()}
                body = body_of({"result": inline, **paper, **fence})
                if len(body) <= MAX_BODY:
                    return body
            return body_of({"result_url": await self._results.put(job_id, result, sha256), **paper, **fence})

        def delivered(seen: Seen) -> bool:
            return seen.job.state == "delivered" and _hash_of(seen) == sha256

        marks = (sha256, "" if receipt is None else document_hash(receipt), mark)
        seen = await self.step("deliver", job_id, marks, make, delivered, lane="urgent")
        if seen.job.result is None:
            seen = replace(seen, job=replace(seen.job, result=result))
        self._remember(job_id, seen.job.result)
        return seen.job

    def is_canceled(self, seen: Seen, reason: str) -> bool:
        return seen.canceled_by == "buyer" and seen.cancel_reason == reason

    async def get(self, job_id: str) -> Job:
        seen = await self.see(job_id)
        if seen.job.state == "delivered" and seen.job.result is None and seen.result_url is not None and seen.job.buyer == self._own:
            result = await self._results.get(seen.result_url, seen.job.receipt)
            return replace(seen.job, result=result)
        return seen.job

    async def find_request(self, nonce: str) -> Seen | None:
        query = urllib.parse.urlencode({"request_nonce": nonce}, quote_via=urllib.parse.quote)
        answer = await self._parts.transport.ask(f"/v1/jobs?{query}", most=LIST_MAX)
        for row in rows_in(answer.value, "jobs", 1):
            # by its id: a list leaves results out
            seen = await self.see(str(row.get("job_id")))
            if seen.job.buyer == self._own and seen.job.request.body.get("nonce") == nonce:
                return seen
        return None

    # changes and hints

    async def changes(self, cursor: str, limit: int) -> Changes:
        if len(cursor) > CURSOR_MAX:
            raise UsageError(f"cursor {cursor[:60]!r} is not of this relay: start again with an empty one")
        query = urllib.parse.urlencode({"cursor": cursor, "limit": str(min(limit, 100))}, quote_via=urllib.parse.quote)
        answer = await self._parts.transport.ask(f"/v1/jobs?{query}", most=LIST_MAX)
        rows = rows_in(answer.value, "jobs", 100)
        following, more = text_in(answer.value, "cursor", CURSOR_MAX), answer.value.get("more")
        if following is None or not isinstance(more, bool):
            raise UnavailableError("the relay's list of changes has no cursor")
        jobs = []
        for seen in await self.read_jobs(rows):
            jobs.append(await self._with_result(seen))
        await self._decline_unsigned(rows)
        return Changes(tuple(jobs), following, more)

    def events(self) -> AsyncGenerator[str, None]:
        return self._hints.follow("/v1/events")

    async def _with_result(self, seen: Seen) -> Job:
        """Lists leave results out: one that this process delivered is known, a buyer's own is asked for. Results elsewhere are left to `get`."""
        job = seen.job
        if job.state != "delivered" or job.result is not None:
            return job
        known = self._delivered.get(job.job_id)
        if known is None and seen.result_url is None:
            full = await self.see(job.job_id)
            known = full.job.result if full.job.revision == job.revision else None
            self._remember(job.job_id, known)
        return replace(job, result=known)

    def _remember(self, job_id: str, result: Result | None) -> None:
        if result is None:
            return
        forgotten = self._delivered.pop(job_id, None)
        self._delivered[job_id] = result
        self._remembered += len(result.data) - (0 if forgotten is None else len(forgotten.data))
        while self._remembered > REMEMBERED or len(self._delivered) > 1024:
            self._remembered -= len(self._delivered.popitem(last=False)[1].data)

    async def _decline_unsigned(self, rows: Sequence[Row]) -> None:
        """A job without a signed request cannot be worked on: its buyer is told, once."""
        for row in rows:
            if row.get("request") is not None or row.get("status") != "requested" or row.get("seller_pubkey") != self._own:
                continue
            body = body_of({"code": "unsigned", "message": "this seller takes signed requests only"})
            try:
                await self._parts.transport.exchange(Question("POST", f"/v1/jobs/{checked_id(str(row.get('job_id')))}/decline", body))
            except (StateError, NotFoundError, RefusedError, UsageError, UnavailableError) as error:
                log.info("job %s carries no signed request and was not declined: %s", row.get("job_id"), error)

    # reading

    async def read_jobs(self, rows: Sequence[Row]) -> list[Seen]:
        found = []
        for row in rows:
            try:
                seen = _seen(row)
            except TradeskillError as error:
                log.info("job %s is passed over: %s", str(row.get("job_id"))[:60], error)
                continue
            if self._own in (seen.job.buyer, seen.job.seller):
                found.append(seen)
        return found


def _seen(row: Row) -> Seen:
    request, job_id = document_in(row, "request"), checked_id(str(row.get("job_id")))
    buyer, seller = key_in(row, "buyer_pubkey"), key_in(row, "seller_pubkey")
    if request is None or request.key != buyer:
        raise UntrustedError("it carries no request signed by its buyer")
    offer_id = request.body.get("offer_id")
    if not isinstance(offer_id, str) or offer_id_on_the_wire(offer_id) != row.get("offer_id"):
        raise UntrustedError("its request is for another offer")
    created_at, updated_at, revision = time_in(row, "created_at"), time_in(row, "updated_at"), integer_in(row, "revision")
    if created_at is None or updated_at is None or revision is None:
        raise UntrustedError("created_at, updated_at or revision is missing")
    canceled_by, reason = text_in(row, "canceled_by", 16), text_in(row, "cancel_reason") or ""
    error = error_in(row)
    if canceled_by == "buyer" and reason and error is None:
        error = JobError("canceled", reason)
    payment_id = text_in(row, "payment_tx_hash")
    result, inline = result_in(row), row.get("result")
    return Seen(
        Job(
            job_id=job_id,
            offer_id=offer_id,
            seller=seller,
            buyer=buyer,
            state=state_in(row),
            request=request,
            created_at=created_at,
            updated_at=updated_at,
            revision=revision,
            quote=document_in(row, "quote"),
            quote_expires_at=time_in(row, "quote_expires_at"),
            accepted_at=time_in(row, "accepted_at"),
            payment_id=payment_id,
            payment_rail=None if payment_id is None else text_in(row, "payment_rail"),
            payment_token=text_in(row, "payment_proof", 65_536),
            lock_expires_at=time_in(row, "lock_expires_at"),
            market_fence=integer_in(row, "market_fence"),
            result=result,
            receipt=document_in(row, "receipt"),
            error=error,
        ),
        canceled_by=canceled_by,
        cancel_reason=reason,
        result_url=text_in(row, "result_url") if inline is None else None,
    )


def _declined(seen: Seen, error: JobError) -> bool:
    return seen.canceled_by == "seller" and seen.job.error == error


def _hash_of(seen: Seen) -> str | None:
    """Of the delivered bytes: by themselves, or by the receipt where they lie elsewhere."""
    if seen.job.result is not None:
        return digest(seen.job.result.data)
    stated = None if seen.job.receipt is None else seen.job.receipt.body.get("result")
    found = stated.get("sha256") if isinstance(stated, dict) else None
    return found if isinstance(found, str) else None
