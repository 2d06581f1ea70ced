"""The seller at work: follows market and wallets, spawns the steps a job needs, runs effects, resumes everything after a restart, drains."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial

from tradeskill.contracts import Wallet
from tradeskill.errors import BrokenPluginError, NotFoundError, PluginError, RefusedError, StateError, UnavailableError, UsageError
from tradeskill.journal import Effect, Fulfilment, InvoiceRow, Transaction, selling
from tradeskill.journal.records import document_text
from tradeskill.model import Job
from tradeskill.seller.executing import Executing
from tradeskill.seller.housekeeping import Housekeeping
from tradeskill.seller.quoting import Quoting
from tradeskill.seller.settling import Settling
from tradeskill.seller.shop import ACTIVE, Shop
from tradeskill.seller.troubles import PATIENCE, Troubles
from tradeskill.tasks import FIRST_DELAY, LAST_DELAY, Tasks

__all__ = ["Seller"]

log = logging.getLogger("tradeskill.seller")

MAX_TRIES = 8  # an effect that kills its worker, or fails for a reason that waiting does not cure, is left to the owner after so many
NEVER = 2**62
PROMPT_SECONDS = 10.0  # what a wallet may take for a job's invoice before other jobs' news are read
TROUBLED_DELAY = 60.0  # between tries of what a stranger's plugin is to do, at most
PARTS = (UnavailableError, NotFoundError, StateError, RefusedError, UsageError, PluginError)  # of the job at hand; the rest of the tree is about all of us
UNFINISHED = ("deliver", "refund", "report_failure", "tidy")  # effects that a drain waits for; executions count by their jobs


class Seller:
    """One worker of a seller's profile. Several may share the journal: leases and fences keep them apart."""

    def __init__(self, shop: Shop, patience: float = PATIENCE) -> None:
        """`patience`: seconds that a job puts up with a stranger's backend that raises, hangs or lies."""
        self._shop = shop
        self._troubles = Troubles(shop, patience)
        self.quoting, self.settling, self.executing = Quoting(shop), Settling(shop), Executing(shop, self._troubles)
        self._tasks = Tasks(shop.world, log)
        self._market_hint = asyncio.Event()
        self._news: dict[str, asyncio.Event] = {}  # job id -> something happened that its waiting effect should look at
        self._draining = False
        self._active_at = 0.0
        self._recalled = False
        self._resumed_up_to = 0
        self._effects: dict[str, Callable[[str], Awaitable[float | None]]] = {
            "send_quote": self.quoting.send_quote,
            "decline": self.quoting.decline,
            "execute": self.executing.execute,
            "deliver": self.executing.deliver,
            "report_failure": self.executing.report_failure,
            "tidy": self.executing.tidy,
            "refund": self.settling.refund,
        }

    async def run(self, *, idle_seconds: float | None = None, drain: bool = False) -> None:
        """Work until `stop`, or drained, or idle for so long. Raises StorageError when the disk can no longer be trusted."""
        self._draining = self._draining or drain
        self._active_at = self._shop.world.monotonic()
        effects = self._shop.journal.read(selling.pending_effects)
        self._resumed_up_to = effects[-1].effect_id if effects else 0
        if not self._draining:
            await self.publish()
        self._tasks.spawn("recall", self._recall)
        self._tasks.loop("market", self._follow_market)
        self._tasks.loop("market hints", self._follow_hints)
        self._tasks.loop("effects", self._run_effects)
        self._tasks.loop("payments", self._poll_payments)
        self._tasks.loop("housekeeping", Housekeeping(self._shop, self._look_again).run)
        for rail, wallet in self._shop.wallets.items():
            self._tasks.loop(f"wallet {rail}", partial(self._follow_wallet, wallet))
        await self._tasks.until(partial(self._asked_again, idle_seconds))

    def stop(self) -> None:
        """Stop now; a restart resumes."""
        self._tasks.end()

    def drain(self) -> None:
        """Quote nothing new; finish what is paid, then stop."""
        self._draining = True
        self._tasks.nudge()

    async def publish(self) -> None:
        """Put up every listing; a version is in the journal before the market shows it."""
        for listing in self._shop.listings.values():
            offer = listing.offer
            await self._shop.journal.write(
                partial(
                    selling.save_offer,
                    offer_hash=offer.offer_hash,
                    offer_id=offer.offer_id,
                    name=listing.name,
                    document=document_text(offer.document),
                )
            )
            await self._tasks.patiently("publish", partial(self._shop.market.publish, offer.document))

    def _asked_again(self, idle_seconds: float | None) -> float | None:
        """In how many seconds to look again whether this worker is done; None: now it is."""
        if not self._draining and idle_seconds is None:
            return 3600.0
        now = self._shop.world.monotonic()
        if self._busy():
            self._active_at = now
        elif self._draining or (idle_seconds is not None and now - self._active_at >= idle_seconds):
            return None
        return 0.25

    def _busy(self) -> bool:
        """Money or a promise is in our hands: something paid for is unfinished, or a buyer says it has paid, or may have said so while nobody worked."""
        if not self._recalled or any(effect.name in UNFINISHED for effect in self._shop.journal.read(selling.pending_effects)):
            return True
        now = self._shop.world.now_ms()
        open_rows = self._shop.journal.read(lambda c: selling.fulfilments(c, ("quoted", *ACTIVE), 10_000))
        return any(self._in_progress(row, now) for row in open_rows)

    def _in_progress(self, row: Fulfilment, now: int) -> bool:
        if row.state == "quoted":
            return row.claim is not None and (row.hold_until or 0) > now
        listing = self._shop.listings.get(row.offer_name)
        return listing is not None and bool(listing.run) and not self.executing.parked(row)

    # what wakes a job

    async def _recall(self) -> None:
        """After a restart: look again at every job that waited for the market, whatever the cursor says."""
        for row in self._shop.journal.read(lambda c: selling.fulfilments(c, ("seen", "quoted"), 100_000)):
            job = await self._tasks.patiently("recall", partial(self._at_market, row.job_id))
            if job is not None:
                await self._tasks.patiently("recall", partial(self._take_note, job))
        self._recalled = True
        self._tasks.nudge()

    async def _look_again(self, job_id: str) -> None:
        job = await self._at_market(job_id)
        if job is not None:
            await self.observe(job)

    async def _at_market(self, job_id: str) -> Job | None:
        try:
            return await self._shop.market.get(job_id)
        except NotFoundError:
            log.warning("job %s: the market does not know it any more", job_id)
            return None

    async def _follow_hints(self) -> None:
        async for _ in self._shop.market.events():
            self._market_hint.set()

    async def _follow_market(self) -> None:
        """Every change is in the journal before the cursor moves past it; while draining the stored cursor stays, so that no request is lost."""
        cursor = self._shop.journal.read(lambda c: selling.cursor(c, "market"))
        while True:
            try:
                changes = await self._shop.market.changes(cursor)
            except UsageError as error:
                if not cursor:
                    raise UnavailableError(f"the market refuses an empty cursor: {error}") from error
                log.warning("market: %s; starting from its beginning", error)  # another market, or one that was rolled back
                cursor = ""
                continue
            mine = [job for job in changes.jobs if job.seller == self._shop.identity.key]
            await asyncio.gather(*[self._take_note(job) for job in mine])
            if changes.cursor != cursor:
                cursor = changes.cursor
                if not self._draining:
                    await self._shop.journal.write(partial(selling.save_cursor, name="market", value=cursor))
            if mine:
                self._active_at = self._shop.world.monotonic()
            if not changes.more:
                await self._tasks.wait(self._market_hint, self._shop.settings.poll_seconds)

    async def _take_note(self, job: Job) -> None:
        """`observe`, but a wallet that gives no invoice now, or takes its time, holds up this job and no other: it is in the journal when this returns."""
        try:
            async with asyncio.timeout(PROMPT_SECONDS if job.state == "requested" else None):
                await self.observe(job)
        except (TimeoutError, *PARTS) as error:
            row = self._shop.journal.read(lambda c: selling.find_fulfilment(c, job.job_id))
            if row is None or row.state != "seen":
                raise UnavailableError(f"job {job.job_id}: {str(error) or 'the journal takes long'}") from error
            log.warning("job %s: no quote yet: %s", job.job_id, str(error) or "its invoice takes long")
            if isinstance(error, BrokenPluginError):
                await self._troubles.note(error)
            self._tasks.spawn_once(f"quote {job.job_id}", partial(self._quote_later, job.job_id))

    async def _quote_later(self, job_id: str) -> None:
        """Until the job has its quote, or has ended at the market, or has waited for too long: nobody has paid yet, so it can be refused."""
        began, delay = self._shop.world.monotonic(), 1.0
        while self._shop.row(job_id).state == "seen":
            await self._shop.world.sleep(delay)
            delay = min(delay * 2, LAST_DELAY)
            try:
                await self._look_again(job_id)
            except PARTS as error:
                log.warning("job %s: no quote yet: %s", job_id, error)
                if isinstance(error, BrokenPluginError):
                    await self._troubles.note(error)
                if self._shop.world.monotonic() - began >= self._troubles.patience:
                    await self._shop.journal.write(partial(self._refuse, job_id=job_id, now=self._shop.world.now_ms()))
                    self._shop.wake()

    def _refuse(self, tx: Transaction, job_id: str, now: int) -> None:
        if selling.fulfilment(tx, job_id).state == "seen":
            why = "the seller's wallet gives no invoice: try another seller"
            selling.move_fulfilment(tx, job_id, "refuse", now, error_code="not_payable", error_message=why)

    async def observe(self, job: Job) -> None:
        """Take note of a job as the market shows it. Repeatable; nothing unsigned is acted on."""
        row = self._shop.journal.read(lambda c: selling.find_fulfilment(c, job.job_id))
        if job.state == "requested" and (row is None or row.state == "seen"):
            if not self._draining:
                await self.quoting.consider(job)
        elif row is None:
            return
        elif job.state == "requested":
            await self._ask_again(row, "decline" if row.state == "refused" else "send_quote")
        elif job.state in ("accepted", "running") and job.payment_id is not None:
            await self._claimed(job, row)
        elif job.state in ("canceled", "expired") and row.state in ("seen", "quoted"):
            await self.settling.close(row, "cancel" if job.state == "canceled" else "expire")
            self._settle_soon(job.job_id)

    async def _claimed(self, job: Job, row: Fulfilment) -> None:
        """The buyer says it has paid: look for the money. A job that ended here must end there too (the market forgot, or the claim came late)."""
        if row.state == "quoted":
            if row.claim is None:
                await self._shop.journal.write(
                    partial(
                        selling.save_claim,
                        job_id=job.job_id,
                        rail=job.payment_rail or "",
                        claim=job.payment_id or "",
                        token=job.payment_token or "",
                        now=self._shop.world.now_ms(),
                    )
                )
            self._settle_soon(job.job_id)
        elif row.state in ("paid", "executed"):
            if row.job_id in self._news:
                self._news[row.job_id].set()
        elif row.state == "delivered":
            await self._ask_again(row, "deliver")
        elif row.state in ("failed", "expired", "canceled", "refused"):
            await self._ask_again(row, "report_failure")

    async def _ask_again(self, row: Fulfilment, effect: str) -> None:
        """The market shows a job as it was before our word on it: say it again, the same bytes."""
        now = self._shop.world.now_ms()
        await self._shop.journal.write(lambda tx: selling.repeat_effect(tx, "fulfilment", row.job_id, effect, now))
        self._shop.wake()

    async def _follow_wallet(self, wallet: Wallet) -> None:
        async for invoice_id in wallet.watch():
            invoice = self._shop.journal.read(partial(selling.find_invoice, invoice_id=invoice_id))
            if invoice is not None:
                with self._shop.world.step("seller.hint-seen"):
                    self._settle_soon(invoice.job_id)

    async def _poll_payments(self) -> None:
        """Reconcile what hints missed: often while money is expected, ever more rarely afterwards (late payments are found too)."""
        while True:
            now = self._shop.world.now_ms()
            due = self._shop.journal.read(partial(selling.due_invoices, now=now))
            if due:
                later = {invoice.invoice_id: self._next_look(invoice, row, now) for invoice, row in due}
                await self._shop.journal.write(partial(selling.look_later, times=later))
            for invoice, _ in due:
                self._settle_soon(invoice.job_id)
            await self._shop.world.sleep(self._shop.settings.poll_seconds)

    def _next_look(self, invoice: InvoiceRow, row: Fulfilment, now: int) -> int:
        """Every poll once a payment is claimed; without a claim at most a minute later; after the end up to an hour, until nobody watches any more."""
        poll = round(self._shop.settings.poll_seconds * 1000)
        if row.state == "quoted":
            wait = poll if row.claim is not None else min(max(poll, (now - row.created_at) // 10), 60_000)
        else:
            wait = min(max(poll * 12, (now - row.updated_at) // 10), 3_600_000)
        return now + wait if now + wait <= invoice.watch_until else NEVER

    def _settle_soon(self, job_id: str) -> None:
        self._tasks.spawn(f"settle {job_id}", partial(self._settle, job_id))

    async def _settle(self, job_id: str) -> None:
        try:
            await self.settling.settle(job_id)
        except PARTS as error:  # looked at again for as long as its invoices are: what nobody can tell is never given up
            log.warning("job %s: payment not checked: %s", job_id, error)
            if isinstance(error, BrokenPluginError):
                await self._troubles.note(error)

    # effects

    async def _run_effects(self) -> None:
        while True:
            self._shop.effect_added.clear()
            for effect in self._shop.journal.read(selling.pending_effects):
                self._tasks.spawn_once(f"effect {effect.effect_id}", partial(self._perform, effect))
            await self._tasks.wait(self._shop.effect_added, self._shop.settings.poll_seconds)

    async def run_effects_of(self, subject_id: str) -> None:
        """Run a job's pending effects now, for the tools that act by hand (execution stays with the worker)."""
        while True:
            effects = [
                e for e in self._shop.journal.read(selling.pending_effects) if e.subject_id == subject_id and e.name != "execute"
            ]
            if not effects:
                return
            for effect in effects:
                if await self._effects[effect.name](subject_id) is not None:
                    return  # not to be had now: it stays asked for
                await self._shop.journal.write(partial(selling.effect_done, effect_id=effect.effect_id))

    async def _perform(self, effect: Effect) -> None:
        """Run one effect until it is done; what an earlier process left is counted, so that a job that kills its worker is parked."""
        if effect.effect_id <= self._resumed_up_to and await self._given_up(effect, "resumed after a restart"):
            return
        delay = FIRST_DELAY
        while True:
            began = self._shop.world.monotonic()
            try:
                again = await self._effects[effect.name](effect.subject_id)
                if again is None:
                    await self._shop.journal.write(partial(selling.effect_done, effect_id=effect.effect_id))
                    self._active_at = self._shop.world.monotonic()
                    return
                pause = again
            except StateError as error:
                log.warning("%s %s: %s", effect.name, effect.subject_id, error)
                await self._shop.world.sleep(1.0)
                return  # whoever moved it goes on with it; looked at again with the next round of effects
            except UnavailableError as error:
                if isinstance(error, BrokenPluginError) and await self._put_up_with(effect, error, began):
                    return
                log.warning("%s %s: %s; trying again in %.1f s", effect.name, effect.subject_id, error, delay)
                pause, delay = delay, min(delay * 2, TROUBLED_DELAY if isinstance(error, BrokenPluginError) else LAST_DELAY)
            except (NotFoundError, RefusedError, UsageError, PluginError) as error:
                log.error("%s %s: %s", effect.name, effect.subject_id, error)
                if await self._given_up(effect, str(error)):
                    return
                pause = LAST_DELAY
            await self._pause(effect.subject_id, pause)

    async def _pause(self, job_id: str, seconds: float) -> None:
        """So long, or until there is news of the job."""
        news = self._news.setdefault(job_id, asyncio.Event())
        try:
            await self._tasks.wait(news, seconds)
        finally:
            self._news.pop(job_id, None)

    async def _put_up_with(self, effect: Effect, error: BrokenPluginError, began: float) -> bool:
        """A stranger's plugin is in trouble, which its owner is shown. True once it has been for too long and the effect is given up.

        Only a backend's: what a wallet does not tell may be money, and is asked for ever; without its market nothing goes on in any case.
        """
        await self._troubles.note(error)
        if error.details.get("kind") != "Backend":
            return False
        self._troubles.begin(effect.subject_id, began)
        if effect.name != "execute":
            given_up = self._troubles.too_long(effect.subject_id)  # its job has ended: what it left behind is a chore of every hour
        elif given_up := self.executing.given_up(effect.subject_id):
            await self.executing.give_up(effect.subject_id, f"{error}; so for {self._troubles.patience:g} s"[:200])
        if given_up:
            log.error("%s %s: given up: %s", effect.name, effect.subject_id, error)
            self._troubles.over(effect.subject_id)
            await self._shop.journal.write(partial(selling.effect_failed, effect_id=effect.effect_id, error=str(error), give_up=True))
        return given_up

    async def _given_up(self, effect: Effect, why: str) -> bool:
        """Count a try that came to nothing; True once the owner has to look at it: an unfinished job is then in review."""
        spent = self._shop.journal.read(partial(selling.tries, effect_id=effect.effect_id)) >= MAX_TRIES
        if spent and effect.name == "execute":
            await self.executing.park(effect.subject_id, f"not finished in {MAX_TRIES} tries: {why}"[:200])
        if spent and effect.name == "refund":
            await self.settling.park(effect.subject_id, f"not sent in {MAX_TRIES} tries: {why}")
        await self._shop.journal.write(partial(selling.effect_failed, effect_id=effect.effect_id, error=why, give_up=spent))
        return spent
