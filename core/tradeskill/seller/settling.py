"""quoted -> paid | expired | canceled, and money back: the only place where a job becomes paid and where refunds are sent."""

from __future__ import annotations

from functools import partial

from tradeskill.allocation import allocate
from tradeskill.errors import NotFoundError, PluginError, RefusedError, StateError, UsageError
from tradeskill.journal import Fulfilment, Transaction, selling
from tradeskill.model import Invoice, PaymentStatus
from tradeskill.money import Amount
from tradeskill.seller.shop import GRACE_MS, LATE_WATCH_MS, Shop, fail, payment_of, request_of

__all__ = ["Settling"]


class Settling:
    def __init__(self, shop: Shop) -> None:
        self._shop = shop

    async def settle(self, job_id: str, *, closing: bool = False) -> Fulfilment:
        """Look for money on every invoice of the job and allocate what is final. Repeatable; the only place a job becomes paid."""
        for invoice in self._shop.journal.read(lambda c: selling.invoices_of(c, job_id)):
            row = self._shop.journal.read(lambda c: selling.fulfilment(c, job_id))
            proof = (row.token or row.claim) if row.claim_rail == invoice.rail else None
            status = _validated(await self._shop.wallets[invoice.rail].settle(invoice.invoice, proof), invoice.invoice)
            self._shop.world.crash("before", "seller.confirmed")
            if not self._worth_writing(row, status, closing):
                continue
            self._shop.world.crash("after", "seller.confirmed")
            with self._shop.world.step("seller.paid-committed"):
                await self._shop.journal.write(
                    partial(self._allocate, invoice=invoice.invoice, status=status, closing=closing, now=self._shop.world.now_ms())
                )
            self._shop.wake()
        return self._shop.journal.read(lambda c: selling.fulfilment(c, job_id))

    def _worth_writing(self, row: Fulfilment, status: PaymentStatus, closing: bool) -> bool:
        known = {p.payment_id for p in self._shop.journal.read(lambda c: selling.payments_of(c, row.job_id)) if p.state != "found"}
        new = any(payment.payment_id not in known for payment in status.payments)
        return new or (row.state == "quoted" and (closing or self._shop.world.now_ms() > (row.hold_until or 0)))

    def _allocate(self, tx: Transaction, invoice: Invoice, status: PaymentStatus, closing: bool, now: int) -> None:
        row = selling.fulfilment(tx, invoice.job_id)
        refund_to = request_of(row).refund_to.get(invoice.rail)
        found = selling.record_found(tx, invoice, status.payments, now)
        sure = status.state not in ("pending", "unknown")
        deadline = invoice.expires_at + GRACE_MS if found else (row.hold_until or 0) + GRACE_MS
        allocation = allocate(
            row.state,
            invoice.amount.value,
            found,
            late=status.late,
            closing=sure and (closing or now > deadline),
            refundable=refund_to is not None,
            terms=self._shop.settings.terms,
        )
        selling.allocate_found(tx, invoice, allocation, refund_to, now)
        if allocation.event in ("pay", "pay_late"):
            selling.move_fulfilment(tx, row.job_id, "pay", now, paid_at=now)
        if allocation.event == "pay_late":
            message = "the payment came after the invoice expired; it is returned"
            fail(tx, selling.fulfilment(tx, row.job_id), "late_payment", message, now, self._shop.settings.terms.refund_minimum)
        if allocation.event == "expire":
            selling.move_fulfilment(tx, row.job_id, "expire", now, error_code="expired", error_message="not paid in full in time")
            if row.claim is not None:  # the buyer says it paid, and waits
                selling.repeat_effect(tx, "fulfilment", row.job_id, "report_failure", now)
            selling.close_invoices(tx, row.job_id, now + LATE_WATCH_MS)

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
            proof = await self._shop.wallets[row.rail].refund(payment_of(row), invoice.invoice, row.refund_to, amount, row.key)
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


