"""The payment rail `cashu`: ties locks, tokens, letters and Lightning through mints to the Wallet contract. The work is done in the modules below it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from typing import Final, Literal

from tradeskill.contracts import Balance, PluginContext
from tradeskill.errors import InputError, NotFoundError, RefusedError, SecretError, TradeskillError, UnavailableError, UntrustedError, UsageError
from tradeskill.model import Invoice, Payment, PaymentStatus, Proof
from tradeskill.money import Amount
from tradeskill_plugins.cashu.address import Address, read_address
from tradeskill_plugins.cashu.by_hand import ByHand
from tradeskill_plugins.cashu.exchange import Exchange
from tradeskill_plugins.cashu.hints import Hints
from tradeskill_plugins.cashu.keys import SEED_FILE, Keys, open_seed
from tradeskill_plugins.cashu.mints import UNIT, Mints
from tradeskill_plugins.cashu.nuts import curve
from tradeskill_plugins.cashu.nuts.mint_url import mint_url
from tradeskill_plugins.cashu.purse import Purse, Wish
from tradeskill_plugins.cashu.recovery import Recovery
from tradeskill_plugins.cashu.sale import RAIL, Sale
from tradeskill_plugins.cashu.settings import CashuSettings
from tradeskill_plugins.cashu.spending import Spending
from tradeskill_plugins.cashu.store import LockRow, Rows, Store

__all__ = ["CashuWallet"]

log = logging.getLogger("tradeskill.cashu")

TEND_SECONDS: Final = 30.0  # between looks at requests without an answer and at tokens beyond their locktime
DEPOSIT_MS: Final = 3_600_000
COLLECTED_AT_ONCE: Final = 200  # invoices whose letters one `collect` looks for


class CashuWallet:
    """Both sides of the rail. Needs `seed.json` in its home; keeps everything else in `wallet.db` beside it."""

    rail = RAIL
    unit = UNIT

    def __init__(self, settings: CashuSettings, context: PluginContext) -> None:
        self._settings, self._context = settings, context
        self._world, self._network = context.world, context.network
        self._seed: Keys | None = None
        self._unlocking = asyncio.Lock()
        self._collecting = asyncio.Lock()
        self._tending: asyncio.Task[None] | None = None
        self._is_open = False

    # --- life

    async def open(self) -> None:
        self.store = Store(self._context.home / "wallet.db", self._network, self._world)
        self.mints = Mints(self.store, self._world, self._settings.timeout)
        self._exchange = Exchange(self.store, self.mints)
        self.purse = Purse(self.store, self.mints, self._exchange, self.keys, self._world)
        self._sale = Sale(self.store, self.mints, self.purse, self.keys, self._world, self._settings, self._network)
        self._spending = Spending(self.store, self.mints, self.purse, self.keys, self._world, self._settings, self._network)
        self.by_hand = ByHand(self.store, self.mints, self.purse, self._spending, self.keys, self._world, self._settings)
        self.recovery = Recovery(self.store, self.mints, self._exchange, self.keys, self._world)
        self._is_open = True
        identity = str(self.store.path.stat().st_ino)
        await self.store.write(lambda rows: rows.note_file(identity))
        self._tending = asyncio.create_task(self._tend())

    async def close(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        if self._tending is not None:
            self._tending.cancel()
            await asyncio.gather(self._tending, return_exceptions=True)
        await self.mints.close()
        await self.store.close()

    # --- selling

    async def invoice(self, job_id: str, amount: Amount, expires_at: int) -> Invoice:
        self._check_amount(amount)
        await self.keys()
        return await self._sale.invoice(job_id, amount, expires_at)

    async def settle(self, invoice: Invoice, proof: str | None) -> PaymentStatus:
        await self.keys()
        return await self._sale.settle(self._own(invoice), proof)

    async def status(self, invoice: Invoice) -> PaymentStatus:
        return self._sale.status(self._own(invoice))

    async def watch(self) -> AsyncIterator[str]:
        """Of Lightning invoices, where their mint gives hints; a token comes with its submission."""
        await self.keys()
        changed = asyncio.Event()
        self._sale.listeners.append(changed)
        try:
            async with aclosing(Hints(self.store, self.mints, self._world, changed).listen()) as hints:  # type: ignore[type-var]  # an async generator in practice
                async for invoice_id in hints:
                    yield invoice_id
        finally:
            self._sale.listeners.remove(changed)

    async def forget(self, invoice: Invoice) -> None:
        lock = self._own(invoice)
        await self.store.write(lambda rows: rows.forget(lock.lock_id))

    async def conclude(self, payment: Payment, invoice: Invoice, outcome: Literal["delivered", "failed"]) -> None:
        return None  # swapped money needs no capture and no release

    async def refund(self, payment: Payment, invoice: Invoice, to: str, amount: Amount, key: str) -> Proof:
        await self.keys()
        lock, address = self._own(invoice), read_address(self.check_address(to), self._network)
        self._check_amount(amount)
        known = self.store.read(lambda rows: rows.payment(payment.payment_id))
        purpose = f"refund:{key}"
        if self.store.read(lambda rows: rows.outgoing(purpose)) is None:
            if self.store.read(lambda rows: rows.lock_of_key(address.pubkey)) is not None:
                raise UsageError(f"refund to {to[:60]}: that is this wallet's own address; give the buyer's")
            if known is None or known.lock_id != lock.lock_id or known.state != "taken":
                raise NotFoundError(f"payment {payment.payment_id} is not known to have reached invoice {invoice.invoice_id}: settle the invoice first")
            if amount.value > known.amount:
                raise RefusedError(f"refund of {amount.value} {UNIT} is more than payment {payment.payment_id} brought ({known.amount} {UNIT})")
        wish = Wish("refund", purpose, to, amount.value)
        return await self._spending.leave(wish, to, known.mint if known is not None else self._settings.mints[0])

    # --- paying

    def check(self, invoice: Invoice) -> None:
        """Also RefusedError where none of our mints will do for it."""
        self._check_shape(invoice)
        self._spending.check_mints(invoice)

    def _check_shape(self, invoice: Invoice) -> None:
        if (invoice.rail, invoice.network, invoice.amount.unit) != (self.rail, self._network, self.unit):
            raise UntrustedError(
                f"invoice {invoice.invoice_id!r} is for {invoice.rail}/{invoice.network} in {invoice.amount.unit}, "
                f"this wallet is {self.rail}/{self._network} in {self.unit}"
            )
        if invoice.amount.value < 1:
            raise UntrustedError(f"invoice {invoice.invoice_id!r} asks for nothing")
        try:
            address = read_address(invoice.address, self._network)
        except UsageError as error:
            raise UntrustedError(f"invoice {invoice.invoice_id!r}: {error}") from error
        if address.pubkey != invoice.invoice_id:
            raise UntrustedError(f"invoice {invoice.invoice_id!r} is not named by the key it is paid to")
        self._spending.check(invoice)

    def check_address(self, address: str) -> str:
        return read_address(address, self._network).text

    async def pay(self, invoice: Invoice, key: str) -> Proof:
        self._check_shape(invoice)
        await self.keys()
        return await self._spending.pay(invoice, f"pay:{key}")

    async def paid(self, key: str) -> Proof | None:
        await self.keys()
        return await self._spending.paid(f"pay:{key}")

    # --- the wallet's own money

    async def address(self) -> str:
        return Address(self._network, self._settings.mints, (await self._main()).pubkey).text

    async def balance(self) -> Balance:
        """`incoming`: what the mints have not answered for yet, and what is on its way back to us in such requests."""
        sums = self.store.read(lambda rows: rows.sums())
        stuck = self.store.read(lambda rows: sum(rows.dropped(mint) + rows.expired(mint) for mint in self._settings.mints))
        held = sum(value for (mint, state), value in sums.items() if state == "held" and mint in self._settings.mints) - stuck
        await self.keys()
        return Balance(Amount(held, UNIT), Amount(self.store.read(_coming), UNIT))

    async def collect(self) -> int:
        """Finish what has no answer yet, open letters, take back what nobody took, leave keysets that end. Returns how much of that there was."""
        async with self._collecting:
            await self.keys()
            made = await self._exchange.finish_all()
            main = await self._main()
            waiting = [row for row in self.store.read(lambda rows: rows.locks()) if self._waits(row)][-COLLECTED_AT_ONCE:]
            for lock in (main, *waiting):
                made += await self._sale.open_letters(lock)
            return made + await self._spending.take_back() + await self._renew()

    async def deposit(self, key: str, amount: Amount, mint: str = "") -> Invoice:
        """A Lightning invoice of a mint, to fund this wallet with, once per `key`; `settle` takes the ecash when it was paid. RefusedError without one."""
        self._check_amount(amount)
        chosen = self._mint(mint)
        await self.keys()
        return await self._sale.invoice(f"deposit-{key}", amount, self._world.now_ms() + DEPOSIT_MS, chosen)

    async def finish_all(self) -> int:
        """Ask again about every request without an answer. Returns how many ended."""
        await self.keys()
        return await self._exchange.finish_all()

    async def receive(self, token: str) -> int:
        """Take a token that somebody handed to the owner; returns what it was worth."""
        return await self.by_hand.receive(token, (await self._main()).lock_id)

    def owns(self, address: str) -> bool:
        """Whether money sent there stays in this wallet."""
        pubkey = read_address(address, self._network).pubkey
        return self.store.read(lambda rows: rows.lock_of_key(pubkey)) is not None

    async def examine(self) -> str:
        """For `doctor`: see examination.py. Needs no password."""
        from tradeskill_plugins.cashu.examination import examined

        return await examined(self.store, self.mints, self._settings, self._world)

    async def restore(self, gap: int = 20) -> int:
        """Find the seed's money at every mint that is configured or known. Returns the sum found anew. New invoices use locks never used before."""
        await self.keys()
        await self._main()
        found = 0
        for mint in dict.fromkeys([*self._settings.mints, *self.store.read(lambda rows: rows.mints())]):
            found += await self.recovery.restore(mint, gap)
        await self.recovery.late()
        await self.recovery.new_epoch()
        await self.store.write(lambda rows: rows.restored())
        return found

    # --- below: what the answers above are made of

    async def keys(self) -> Keys:
        """The secret, asked for once; SecretError when it is not the one this wallet was made with."""
        async with self._unlocking:
            if self._seed is None:
                path, password = self._context.home / SEED_FILE, self._context.password
                if not path.exists():
                    raise SecretError(
                        f"{path} is missing, and without it the wallet cannot be opened: bring it back from a backup (`tradeskill restore`, or"
                        " `tradeskill cashu restore --from FILE`); a wallet that never had one is given it by `tradeskill cashu add URL`"
                    )
                keys = Keys(await self._world.offload(lambda: open_seed(path, self._network, password())))
                await self.store.unlock(keys, curve.public_key(keys.lock(0)))
                self._seed = keys
            return self._seed

    async def _main(self) -> LockRow:
        keys = await self.keys()
        found = self.store.read(lambda rows: rows.lock(0))
        if found is None:
            await self.store.write(partial(_add_main, pubkey=curve.public_key(keys.lock(0))))
            found = self.store.read(lambda rows: rows.lock(0))
        assert found is not None
        return found

    def _mint(self, url: str) -> str:
        """A configured mint, by default the first."""
        try:
            mint = mint_url(url) if url else self._settings.mints[0]
        except InputError as error:
            raise UsageError(str(error)) from error
        if mint not in self._settings.mints:
            raise NotFoundError(f"mint {mint} is not one of this wallet's: {', '.join(self._settings.mints)}")
        return mint

    def _own(self, invoice: Invoice) -> LockRow:
        lock = self._sale.own(invoice)
        if lock is None:
            raise NotFoundError(f"invoice {invoice.invoice_id[:80]!r} of job {invoice.job_id[:80]!r} was not issued by this wallet")
        return lock

    def _waits(self, lock: LockRow) -> bool:
        """Letters are looked for where a refund may come: open invoices, and locks of which a restore knows no more."""
        if lock.lock_id == 0 or lock.forgotten:
            return False
        return lock.invoice is None or int(lock.invoice["expires_at"]) >= self._world.now_ms()

    def _check_amount(self, amount: Amount) -> None:
        if amount.unit != self.unit or amount.value < 1:
            raise UsageError(f"amount {amount.value} {amount.unit} cannot move on the rail cashu: it must be 1 sat or more, in sat")

    async def _renew(self) -> int:
        """Where money lies in keysets that end, move it. Returns at how many mints. Trouble at one does not keep the others."""
        renewed = 0
        held = {mint for (mint, state) in self.store.read(lambda rows: rows.sums()) if state == "held"}
        for mint in (mint for mint in self._settings.mints if mint in held):
            try:
                renewed += await self.purse.renew(mint) > 0
            except (UnavailableError, RefusedError, UntrustedError) as error:
                log.info("%s: not moved to another keyset yet: %s", mint, error)
        return renewed

    async def _tend(self) -> None:
        """Finish what a crash or a lost answer left open; calls do the same sooner. Waits until somebody gave the password."""
        while True:
            if self._seed is not None:
                try:
                    if self.store.read(lambda rows: rows.restore_due()):
                        log.warning("%s was copied or restored: its mints are asked what it does not know; do not run two copies at once", self.store.path)
                        await self.restore()
                    await self._exchange.finish_all()
                    await self._spending.take_back()
                    await self._renew()
                except UnavailableError as error:
                    log.info("%s; trying again in %.0f s", error, TEND_SECONDS)
                except TradeskillError as error:
                    log.warning("%s", error)
            await self._world.sleep(TEND_SECONDS)


def _coming(rows: Rows) -> int:
    """Outputs of open requests that are ours."""
    found = [rows.request(request_id) for request_id in rows.open_requests()]
    return sum(output.amount for row in found for output in row.outputs if output.point not in row.given)


def _add_main(rows: Rows, pubkey: str) -> None:
    rows.add_lock(0, pubkey, None)
