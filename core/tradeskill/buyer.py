"""The buyer's flow: request, verify the quote, reserve, pay once, submit, verify the receipt. Each state of the purchase names the next act.

Every act may run again after a crash, in this or another process of the profile; the purchase row decides who moved it.

Past 400 lines because the flow reads as one straight line, state by state.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from tradeskill import policy
from tradeskill.agreement import Request, check_input, read_offer, read_request, sign_request, verify_quote, verify_receipt
from tradeskill.choosing import by_preference, payable
from tradeskill.contracts import Market, Wallet
from tradeskill.errors import (
    ConfigError,
    NotFoundError,
    PolicyError,
    RefusedError,
    StaleFenceError,
    StateError,
    TradeskillError,
    UnavailableError,
    UntrustedError,
    UsageError,
)
from tradeskill.journal import Blobs, Database, Purchase, Transaction, buying
from tradeskill.journal.records import caps_text, document_text, invoice_text, read_document, read_invoice
from tradeskill.lifecycle import PURCHASE
from tradeskill.model import PAYMENT_TTL_MS, Invoice, Job, Json, Offer, Result, SignedDocument
from tradeskill.money import Amount, in_unit
from tradeskill.signing import Identity, canonical, digest, document_hash
from tradeskill.tasks import FIRST_DELAY, LAST_DELAY
from tradeskill.world import World

__all__ = ["Buyer", "BuyerSettings"]

log = logging.getLogger("tradeskill.buyer")

PAY_MARGIN_MS: Final = 120_000  # no payment with less than this left on either deadline
ENDED: Final = PURCHASE.terminal
REFUND_EXPIRY_MS: Final = 365 * 86_400_000
MAX_WORDS: Final = 500  # characters of an error that are kept; another's may be of any length
_CODE: Final = re.compile(r"[a-z0-9_.-]{1,64}", re.ASCII)
NOT_TAKEN: Final = (StateError, NotFoundError, RefusedError, UsageError)  # the market's answer is no; anything else it may still have done


@dataclass(frozen=True)
class BuyerSettings:
    caps: policy.Caps = field(default_factory=policy.Caps)
    first_use_cap: tuple[Amount, ...] = ()  # at most one a unit; none: no cap
    quote_timeout: float = 120.0  # seconds
    deliver_timeout: float = 86_400.0  # seconds after the payment; then the purchase is disputed, with its evidence kept
    refund_wait: float = 30.0  # seconds that `drive` waits for a refund before it returns
    poll_seconds: float = 2.0
    guard: Callable[[], policy.Guard] | None = None  # all that holds for spending, read anew at each reservation; None: `caps` alone
    markets: tuple[str, ...] = ()  # what the policy may call this market
    missing_receipts: bool = False  # take a result that came without a receipt, as unverified; a wrong receipt is never taken


class Buyer:
    """Drives purchases of one profile. `progress` is told each new state."""

    def __init__(
        self,
        *,
        identity: Identity,
        journal: Database,
        blobs: Blobs,
        market: Market,
        wallets: Mapping[str, Wallet],
        settings: BuyerSettings,
        world: World,
        progress: Callable[[Purchase], None] = lambda purchase: None,
        ask_owner: policy.AskOwner | None = None,
    ) -> None:
        """`ask_owner`: who is asked where the policy says so; None: such a payment is refused."""
        self._ask_owner = ask_owner
        self._identity, self._journal, self._blobs, self._market = identity, journal, blobs, market
        self._wallets, self._settings, self._world, self._progress = wallets, settings, world, progress
        self._waiting: dict[str, asyncio.Event] = {}
        self._hints: asyncio.Task[None] | None = None
        self._acts: dict[str, Callable[[Purchase], Awaitable[object]]] = {
            "intended": self._request,
            "requested": self._await_quote,
            "quoted": self._verify,
            "verified": self._reserve,
            "reserved": self._accept,
            "accepted": self._intend_payment,
            "paying": self._pay,
            "paid": self._submit,
            "submitted": self._begin_waiting,
            "waiting": self._await_delivery,
        }

    def over(self, market: Market) -> Buyer:
        """The same buyer at another market."""
        return Buyer(
            identity=self._identity,
            journal=self._journal,
            blobs=self._blobs,
            market=market,
            wallets=self._wallets,
            settings=self._settings,
            world=self._world,
            progress=self._progress,
            ask_owner=self._ask_owner,
        )

    async def close(self) -> None:
        if self._hints is not None:
            self._hints.cancel()
            await asyncio.gather(self._hints, return_exceptions=True)

    # the whole way

    def intent_of(self, offer: Offer, input_value: Json, label: str = "") -> str:
        """What makes two wishes the same: buyer, offer, canonical input and label. The same intent is one purchase, for ever."""
        return self._intent(offer.offer_id, input_value, label)

    def _intent(self, offer_id: str, input_value: Json, label: str) -> str:
        return digest(b"\n".join([self._identity.key.encode(), offer_id.encode(), canonical(input_value), label.encode()]))

    async def intend(self, offer: Offer, input_value: Json, *, caps: Sequence[Amount] = (), label: str = "") -> Purchase:
        """Write down what is wanted, with its signed request. The same intent again returns the purchase it already has.

        `caps`: the most it may cost, at most one a unit; in a unit that they do not name nothing is paid. None: the policy alone decides.
        """
        intent = self.intent_of(offer, input_value, label)
        known = self._journal.read(lambda c: buying.find_by_intent(c, intent))
        if known is not None:
            return known
        check_input(offer.input_schema, input_value)
        now = self._world.now_ms()
        first_use = not self._journal.read(lambda c: buying.check_pin(c, offer.seller))
        if first_use and self._settings.first_use_cap:
            caps = _both(caps, self._settings.first_use_cap)
        refunds = await self._refund_invoices(offer, intent, now)
        document = sign_request(
            self._identity,
            offer,
            input_value=input_value,
            refund_to={rail: invoice.address for rail, invoice in refunds.items()},
            nonce=intent[:32],
            created_at=now,
        )

        def store(tx: Transaction) -> Purchase:
            buying.pin(tx, offer.seller, f"offer:{offer.offer_id}", "first use", now)
            return buying.add_purchase(
                tx,
                purchase_id=intent[:32],
                intent=intent,
                offer=document_text(offer.document),
                seller=offer.seller,
                request=document_text(document),
                cap=caps_text(caps),
                refund_invoices=json.dumps({rail: invoice_text(invoice) for rail, invoice in refunds.items()}),
                now=now,
            )

        purchase = await self._journal.write(store)
        self._progress(purchase)
        return purchase

    async def _refund_invoices(self, offer: Offer, intent: str, now: int) -> dict[str, Invoice]:
        """A fresh address on each rail; one in trouble is left out, and the purchase is not paid by it. UnavailableError where all are."""
        refunds: dict[str, Invoice] = {}
        trouble: UnavailableError | None = None
        for rail, wallet in self._wallets.items():
            amount = in_unit(offer.prices, wallet.unit) or Amount(1, wallet.unit)
            try:
                refunds[rail] = await wallet.invoice(f"refund-{intent}", amount, now + REFUND_EXPIRY_MS)
            except UnavailableError as error:
                log.warning("no refund address on the rail %s: %s", rail, error)
                trouble = trouble or error
        if trouble is not None and not refunds:
            raise trouble
        return refunds

    async def drive(self, purchase_id: str, until: Collection[str] = ()) -> Purchase:
        """Act until the purchase is final, or in one of the states `until`. Outages are waited out; nothing is paid twice however often this runs."""
        delay = FIRST_DELAY
        while True:
            purchase = self._journal.read(lambda c: buying.purchase(c, purchase_id))
            if purchase.state in until or purchase.state in ENDED:
                return purchase
            try:
                if purchase.state == "failed":
                    return await self._await_refund(purchase)
                await self._acts[purchase.state](purchase)
                delay = FIRST_DELAY
                continue
            except StaleFenceError:
                log.info("purchase %s moved on in another process", purchase_id)
            except UnavailableError as error:
                log.warning("purchase %s is %s: %s; trying again in %.1f s", purchase_id, purchase.state, error, delay)
            await self._world.sleep(delay)
            delay = min(delay * 2, LAST_DELAY)

    def known(self, offer_id: str, input_value: Json, label: str = "") -> Purchase | None:
        """The purchase that this intent already has, asked of nobody but the journal."""
        intent = self._intent(offer_id, input_value, label)
        return self._journal.read(lambda c: buying.find_by_intent(c, intent))

    async def look(self, purchase_id: str) -> Purchase:
        """What became of a purchase that was paid: one question, no waiting, and nothing is paid. Otherwise the purchase as it stands."""
        purchase = self._journal.read(lambda c: buying.purchase(c, purchase_id))
        if purchase.state == "failed":
            return await self._move_with(purchase, "refund", policy.release) if await self._refunded(purchase) else purchase
        if purchase.state == "waiting" and (await self._market.get(purchase.job_id or "")).state in ("delivered", "failed", "canceled", "expired"):
            return await self.drive(purchase_id, ("failed",))
        return purchase

    def result(self, purchase: Purchase) -> bytes:
        """The verified bytes of a received purchase."""
        if purchase.result_sha256 is None:
            raise StateError(f"purchase {purchase.purchase_id} is {purchase.state}: it has no result")
        return self._blobs.get(purchase.result_sha256)

    async def cancel(self, purchase_id: str, reason: str = "") -> Purchase:
        """Give up before paying. StateError once a payment was begun."""
        purchase = self._journal.read(lambda c: buying.purchase(c, purchase_id))
        return await self._give_up(purchase, "cancel", "canceled", reason or "canceled by the buyer")

    # before money

    async def _request(self, purchase: Purchase) -> None:
        try:
            job = await self._market.request(read_document(purchase.request))
        except NOT_TAKEN as error:
            await self._give_up(purchase, "abandon", error.code, str(error))
            return
        await self._move(purchase, "request", job_id=job.job_id)

    async def _await_quote(self, purchase: Purchase) -> None:
        deadline = self._world.monotonic() + self._settings.quote_timeout
        try:
            job = await self._job_when(purchase, lambda job: job.state != "requested", deadline)
        except NotFoundError as error:
            await self._give_up(purchase, "abandon", error.code, str(error))
            return
        if job.state == "requested":
            await self._give_up(purchase, "abandon", "quote_timeout", f"no quote within {self._settings.quote_timeout:g} s")
        elif job.quote is not None and job.state in ("quoted", "accepted"):
            text = _text(job.quote)
            if text is None:
                await self._give_up(purchase, "abandon", UntrustedError.code, "the quote is nested too deeply to be kept; not paying")
            else:
                await self._move(purchase, "quote", quote=text)
        else:
            await self._ended(purchase, job)

    async def _verify(self, purchase: Purchase) -> None:
        """The seller's signature over exactly our request decides, not the market."""
        assert purchase.quote is not None
        assert purchase.job_id is not None
        offer = read_offer(read_document(purchase.offer))
        try:
            request = read_request(read_document(purchase.request), self._identity.key)
            quote = verify_quote(read_document(purchase.quote), request, job_id=purchase.job_id, prices=offer.prices)
            ours = {rail: wallet for rail, wallet in self._wallets.items() if rail in request.refund_to}
            found = payable(quote.invoices, ours, offer.prices, purchase.job_id)
            for each in found:
                await self._check_not_own(each, request)
            invoice = found[0] if len(found) == 1 else await self._preferred(purchase, offer, found)
        except UnavailableError:
            raise
        except TradeskillError as error:
            await self._give_up(purchase, "abandon", error.code, str(error))
            return
        with self._world.step("buyer.quote-verified"):
            await self._move(
                purchase, "verify", rail=invoice.rail, invoice=invoice_text(invoice), amount=str(invoice.amount.value), unit=invoice.amount.unit
            )

    async def _preferred(self, purchase: Purchase, offer: Offer, found: Sequence[Invoice]) -> Invoice:
        caps, now, guard = purchase.caps, self._world.now_ms(), await self._world.offload(self._guard)
        rails = self._journal.read(lambda c: policy.rails(c, guard)) or ()
        wishes = [self._wished(purchase, offer, invoice.rail, invoice.amount) for invoice in found]
        verdicts = self._journal.read(lambda c: [policy.verdict(c, wish, guard, caps, now) for wish in wishes])
        return await by_preference(found, verdicts, rails, self._wallets)

    async def _check_not_own(self, invoice: Invoice, request: Request) -> None:
        """Money that comes back to oneself pays nobody, and would pass for a refund."""
        if invoice.address in (await self._wallets[invoice.rail].address(), *request.refund_to.values()):
            raise UntrustedError(f"job {request.nonce}: the seller's invoice names this wallet's own address {invoice.address}; not paying")

    async def _reserve(self, purchase: Purchase) -> None:
        """The policy judges, and asks the owner where it says so; the transaction judges once more."""
        wish, caps, now = self._wish(purchase), purchase.caps, self._world.now_ms()
        try:
            guard = await self._world.offload(self._guard)
            asked = self._journal.read(lambda c: policy.check(c, wish, guard, caps, now))
            approved = await policy.settle_approval(asked, wish, read_offer(read_document(purchase.offer)).title, self._ask_owner)

            def reserve(tx: Transaction) -> None:
                policy.reserve(tx, wish, guard, caps, now, approved=approved)
                buying.move_purchase(tx, purchase.purchase_id, purchase.state, "reserve", now)

            with self._world.step("buyer.reserved"):
                await self._journal.write(reserve)
        except PolicyError as error:
            await self._give_up(purchase, "abandon", error.code, str(error))
            return
        self._tell(purchase)

    def _guard(self) -> policy.Guard:
        return policy.Guard(self._settings.caps) if self._settings.guard is None else self._settings.guard()

    def _wish(self, purchase: Purchase) -> policy.Intended:
        assert purchase.amount is not None
        assert purchase.unit is not None
        offer = read_offer(read_document(purchase.offer))
        return self._wished(purchase, offer, purchase.rail or "", Amount(int(purchase.amount), purchase.unit))

    def _wished(self, purchase: Purchase, offer: Offer, rail: str, amount: Amount) -> policy.Intended:
        return policy.Intended(
            purchase.purchase_id,
            amount,
            rail=rail,
            seller=purchase.seller,
            offer=offer.offer_id,
            tags=offer.tags,
            markets=self._settings.markets,
        )

    async def _accept(self, purchase: Purchase) -> None:
        if not self._time_left(purchase):
            await self._give_up(purchase, "expire", "expired", "less than 2 minutes left to pay; nothing was paid")
            return
        try:
            job = await self._market.accept(purchase.job_id or "")
        except NOT_TAKEN as error:
            await self._give_up(purchase, "abandon", error.code, str(error))
            return
        await self._move(purchase, "accept", accepted_at=min(job.accepted_at or self._world.now_ms(), self._world.now_ms()))

    def _time_left(self, purchase: Purchase) -> bool:
        return self._pay_by(purchase) - self._world.now_ms() > PAY_MARGIN_MS

    def _pay_by(self, purchase: Purchase) -> int:
        assert purchase.invoice is not None
        return min(read_invoice(purchase.invoice).expires_at, (purchase.accepted_at or self._world.now_ms()) + PAYMENT_TTL_MS)

    # money

    async def _intend_payment(self, purchase: Purchase) -> None:
        """From here on the purchase may cost money: committed before the wallet is asked."""
        if not self._time_left(purchase):
            await self._give_up(purchase, "expire", "expired", "less than 2 minutes left to pay; nothing was paid")
            return

        def begin(tx: Transaction) -> Purchase:
            policy.check_not_frozen(tx)
            return buying.move_purchase(tx, purchase.purchase_id, purchase.state, "pay", self._world.now_ms())

        self._progress(await self._journal.write(begin))

    async def _pay(self, purchase: Purchase) -> None:
        """Sign once, publish those bytes until they are out. Nothing is signed late, also after a crash."""
        assert purchase.invoice is not None
        wallet = self._wallet(purchase)
        if not self._time_left(purchase) and await wallet.paid(purchase.purchase_id) is None:
            if self._world.now_ms() < self._pay_by(purchase) + PAY_MARGIN_MS:  # another process of this profile may be signing right now
                raise UnavailableError("less than 2 minutes left to pay: nothing is signed any more, the reservation is freed soon")
            await self._give_up(purchase, "release", "expired", "interrupted before the payment was signed, and its time is over; nothing was paid")
            return
        try:
            self._journal.read(policy.check_not_frozen)
        except PolicyError:
            if await wallet.paid(purchase.purchase_id) is None:
                raise
        try:
            proof = await wallet.pay(read_invoice(purchase.invoice), purchase.purchase_id)
        except RefusedError as error:
            if await wallet.paid(purchase.purchase_id) is not None:
                raise UnavailableError(f"payment of {purchase.purchase_id} is signed but not published: {error}") from error
            await self._give_up(purchase, "release", error.code, str(error))
            return
        if proof.state == "unknown":
            raise UnavailableError(f"payment {proof.payment_id} may or may not have been published")
        await self._move_with(purchase, "publish", policy.paid, payment_id=proof.payment_id, token=proof.token)

    def _wallet(self, purchase: Purchase) -> Wallet:
        wallet = self._wallets.get(purchase.rail or "")
        if wallet is None:
            raise ConfigError(
                f"purchase {purchase.purchase_id} pays by the rail {purchase.rail}, which has no wallet in the configuration: put it back into `wallets`"
            )
        return wallet

    async def _submit(self, purchase: Purchase) -> None:
        """Until acknowledged; a job that ended meanwhile leaves the money to the seller's refund."""
        try:
            await self._market.submit_payment(purchase.job_id or "", purchase.rail or "", purchase.payment_id or "", purchase.token or "")
        except NOT_TAKEN as error:
            if not await self._submitted(purchase):
                await self._move(purchase, "fail", error_code="not_submitted", error_message=f"paid, but the market does not take the submission: {error}")
                return
        await self._move(purchase, "submit")

    async def _submitted(self, purchase: Purchase) -> bool:
        try:
            return (await self._market.get(purchase.job_id or "")).payment_id == purchase.payment_id
        except NotFoundError:
            return False

    async def _begin_waiting(self, purchase: Purchase) -> None:
        await self._move(purchase, "wait")

    async def _await_delivery(self, purchase: Purchase) -> None:
        """Keep the payment alive until it is final; believe only what is signed."""
        deadline = self._world.monotonic() + max(0.0, purchase.updated_at / 1000 + self._settings.deliver_timeout - self._world.now_ms() / 1000)
        final = False
        while True:
            final = final or await self._kept_alive(purchase)
            soon = min(deadline, self._world.monotonic() + (30.0 if final else self._settings.poll_seconds))
            job = await self._job_or_none(purchase, soon)
            if job is None:
                if await self._refunded(purchase):
                    await self._move(purchase, "fail", error_code="gone", error_message="the market does not know the job any more; the money came back")
                    return
                if self._world.monotonic() < deadline:
                    await self._world.sleep(self._settings.poll_seconds)
                    continue
                await self._dispute_undelivered(purchase)
                return
            if job.state == "delivered":
                await self._receive(purchase, job)
                return
            if job.state in ("failed", "canceled", "expired"):
                code, message = _told(job)
                await self._move(purchase, "fail", error_code=code, error_message=message)
                return
            if job.state in ("quoted", "accepted") and job.payment_id is None:
                await self._resubmit(purchase, job)
            if self._world.monotonic() >= deadline:
                await self._dispute_undelivered(purchase)
                return

    async def _dispute_undelivered(self, purchase: Purchase) -> None:
        message = f"nothing delivered within {self._settings.deliver_timeout:g} s of the payment; quote and payment are kept as evidence"
        await self._finish(purchase, "dispute", error_code="not_delivered", error_message=message)

    async def _kept_alive(self, purchase: Purchase) -> bool:
        """Whether the payment is final; published again where it got lost. A wallet in trouble must not hide the delivery."""
        assert purchase.invoice is not None
        try:
            return (await self._wallet(purchase).pay(read_invoice(purchase.invoice), purchase.purchase_id)).state == "final"
        except (UnavailableError, RefusedError, StateError, ConfigError) as error:
            log.warning("purchase %s: payment not looked after: %s", purchase.purchase_id, error)
            return False

    async def _job_or_none(self, purchase: Purchase, deadline: float) -> Job | None:
        """As `_job_when` it ends; None when the market says there is no such job (it lost it, or hides it)."""
        try:
            return await self._job_when(purchase, lambda job: job.state in ("delivered", "failed", "canceled", "expired"), deadline)
        except NotFoundError as error:
            log.warning("purchase %s is paid for: %s", purchase.purchase_id, error)
            return None

    async def _resubmit(self, purchase: Purchase, job: Job) -> None:
        """The market forgot (it was rolled back): push acceptance and payment again."""
        try:
            if job.state == "quoted":
                await self._market.accept(job.job_id)
            await self._market.submit_payment(job.job_id, purchase.rail or "", purchase.payment_id or "", purchase.token or "")
        except NOT_TAKEN as error:
            log.warning("job %s: not submitted again: %s", job.job_id, error)

    async def _receive(self, purchase: Purchase, job: Job) -> None:
        assert purchase.quote is not None
        request = read_request(read_document(purchase.request), self._identity.key)
        try:
            if job.result is None:
                raise UntrustedError(f"job {job.job_id} is delivered without a result")
            if job.receipt is None and self._settings.missing_receipts:
                await self._receive_unverified(purchase, job.result)
                return
            receipt = verify_receipt(
                job.receipt,
                request,
                read_document(purchase.quote),
                job_id=job.job_id,
                payment_id=purchase.payment_id or "",
                amount=Amount(int(purchase.amount or ""), purchase.unit or ""),
                result=job.result,
            )
        except UntrustedError as error:
            await self._finish(
                purchase,
                "dispute",
                error_code=error.code,
                error_message=f"{error}; the payment is made, quote and payment are kept as evidence",
                receipt=None if job.receipt is None else _text(job.receipt),
            )
            return
        result = job.result
        with self._world.step("buyer.result-verified"):
            sha256 = await self._world.offload(lambda: self._blobs.put(result.data))
        countersign = self._identity.sign("countersign", {"receipt_hash": document_hash(receipt.document), "result_sha256": sha256})
        with self._world.step("buyer.ack"):
            await self._finish(
                purchase,
                "receive",
                result_sha256=sha256,
                result_type=result.media_type,
                receipt=document_text(receipt.document),
                countersign=document_text(countersign),
            )

    async def _receive_unverified(self, purchase: Purchase, result: Result) -> None:
        """The owner allowed it: nobody signed for these bytes, and the purchase says so by having no receipt."""
        log.warning("purchase %s: the result came without a receipt; taken unverified", purchase.purchase_id)
        sha256 = await self._world.offload(lambda: self._blobs.put(result.data))
        await self._finish(purchase, "receive", result_sha256=sha256, result_type=result.media_type)

    async def _await_refund(self, purchase: Purchase) -> Purchase:
        """Look for the refund for a while; give back the reservation when it is there."""
        deadline = self._world.monotonic() + self._settings.refund_wait
        while True:
            try:
                if await self._refunded(purchase):
                    return await self._move_with(purchase, "refund", policy.release)
            except UnavailableError as error:
                log.warning("purchase %s: refund not checked: %s", purchase.purchase_id, error)
            if self._world.monotonic() >= deadline:
                return purchase
            await self._world.sleep(min(1.0, self._settings.poll_seconds))

    async def _refunded(self, purchase: Purchase) -> bool:
        """Whether the price is back, on the fresh address signed into the request."""
        text = json.loads(purchase.refund_invoices).get(purchase.rail or "")
        if text is None:
            return False
        status = await self._wallet(purchase).settle(read_invoice(text), None)
        return sum(payment.amount.value for payment in status.payments) >= int(purchase.amount or "0")

    # moving

    async def _move(self, purchase: Purchase, event: str, **changes: object) -> Purchase:
        now, kept = self._world.now_ms(), _clipped(changes)
        moved = await self._journal.write(lambda tx: buying.move_purchase(tx, purchase.purchase_id, purchase.state, event, now, **kept))
        self._progress(moved)
        return moved

    async def _move_with(
        self, purchase: Purchase, event: str, also: Callable[[Transaction, str, int], None], **changes: object
    ) -> Purchase:
        now = self._world.now_ms()

        def move(tx: Transaction) -> Purchase:
            also(tx, purchase.purchase_id, now)
            return buying.move_purchase(tx, purchase.purchase_id, purchase.state, event, now, **_clipped(changes))

        moved = await self._journal.write(move)
        self._progress(moved)
        return moved

    async def _finish(self, purchase: Purchase, event: str, **changes: object) -> Purchase:
        return await self._move_with(purchase, event, policy.commit, **changes)

    async def _give_up(self, purchase: Purchase, event: str, code: str, message: str) -> Purchase:
        """Before money moved: free the reservation, tell the market."""
        moved = await self._move_with(purchase, event, policy.release, error_code=code, error_message=message)
        if purchase.job_id is not None:
            try:
                await self._market.cancel(purchase.job_id, code)
            except (UnavailableError, *NOT_TAKEN) as error:
                log.info("job %s: not canceled at the market: %s", purchase.job_id, error)
        return moved

    async def _ended(self, purchase: Purchase, job: Job) -> None:
        code, message = _told(job)
        await self._give_up(purchase, "expire" if job.state == "expired" else "cancel", code, message)

    def _tell(self, purchase: Purchase) -> None:
        self._progress(self._journal.read(lambda c: buying.purchase(c, purchase.purchase_id)))

    # waiting

    async def _job_when(self, purchase: Purchase, ready: Callable[[Job], bool], deadline: float) -> Job:
        """The job once `ready`, or as it stands at `deadline` (monotonic). Hints wake it, polling reconciles."""
        job_id = purchase.job_id or ""
        if self._hints is None or self._hints.done():
            self._hints = asyncio.create_task(self._follow_hints())
        event = self._waiting.setdefault(job_id, asyncio.Event())
        try:
            while True:
                event.clear()
                job = await self._market.get(job_id)
                left = deadline - self._world.monotonic()
                if ready(job) or left <= 0:
                    return job
                try:
                    async with asyncio.timeout(min(left, self._settings.poll_seconds)):
                        await event.wait()
                except TimeoutError:
                    continue
        finally:
            self._waiting.pop(job_id, None)

    async def _follow_hints(self) -> None:
        while True:
            try:
                async for job_id in self._market.events():
                    if job_id in self._waiting:
                        self._waiting[job_id].set()
            except UnavailableError as error:
                log.info("market hints: %s", error)
            await self._world.sleep(1.0)


def _text(document: SignedDocument) -> str | None:
    """For the journal; None for what is nested so deeply that it cannot be written down, let alone be read again."""
    try:
        return document_text(document)
    except RecursionError:
        return None


def _told(job: Job) -> tuple[str, str]:
    """Why a job ended, by the other side's word: a code that looks like one, and words that may say anything."""
    if job.error is None:
        return job.state, f"the market shows the job as {job.state}"
    code = job.error.code
    if _CODE.fullmatch(code) is None or code == PolicyError.code:  # what the owner allows is no stranger's to say
        code = job.state
    return code, job.error.message or f"the other side ended the job as {job.state} without a word"


def _clipped(changes: dict[str, object]) -> dict[str, object]:
    message = changes.get("error_message")
    return changes if not isinstance(message, str) else {**changes, "error_message": message[:MAX_WORDS]}


def _both(caps: Sequence[Amount], others: Sequence[Amount]) -> tuple[Amount, ...]:
    """Caps that allow what both allow."""
    if not caps:
        return tuple(others)
    pairs = [(cap, in_unit(others, cap.unit)) for cap in caps]
    return tuple(Amount(0 if other is None else min(cap.value, other.value), cap.unit) for cap, other in pairs)
