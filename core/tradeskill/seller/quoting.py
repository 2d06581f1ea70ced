"""seen -> quoted | refused: everything is checked, and a place held, before money is asked for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from tradeskill.agreement import MAX_INVOICES, Request, check_input, read_request, sign_quote
from tradeskill.contracts import LimitedMarket
from tradeskill.errors import NotFoundError, PluginError, RefusedError, StateError, TradeskillError, UnavailableError, UntrustedError, UsageError
from tradeskill.journal import Fulfilment, Transaction, selling
from tradeskill.journal.records import document_text, read_document
from tradeskill.model import PAYMENT_TTL_MS, Invoice, Job
from tradeskill.money import Amount
from tradeskill.seller.shop import GRACE_MS, LATE_WATCH_MS, TOGETHER_SECONDS, Listing, Shop
from tradeskill.tasks import under_way

__all__ = ["Quoting"]

log = logging.getLogger("tradeskill.seller")


class Quoting:
    def __init__(self, shop: Shop) -> None:
        self._shop = shop

    async def consider(self, job: Job) -> None:
        """Check everything before money is asked for: signature, offer version, input, refund address, capacity, price."""
        try:
            request, listing = self._checked(job)
        except (UntrustedError, UsageError, RefusedError, NotFoundError) as error:
            code, message = "invalid_request", str(error)
            await self._refuse(job, code, message)
            return
        now = self._shop.world.now_ms()
        room = await self._shop.journal.write(lambda tx: self._admit(tx, job, listing, now))
        if room:
            await self._refuse(job, "no_capacity", room)
        elif listing.offer.prices:
            try:
                await self.quote(job.job_id, request, listing.offer.prices)
            except RefusedError as error:
                await self._refuse(job, "not_payable", str(error))
            except PluginError as error:  # says more than a stranger should know
                log.error("job %s: not quoted: %s", job.job_id, error)
                await self._refuse(job, "not_payable", "this seller's wallet is in trouble: try again later")

    def _checked(self, job: Job) -> tuple[Request, Listing]:
        request = read_request(job.request, job.buyer)
        if request.seller != self._shop.identity.key or request.offer_id != job.offer_id:
            raise UntrustedError("request is signed for another seller or offer")
        version = self._shop.journal.read(lambda c: selling.offer_document(c, request.offer_hash))
        listing = None if version is None else self._shop.listings.get(version[0])
        if listing is None:
            raise NotFoundError(f"offer {job.offer_id} is not sold any more, or its signed version is unknown: search again")
        if request.network != listing.offer.network:
            raise UntrustedError(f"request is for network {request.network!r}, this offer is on {listing.offer.network!r}")
        check_input(listing.offer.input_schema, request.input, own=True)
        for rail, address in request.refund_to.items():
            if rail in self._shop.wallets:
                self._shop.wallets[rail].check_address(address)
        return request, listing

    def _admit(self, tx: Transaction, job: Job, listing: Listing, now: int) -> str:
        """Take a place, or say why there is none. The place is held from here on."""
        if selling.find_fulfilment(tx, job.job_id) is not None:
            return ""
        used = selling.holding(tx, listing.name, now)
        total, known = sum(used.values()), used.get(job.buyer, 0)
        if total >= listing.jobs:
            return f"all {listing.jobs} places of this offer are taken: try again later"
        if known >= listing.per_buyer:
            return f"{listing.per_buyer} jobs of yours are open at this offer: finish one first"
        self._add(tx, job, listing.name, now)
        return ""

    def _add(self, tx: Transaction, job: Job, offer_name: str, now: int) -> None:
        selling.add_fulfilment(
            tx,
            job_id=job.job_id,
            offer_id=job.offer_id,
            offer_name=offer_name,
            buyer=job.buyer,
            request=document_text(job.request),
            hold_until=now + GRACE_MS,
            now=now,
        )

    async def _refuse(self, job: Job, code: str, message: str) -> None:
        now = self._shop.world.now_ms()

        def refuse(tx: Transaction) -> None:
            if selling.find_fulfilment(tx, job.job_id) is None:
                self._add(tx, job, "", now)
            if selling.fulfilment(tx, job.job_id).state == "seen":
                selling.move_fulfilment(tx, job.job_id, "refuse", now, error_code=code, error_message=message[:200])

        await self._shop.journal.write(refuse)
        self._shop.wake()

    async def quote(self, job_id: str, request: Request, prices: Sequence[Amount]) -> Fulfilment:
        """Fresh invoices, one signed quote, stored before it is sent. A job already quoted keeps its quote.

        RefusedError where no wallet takes any of the prices; UnavailableError where none of them can make an invoice now.
        """
        row = self._shop.journal.read(lambda c: selling.fulfilment(c, job_id))
        if row.state != "seen":
            return row
        until = self._shop.world.now_ms() + self._shop.settings.quote_ttl_ms
        invoices = await self._invoices(job_id, request, prices, until)
        expires_at = min(invoice.expires_at for invoice in invoices)
        document = sign_quote(
            self._shop.identity, request, job_id=job_id, invoices=invoices, expires_at=expires_at, nonce=self._shop.world.random_bytes(16).hex()
        )
        now = self._shop.world.now_ms()

        def store(tx: Transaction) -> Fulfilment:
            current = selling.fulfilment(tx, job_id)
            if current.state != "seen":
                return current  # another worker was quicker
            for invoice in invoices:
                selling.add_invoice(tx, invoice, expires_at + LATE_WATCH_MS)
            return selling.move_fulfilment(
                tx, job_id, "quote", now, quote=document_text(document), expires_at=expires_at, hold_until=expires_at + PAYMENT_TTL_MS
            )

        with self._shop.world.step("seller.quote-stored"):
            row = await self._shop.journal.write(store)
        self._shop.wake()
        return row

    async def _invoices(self, job_id: str, request: Request, prices: Sequence[Amount], until: int) -> list[Invoice]:
        """One a wallet, in the order of the prices. Where another will do, a rail is left out by which the buyer cannot be refunded, or that gives none now."""
        payable = [(wallet, price) for price in prices for wallet in self._shop.wallets.values() if wallet.unit == price.unit]
        if not payable:
            raise RefusedError(f"no wallet of this seller takes {' or '.join(price.unit for price in prices)}: add one to `wallets`")
        payable = [(wallet, price) for wallet, price in payable if await self._carried(wallet.rail)]
        if not payable:
            raise RefusedError("this market carries no quote for the rails of this offer: look for the seller on another")
        wanted = [(wallet, price) for wallet, price in payable if wallet.rail in request.refund_to]
        chosen = (wanted or payable)[:MAX_INVOICES]
        if len(chosen) == 1:
            return [await chosen[0][0].invoice(job_id, chosen[0][1], until)]
        async with under_way(wallet.invoice(job_id, price, until) for wallet, price in chosen) as asked:
            _, left = await asyncio.wait(asked, timeout=TOGETHER_SECONDS)
            while left and not any(map(_answered, asked)):
                _, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
            return _given(asked, job_id, [wallet.rail for wallet, _ in chosen])

    async def _carried(self, rail: str) -> bool:
        market = self._shop.market
        return not isinstance(market, LimitedMarket) or await market.carries(rail)

    async def send_quote(self, job_id: str) -> float | None:
        row = self._shop.journal.read(lambda c: selling.fulfilment(c, job_id))
        if row.quote is None or row.state in ("expired", "canceled", "failed"):
            return None
        try:
            with self._shop.world.step("seller.quote-sent"):
                await self._shop.market.quote(job_id, read_document(row.quote))
        except (StateError, NotFoundError, RefusedError, UsageError) as error:
            log.info("job %s: quote not taken: %s", job_id, error)
        return None

    async def decline(self, job_id: str) -> float | None:
        row = self._shop.journal.read(lambda c: selling.fulfilment(c, job_id))
        try:
            await self._shop.market.decline(job_id, row.error_code or "refused", row.error_message or "refused")
        except (StateError, NotFoundError, RefusedError, UsageError) as error:
            log.info("job %s: decline not taken: %s", job_id, error)
        return None


def _answered(task: asyncio.Task[Invoice]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


def _given(asked: Sequence[asyncio.Task[Invoice]], job_id: str, rails: Sequence[str]) -> list[Invoice]:
    """What has come by now. Where nothing has, the first error of those that waiting may cure, else the first."""
    errors: list[TradeskillError] = []
    for task, rail in zip(asked, rails, strict=True):
        if not task.done():
            log.warning("job %s: no invoice on the rail %s: it takes long", job_id, rail)
        elif isinstance(error := task.exception(), TradeskillError):
            log.warning("job %s: no invoice on the rail %s: %s", job_id, rail, error)
            errors.append(error)
    invoices = [task.result() for task in asked if task.done() and not isinstance(task.exception(), TradeskillError)]
    if not invoices:
        raise next((error for error in errors if isinstance(error, UnavailableError)), errors[0])
    return invoices
