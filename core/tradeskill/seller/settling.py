"""quoted -> paid | expired | canceled, and money back: the only place where a job becomes paid and where refunds are sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from functools import partial
from typing import Final

from tradeskill.allocation import allocate
from tradeskill.errors import NotFoundError, PluginError, RefusedError, StateError, TradeskillError, UnavailableError, UsageError
from tradeskill.journal import Fulfilment, Transaction, selling
from tradeskill.model import Invoice, Payment, PaymentStatus
from tradeskill.money import Amount
from tradeskill.seller.shop import GRACE_MS, LATE_WATCH_MS, TOGETHER_SECONDS, Shop, fail, payment_of, request_of
from tradeskill.tasks import under_way

__all__ = ["Settling"]

Look = tuple[Invoice, PaymentStatus]
Answer = PaymentStatus | TradeskillError
SLOW_SECONDS: Final = 30.0  # more than a request to a node or a mint may take


class Settling:
    def __init__(self, shop: Shop) -> None:
        self._shop = shop

    async def settle(self, job_id: str, *, closing: bool = False) -> Fulfilment:
        """Look for money on every invoice of the job and allocate what is final. Repeatable; the only place a job becomes paid.

        A rail that is in trouble, or slow, does not keep the others from counting; its error is raised while the job is still unpaid.
        """
        row = self._shop.row(job_id)
        invoices = [each.invoice for each in self._shop.journal.read(lambda c: selling.invoices_of(c, job_id))]
        trouble: TradeskillError | None = None
        async with aclosing(self._answers(row, invoices)) as rounds:
            async for answers in rounds:
                looks = [(invoice, answer) for invoice, answer in answers if isinstance(answer, PaymentStatus)]
                trouble = next((answer for _, answer in answers if isinstance(answer, TradeskillError)), None)
                row = await self._count(job_id, looks, sure=len(looks) == len(invoices), closing=closing)
        if trouble is not None and row.state == "quoted":
            raise trouble
        return row

    async def _answers(self, row: Fulfilment, invoices: Sequence[Invoice]) -> AsyncGenerator[list[tuple[Invoice, Answer]], None]:
        """What the rails say. Where one takes long, first what the others say, and then it is waited for: without end only where the buyer says it paid by it.

        A look that is broken off is repeated with the next one; it is journalled like everything that takes money.
        """
        if len(invoices) < 2:
            yield [(invoice, await self._answer(row, invoice)) for invoice in invoices]
            return
        async with under_way(self._answer(row, invoice) for invoice in invoices) as asked:
            done, left = await asyncio.wait(asked, timeout=TOGETHER_SECONDS)
            if done and left:
                yield [(invoice, task.result()) for invoice, task in zip(invoices, asked, strict=True) if task.done()]
            claimed = [task for invoice, task in zip(invoices, asked, strict=True) if task in left and invoice.rail == row.claim_rail]
            if claimed:
                await asyncio.wait(claimed)
            elif left:
                await asyncio.wait(left, timeout=SLOW_SECONDS)
            yield [(invoice, task.result() if task.done() else _overdue(invoice)) for invoice, task in zip(invoices, asked, strict=True)]

    async def _answer(self, row: Fulfilment, invoice: Invoice) -> Answer:
        try:
            return await self._look(row, invoice)
        except TradeskillError as error:
            return error

    async def _count(self, job_id: str, looks: Sequence[Look], *, sure: bool, closing: bool) -> Fulfilment:
        self._shop.world.crash("before", "seller.confirmed")
        row = self._shop.row(job_id)
        if not looks or not self._worth_writing(row, looks, closing):
            return row
        self._shop.world.crash("after", "seller.confirmed")
        with self._shop.world.step("seller.paid-committed"):
            now = self._shop.world.now_ms()
            await self._shop.journal.write(partial(self._allocate, job_id=job_id, looks=looks, sure=sure, closing=closing, now=now))
        self._shop.wake()
        return self._shop.row(job_id)

    async def _look(self, row: Fulfilment, invoice: Invoice) -> PaymentStatus:
        wallet = self._shop.wallet(invoice.rail)
        proof = (row.token or row.claim) if row.claim_rail == invoice.rail else None
        return _validated(await wallet.settle(invoice, proof), invoice)

    def _worth_writing(self, row: Fulfilment, looks: Sequence[Look], closing: bool) -> bool:
        known = {(p.rail, p.payment_id) for p in self._shop.journal.read(lambda c: selling.payments_of(c, row.job_id)) if p.state != "found"}
        new = any((invoice.rail, payment.payment_id) not in known for invoice, status in looks for payment in status.payments)
        return new or (row.state == "quoted" and (closing or self._shop.world.now_ms() > (row.hold_until or 0)))

    def _allocate(self, tx: Transaction, job_id: str, looks: Sequence[Look], sure: bool, closing: bool, now: int) -> None:
        """One invoice may pay the job, first the one that the buyer says it paid; whatever is on the others goes back."""
        row = selling.fulfilment(tx, job_id)
        found = {invoice.invoice_id: selling.record_found(tx, invoice, status.payments, now) for invoice, status in looks}
        ordered = sorted(looks, key=lambda look: look[0].rail != row.claim_rail)
        for invoice, status in ordered:
            self._judge(tx, invoice, status, found[invoice.invoice_id], closing=False, now=now)
        deadline = max(invoice.expires_at for invoice, _ in looks) if any(found.values()) else row.hold_until or 0
        sure = sure and all(status.state not in ("pending", "unknown") for _, status in looks)
        if selling.fulfilment(tx, job_id).state != "quoted" or not sure or not (closing or now > deadline + GRACE_MS):
            return
        for invoice, status in ordered:
            self._judge(tx, invoice, status, found[invoice.invoice_id], closing=True, now=now)
        selling.move_fulfilment(tx, job_id, "expire", now, error_code="expired", error_message="not paid in full in time")
        if row.claim is not None:  # the buyer says it paid, and waits
            selling.repeat_effect(tx, "fulfilment", job_id, "report_failure", now)
        selling.close_invoices(tx, job_id, now + LATE_WATCH_MS)

    def _judge(self, tx: Transaction, invoice: Invoice, status: PaymentStatus, found: Sequence[Payment], *, closing: bool, now: int) -> None:
        """What is on one invoice, as the job stands."""
        row, terms = selling.fulfilment(tx, invoice.job_id), self._shop.settings.terms
        refund_to = request_of(row).refund_to.get(invoice.rail)
        allocation = allocate(
            row.state, invoice.amount.value, found, late=status.late, closing=closing, refundable=refund_to is not None, terms=terms
        )
        selling.allocate_found(tx, invoice, allocation, refund_to, now)
        if allocation.event in ("pay", "pay_late"):
            selling.move_fulfilment(tx, row.job_id, "pay", now, paid_at=now)
        if allocation.event == "pay_late":
            message = "the payment came after the invoice expired; it is returned"
            fail(tx, selling.fulfilment(tx, row.job_id), "late_payment", message, now, terms.refund_minimum)

    async def close(self, row: Fulfilment, event: str) -> None:
        """The market ended the job: close it here too; money that comes later moves in the payment table."""
        now = self._shop.world.now_ms()

        def close(tx: Transaction) -> None:
            state = selling.fulfilment(tx, row.job_id).state
            if state == "quoted":
                selling.move_fulfilment(tx, row.job_id, event, now)
                selling.close_invoices(tx, row.job_id, now + LATE_WATCH_MS)
            elif state == "seen":
                selling.move_fulfilment(tx, row.job_id, "refuse", now, error_code="ended", error_message="ended at the market before a quote was sent")

        await self._shop.journal.write(close)

    async def refund(self, key: str) -> float | None:
        """Send a payment (or its excess) to the address the buyer signed; once per row, whatever happens in between."""
        row = self._shop.journal.read(lambda c: selling.payment_by_key(c, key))
        now = self._shop.world.now_ms()
        if row.state == "refund_due":
            if row.refund_to is None:
                await self._shop.journal.write(lambda tx: selling.move_payment(tx, row, "hold", now, note="no refund address"))
                return None
            row = await self._shop.journal.write(lambda tx: selling.move_payment(tx, row, "send", now))
        if row.state != "refunding":
            return None
        invoice = self._shop.journal.read(lambda c: selling.find_invoice(c, row.invoice_id))
        assert invoice is not None
        assert row.refund_to is not None
        amount = Amount(row.value, row.unit)
        try:
            proof = await self._shop.wallet(row.rail).refund(payment_of(row), invoice.invoice, row.refund_to, amount, row.key)
        except (RefusedError, UsageError, NotFoundError, StateError) as error:
            await self.park(key, str(error))
            return None
        if proof.state != "final":
            return min(15.0, max(0.5, (self._shop.world.now_ms() - row.updated_at) / 10_000))
        now = self._shop.world.now_ms()
        await self._shop.journal.write(lambda tx: selling.move_payment(tx, row, "confirm", now, refund_id=proof.payment_id))
        return None

    async def park(self, key: str, why: str) -> None:
        """A refund that cannot be made is its owner's to decide. Safe to repeat."""
        now = self._shop.world.now_ms()

        def park(tx: Transaction) -> None:
            row = selling.payment_by_key(tx, key)
            if row.state in ("refund_due", "refunding"):
                selling.move_payment(tx, row, "hold", now, note=why[:200])

        await self._shop.journal.write(park)


def _overdue(invoice: Invoice) -> UnavailableError:
    return UnavailableError(f"the rail {invoice.rail} does not say what came for invoice {invoice.invoice_id:.80}: it is asked again")


def _validated(status: PaymentStatus, invoice: Invoice) -> PaymentStatus:
    """A wallet is a plugin: what it reports is checked before it counts (fault 111)."""
    if status.state not in ("none", "pending", "partial", "paid", "unknown"):
        raise PluginError(f"wallet {invoice.rail!r} reports state {status.state!r}")
    ids = [payment.payment_id for payment in status.payments]
    if len(set(ids)) != len(ids) or not all(isinstance(i, str) and 0 < len(i) <= 256 for i in ids):
        raise PluginError(f"wallet {invoice.rail!r} reports doubled or malformed payment ids for invoice {invoice.invoice_id}")
    if any(payment.amount.unit != invoice.amount.unit or payment.amount.value == 0 for payment in status.payments):
        raise PluginError(f"wallet {invoice.rail!r} reports a payment in another unit, or of nothing, for invoice {invoice.invoice_id}")
    return status
