"""Paying: invoices by locked token or by Lightning, refunds by letter, and taking back what nobody took before its locktime."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

from tradeskill.errors import InputError, RefusedError, UnavailableError, UntrustedError
from tradeskill.model import Invoice, Network, Proof
from tradeskill.world import World
from tradeskill_plugins.cashu.address import Address, read_address
from tradeskill_plugins.cashu.bolt11 import chain_of, sats_of
from tradeskill_plugins.cashu.exchange import payment_id
from tradeskill_plugins.cashu.keys import Keys
from tradeskill_plugins.cashu.letters import letter
from tradeskill_plugins.cashu.mints import UNIT, Mints
from tradeskill_plugins.cashu.nuts import curve, requests
from tradeskill_plugins.cashu.nuts.errors import MintRefusedError
from tradeskill_plugins.cashu.nuts.model import Keyset
from tradeskill_plugins.cashu.nuts.secrets import Lock, sign_inputs
from tradeskill_plugins.cashu.purse import Given, GivenMaker, Purse, Wish
from tradeskill_plugins.cashu.settings import CashuSettings
from tradeskill_plugins.cashu.store import OutgoingRow, PaymentRow, Rows, Store

__all__ = ["Spending", "locktime_of", "proof_of"]

log = logging.getLogger("tradeskill.cashu")

ATTEMPTS: Final = 4
LETTERS: Final = 32  # looked at in one question, when a free place is sought
PROOF_CHARACTERS: Final = 640  # what one locked proof takes in a token
BACK_MARGIN: Final = 30  # seconds after a locktime before it is tried: mints have clocks of their own


class Spending:
    """Each payment once for its purpose, whatever happens in between."""

    def __init__(
        self, store: Store, mints: Mints, purse: Purse, keys: Callable[[], Awaitable[Keys]], world: World, settings: CashuSettings, network: Network
    ) -> None:
        self._store, self._mints, self._purse, self._keys = store, mints, purse, keys
        self._world, self._settings, self._network = world, settings, network
        self._turns: dict[str, asyncio.Lock] = {}

    # --- an invoice

    async def pay(self, invoice: Invoice, purpose: str) -> Proof:
        """By token at the first common mint that holds enough; else, where both sides want Lightning, by melting."""
        wish = Wish("pay", purpose, invoice.invoice_id, invoice.amount.value)
        address, locktime = read_address(invoice.address, self._network), locktime_of(invoice)
        bolt11 = invoice.details.get("bolt11")
        common = [mint for mint in self._settings.mints if mint in address.mints]

        async def act() -> OutgoingRow:
            trouble: RefusedError | None = None
            for mint in common:
                try:
                    return await self._purse.give(wish, mint, await self._locked(address.pubkey, locktime))
                except RefusedError as error:
                    trouble = trouble or error
            if self._settings.lightning and isinstance(bolt11, str):
                return await self._melted(wish, bolt11)
            raise trouble or self._no_mint(address)

        return await self._once(wish, act)

    async def melt(self, wish: Wish, bolt11: str) -> Proof:
        """A Lightning invoice, paid by the first mint where enough is held."""
        return await self._once(wish, lambda: self._melted(wish, bolt11))

    async def _melted(self, wish: Wish, bolt11: str) -> OutgoingRow:
        trouble: RefusedError | None = None
        for mint in self._settings.mints:
            try:
                return await self._purse.melt(wish, mint, bolt11)
            except RefusedError as error:
                trouble = trouble or error
        assert trouble is not None
        raise trouble

    async def _locked(self, pubkey: str, locktime: int) -> GivenMaker:
        """Outputs that only `pubkey` can spend, and after `locktime` also we."""
        keys = await self._keys()

        def make(rows: Rows, keyset: Keyset, amounts: Sequence[int]) -> Given:
            if len(amounts) > self._settings.max_proofs or len(amounts) * PROOF_CHARACTERS > self._settings.max_token_bytes:
                raise RefusedError(f"{sum(amounts)} sat would take a token of {len(amounts)} proofs, too large to be submitted: nothing was paid")
            refund_id = rows.next_refund()
            lock = Lock(pubkey, locktime=locktime, refund=(curve.public_key(keys.refund(refund_id)),))
            first = rows.take_counters(keyset.id, len(amounts))
            return Given(requests.locked_outputs(keys.nut13_seed, keyset, amounts, first, lock), locktime, refund_id)

        return make

    # --- an address

    async def leave(self, wish: Wish, to: str, preferred: str) -> Proof:
        """Leave the money as letters for the address, at `preferred` where the address allows it."""
        address = read_address(to, self._network)
        common = sorted((mint for mint in self._settings.mints if mint in address.mints), key=lambda mint: mint != preferred)

        async def act() -> OutgoingRow:
            trouble = RefusedError(f"the address takes money of {', '.join(address.mints)}; this wallet may use {', '.join(self._settings.mints)}")
            for mint in common:
                keyset = await self._mints.active(mint)
                first = await self._free(mint, keyset, address.pubkey)
                try:
                    return await self._purse.give(wish, mint, partial(_letters, pubkey=address.pubkey, keyset_id=keyset.id, first=first))
                except RefusedError as error:
                    trouble = error
            raise trouble

        return await self._once(wish, act)

    async def _free(self, mint: str, keyset: Keyset, pubkey: str) -> int:
        """The first letter after all that were ever sent."""
        start = 0
        while True:
            wanted = [letter(pubkey, keyset.id, start + place) for place in range(LETTERS)]
            signed = {proof.secret for proof in await self._mints.restored(mint, wanted)}
            there = [place for place, each in enumerate(wanted) if each.secret in signed]
            if not there:
                return start
            start += there[-1] + 1

    # --- what both share

    async def _once(self, wish: Wish, act: Callable[[], Awaitable[OutgoingRow]]) -> Proof:
        """Continue what is stored for the purpose, else begin it. After it was stored, trouble means unknown and is never raised as if nothing had happened."""
        await self._keys()  # what is sealed cannot be read before
        async with self._turns.setdefault(wish.purpose, asyncio.Lock()):
            refusal: MintRefusedError | None = None
            for _ in range(ATTEMPTS):
                row = await self._purse.begun(wish) or await act()
                try:
                    return proof_of(await self._purse.finish(wish))
                except MintRefusedError as error:  # it is proved that nothing moved; other proofs, letters or keysets may do
                    refusal = error
                    if not (error.keyset or error.spent or error.signed or error.pending):
                        break
                    if error.keyset:
                        await self._mints.refresh(row.mint)
                except UnavailableError as error:
                    log.info("%s: %s", wish.purpose, error)
                    return proof_of(row)
            assert refusal is not None
            raise refusal

    async def paid(self, purpose: str) -> Proof | None:
        """What is known; None when nothing was ever stored, or it is proved that nothing came of it."""
        row = self._store.read(lambda rows: rows.outgoing(purpose))
        return None if row is None or row.state == "dead" else proof_of(row)

    # --- back

    async def take_back(self) -> int:
        """Every token that lies unspent beyond its locktime comes home. Returns how many did. Trouble at one mint does not keep the others."""
        back = 0
        for row in self._store.read(lambda rows: rows.locked_until(self._world.now_ms() // 1000 - BACK_MARGIN)):
            try:
                back += await self._take_back(row)
            except (UnavailableError, RefusedError) as error:
                log.info("%s: not taken back yet: %s", row.purpose, error)
        return back

    async def _take_back(self, row: OutgoingRow) -> bool:
        assert row.request_id is not None
        assert row.refund_id is not None
        purpose, request_id = f"back:{row.purpose}", row.request_id
        coins = self._store.read(lambda rows: rows.made(request_id))
        sent = [coin for coin in coins if coin.state == "sent"]
        begun = self._store.read(lambda rows: rows.request_for(purpose))
        if begun is None:
            states = await self._mints.states(row.mint, [coin.y for coin in sent])
            if "PENDING" in states.values():
                return False
            left = [coin for coin in sent if states[coin.y] == "UNSPENT"]
            if not left:
                await self._store.write(partial(_end, purpose=row.purpose, state="gone", ys=[coin.y for coin in sent]))
                return False
            signed = sign_inputs([coin.proof for coin in left], (await self._keys()).refund(row.refund_id))
            number = await self._purse.take(purpose, row.mint, signed, self._own_refund(row, [coin.y for coin in left]))
        else:
            number = begun.request_id
        try:
            await self._purse.settle(number)
        except MintRefusedError:  # its payee was quicker, or the mint's clock is behind: looked at again next time
            await self._store.write(partial(Rows.end_payments, request_id=number, state="refused"))
            return False
        await self._store.write(partial(_end, purpose=row.purpose, state="back", ys=[coin.y for coin in sent]))
        return True

    def _own_refund(self, row: OutgoingRow, ys: Sequence[str]) -> PaymentRow | None:
        """A purchase learns that its money is back by asking for its refund address: the buyer's flow names that invoice after the purchase."""
        kind, _, key = row.purpose.partition(":")
        lock = self._store.read(lambda rows: rows.lock_of_job_prefix(f"refund-{key}")) if kind == "pay" and key else None
        return None if lock is None else PaymentRow(payment_id(ys), lock.lock_id, row.mint, 0, self._world.now_ms(), "taking", None)

    # --- strangers' words

    def check(self, invoice: Invoice) -> None:
        """UntrustedError for an invoice that must not be paid, whatever it is for."""
        locktime = locktime_of(invoice)
        longest = max(invoice.expires_at, self._world.now_ms()) // 1000 + self._settings.longest_locktime
        if not invoice.expires_at // 1000 <= locktime <= longest:
            raise UntrustedError(f"invoice {invoice.invoice_id!r} wants the money locked until {locktime}: from its expiry to {longest} is taken")
        bolt11 = invoice.details.get("bolt11")
        if bolt11 is None:
            return
        try:
            text = bolt11 if isinstance(bolt11, str) else ""
            asked, chain = sats_of(text), chain_of(text)
        except InputError as error:
            raise UntrustedError(f"invoice {invoice.invoice_id!r}: {error}") from error
        if asked != invoice.amount.value or (self._network == "live" and chain != "bc"):
            raise UntrustedError(f"invoice {invoice.invoice_id!r}: its Lightning invoice asks for {asked} {UNIT} on {chain}, not for {invoice.amount.value}")


    def check_mints(self, invoice: Invoice) -> None:
        """RefusedError where the payee takes none of our mints and no Lightning may be used instead."""
        address = read_address(invoice.address, self._network)
        by_lightning = self._settings.lightning and invoice.details.get("bolt11") is not None
        if not by_lightning and not set(self._settings.mints) & set(address.mints):
            raise self._no_mint(address)

    def _no_mint(self, address: Address) -> RefusedError:
        return RefusedError(f"the seller takes money of {', '.join(address.mints)}; this wallet may use {', '.join(self._settings.mints)}")


def locktime_of(invoice: Invoice) -> int:
    """Until when only the payee may spend (seconds). UntrustedError where the invoice does not say."""
    text = invoice.details.get("locktime")
    if not isinstance(text, str) or not text.isascii() or not text.isdigit() or len(text) > 12:
        raise UntrustedError(f"invoice {invoice.invoice_id!r} names no locktime")
    return int(text)


def proof_of(row: OutgoingRow) -> Proof:
    """As the flows see it: a token is final once it is made; what is not known stays unknown."""
    match row.state:
        case "open" | "dead":
            return Proof(row.payment_id, "unknown", row.token)
        case "published":
            return Proof(row.payment_id, "published", row.token)
        case _:
            return Proof(row.payment_id, "final", row.token)


def _letters(rows: Rows, keyset: Keyset, amounts: Sequence[int], *, pubkey: str, keyset_id: str, first: int) -> Given:
    if keyset.id != keyset_id:
        raise UnavailableError("the mint changed its keyset a moment ago: try again")
    return Given(tuple(letter(pubkey, keyset_id, first + place, amount) for place, amount in enumerate(amounts)))


def _end(rows: Rows, purpose: str, state: str, ys: Sequence[str]) -> None:
    rows.set_outgoing(purpose, "back" if state == "back" else "gone", only=("final",))
    for y in ys:
        rows.set_coin(y, "spent")
