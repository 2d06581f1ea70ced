"""paid -> leased -> started -> executed -> delivered | failed: one committed start an attempt, adopted after a crash, delivered as often as needed."""

from __future__ import annotations

import logging
from pathlib import Path

from tradeskill.agreement import Request, sign_receipt
from tradeskill.contracts import Task
from tradeskill.errors import NotFoundError, RefusedError, StateError, TradeskillError, UnavailableError
from tradeskill.journal import Fulfilment, Transaction, selling
from tradeskill.journal.records import document_text, read_document
from tradeskill.model import Delivery, JobError, Lock, Result
from tradeskill.money import Amount
from tradeskill.seller.shop import ACTIVE, GRACE_MS, LATE_WATCH_MS, LEASE_MS, Listing, Shop, execution_id, fail, payment_of, request_of
from tradeskill.signing import canonical

__all__ = ["Executing"]

log = logging.getLogger("tradeskill.seller")


class Executing:
    def __init__(self, shop: Shop) -> None:
        self._shop = shop

    async def execute(self, job_id: str) -> float | None:
        """Lock, lease, start, wait, collect: adopting whatever an earlier worker left."""
        row = self._shop.journal.read(lambda c: selling.fulfilment(c, job_id))
        if row.state not in ("paid", "leased", "started"):
            return None
        listing = self._shop.listings.get(row.offer_name)
        if listing is None or not listing.run or self.parked(row):
            return None if listing is not None else 30.0
        row_or_wait = await self.lease(job_id)
        if not isinstance(row_or_wait, Fulfilment):
            return row_or_wait
        row = row_or_wait
        if row.state == "leased":
            row = await self._start(row)
        await self._run(row, listing)
        return None

    async def lease(self, job_id: str) -> Fulfilment | float | None:
        """The job under a new fence of this worker; seconds to wait while it cannot be had; None when it has ended."""
        try:
            with self._shop.world.step("seller.lock"):
                lock = await self._shop.market.lock(job_id)
        except (StateError, NotFoundError) as error:
            return await self._not_lockable(job_id, error)
        now = self._shop.world.now_ms()
        owners = {row.lease_owner for row in self._shop.journal.read(lambda c: selling.fulfilments(c, ("leased", "started")))}
        dead = {owner for owner in owners if self._shop.is_dead(owner)}
        row = await self._shop.journal.write(
            lambda tx: selling.take(tx, job_id, self._shop.owner, now + LEASE_MS, now, dead_owners=dead, market_fence=lock.market_fence)
        )
        return row if row is not None else 1.0

    async def _not_lockable(self, job_id: str, error: TradeskillError) -> float | None:
        """Paid, but the market gives no lock: wait for the buyer's submission until the deadline, else return the money."""
        row = self._shop.journal.read(lambda c: selling.fulfilment(c, job_id))
        try:
            job = await self._shop.market.get(job_id)
        except NotFoundError:
            job = None
        now = self._shop.world.now_ms()
        ended = job is None or job.state not in ("requested", "quoted", "accepted", "running")
        if ended or now > (row.hold_until or 0) + GRACE_MS:
            state = "gone" if job is None else job.state
            await self._fail_now(row, "not_lockable", f"the market shows the job as {state}: {error}"[:200])
            return None
        return 1.0

    async def _start(self, row: Fulfilment) -> Fulfilment:
        """Record the start before starting (rule 3)."""
        now = self._shop.world.now_ms()

        def start(tx: Transaction) -> Fulfilment:
            selling.record_start(tx, row.job_id, row.attempt + 1, row.fence, now)
            return selling.move_fulfilment(
                tx,
                row.job_id,
                "start",
                now,
                fence=row.fence,
                attempt=row.attempt + 1,
                execution_id=execution_id(row.job_id, row.attempt + 1),
                started_at=now,
            )

        with self._shop.world.step("seller.start-intent"):
            return await self._shop.journal.write(start)

    async def _run(self, row: Fulfilment, listing: Listing) -> None:
        backend = self._shop.backends[listing.backend]
        request = request_of(row)
        began = self._shop.world.monotonic()
        while True:
            execution = row.execution_id or execution_id(row.job_id, row.attempt)
            status = await backend.status(execution)
            if status.state == "absent":
                try:
                    with self._shop.world.step("seller.backend-create"):
                        await backend.start(execution, self._task(listing, request, row), listing.limits)
                except RefusedError as error:
                    await self._fail_now(row, "refused", str(error))
                    return
                with self._shop.world.step("seller.accepted"):
                    pass
            status = await backend.wait(execution, self._shop.settings.heartbeat_seconds)
            if status.state == "running":
                await self._beat(row)
                if self._shop.world.monotonic() - began > listing.limits.seconds + 30:
                    await backend.stop(execution)
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

    def _task(self, listing: Listing, request: Request, row: Fulfilment) -> Task:
        return Task(
            argv=listing.run,
            stdin=canonical(request.input),
            folder=None if listing.folder is None else Path(listing.folder),
            trusted=listing.trusted,
            details={"owner": self._shop.identity.key, "job_id": row.job_id},
        )

    async def _beat(self, row: Fulfilment) -> None:
        """Renew lease and lock while work runs. A lost lock is taken again at delivery; a lost fence ends this worker's part."""
        market_fence = row.market_fence
        with self._shop.world.step("seller.heartbeat"):
            try:
                market_fence = (await self._shop.market.lock(row.job_id)).market_fence
            except (UnavailableError, StateError) as error:
                log.info("job %s: lock not renewed: %s", row.job_id, error)
            until = self._shop.world.now_ms() + LEASE_MS
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

        def again(tx: Transaction) -> Fulfilment:
            selling.record_start(tx, row.job_id, attempt, row.fence, now)
            return selling.move_fulfilment(
                tx, row.job_id, "retry", now, fence=row.fence, attempt=attempt, execution_id=execution_id(row.job_id, attempt), started_at=now
            )

        with self._shop.world.step("seller.start-intent"):
            return await self._shop.journal.write(again)

    async def finish(self, row: Fulfilment, result: Result) -> Fulfilment:
        """Store the result, sign the receipt, commit both under the fence. After this the same bytes are delivered however often."""
        with self._shop.world.step("seller.blob-fsynced"):
            sha256 = await self._shop.world.offload(lambda: self._shop.blobs.put(result.data))
        request = request_of(row)
        assert row.quote is not None
        payments = [p for p in self._shop.journal.read(lambda c: selling.payments_of(c, row.job_id)) if p.state == "allocated"]
        if not payments:
            raise StateError(f"job {row.job_id} has no allocated payment: nothing may be delivered")
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
        with self._shop.world.step("seller.result-committed"):
            row = await self._shop.journal.write(
                lambda tx: selling.move_fulfilment(
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
            )
        self._shop.wake()
        return row

    async def _fail_now(self, row: Fulfilment, code: str, message: str) -> None:
        now = self._shop.world.now_ms()
        await self._shop.journal.write(lambda tx: fail(tx, row, code, message, now, self._shop.settings.terms.refund_minimum))
        self._shop.wake()

    async def park(self, job_id: str, note: str) -> None:
        """Leave the decision to the owner: the payment goes to review, the job stays as it is."""
        now = self._shop.world.now_ms()

        def park(tx: Transaction) -> None:
            for payment in selling.payments_of(tx, job_id):
                if payment.state == "allocated":
                    selling.move_payment(tx, payment, "hold", now, note=note)

        await self._shop.journal.write(park)

    def parked(self, row: Fulfilment) -> bool:
        """Its money is not the job's any more: the owner decides."""
        payments = self._shop.journal.read(lambda c: selling.payments_of(c, row.job_id))
        return row.state in ACTIVE and not any(p.state == "allocated" for p in payments)

    # executed -> delivered; failed -> reported

    async def deliver(self, job_id: str) -> float | None:
        row = self._shop.journal.read(lambda c: selling.fulfilment(c, job_id))
        if row.state != "executed":
            return None
        assert row.receipt is not None
        assert row.result_sha256 is not None
        result = Result(self._shop.blobs.get(row.result_sha256), row.result_type or "application/octet-stream")
        try:
            await self._hand_over(row, Delivery(result=result, receipt=read_document(row.receipt)))
        except (StateError, NotFoundError) as error:
            await self._fail_now(row, "not_deliverable", f"the market does not take the result: {error}")
            return None
        now = self._shop.world.now_ms()
        with self._shop.world.step("seller.ack-committed"):
            await self._shop.journal.write(lambda tx: self._delivered(tx, row, len(result.data), now))
        self._shop.wake()
        return None

    def _delivered(self, tx: Transaction, row: Fulfilment, size: int, now: int) -> None:
        selling.move_fulfilment(tx, row.job_id, "deliver", now, fence=row.fence)
        selling.close_invoices(tx, row.job_id, now + LATE_WATCH_MS)
        tx.execute("INSERT OR REPLACE INTO results VALUES (?, ?, ?)", (row.result_sha256, size, now + self._shop.settings.keep_results_ms))

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
                job_id, Delivery(error=JobError(row.error_code or "failed", row.error_message or "the work failed")), lock.market_fence
            )
        except (StateError, NotFoundError) as error:
            log.info("job %s: failure not reported (the market ended it already): %s", job_id, error)
        await self._remove_executions(row)
        return None

    async def tidy(self, job_id: str) -> float | None:
        row = self._shop.journal.read(lambda c: selling.fulfilment(c, job_id))
        invoices = {i.invoice_id: i.invoice for i in self._shop.journal.read(lambda c: selling.invoices_of(c, job_id))}
        for payment in self._shop.journal.read(lambda c: selling.payments_of(c, job_id)):
            if payment.state == "allocated":
                await self._shop.wallets[payment.rail].conclude(payment_of(payment), invoices[payment.invoice_id], "delivered")
        await self._remove_executions(row)
        with self._shop.world.step("seller.lease-released"):
            pass
        return None

    async def _remove_executions(self, row: Fulfilment) -> None:
        listing = self._shop.listings.get(row.offer_name)
        backend = None if listing is None or not listing.run else self._shop.backends.get(listing.backend)
        if backend is not None:
            for attempt in range(1, row.attempt + 1):
                await backend.stop(execution_id(row.job_id, attempt))
                await backend.remove(execution_id(row.job_id, attempt))
