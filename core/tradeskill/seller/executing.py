"""paid -> leased -> started -> executed -> delivered | failed: one committed start an attempt, adopted after a crash, delivered as often as needed.

Past 400 lines because lease, run, result and delivery are one stretch under one fence.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from tradeskill.agreement import Request, sign_receipt
from tradeskill.contracts import Task
from tradeskill.errors import (
    BrokenPluginError,
    NotFoundError,
    PluginError,
    RefusedError,
    StaleFenceError,
    StateError,
    TradeskillError,
    UnavailableError,
    UsageError,
)
from tradeskill.journal import Fulfilment, PaymentRow, Transaction, selling
from tradeskill.journal.records import document_text, read_document
from tradeskill.model import Delivery, JobError, Lock, Result
from tradeskill.money import Amount
from tradeskill.seller.shop import ACTIVE, GRACE_MS, LATE_WATCH_MS, Listing, Shop, execution_id, fail, payment_of, request_of
from tradeskill.seller.troubles import Troubles
from tradeskill.signing import canonical

__all__ = ["Executing"]

log = logging.getLogger("tradeskill.seller")

NOT_TAKEN = (StateError, NotFoundError, RefusedError, UsageError)  # the market's answer is no; anything else it may still have done


class Executing:
    def __init__(self, shop: Shop, troubles: Troubles) -> None:
        self._shop, self._troubles = shop, troubles
        self._room = asyncio.Semaphore(shop.settings.workers)
        self._side_rooms: dict[str, asyncio.Semaphore] = {}  # one job at a time, for each backend that is in trouble
        self._unasked: dict[str, int] = {}  # jobs whose start we recorded and never asked the backend for, each with our last fence

    async def execute(self, job_id: str) -> float | None:
        """Lock, lease, start, wait, collect: adopting whatever an earlier worker left."""
        row = self._shop.row(job_id)
        if row.state not in ("paid", "leased", "started"):
            return None
        listing = self._shop.listings.get(row.offer_name)
        if listing is None:
            return 30.0  # not sold any more; a worker that still knows it goes on
        if not listing.run or self.parked(row):
            return None
        async with self._room_for(listing.backend):
            row_or_wait = await self.lease(job_id)
            if not isinstance(row_or_wait, Fulfilment):
                return row_or_wait
            row = row_or_wait
            if row.state == "leased":
                row = await self._start(row)
                self._unasked[job_id] = row.fence
            began = self._shop.world.monotonic()
            try:
                await self._run(row, listing)
            except BrokenPluginError as error:
                if error.details.get("kind") == "Backend":
                    self._troubles.begin(("backend", listing.backend), began)
                    self._side_rooms.setdefault(listing.backend, asyncio.Semaphore(1))  # what hangs would keep everybody else out of the room
                raise
            self._works(job_id, listing)
            self._unasked.pop(job_id, None)
        return None

    @asynccontextmanager
    async def _room_for(self, backend: str) -> AsyncIterator[None]:
        """A place in the room, or beside it. Whoever waited for one while the backend got into trouble goes and waits there."""
        while True:
            room = self._side_rooms.get(backend, self._room)
            async with room:
                if room is self._side_rooms.get(backend, self._room):
                    yield
                    return

    def _works(self, job_id: str, listing: Listing) -> None:
        self._troubles.over(job_id, ("backend", listing.backend))
        self._side_rooms.pop(listing.backend, None)

    def given_up(self, job_id: str) -> bool:
        """Whether the job's backend, a stranger's, has been in trouble for too long: with this job, or with all."""
        row = self._shop.row(job_id)
        listing = self._shop.listings.get(row.offer_name)
        return self._troubles.too_long(job_id, *([] if listing is None else [("backend", listing.backend)]))

    async def give_up(self, job_id: str, why: str) -> None:
        """What was never asked of the backend is proved not to have run: the job fails and the money goes back. Anything else is its owner's to decide."""
        fence, now = self._unasked.pop(job_id, None), self._shop.world.now_ms()

        def fail_unasked(tx: Transaction) -> bool:
            row = selling.fulfilment(tx, job_id)
            if fence is None or (row.state, row.fence, row.attempt) != ("started", fence, 1):
                return False
            fail(tx, row, "backend", "the seller's backend does not work; nothing was run", now, self._shop.settings.terms.refund_minimum)
            return True

        if not await self._shop.journal.write(fail_unasked):
            await self.park(job_id, why)
        self._troubles.over(job_id)
        self._shop.wake()

    async def lease(self, job_id: str) -> Fulfilment | float | None:
        """The job under a new fence of this worker; seconds to wait while it cannot be had; None when it has ended."""
        try:
            with self._shop.world.step("seller.lock"):
                lock = await self._shop.market.lock(job_id)
        except NOT_TAKEN as error:
            return await self._give_back(job_id, "not_lockable", error)
        now, dead = self._shop.world.now_ms(), self._dead_owners()

        def take(tx: Transaction) -> tuple[int, Fulfilment | None]:
            before, until = selling.fulfilment(tx, job_id).fence, now + self._shop.settings.lease_ms
            return before, selling.take(tx, job_id, self._shop.owner, until, now, dead_owners=dead, market_fence=lock.market_fence)

        before, row = await self._shop.journal.write(take)
        if row is None:
            return 1.0
        if self._unasked.pop(job_id, None) == before:  # nobody had it in between
            self._unasked[job_id] = row.fence
        log.info("job %s: held under fence %d", job_id, row.fence)
        return row

    def _dead_owners(self) -> set[str]:
        owners = {row.lease_owner for row in self._shop.journal.read(lambda c: selling.fulfilments(c, ("leased", "started")))}
        return {owner for owner in owners if self._shop.is_dead(owner)}

    async def _give_back(self, job_id: str, code: str, error: TradeskillError) -> float | None:
        """The market takes no lock or no result for a paid job: seconds to wait while it still may, else the money goes back or to review (None).

        It may until the deadline, for want of the buyer's submission (late, or forgotten by the market) or while another worker
        delivers; not once it shows the job as ended in any other way.
        """
        try:
            job = await self._shop.market.get(job_id)
        except NotFoundError:
            job = None
        state = "gone" if job is None else job.state
        now, dead = self._shop.world.now_ms(), self._dead_owners()

        def give_back(tx: Transaction) -> float | None:
            row = selling.fulfilment(tx, job_id)
            if row.state not in ACTIVE:
                return None
            never = row.state == "executed" and isinstance(error, (RefusedError, UsageError))  # a flat no, which the buyer was never shown
            ended = never or state not in ("requested", "quoted", "accepted", "running", "delivered")
            if not ended and now <= max(row.hold_until or 0, row.finished_at or 0) + GRACE_MS:
                return min(15.0, max(1.0, (now - (row.paid_at or now)) / 10_000))
            if row.state != "executed" and not selling.takeable(row, self._shop.owner, now, dead):
                return 1.0
            maybe = row.state == "executed" and not never
            doubt = f"the buyer may have the result, though the market shows the job as {state}" if maybe else ""
            fail(tx, row, code, f"the market shows the job as {state}: {error}", now, self._shop.settings.terms.refund_minimum, doubt=doubt)
            return None

        pause = await self._shop.journal.write(give_back)
        self._shop.wake()
        return pause

    async def _start(self, row: Fulfilment) -> Fulfilment:
        """Record the start before starting (rule 3)."""
        now = self._shop.world.now_ms()

        def start(tx: Transaction) -> Fulfilment:
            moved = selling.move_fulfilment(
                tx,
                row.job_id,
                "start",
                now,
                fence=row.fence,
                attempt=row.attempt + 1,
                execution_id=execution_id(row.job_id, row.attempt + 1),
                started_at=now,
            )
            selling.record_start(tx, row.job_id, moved.attempt, row.fence, now)
            return moved

        with self._shop.world.step("seller.start-intent"):
            return await self._shop.journal.write(start)

    async def _run(self, row: Fulfilment, listing: Listing) -> None:
        backend = self._shop.backends[listing.backend]
        request = request_of(row)
        began, stopped = self._shop.world.monotonic(), False
        while True:
            execution = row.execution_id or execution_id(row.job_id, row.attempt)
            status = await backend.status(execution)
            if status.state == "absent":
                self._check_mine(row)
                self._unasked.pop(row.job_id, None)
                try:
                    with self._shop.world.step("seller.backend-create"):
                        await backend.start(execution, self._task(listing, request, row), listing.limits)
                except RefusedError as error:
                    await self._fail_now(row, "refused", str(error))
                    return
                with self._shop.world.step("seller.accepted"):
                    pass
            status = await backend.wait(execution, self._shop.settings.heartbeat_seconds)
            if status.state == "absent":
                raise PluginError(f"backend {listing.backend}: execution {execution} is absent right after it was started")
            if status.state == "running":
                self._works(row.job_id, listing)
                await self._beat(row)
                if stopped:
                    raise PluginError(f"backend {listing.backend}: execution {execution} runs on after it was stopped")
                if self._shop.world.monotonic() - began > listing.limits.seconds + 30:
                    await backend.stop(execution)
                    stopped = True
            elif status.state == "finished":
                with self._shop.world.step("seller.finished"):
                    pass
                try:
                    with self._shop.world.step("seller.collected"):
                        result = await backend.result(execution)
                except RefusedError as error:
                    await self._fail_now(row, "output", str(error))
                    return
                await self.finish(row, result)
                return
            elif status.state == "failed":
                await self._fail_now(row, status.code or "failed", status.detail or "the work failed")
                return
            elif status.state == "lost":
                retried = await self._lost(row, listing)
                if retried is None:
                    return
                row = retried

    def _check_mine(self, row: Fulfilment) -> None:
        """Right before a start: a worker that slept past its lease must not start what somebody else has finished."""
        current = self._shop.row(row.job_id)
        if (current.state, current.fence) != ("started", row.fence):
            raise StaleFenceError(f"job {row.job_id}: fence {row.fence} is not current any more")

    def _task(self, listing: Listing, request: Request, row: Fulfilment) -> Task:
        return Task(
            argv=listing.run,
            stdin=canonical(request.input),
            folder=None if listing.folder is None else Path(listing.folder),
            trusted=listing.trusted,
            details={"owner": self._shop.identity.key, "job_id": row.job_id},
            network=listing.network,
        )

    async def _beat(self, row: Fulfilment) -> None:
        """Renew lease, then lock, while work runs. A lost lock is taken again at delivery; a lost fence ends this worker's part.

        The lease comes first and the market has only so long, so that a slow market cannot make the lease lapse.
        """
        with self._shop.world.step("seller.heartbeat"):
            await self._renew(row, None)
            try:
                async with asyncio.timeout(self._shop.settings.heartbeat_seconds):
                    lock = await self._shop.market.lock(row.job_id)
            except (TimeoutError, UnavailableError, *NOT_TAKEN) as error:
                log.info("job %s: lock not renewed: %s", row.job_id, error)
                return
            await self._renew(row, lock.market_fence)

    async def _renew(self, row: Fulfilment, market_fence: int | None) -> None:
        until = self._shop.world.now_ms() + self._shop.settings.lease_ms
        await self._shop.journal.write(lambda tx: selling.heartbeat(tx, row.job_id, row.fence, until, market_fence))

    async def _lost(self, row: Fulfilment, listing: Listing) -> Fulfilment | None:
        """An execution proved dead without an outcome: the next attempt for pure work, else refund or review."""
        if listing.pure and row.attempt < self._shop.settings.max_attempts:
            return await self.retry(row)
        if self._shop.settings.uncertain == "review" and not listing.pure:
            await self.park(row.job_id, "the execution was lost half-way; it may have had effects")
            return None
        await self._fail_now(row, "lost", "the work was interrupted and is not repeated")
        return None

    async def retry(self, row: Fulfilment) -> Fulfilment:
        """The next attempt, recorded before it starts. Only after the old one is proved dead or stopped."""
        now, attempt = self._shop.world.now_ms(), row.attempt + 1
        self._unasked.pop(row.job_id, None)

        def again(tx: Transaction) -> Fulfilment:
            moved = selling.move_fulfilment(
                tx, row.job_id, "retry", now, fence=row.fence, attempt=attempt, execution_id=execution_id(row.job_id, attempt), started_at=now
            )
            selling.record_start(tx, row.job_id, attempt, row.fence, now)
            return moved

        with self._shop.world.step("seller.start-intent"):
            return await self._shop.journal.write(again)

    async def finish(self, row: Fulfilment, result: Result) -> Fulfilment:
        """Store the result, sign the receipt, commit both under the fence. After this the same bytes are delivered however often."""
        with self._shop.world.step("seller.blob-fsynced"):
            sha256 = await self._shop.world.offload(lambda: self._shop.blobs.put(result.data))
        request = request_of(row)
        assert row.quote is not None
        payments = self._shop.journal.read(partial(_allocated, job_id=row.job_id))
        now = self._shop.world.now_ms()
        with self._shop.world.step("seller.receipt-signed"):
            receipt = sign_receipt(
                self._shop.identity,
                request,
                read_document(row.quote),
                job_id=row.job_id,
                rail=payments[0].rail,
                payment_ids=[p.payment_id for p in payments],
                amount=Amount(sum(p.value for p in payments), payments[0].unit),
                result=result,
                delivered_at=now,
                fence=row.fence,
            )
        def finish(tx: Transaction) -> Fulfilment:
            if _allocated(tx, row.job_id) != payments:
                raise StateError(f"job {row.job_id}: its payments were moved meanwhile")
            return selling.move_fulfilment(
                tx,
                row.job_id,
                "finish",
                now,
                fence=row.fence,
                result_sha256=sha256,
                result_type=result.media_type,
                receipt=document_text(receipt),
                finished_at=now,
            )

        with self._shop.world.step("seller.result-committed"):
            finished = await self._shop.journal.write(finish)
        self._shop.wake()
        return finished

    async def finish_by_hand(self, row: Fulfilment, result: Result) -> Fulfilment:
        """A result that a person or an agent made, under the fence it holds: start and finish are recorded as for any work."""
        if row.state == "leased":
            row = await self._start(row)
        return await self.finish(row, result)

    async def _fail_now(self, row: Fulfilment, code: str, message: str) -> None:
        now = self._shop.world.now_ms()
        await self._shop.journal.write(lambda tx: fail(tx, row, code, message, now, self._shop.settings.terms.refund_minimum))
        self._shop.wake()

    async def park(self, job_id: str, note: str) -> None:
        """Leave an unfinished job to its owner: the payment goes to review, the job stays as it is. Not while somebody alive works on it."""
        now, dead = self._shop.world.now_ms(), self._dead_owners()

        def park(tx: Transaction) -> None:
            if selling.takeable(selling.fulfilment(tx, job_id), self._shop.owner, now, dead):
                selling.hold_allocated(tx, job_id, note, now)
                selling.let_go(tx, job_id)  # so that what the owner decides can be done at once

        await self._shop.journal.write(park)

    def parked(self, row: Fulfilment) -> bool:
        """Its money is not the job's any more: the owner decides."""
        payments = self._shop.journal.read(lambda c: selling.payments_of(c, row.job_id))
        return row.state in ACTIVE and not any(p.state == "allocated" for p in payments)

    # executed -> delivered; failed -> reported

    async def deliver(self, job_id: str) -> float | None:
        """Hand over the stored result; asked again after it was delivered (the market forgot), the same bytes once more."""
        row = self._shop.row(job_id)
        if row.state not in ("executed", "delivered"):
            return None
        assert row.receipt is not None
        assert row.result_sha256 is not None
        try:
            result = Result(self._shop.blobs.get(row.result_sha256), row.result_type or "application/octet-stream")
            await self._hand_over(row, Delivery(result=result, receipt=read_document(row.receipt)))
        except NOT_TAKEN as error:
            if row.state == "delivered":
                log.warning("job %s: not delivered again: %s", job_id, error)
                return None
            return await self._give_back(job_id, "not_deliverable", error)
        now = self._shop.world.now_ms()
        with self._shop.world.step("seller.ack-committed"):
            await self._shop.journal.write(lambda tx: self._delivered(tx, job_id, len(result.data), now))
        self._shop.wake()
        return None

    def _delivered(self, tx: Transaction, job_id: str, size: int, now: int) -> None:
        row = selling.fulfilment(tx, job_id)
        if row.state == "executed":
            selling.move_fulfilment(tx, job_id, "deliver", now)
            selling.close_invoices(tx, job_id, now + LATE_WATCH_MS)
            selling.keep_result(tx, row.result_sha256 or "", size, now + self._shop.settings.keep_results_ms)

    async def _hand_over(self, row: Fulfilment, delivery: Delivery) -> None:
        """Deliver under the lock; where it lapsed meanwhile, take it again and deliver the same bytes."""
        with self._shop.world.step("seller.deliver-sent"):
            try:
                await self._shop.market.deliver(row.job_id, delivery, row.market_fence)
            except StateError:
                lock: Lock = await self._shop.market.lock(row.job_id)
                await self._shop.market.deliver(row.job_id, delivery, lock.market_fence)
        with self._shop.world.step("seller.ack-received"):
            pass

    async def report_failure(self, job_id: str) -> float | None:
        row = self._shop.journal.read(lambda c: selling.fulfilment(c, job_id))
        try:
            lock = await self._shop.market.lock(job_id)
            await self._shop.market.deliver(
                job_id, Delivery(error=_for_the_buyer(row)), lock.market_fence
            )
        except NOT_TAKEN as error:
            log.info("job %s: failure not reported (the market ended it already): %s", job_id, error)
        await self._remove_executions(row)
        return None

    async def tidy(self, job_id: str) -> float | None:
        row = self._shop.journal.read(lambda c: selling.fulfilment(c, job_id))
        invoices = {i.invoice_id: i.invoice for i in self._shop.journal.read(lambda c: selling.invoices_of(c, job_id))}
        for payment in self._shop.journal.read(lambda c: selling.payments_of(c, job_id)):
            if payment.state == "allocated":
                await self._shop.wallet(payment.rail).conclude(payment_of(payment), invoices[payment.invoice_id], "delivered")
        await self._remove_executions(row)
        with self._shop.world.step("seller.lease-released"):
            pass
        return None

    async def _remove_executions(self, row: Fulfilment) -> None:
        listing = self._shop.listings.get(row.offer_name)
        backend = None if listing is None or not listing.run else self._shop.backends.get(listing.backend)
        if backend is None:
            return
        for attempt in range(1, row.attempt + 1):
            await backend.stop(execution_id(row.job_id, attempt))
            if not row.contested:  # else somebody asleep may yet ask for this start, and must find that it was made
                await backend.remove(execution_id(row.job_id, attempt))


def _allocated(connection: sqlite3.Connection, job_id: str) -> list[PaymentRow]:
    """What pays for the job; StateError when nothing does."""
    payments = [p for p in selling.payments_of(connection, job_id) if p.state == "allocated"]
    if not payments:
        raise StateError(f"job {job_id} has no allocated payment: nothing may be delivered")
    return payments


def _for_the_buyer(row: Fulfilment) -> JobError:
    """Why the job failed. What the program said last stays in the seller's journal: it may hold paths and names of this machine."""
    code = row.error_code or "failed"
    inner = code in ("exit", "output", "refused", "stopped", "failed") or code.startswith("limit.")
    return JobError(code, f"the work failed ({code})" if inner else row.error_message or "the work failed")
